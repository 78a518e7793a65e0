"""`predict` by onnxruntime: exported files, and exports of runs that are kept in the cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Cli

import regraft as rg
from regraft.exports.engines import cached, engine


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("regraft.exports.sealed_run.NUM_ODD_IMAGES", 6)
    return tmp_path / "cache" / "exports"


@pytest.fixture
def filled(cache: Path, tiny_run: Path, sealed: rg.Export) -> Path:
    """The cache with the tiny run's export in it."""
    cache.mkdir(parents=True, mode=0o700)
    shutil.copy(sealed.path, cache / cached._name(tiny_run))
    return cache


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported torch."""
    monkeypatch.setattr(engine, "sys", type("NoModules", (), {"modules": {}}))


def test_an_exported_file_in_python(sealed: rg.Export, tiny_run: Path, tiny_photos: Path) -> None:
    image = np.asarray(Image.open(next((tiny_photos / "red").iterdir())))
    for inputs in (tiny_photos, [image, image], sorted((tiny_photos / "blue").iterdir())[:2]):
        wanted, found = rg.predict(tiny_run, inputs), rg.predict(sealed.path, inputs)
        assert [(row.path, row.prediction) for row in found] == [(row.path, row.prediction) for row in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert isinstance(one, rg.Prediction)
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    with pytest.raises(rg.SettingsError, match=r"`tta` was asked for, and .* is an export"):
        rg.predict(sealed.path, image, tta="flip")
    with pytest.raises(rg.SettingsError, match=r"The engine torch was asked for, and .* is an export"):
        rg.predict(sealed.path, image, engine="torch")
    with pytest.raises(rg.SettingsError, match="There is no file"):
        rg.predict("none.onnx", image)


@pytest.mark.slow
def test_the_engine_onnx_makes_an_export_once(
    cache: Path, tiny_run: Path, tiny_photos: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    first = cli("predict", tiny_run, tiny_photos, "--json", "--engine", "onnx")
    assert first.code == 0, first.err
    assert "engine: onnxruntime" in caplog.text
    (file,) = cache.iterdir()
    assert json.loads(rg_seal(file)["verified"])["same_class"] == 6 + 48
    monkeypatch.setattr("regraft.exports.sealed_run.sealed_run", None)
    again = cli("predict", tiny_run, tiny_photos, "--json", "--engine", "onnx")
    assert (again.code, again.out) == (0, first.out)
    by_torch = cli("predict", tiny_run, tiny_photos, "--json", "--engine", "torch")
    for wanted, found in zip(by_torch.out.splitlines(), again.out.splitlines(), strict=True):
        one, other = json.loads(wanted), json.loads(found)
        assert other.pop("probabilities") == pytest.approx(one.pop("probabilities"), abs=1e-5)
        assert (one["path"], one["prediction"], one["error"]) == (other["path"], other["prediction"], other["error"])


def rg_seal(file: Path) -> dict[str, str]:
    import onnxruntime

    texts: dict[str, str] = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    return texts


PROGRAM = """
import sys
from regraft.cli.main import app
try:
    app(["predict", *sys.argv[1:]], standalone_mode=True)
finally:
    print([name for name in ("torch", "timm", "torchvision") if name in sys.modules])
