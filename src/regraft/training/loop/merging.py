"""The networks that a stage's end is chosen from beside its epochs: averages of late ones, and what lies between the
stage's start and its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regraft import commit
from regraft.run.records import soup_name
from regraft.settings.stage import Stage
from regraft.training.checkpoint.late import average_of, num_late
from regraft.training.checkpoint.state import MODEL, Best, read_tensors
from regraft.training.loop.choice import better_epoch, choose, difference, safest
from regraft.training.loop.stage_run import StageRun

__all__ = ["SHARES", "merge", "num_candidates"]

SHARES = (0.25, 0.5, 0.75)
# Nats: networks whose losses of an image differ less (root mean square) are not averaged. The average of two gains on
# their mean about a twelfth of its square (400 photos of clothing: 0.002 at 0.15), which is less than 0.0001 here.
_ALIKE = 0.03


class _Soup(NamedTuple):
    network: Best
    weights: dict[str, Tensor]


def num_candidates(stage: Stage, num_epochs: int) -> int:
    """Return how many networks a stage of so many epochs validates at its end, at most."""
    return (len(SHARES) if stage.interpolate else 0) + _num_soups(stage, num_epochs)


def merge(run: StageRun) -> None:
    """Validate the networks that can be made of the stage's weights, and keep the best where it beats every epoch.

    `soup` are averages of late epochs, one more after the other as far as that is better (model soups,
    arXiv:2203.05482). `interpolate` are (1 - share) * start + share * end, of all that the stage changed, where the end
    is the soup if there is one, else the last epoch (WiSE-FT, arXiv:2109.01903): what pretraining knew and the stage
    forgot comes back in between. All are for the cost of one network.
    """
    progress, session, stage = run.progress, run.session, run.stage
    progress.bytes_before_interpolation = progress.metrics_bytes  # a stage that is extended goes back there
    if not session.monitor.startswith("val_"):  # the plan has warned of a monitor of training
        asked = {"interpolation": stage.interpolate, "soup": stage.soup}
        run.sinks.line(f"{stage.name}: no {' and no '.join(name for name in asked if asked[name])}")
        session.skip(stage, num_candidates(stage, run.length.epochs) * len(session.labels["val"]))
        return
    session.checkpoints.wait()  # the weights of all epochs are on the disk then
    held = _held(run)
    last = {name: tensor.clone() for name, tensor in held.items()}
    soup = _soup(run, held) if stage.soup else None
    end, found = (last, []) if soup is None else (soup.weights, [soup.network])
    start = _start(run) if stage.interpolate else None
    for share in SHARES if start is not None else ():
        _put(held, _between(start or {}, end, share))
        found.append(_validated(run, share=share, soup=[] if soup is None else soup.network.soup))
    best = _best(run, found)
    if best is None or not any(best is other for other in found):
        _put(held, last.items())
        return
    _put(held, end.items() if best.share is None else _between(start or {}, end, best.share))
    _take(run, best)


def _num_soups(stage: Stage, num_epochs: int) -> int:
    return max(num_late(num_epochs) - 1, 0) if stage.soup else 0


def _soup(run: StageRun, held: Mapping[str, Tensor]) -> _Soup | None:
    """Return the greedy average of late epochs, beginning with the best; None where none is better than that one."""
    session, stage, members = run.session, run.stage, _members(run)
    soup: _Soup | None = None
    mixed, alike, tried = members[:1], 0.0, 0
    for member in members[1:]:
        best = members[0] if soup is None else soup.network
        if (apart := difference(best, member)) is not None and apart < _ALIKE:
            alike = max(alike, apart)
            continue
        some = sorted([*mixed, member], key=lambda epoch: epoch.epoch)
        weights = average_of(session.run_folder, some, held)
        _put(held, weights.items())
        candidate, tried = _validated(run, soup=[epoch.epoch for epoch in some]), tried + 1
        if safest(best, [candidate], session.mode) is candidate:
            soup, mixed = _Soup(candidate, weights), some
    session.skip(stage, (_num_soups(stage, run.length.epochs) - tried) * len(session.labels["val"]))
    run.sinks.line(f"{stage.name}: {_told(session.monitor, members, soup, tried, alike)}")
    return soup


def _told(monitor: str, members: Sequence[Best], soup: _Soup | None, tried: int, alike: float) -> str:
    """Return what became of the average, and why, as text."""
    if len(members) < 2:
        return "no soup: it takes two epochs of the stage's second half"
    best = members[0]
    alone = f"{best.value:.4f} of epoch {best.epoch}"
    if soup is not None:
        return f"{soup_name(soup.network.soup)}: {monitor} {soup.network.value:.4f} instead of {alone}"
    if tried:
        return f"no soup: none is better than the {monitor} {alone}"
    epochs = ", ".join(str(epoch) for epoch in sorted(member.epoch for member in members))
    return f"no soup: epochs {epochs} are alike, their losses of an image differ by {alike:.4f} (root mean square)"


def _members(run: StageRun) -> list[Best]:
    """Return the late epochs whose weights are whole on the disk, the best first, of equal ones the latest."""
    found = [epoch for epoch in run.progress.late if not math.isnan(epoch.value)]
    for epoch in [*found]:
        if commit.damage(path := run.session.run_folder.weights(epoch.step), only=[MODEL]):
            run.sinks.line(f"{run.stage.name}: no part of a soup: {path.name} is damaged")
            found.remove(epoch)
    sign = 1 if run.session.mode == "min" else -1
    return sorted(found, key=lambda epoch: (sign * epoch.value, -epoch.epoch))


def _best(run: StageRun, found: Sequence[Best]) -> Best | None:
    """Return the best of the stage's epochs and of the networks made of them; of few images the most surely better."""
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
    if commit.damage(path, only=[MODEL]) is None:
        return read_tensors(path / MODEL)
    run.sinks.line(f"{run.stage.name}: no interpolation, the checkpoint that the stage began with is damaged")
    run.session.skip(run.stage, len(SHARES) * len(run.session.labels["val"]))
    return None


