"""What was changed in an export after it was written, and what is said where a run was asked for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import Cli

import regraft as rg
from regraft.exports.running import onnx_engine
from regraft.exports.running.guard import GUARD, network_sha256


def changed(sealed: rg.Export, out: Path, change: Callable[[onnx.ModelProto, dict[str, str]], object]) -> Path:
    model = onnx.load(sealed.path)
    texts = {prop.key: prop.value for prop in model.metadata_props}
    change(model, texts)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, out)
    return out


def swap_names(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    texts["class_names"] = json.dumps(json.loads(texts["class_names"])[::-1])


def cool(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    texts["temperatures"] = "[7.0]"


def nudge(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(weights.raw_data, np.float32) * np.float32(1.01)
    weights.raw_data = values.tobytes()


def unguard(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    del texts[GUARD]


def reguard(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    texts[GUARD] = texts[GUARD].replace('"metadata": "', '"metadata": "0')


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (swap_names, "`class_names` of its metadata"),
        (cool, "`temperatures` of its metadata"),
        (nudge, "its network"),
        (unguard, "the guard of its metadata"),
        (reguard, "the guard of its metadata"),
    ],
)
def test_what_was_changed_is_named(
    sealed: rg.Export,
    tmp_path: Path,
    tiny_photos: Path,
    cli: Cli,
    change: Callable[[onnx.ModelProto, dict[str, str]], object],
    what: str,
) -> None:
    result = cli("predict", changed(sealed, tmp_path / "changed.onnx", change), tiny_photos)
    assert (result.code, result.out) == (7, "")
    assert f"was changed after it was written: {what}." in result.err


def test_what_means_the_same_is_no_change(sealed: rg.Export, tmp_path: Path, tiny_photos: Path, cli: Cli) -> None:
    def respaced(model: onnx.ModelProto, texts: dict[str, str]) -> None:
        texts["preprocessing"] = json.dumps(json.loads(texts["preprocessing"]), indent=2)
        texts["owner"] = "the cattery"

    result = cli("predict", changed(sealed, tmp_path / "same.onnx", respaced), tiny_photos / "blue")
    assert result.code == 0, result.err


def test_a_cut_file_has_another_hash_or_none(sealed: rg.Export) -> None:
    data = sealed.path.read_bytes()
    assert network_sha256(data) == network_sha256(sealed.path)
    for end in (*range(1, 60), len(data) // 2, len(data) - 1):
        with suppress(ValueError):  # between two fields a cut message is a message
            assert network_sha256(data[:end]) != network_sha256(data)


@pytest.mark.parametrize("verb", ["evaluate", "explain", "compare", "resume", "report", "export", "add-class"])
def test_commands_that_take_a_run_say_what_an_export_is(
    sealed: rg.Export, tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli, verb: str
) -> None:
    more = {
        "explain": [tiny_photos],
        "compare": [tiny_run],
        "export": ["-o", tmp_path / "again.onnx"],
        "add-class": [tiny_photos],
    }
    result = cli(verb, sealed.path, *more.get(verb, []))
    assert result.code == 2, result.err
    assert "tiny.onnx' is an exported file, and this takes the run that it was made from" in result.err
    assert f"predict {sealed.path} IMAGES" in result.err


def test_a_run_without_a_model_is_refused_before_anything_else(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(tiny_run / "recipe.yaml", tmp_path / "run")
    result = cli("export", tmp_path / "run", "-o", tmp_path / "cats.tflite", "--to", "onxx")
    assert result.code == 2
    assert "has no model yet" in result.err


def test_the_card_speaks_of_nothing_that_is_not_there(sealed: rg.Export) -> None:
    card = sealed.card.read_text()
    assert "config.json" not in card
    assert "local-dir" not in card
    assert "library_name: onnx" in card
    assert "## Results" in card


def test_ctrl_c_in_the_import_of_onnxruntime_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        @staticmethod
        def find_spec(name: str, *rest: object) -> None:
            if name == "onnxruntime":
                raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(onnx_engine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(KeyboardInterrupt):
        onnx_engine._runtime()


def test_ctrl_c_while_the_command_line_is_imported_shows_no_traceback(sealed: rg.Export, tiny_photos: Path) -> None:
    blocked = "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # not ignored
    blocked += "from regraft.__main__ import run\nprint('ready', flush=True)\n"
    blocked += "class Slow:\n  def find_spec(self, name, *rest):\n    if name == 'regraft.cli.main': time.sleep(60)\n"
    code = blocked + "sys.meta_path.insert(0, Slow())\nrun()\n"
    command = [sys.executable, "-c", code, "predict", str(sealed.path), str(tiny_photos)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "Interrupted; nothing was begun.\n")
