"""`regraft export` and `regraft predict NAME.onnx`: one run, through the command line and in Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.conftest import TINY_MODEL, Cli, photo

import regraft as rg
from regraft import commit
from regraft.exports.proving import proof
from regraft.exports.running.guard import GUARD, guarded, network_sha256
from regraft.exports.running.session import SealedSession


def test_what_the_command_writes_and_says(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "cats.onnx"
    result = cli("export", tiny_run, "--to", "onnx", "-o", out, "--verify", "12")
    assert result.code == 0, result.err
    said = r"cats\.onnx: 0\.\d MB, opset 18; 6 golden probes and 12 odd images say the same, probabilities differ by"
    assert re.search(said, result.out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cats.md", "cats.onnx", "cats.py"]


def test_the_model_is_whole_and_says_what_it_is(sealed: rg.Export, tiny_run: Path) -> None:
    model = onnx.load(sealed.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import if not one.domain] == [("", 18)]
    texts = {prop.key: prop.value for prop in model.metadata_props}
    config = json.loads((tiny_run / "model/config.json").read_text())
    assert json.loads(texts["class_names"]) == config["label_names"]
    assert json.loads(texts["preprocessing"]) == config["regraft"]["preprocessing"]
    assert texts["model_sha256"] == commit._sha256(tiny_run / "model/model.safetensors")
    assert texts["weights_license"] == "apache-2.0"
    verified = json.loads(texts["verified"])
    assert verified == {**sealed.verified}
    assert (verified["num_probes"], verified["num_images"], verified["same_class"]) == (6, 12, 18)
    assert verified["largest_difference"] < 1e-5


def test_no_path_of_this_machine_is_in_the_file(sealed: rg.Export) -> None:
    data = sealed.path.read_bytes()
    assert b"site-packages" not in data
    assert b".py" not in data


def test_the_card_has_the_result(sealed: rg.Export) -> None:
    card = sealed.card.read_text()
    assert "fine-tuned with regraft" in card
    assert "num images: 12" in card
    assert "squash, bicubic" in card


def test_raw_pixels_of_any_size_in_batches(sealed: rg.Export, tiny_run: Path) -> None:
    session = onnxruntime.InferenceSession(sealed.path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (5, 61, 47, 3), dtype=np.uint8)
    (found,) = session.run(["probabilities"], {"images": images})
    wanted = [list(row.probabilities.values()) for row in rg.predict(tiny_run, images)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_script_runs_without_regraft(sealed: rg.Export, tiny_run: Path, tmp_path: Path) -> None:
    paths = [
        photo(tmp_path / f"{name}.png", colour, 1) for name, colour in (("a", (40, 60, 200)), ("b", (200, 50, 40)))
    ]
    turned = Image.open(paths[0]).convert("CMYK")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "c.jpg", exif=exif)
    paths.append(tmp_path / "c.jpg")
    for file in (sealed.path, sealed.script):
        shutil.copy(file, tmp_path)
    (tmp_path / "regraft.py").write_text("raise ImportError('not here')\n")
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n")
    (tmp_path / "text.png").write_text("no image")
    command = [sys.executable, sealed.script.name, "text.png", *(path.name for path in paths)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["text.png cannot be read"]
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = rg.predict(tiny_run, paths)
    assert [(name, path) for path, name, _ in rows] == [(row.prediction, Path(row.path).name) for row in wanted]
    assert [float(share) for _, _, share in rows] == pytest.approx([row.probability for row in wanted], abs=1e-3)


def test_predict_gives_the_rows_of_the_run(sealed: rg.Export, tiny_run: Path, tiny_photos: Path, cli: Cli) -> None:
    (broken := sealed.path.parent / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for form in ("--json", "--csv"):
        of_run, of_file = (cli("predict", model, tiny_photos, broken, form) for model in (tiny_run, sealed.path))
        assert (of_file.code, of_file.err) == (of_run.code, of_run.err) == (0, of_run.err)
        lines = list(zip(of_run.out.splitlines(), of_file.out.splitlines(), strict=True))
        assert len(lines) == 37 + (form == "--csv")
        if form == "--csv":
            assert lines[0][0] == lines[0][1]
            continue
        for wanted, found in (map(json.loads, pair) for pair in lines):
            assert list(found) == list(wanted)
            assert (found["path"], found["prediction"], found["error"]) == (
                wanted["path"],
                wanted["prediction"],
                wanted["error"],
            )
            assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)


PROGRAM = """
import sys
from regraft.cli.main import app
try:
    app(["predict", *sys.argv[1:]], standalone_mode=True)
