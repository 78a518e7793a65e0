"""Unfreezing keeps the optimizer state of parameters that stay: a stage continues with the moments of the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import regraft as rg
from regraft.errors import StoppedError
from regraft.run.folder import RunFolder
from regraft.training.loop import gradient_stage
from tests.conftest import TINY_MODEL


def trained(data: Any, out: Path, second: dict[str, Any], *, optimizer: str = "adam") -> RunFolder:
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32)
    top = rg.Stage("top", train=["stage:-1", "head"], epochs=1, **{"optimizer": "adam", **second})
    plan = rg.make_plan(model, [rg.Stage("head", epochs=2, optimizer=optimizer), top])
    return rg.train(model, plan, data, out=out, batch_size=8, save_steps=1, show=False)


def kept(run: RunFolder) -> dict[str, Tensor]:
    """The newest checkpoint's optimizer state."""
    return load_file(run.checkpoint(run.checkpoint_steps()[-1]) / "optimizer.safetensors")


def counts(run: RunFolder) -> dict[str, int]:
    """How many steps the optimizer has counted, for each parameter."""
    steps = {name: int(value) for name, value in kept(run).items() if name.endswith("/step")}
    return {name.split("/")[1]: value for name, value in steps.items()}


@pytest.mark.parametrize("start", ["best", "last"])
def test_moments_of_the_stage_before_are_kept(start: str, tiny_photos: Path, tmp_path: Path) -> None:
    run = trained(rg.open_data(tiny_photos), tmp_path / "run", {"start": start})
    counted, best = counts(run), (run.read(run.best) or {})["step"]
    per_epoch = -(-len(rg.open_data(tiny_photos).train) // 8)
    before = 2 * per_epoch if start == "last" else min(best, 2 * per_epoch)
    assert before in (per_epoch, 2 * per_epoch)
    assert counted["classifier.weight"] == counted["classifier.bias"] == before + per_epoch
    unfrozen = {name: value for name, value in counted.items() if not name.startswith("classifier")}
    assert unfrozen
    assert set(unfrozen.values()) == {per_epoch}
    assert "optimizer state carried over for 2 tensors" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("first", ["sgd", "adamw", "lbfgs"])
def test_another_kind_of_optimizer_starts_afresh(first: str, tiny_photos: Path, tmp_path: Path) -> None:
    run = trained(rg.open_data(tiny_photos), tmp_path / "run", {}, optimizer=first)
    assert len(set(counts(run).values())) == 1
    assert "optimizer state carried over" not in (run.path / "log.txt").read_text()


def test_momentum_is_carried_too(tiny_photos: Path, tmp_path: Path) -> None:
    """One step at a rate of almost nothing: the momentum of the head is what it was, times 0.9, plus a gradient."""
    data = rg.open_data(tiny_photos)
    run = trained(data, tmp_path / "run", {"optimizer": "sgd", "lr": 1e-9, "batch_size": 64}, optimizer="sgd")
    fresh = trained(data, tmp_path / "fresh", {"optimizer": "adam", "lr": 1e-9, "batch_size": 64}, optimizer="sgd")
    assert "optimizer/classifier.weight/momentum_buffer" in kept(run)
    assert "optimizer/classifier.weight/exp_avg" in kept(fresh)
    gradient = kept(fresh)["optimizer/classifier.weight/exp_avg"] / (1 - 0.9)  # of the very same step
    carried = kept(run)["optimizer/classifier.weight/momentum_buffer"] - gradient
    assert carried.norm() > 0.1 * gradient.norm()


@pytest.fixture(scope="module")
def whole(tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(rg.open_data(tiny_photos), tmp_path_factory.mktemp("runs") / "whole", {})


@pytest.mark.parametrize("at", [pytest.param(2, marks=pytest.mark.slow), 7, 8])
def test_a_killed_run_resumes_to_the_same_bits(
    at: int, whole: RunFolder, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rg.open_data(tiny_photos)
    real = gradient_stage.seed_step

    def stop(seed: int, number: int, *rest: Any) -> None:
        if number == at:
            raise StoppedError("Stopped by the test.", "", "", exit_code=130)
        real(seed, number, *rest)

    monkeypatch.setattr(gradient_stage, "seed_step", stop)
    with pytest.raises(StoppedError, match="Stopped by the test"):
        trained(data, tmp_path / "killed", {})
    monkeypatch.setattr(gradient_stage, "seed_step", real)
    killed = rg.resume(tmp_path / "killed", show=False)
    first, second = kept(whole), kept(killed)
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert (whole.model / "model.safetensors").read_bytes() == (killed.model / "model.safetensors").read_bytes()
