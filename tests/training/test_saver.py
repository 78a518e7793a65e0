"""Checkpoints written behind the loop: the state of the moment, in order, one at a time; what is kept, what is not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from regraft.errors import DivergedError, StorageError
from regraft.run.folder import RunFolder
from regraft.training.checkpoint import saver as saver_module
from regraft.training.checkpoint.saver import Saver, latest_checkpoint
from regraft.training.checkpoint.state import Best, Progress, group_values, read_progress, restore


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    parameters = [{"params": list(model.parameters()), "names": ["weight", "bias"], "name": "head"}]
    return model, torch.optim.AdamW(parameters, lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()


class SlowDisk:
    """A disk on which the first file waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        original = saver_module.save_file

        def save_file(*arguments: Any, **options: Any) -> None:
            self.begun.set()
            assert self.go_on.wait(60)
            original(*arguments, **options)

        monkeypatch.setattr(saver_module, "save_file", save_file)


def test_training_goes_on_while_the_state_of_the_moment_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (model, optimizer) = RunFolder(tmp_path), network()
    step(model, optimizer)
    weights = model.weight.detach().clone()
    moments = optimizer.state[model.weight]["exp_avg"].clone()
    disk = SlowDisk(monkeypatch)
    told: list[str] = []
    with Saver(run) as saver:
        saver.told = lambda: told.append("on the disk")
        saver.save(model, optimizer, Progress(step=1), groups=group_values(optimizer))
        assert disk.begun.wait(60)
        step(model, optimizer)
        assert not run.checkpoint(1).exists()
        assert not saver.look()
        assert told == []
        disk.go_on.set()
    assert told == ["on the disk"]
    stored = load_file(run.checkpoint(1) / "model.safetensors")
    assert torch.equal(stored["weight"], weights)
    fresh, other = network()
    restore(run.checkpoint(1), fresh, other)
    assert torch.equal(other.state[fresh.weight]["exp_avg"], moments)  # type: ignore[index]
    step(fresh, other)
    assert torch.equal(fresh.weight, model.weight)


def test_a_second_checkpoint_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, (model, optimizer) = RunFolder(tmp_path), network()
    disk = SlowDisk(monkeypatch)
    with Saver(run) as saver:
        saver.save(model, optimizer, Progress(step=1, best=Best(1, "a", 1, 0.5)))
        assert disk.begun.wait(60)
        threading.Timer(0.05, disk.go_on.set).start()
        saver.save(model, optimizer, Progress(step=2, best=Best(1, "a", 1, 0.5)))
        assert run.checkpoint(1).is_dir()
    assert run.checkpoint_steps() == [1, 2]


def test_without_memory_for_a_copy_the_loop_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "memory_budget", lambda: 0)
    run, (model, optimizer) = RunFolder(tmp_path), network()
    with Saver(run) as saver:
        saver.save(model, optimizer, Progress(step=1))
        assert read_progress(run.checkpoint(1)).step == 1


@pytest.mark.parametrize("next_call", ["save", "wait", "exit"])
def test_what_the_writing_met_is_raised_by_the_next_call(
    next_call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (model, optimizer) = RunFolder(tmp_path), network()

    def full(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")

    def save_three_times() -> None:
        with Saver(run) as saver:
            saver.save(model, optimizer, Progress(step=1))
            saver.wait()
            monkeypatch.setattr(saver_module, "save_file", full)
            saver.save(model, optimizer, Progress(step=2))
            if next_call == "save":
                saver.save(model, optimizer, Progress(step=3))
            elif next_call == "wait":
                saver.wait()

    with pytest.raises(StorageError, match="disk is full"):
        save_three_times()
    assert run.checkpoint_steps() == [1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(value: float, tmp_path: Path) -> None:
    run, (model, optimizer) = RunFolder(tmp_path), network()
    with Saver(run) as saver:
        saver.save(model, optimizer, Progress(step=1))
        saver.wait()
        with torch.no_grad():
            model.bias[1] = value
        saver.save(model, optimizer, Progress(step=2))
        with pytest.raises(DivergedError, match=r"'bias' are not finite"):
            saver.wait()
    assert latest_checkpoint(run) == run.checkpoint(1)
    assert run.read(run.last)["step"] == 1


def test_the_best_and_the_start_of_the_stage_outlive_all_others(tmp_path: Path) -> None:
    run, (model, optimizer) = RunFolder(tmp_path), network()
    best, stage_best = Best(2, "a", 1, 0.5), Best(4, "b", 1, 0.7)
    with Saver(run) as saver:
        for number in range(8):
            progress = Progress(step=number, start_step=min(number, 3))
            progress.best = best if number >= 2 else None
            progress.stage_best = stage_best if number >= 4 else None
            saver.save(model, optimizer, progress)
    assert run.checkpoint_steps() == [2, 3, 4, 7]
    assert run.read(run.best)["checkpoint"] == "step-000002"
    with Saver(run) as saver:
        saver.save(model, optimizer, Progress(step=8, best=best, stage_best=stage_best, start_step=3, stage_ended=True))
    assert run.checkpoint_steps() == [2, 4, 8]


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, (model, optimizer) = RunFolder(tmp_path), network()
    with Saver(run) as saver:
        for number in (1, 2):
            saver.save(model, optimizer, Progress(step=number, best=Best(1, "a", 1, 0.5)))
    weights = run.checkpoint(2) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert latest_checkpoint(run) == run.checkpoint(1)
    assert "step-000002 is damaged" in caplog.text
    (run.checkpoint(1) / "state.json").unlink()
    with pytest.raises(StorageError, match="None of the 2 checkpoints"):
        latest_checkpoint(run)
