"""The metrics that a stage's rules monitor, checked against those that the model's output has."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from regraft.errors import nearest
from regraft.models.describe.info import info_of
from regraft.models.describe.outputs import monitors, output_of
from regraft.settings.stage import Stage

__all__ = ["monitor_mistakes", "watched"]


def watched(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield the rules of a stage that monitor a metric, each with its name."""
    for rule in ("early_stopping", "plateau"):
        settings = getattr(stage, rule)
        if settings is not None:
            yield rule, settings.monitor


def monitor_mistakes(stage: Stage, model: nn.Module) -> list[str]:
    """Return one line per rule that monitors something that is not a metric of an epoch."""
    output, num_classes = output_of(model), len(info_of(model).class_names or ())
    return [
        f"{rule}.monitor is {monitor!r}, which is not a metric of a {output} head; "
        + _help(monitor, monitors(output, num_classes))
        for rule, monitor in watched(stage)
        if monitor not in monitors(output, num_classes)
    ]


def _help(monitor: str, known: tuple[str, ...]) -> str:
    near = nearest(monitor, known)
    return f"did you mean {near}?" if near else f"expected one of: {', '.join(known)}"
