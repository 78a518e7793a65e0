"""What a stage minimises: the losses of pixels and their sum, as a stage has it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from regraft.errors import nearest

if TYPE_CHECKING:
    from regraft.plan.stages import Stage

__all__ = ["LOSSES", "loss_mistakes", "loss_terms", "mask_mistakes"]

LOSSES = ("cross_entropy", "dice", "focal")


def loss_terms(loss: str | Mapping[str, float]) -> dict[str, float]:
    """The losses that are added up, each with its factor."""
    return {loss: 1.0} if isinstance(loss, str) else {name: float(factor) for name, factor in loss.items()}


def loss_mistakes(loss: object) -> Iterator[str]:
    """What is wrong with the setting, one line each."""
    if not isinstance(loss, (str, Mapping)) or not loss:
        yield f"loss is {loss!r}; expected a name or factors by name, as {{cross_entropy: 1, dice: 1}}"
        return
    terms = {loss: 1.0} if isinstance(loss, str) else dict(loss)
    for name, factor in terms.items():
        if name not in LOSSES:
            near = nearest(str(name), LOSSES)
            yield f"loss is {name!r}; expected one of: {', '.join(LOSSES)}" + (
                f"; did you mean {near}?" if near else ""
            )
        elif isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
            yield f"loss.{name} is {factor!r}; expected a factor above 0"


def mask_mistakes(stage: Stage, output: str) -> Iterator[str]:
    """What a stage asks for that a network with this output cannot do, because its targets are, or are not, masks."""
    if output != "segmentation":
        if loss_terms(stage.loss) != {"cross_entropy": 1.0}:
            yield f"loss is {_shown(stage.loss)}, which is a loss of pixels; a {output} head has its own: leave it out"
        if stage.class_weights == "median_frequency":
            yield "class_weights: median_frequency counts the pixels of masks; set `class_weights: balanced`"
        return
    if stage.mixes:
        yield (
            "mixup and cutmix mix the labels of whole images, and these images have masks; leave them out, and vary "
            "the images with `augment`"
        )
    if stage.sampling == "balanced":
        yield (
            "sampling: balanced needs one class for each image, and a mask has many; set `class_weights: "
            "median_frequency`"
        )


def _shown(loss: str | Mapping[str, float]) -> str:
    return (
        loss if isinstance(loss, str) else "{" + ", ".join(f"{name}: {factor:g}" for name, factor in loss.items()) + "}"
    )
