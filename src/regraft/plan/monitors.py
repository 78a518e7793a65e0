"""The measures that a stage's rules watch, against those that the model's output gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from regraft.errors import nearest
from regraft.models.info import info_of
from regraft.models.outputs import monitors, output_of

if TYPE_CHECKING:
    from regraft.plan.stages import Stage

__all__ = ["monitor_mistakes", "watched"]


def watched(stage: Stage) -> Iterator[tuple[str, str]]:
    """The rules of a stage that watch a measure, each with its name."""
    for rule in ("early_stopping", "plateau"):
        settings = getattr(stage, rule)
        if settings is not None:
            yield rule, settings.monitor


def monitor_mistakes(stage: Stage, model: nn.Module) -> list[str]:
    """One line for each rule that watches something that is not measured at the end of an epoch."""
    output, num_classes = output_of(model), len(info_of(model).class_names or ())
    return [
        f"{rule}.monitor is {monitor!r}, which a {output} head does not give; "
        + _help(monitor, monitors(output, num_classes))
        for rule, monitor in watched(stage)
        if monitor not in monitors(output, num_classes)
    ]


def _help(monitor: str, known: tuple[str, ...]) -> str:
    near = nearest(monitor, known)
    return f"did you mean {near}?" if near else f"expected one of: {', '.join(known)}"
