"""A run that was stopped predicts with its best epoch so far, and says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import TINY_MODEL, Cli

import regraft as rg
from regraft.errors import SettingsError, StoppedError, StorageError


class Stop(rg.Callback):
    def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
        if record["stage"] == "small" and record["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def stopped(tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped in its second epoch, of a stage with an image size of its own."""
    data = rg.open_data(tiny_photos)
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=48)
    stages = [rg.Stage("small", image_size=32, optimizer="adamw", epochs=9), rg.Stage("full", train="all", epochs=1)]
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(StoppedError, match="Interrupted by SIGTERM"):
        rg.train(model, rg.make_plan(model, stages), data, out=out, batch_size=8, show=False, callbacks=[Stop()])
    return out


def test_it_is_the_best_epoch_at_the_size_of_its_stage(
    stopped: Path, tiny_photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = json.loads((stopped / "best.json").read_text())
    model = rg.load_model(stopped)
    assert f"best epoch so far (stage small, epoch {best['epoch']})" in caplog.text
    weights = load_file(stopped / "checkpoints" / best["checkpoint"] / "model.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert model.regraft_info.class_names == ("blue", "green", "red")
    assert model.regraft_info.preprocessing.pixels.size == (32, 32)
    rows = rg.predict(stopped, tiny_photos / "red")
    assert len(rows) == 12
    assert rows == rg.predict(model, tiny_photos / "red")


def test_the_command_says_which_epoch_it_is(stopped: Path, tiny_photos: Path, cli: Cli) -> None:
    result = cli("predict", stopped, tiny_photos / "red")
    assert result.code == 0, result.err
    assert len(result.out.splitlines()) == 12


@pytest.mark.parametrize("damage", ["no epoch", "no record", "cut weights", "strange record"])
def test_without_a_whole_epoch_it_is_an_error(
    damage: str, stopped: Path, tiny_photos: Path, tmp_path: Path, cli: Cli
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    best = json.loads((run / "best.json").read_text())
    weights = run / "checkpoints" / best["checkpoint"] / "model.safetensors"
    if damage == "no epoch":
        (run / "best.json").unlink()
    elif damage == "no record":
        (run / "architecture.json").unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        (run / "architecture.json").write_text("[[[]]]")
    absent = damage.startswith("no ")
    with pytest.raises(SettingsError if absent else StorageError, match="no model yet" if absent else "cannot be read"):
        rg.load_model(run)
    result = cli("predict", run, tiny_photos)
    assert result.code == (2 if absent else 7)
    assert f"regraft resume {run}" in result.err or damage == "strange record"


def test_a_finished_run_needs_no_record_of_its_best_epoch(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (run / "best.json").write_text("{")
    assert rg.load_model(run).regraft_info.class_names == ("blue", "green", "red")


def test_a_threshold_beyond_every_number_is_damage(stopped: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    config = json.loads((run / "architecture.json").read_text())
    config["regraft"]["preprocessing"]["mean"] = [10**400] * 3
    (run / "architecture.json").write_text(json.dumps(config))
    with pytest.raises(StorageError, match="OverflowError"):
        rg.load_model(run)
