"""Strongly imbalanced classes: the factor of the logit adjustment where a stage leaves it to the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.plan.make import Plan
from regraft.settings.stage import Stage
from regraft.visible import one_line

__all__ = ["adjusted_plan", "adjustment_factor"]

_STRONG = 20  # times the images of the smallest class
_FACTOR = 1.0  # what makes the balanced error smallest (Menon et al., arXiv:2007.07314, section 4)

Labels = npt.NDArray[np.integer]


def adjustment_factor(stage: Stage, output: str, labels: Labels) -> float:
    """Return the factor of a stage's logit adjustment, that of `auto` by the images of each class.

    `auto` leaves alone what is balanced otherwise, and all heads but one for one of several classes.

    Args:
        stage: The stage.
        output: What the network's logits mean.
        labels: Of the training images.
    """
    if stage.logit_adjustment != "auto":
        return float(stage.logit_adjustment)
    is_weighed = stage.class_weights is not None or stage.sampling == "balanced"
    if output != "softmax" or is_weighed or labels.ndim != 1 or not len(labels):
        return 0.0
    counts = _counts(labels)
    return _FACTOR if counts.max() >= _STRONG * counts.min() else 0.0


def adjusted_plan(plan: Plan, output: str, labels: Labels, class_names: tuple[str, ...]) -> tuple[Plan, list[str]]:
    """Return the plan with a number for each `logit_adjustment: auto`, and what was chosen and why, a line each."""
    if all(stage.logit_adjustment != "auto" for stage in plan):
        return plan, []
    stages = tuple(replace(stage, logit_adjustment=adjustment_factor(stage, output, labels)) for stage in plan)
    lines = list(_chosen(plan, stages, labels, class_names))
    return replace(plan, stages=stages), lines


def _chosen(plan: Plan, stages: tuple[Stage, ...], labels: Labels, class_names: tuple[str, ...]) -> Iterator[str]:
    for asked, stage in zip(plan, stages, strict=True):
        if asked.logit_adjustment == "auto" and stage.logit_adjustment:
            numbers, counts = np.unique(labels, return_counts=True)
            most, fewest = int(counts.argmax()), int(counts.argmin())
            names = [one_line(class_names[int(numbers[place])]) for place in (most, fewest)]
            yield (
                f"stage {stage.name}: logit_adjustment {stage.logit_adjustment:g} (auto: {names[0]!r} has "
                f"{counts[most]:,} images and {names[1]!r} {counts[fewest]:,}; all classes count the same)"
            )


def _counts(labels: Labels) -> npt.NDArray[np.int64]:
    """Return the images of each class that has any."""
    counts: npt.NDArray[np.int64] = np.unique(labels, return_counts=True)[1]
    return counts
