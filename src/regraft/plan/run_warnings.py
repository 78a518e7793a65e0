"""Warnings about a plan before it runs on a given number of images."""

from __future__ import annotations

from collections.abc import Iterator

from regraft.plan.effects import direction, too_late
from regraft.plan.length import Length, length_of
from regraft.plan.make import Plan
from regraft.settings.monitor import mode_of
from regraft.settings.stage import Stage
from regraft.wording import quantity

__all__ = ["run_warnings"]


def run_warnings(plan: Plan, monitor: str, mode: str | None, num_images: int, batch_size: int) -> Iterator[str]:
    """Yield the warnings about a plan: its own, and those that depend on the number of images.

    Args:
        plan: The stages, resolved.
        monitor: The metric that selects the best epoch.
        mode: `min` or `max`; None knows it from the metric's name.
        num_images: Training images.
        batch_size: Of stages that do not set it.
    """
    if mode is not None and mode != mode_of(monitor):
        yield direction(f"monitor {monitor}", monitor, mode, "the worst epoch is kept as the best")
    yield from plan.warnings
    if not monitor.startswith("val_"):
        for stage in plan:
            for key in ("interpolate", "soup"):
                if getattr(stage, key):
                    yield f"stage {stage.name!r}: {key} has no effect: {monitor} is not of validation images"
    for stage in plan:
        if stage.optimizer != "lbfgs":
            length = length_of(stage, num_images, stage.batch_size or batch_size)
            found = list(_too_long_a_warmup(stage, length))
            if stage.steps is not None:  # only the number of images says how many epochs these are
                found += too_late(stage, length.epochs, length.steps)
            yield from (f"stage {stage.name!r}: {text}" for text in found)


def _too_long_a_warmup(stage: Stage, length: Length) -> Iterator[str]:
    warmup = stage.warmup_steps or round(stage.warmup_epochs * length.steps_per_epoch)
    if warmup >= length.steps:
        yield (
            f"the warm-up of {quantity(warmup, 'step')} is as long as the stage ({quantity(length.steps, 'step')}): "
            "the "
            "rate never reaches lr"
        )
