"""The networks between the one that a stage began with and the one that it ended with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from regraft import commit
from regraft.training.checkpoint.state import MODEL, Best, read_tensors
from regraft.training.loop.choice import better_epoch, choose, safest
from regraft.training.loop.stage_run import StageRun

__all__ = ["SHARES", "interpolate"]

SHARES = (0.25, 0.5, 0.75)


def interpolate(run: StageRun) -> None:
    """Validate networks between the stage's start and its end, and keep the best where it beats every epoch.

    Each is (1 - share) * start + share * end, of all that the stage changed. Source: WiSE-FT, arXiv:2109.01903. What
    pretraining knew and the stage forgot comes back in between, for the cost of one network.
    """
    run.progress.bytes_before_interpolation = run.progress.metrics_bytes  # a stage that is extended goes back there
    start = _start(run)
    if start is None or not run.session.monitor.startswith("val_"):  # the plan has warned of a monitor of training
        why = "" if start is not None else ", the checkpoint that the stage began with is damaged"
        run.sinks.line(f"{run.stage.name}: no interpolation{why}")
        run.session.advance(run.stage, len(SHARES) * len(run.session.labels["val"]), run.stage.name)
        return
    held = _held(run, start)
    end = {name: tensor.clone() for name, tensor in held.items()}
    found = []
    for share in SHARES:
        _set(held, start, end, share)
        found.append(_validated(run, share))
    best = _best(run, found)
    if best is None or best.share is None:
        _set(held, start, end, 1.0)
        return
    _set(held, start, end, best.share)
    _take(run, best)


def _best(run: StageRun, found: Sequence[Best]) -> Best | None:
    """Return the best of the stage's epochs and of the networks between; of few images the most surely better."""
    progress, mode = run.progress, run.session.mode
    before = [best for best in progress.bests if best.stage != run.stage.name]
    start = choose(before, mode, run.session.plan.interpolated)
    epochs = [epoch for epoch in (progress.lowest, *found) if epoch is not None and not math.isnan(epoch.value)]
    if start is not None and (chosen := safest(start, epochs, mode)) is not start:
        return chosen
    best: Best | None = None
    for epoch in epochs:
        best = better_epoch(best, epoch, mode)
    return best


def _start(run: StageRun) -> dict[str, Tensor] | None:
    """Return the weights that the stage began with; None where their checkpoint is damaged."""
    path = run.session.run_folder.checkpoint(run.progress.start_step)
    return None if commit.damage(path, only=[MODEL]) else read_tensors(path / MODEL)


def _held(run: StageRun, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that the stage changed, or their averages, by name; the model's own memory, not copies."""
    if run.state.average is not None:
        return run.state.average.averages
    tensors = {name: tensor.detach() for name, tensor in run.model.state_dict().items()}
    names = (*run.frozen.trainable, *run.frozen.moving)
    return {name: tensors[name] for name in names if tensors[name].is_floating_point() and name in start}


@torch.no_grad()
def _set(held: Mapping[str, Tensor], start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
    for name, tensor in held.items():
        first = start[name].to(tensor.device, tensor.dtype)
        tensor.copy_(end[name] if share == 1.0 else torch.lerp(first, end[name], share))


def _validated(run: StageRun, share: float) -> Best:
    """Validate the model as it is now, and write its figures to metrics.jsonl."""
    progress, stage = run.progress, run.stage
    values = run.validate(saves=False)
    record: dict[str, Any] = {"stage": stage.name, "stage_index": progress.stage, "epoch": progress.epoch}
    progress.metrics_bytes = run.sinks.interpolation({**record, "share": share, **values})
    run.session.advance(stage, len(run.session.labels["val"]), f"{stage.name} between start and end")
    evidence = run.evidence()
    return Best(progress.step + 1, stage.name, progress.epoch, values[run.session.monitor], share=share, **evidence)


def _take(run: StageRun, best: Best) -> None:
    """Make the interpolation the stage's network; it is saved with the stage's end, one step after the last epoch."""
    progress = run.progress
    progress.step += 1
    progress.bests = [*(other for other in progress.bests if other.stage != run.stage.name), best]
    rule = run.stage.early_stopping
    if rule is None or not rule.restore_best:  # which has its own metric
        progress.stage_best = replace(best, losses="")
    progress.lowest = best
    progress.best = choose(progress.bests, run.session.mode, run.session.plan.interpolated)