finally:
    print([name for name in ("torch", "timm", "torchvision") if name in sys.modules])
"""


def test_predict_of_a_file_imports_no_torch(sealed: rg.Export, tiny_photos: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(sealed.path), str(tiny_photos / "blue"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) == 13


def test_nothing_is_overwritten_and_names_say_the_format(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "cats.py").write_text("mine")
    result = cli("export", tiny_run, "-o", tmp_path / "cats.onnx")
    assert result.code == 7
    assert "cats.py' already" in result.err
    result = cli("export", tiny_run, "-o", tmp_path / "dogs.tflite")
    assert result.code == 2
    assert "NAME.onnx" in result.err
    result = cli("export", tiny_run, "--to", "onxx", "-o", tmp_path / "dogs.onnx")
    assert result.code == 2
    assert "did you mean 'onnx'?" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["cats.py"]


def test_what_is_no_run_or_has_not_finished_is_refused(tmp_path: Path, tiny_run: Path, cli: Cli) -> None:
    result = cli("export", tmp_path, "-o", tmp_path / "cats.onnx")
    assert result.code == 2
    assert "no model" in result.err


class Stop(rg.Callback):
    def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_was_stopped_is_refused_unless_a_network_of_it_is_named(
    tiny_photos: Path, tmp_path: Path, cli: Cli
) -> None:
    data = rg.open_data(tiny_photos)
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("all", train="all", epochs=9)])
    with pytest.raises(rg.StoppedError):
        rg.train(model, plan, data, out=tmp_path / "run", batch_size=8, show=False, callbacks=[Stop()])
    result = cli("export", tmp_path / "run", "-o", tmp_path / "cats.onnx")
    assert result.code == 2
    assert "has not finished: its best epoch so far is stage all, epoch 1" in result.err
    assert "--checkpoint last" in result.err
    result = cli("export", tmp_path / "run", "-o", tmp_path / "cats.onnx", "--checkpoint", "last", "--verify", "6")
    assert result.code == 0, result.err
    assert "6 odd images say the same" in result.out


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, tiny_run: Path, cli: Cli) -> None:
    damaged = shutil.copytree(tiny_run / "model", tmp_path / "damaged")
    (damaged / commit.MANIFEST).unlink()
    state = load_file(damaged / "model.safetensors")
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    state[name].view(-1)[0] = float("nan")
    save_file(state, damaged / "model.safetensors", metadata={"format": "pt"})
    result = cli("export", damaged, "-o", tmp_path / "cats.onnx")
    assert result.code == 4
    assert f"{name} holds NaN" in result.err
    assert not (tmp_path / "cats.onnx").exists()


def test_another_networks_weights_are_refused_by_the_golden_probes(tmp_path: Path, tiny_run: Path, cli: Cli) -> None:
    damaged = shutil.copytree(tiny_run / "model", tmp_path / "other")
    (damaged / commit.MANIFEST).unlink()
    state = load_file(damaged / "model.safetensors")
    state = {name: tensor * 1.1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(state, damaged / "model.safetensors", metadata={"format": "pt"})
    result = cli("export", damaged, "-o", tmp_path / "cats.onnx")
    assert result.code == 4
    assert "golden probes" in result.err


def test_a_file_that_says_something_else_is_not_written(
    tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SealedSession.run

    def slanted(self: SealedSession, *arguments: object, **options: object) -> dict[str, np.ndarray]:
        given = honest(self, *arguments, **options)  # type: ignore[arg-type]
        return {**given, "probabilities": given["probabilities"][:, ::-1]}

    monkeypatch.setattr(proof.SealedSession, "run", slanted)
    with pytest.raises(rg.WeightsError, match="does not say what the run says"):
        rg.export(tiny_run, tmp_path / "cats.onnx", verify=12)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2 * fail_at - 1:  # each file, then its folder
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(rg.StorageError, match="the disk is full"):
        rg.export(tiny_run, tmp_path / "cats.onnx", verify=0)
    assert not list(tmp_path.iterdir())


def test_an_extra_that_is_not_installed_is_named(
    tmp_path: Path, tiny_run: Path, sealed: rg.Export, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    result = cli("export", tiny_run, "-o", tmp_path / "cats.onnx")
    assert result.code == 2
    assert "onnxscript" in result.err
    assert "pip install 'regraft[onnx]'" in result.err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = cli("predict", sealed.path, tmp_path)
    assert result.code == 2
    assert "pip install 'regraft[onnx]'" in result.err


def renamed(sealed: rg.Export, out: Path, **texts: str) -> Path:
    model = onnx.load(sealed.path)
    for prop in model.metadata_props:
        prop.value = texts.get(prop.key, prop.value)
    onnx.save(model, out)
    return out


def test_files_of_others_and_damaged_ones(sealed: rg.Export, tmp_path: Path, tiny_photos: Path, cli: Cli) -> None:
    cases = {
        "names.onnx": ({"class_names": '["cat", "dog"]'}, "names 2 classes"),
        "foreign.onnx": ({"regraft_format": ""}, "not exported by this version"),
        "json.onnx": ({"thresholds": "{"}, "says of itself is damaged"),
        "pixels.onnx": ({"preprocessing": '{"pixels": 3}'}, "says of itself is damaged"),
    }
    for name, (texts, wanted) in cases.items():
        result = cli("predict", renamed(sealed, tmp_path / name, **texts), tiny_photos)
        assert result.code == 7, result.err
        assert wanted in result.err
    damaged = onnx.load(sealed.path)
    weights = max(damaged.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = np.full(len(weights.raw_data) // 4, np.inf, np.float32).tobytes()
    texts = {prop.key: prop.value for prop in damaged.metadata_props}
    del damaged.metadata_props[:]
    network = network_sha256(damaged.SerializeToString())
    onnx.helper.set_model_props(damaged, guarded({k: v for k, v in texts.items() if k != GUARD}, network))
    onnx.save(damaged, tmp_path / "infinite.onnx")
    result = cli("predict", tmp_path / "infinite.onnx", tiny_photos, "--json")
    assert (result.code, "numbers that are not finite" in result.err) == (7, True), result.err
    (tmp_path / "torn.onnx").write_bytes(sealed.path.read_bytes()[:1000])
    result = cli("predict", tmp_path / "torn.onnx", tiny_photos)
    assert result.code == 7
    assert "cannot be read by onnxruntime" in result.err
    result = cli("predict", tmp_path / "none.onnx", tiny_photos)
    assert result.code == 2
    assert "There is no file" in result.err


def test_options_that_an_export_does_not_have(sealed: rg.Export, tiny_photos: Path, cli: Cli) -> None:
    for option in (
        ("--tta", "flip"),
        ("--checkpoint", "last"),
        ("--threshold", "0.3"),
        ("--sets", "0.9"),
        ("--reject",),
    ):
        result = cli("predict", sealed.path, tiny_photos, *option)
        assert result.code == 2, option
    result = cli("predict", sealed.path, tiny_photos / "blue", "--precision", "fp32")
    assert result.code == 0
    assert "--precision has no effect" in result.err


class Unheard(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + torch.linalg.eigvals(images @ images.transpose(-1, -2)).real.sum()


@pytest.mark.slow
def test_a_layer_that_onnx_cannot_have_is_named(tmp_path: Path, tiny_photos: Path) -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 4, 3, 2), Unheard(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        return torch.nn.Sequential(*layers, torch.nn.Linear(4, 3))

    data = rg.open_data(tiny_photos)
    model = rg.adapt(network(), classes=data.class_names, image_size=16)
    plan = rg.make_plan(model, [rg.Stage("head", train="head", epochs=1)])
    numerics = rg.choose_numerics("cpu", "fp32")
    run = rg.train(model, plan, data, out=tmp_path / "run", batch_size=8, show=False, numerics=numerics)
    with pytest.raises(rg.SettingsError, match=r"The layer 1 \(Unheard\) cannot be exported"):
        rg.export(run.path, tmp_path / "cats.onnx", model=network())
    assert not (tmp_path / "cats.onnx").exists()