"""


@pytest.mark.parametrize("options", [(), ("--engine", "onnx")])
def test_an_export_in_the_cache_imports_no_torch(
    filled: Path, tiny_run: Path, tiny_photos: Path, options: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tiny_run), str(tiny_photos / "blue"), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert len(done.stdout.splitlines()) == 13
    assert "engine: onnxruntime" in done.stderr


def test_auto_takes_torch_where_that_is_faster_or_asked_for(
    filled: Path,
    tiny_run: Path,
    tiny_photos: Path,
    no_torch: None,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    asked = ("predict", tiny_run, tiny_photos / "blue", "--csv")
    cli(*asked)
    assert "engine: onnxruntime" in caplog.text
    caplog.clear()
    for more in (("--tta", "flip"), ("--checkpoint", "last"), ("--precision", "bf16"), ("--engine", "torch")):
        result = cli(*asked, *more)
        assert (result.code, "engine:" in caplog.text) == (0, False), result.err
    monkeypatch.setattr(engine, "MOST_IMAGES", 11)
    assert cli(*asked).code == 0
    assert "engine:" not in caplog.text


@pytest.mark.slow
def test_auto_makes_nothing_and_passes_over_what_is_damaged(
    cache: Path, tiny_run: Path, sealed: rg.Export, tiny_photos: Path, no_torch: None, cli: Cli, caplog: Any
) -> None:
    asked = ("predict", tiny_run, tiny_photos / "blue", "--csv")
    assert cli(*asked).code == 0
    assert not cache.exists()
    cache.mkdir(parents=True, mode=0o700)
    file = cache / cached._name(tiny_run)
    file.write_bytes(sealed.path.read_bytes()[:-9000])
    result = cli(*asked)
    assert (result.code, "engine:" in caplog.text) == (0, False), result.err
    assert cli(*asked, "--engine", "onnx").code == 0
    assert rg_seal(file)["architecture"] == "test_efficientnet"


WRITER = """
import os, sys, time, types
from pathlib import Path
data, run, gate, killed = Path(sys.argv[1]).read_bytes(), sys.argv[2], Path(sys.argv[3]), sys.argv[4:]
def sealed_run(run, name):
    (gate / str(os.getpid())).touch()
    while len(list(gate.iterdir())) < 2 and not killed:
        time.sleep(0.01)
    return types.SimpleNamespace(data=data)
sys.modules["regraft.exports.sealed_run"] = types.SimpleNamespace(sealed_run=sealed_run)  # without torch
if killed:
    os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
from regraft.exports.engines.cached import made_export
print(made_export(run, 1).seal.class_names)
"""


def test_two_processes_make_one_export_at_once_after_one_that_was_killed(
    cache: Path, tiny_run: Path, sealed: rg.Export, tmp_path: Path
) -> None:
    def started(gate: Path, *options: str) -> subprocess.Popen[str]:
        gate.mkdir(exist_ok=True)
        command = [sys.executable, "-c", WRITER, str(sealed.path), str(tiny_run), str(gate), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = started(tmp_path / "first", "killed")
    assert killed.communicate()[0] == ""
    assert killed.returncode == -9
    (left,) = cache.iterdir()
    assert left.name.startswith(".")
    file = cache / cached._name(tiny_run)
    file.write_bytes(sealed.path.read_bytes()[:-9000])
    both = [started(tmp_path / "second") for _ in range(2)]
    for one in both:
        out, err = one.communicate()
        assert (one.returncode, out) == (0, "('blue', 'green', 'red')\n"), err
    assert [path.name for path in cache.iterdir()] == [file.name]
    assert file.read_bytes() == sealed.path.read_bytes()


def test_another_model_is_another_file(filled: Path, tiny_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_run / "model", tmp_path / "other")
    assert cached._name(other) == cached._name(tiny_run)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace("blue", "navy"))
    assert cached._name(other) != cached._name(tiny_run)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--tta", "flip"), "--tta was given, and the engine onnx sees the whole image once"),
        (("--device", "cuda"), "--device was given, and the engine onnx"),
        (("--checkpoint", "last"), "--checkpoint was given, and the engine onnx"),
    ],
)
def test_the_engine_onnx_refuses_what_torch_alone_does(
    cache: Path, tiny_run: Path, tiny_photos: Path, cli: Cli, options: tuple[str, str], what: str
) -> None:
    result = cli("predict", tiny_run, tiny_photos, "--engine", "onnx", *options)
    assert result.code == 2
    assert what in result.err


def test_engines_that_there_are_not(
    cache: Path, tiny_run: Path, sealed: rg.Export, tiny_photos: Path, cli: Cli
) -> None:
    result = cli("predict", tiny_run, tiny_photos, "--engine", "onxx")
    assert (result.code, "did you mean 'onnx'?" in result.err) == (2, True)
    result = cli("predict", sealed.path, tiny_photos, "--engine", "torch")
    assert (result.code, "--engine torch was given" in result.err) == (2, True)
    result = cli("predict", tiny_photos, tiny_photos, "--engine", "onnx")
    assert (result.code, "There is no model" in result.err) == (2, True)


def test_where_a_package_is_missing_the_engine_onnx_says_which(
    cache: Path, tiny_run: Path, tiny_photos: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    result = cli("predict", tiny_run, tiny_photos, "--engine", "onnx")
    assert (result.code, "pip install 'regraft[onnx]'" in result.err) == (2, True)
    assert cli("predict", tiny_run, tiny_photos, "--csv").code == 0