def _held(run: StageRun) -> dict[str, Tensor]:
    """Return the tensors that the stage changed, or their averages, by name; the model's own memory, not copies."""
    if run.state.average is not None:
        return run.state.average.averages
    tensors = {name: tensor.detach() for name, tensor in run.model.state_dict().items()}
    names = (*run.frozen.trainable, *run.frozen.moving)
    return {name: tensors[name] for name in names if tensors[name].is_floating_point()}


def _between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that lie so far from the start."""
    for name, tensor in end.items():
        yield name, torch.lerp(start[name].to(tensor.device, tensor.dtype), tensor, share)


@torch.no_grad()
def _put(held: Mapping[str, Tensor], weights: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in weights:
        held[name].copy_(tensor)


def _validated(run: StageRun, *, share: float | None = None, soup: Sequence[int] = ()) -> Best:
    """Validate the model as it is now, and record its figures."""
    progress, stage = run.progress, run.stage
    values = run.validate(saves=False)
    epoch = Best(progress.step + 1, stage.name, progress.epoch, values[run.session.monitor], share=share)
    epoch = replace(epoch, soup=list(soup), **run.evidence())
    place = {"share": share, "soup": epoch.soup or None}
    record: dict[str, Any] = {"stage": stage.name, "stage_index": progress.stage, "epoch": progress.epoch}
    record |= {key: value for key, value in place.items() if value is not None}
    progress.metrics_bytes = run.sinks.candidate({**record, **values})
    run.session.callbacks.tell("on_candidate", run, {**record, **values})
    run.session.advance(stage, "validate", len(run.session.labels["val"]), f"{stage.name} at its end")
    return epoch


def _take(run: StageRun, best: Best) -> None:
    """Make it the stage's network; it is saved with the stage's end, one step after the last epoch."""
    progress = run.progress
    progress.step += 1
    progress.bests = [*(other for other in progress.bests if other.stage != run.stage.name), best]
    rule = run.stage.early_stopping
    if rule is None or not rule.restore_best:  # which has its own metric
        progress.stage_best = replace(best, losses="")
    progress.lowest = best
    progress.best = choose(progress.bests, run.session.mode, run.session.plan.interpolated)
