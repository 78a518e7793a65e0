"""`match_weights`: the matcher of `regraft.weights`, given a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from regraft.models.info import info_of
from regraft.models.segment.match import match_encoder
from regraft.models.slots import slots_of
from regraft.weights.file import WeightFile
from regraft.weights.match import match
from regraft.weights.report import MatchReport

__all__ = ["match_weights"]


def match_weights(
    weights: WeightFile,
    model: nn.Module,
    *,
    skip: Sequence[str] = (),
    map: Mapping[str, str] | None = None,
    flip_stem: bool = False,
    adapt_input: bool = False,
    class_order: Sequence[int] | None = None,
    part: Literal["encoder", "all"] | None = None,
) -> MatchReport:
    """Decide what of a weight file goes where in a model; nothing is changed.

    Args:
        weights: The file, from `read_weights`.
        model: The architecture that the file was made for.
        skip: Names or patterns (`fc8`, `head.*`) of layers or tensors, of either side, to leave out; `type:BatchNorm2d`
            leaves out all layers of the model of that kind.
        map: Pairs by hand, {name in the model: name in the file}, of layers or of single tensors.
        flip_stem: Whether the stem's input channels are reversed (a file for BGR images, a model for RGB ones).
        adapt_input: Whether a stem of another number of input channels is adapted (3 -> 1 added up, 3 -> N repeated).
        class_order: For each class of the model its row in the file's classifier.
        part: Of a network for segmentation, what the file holds: `encoder` (weights of a classification network, whose
            classifier and dense layers are left out and reported as dropped) or `all`; None finds out.

    Raises:
        WeightsError: `map` or `skip` names something that neither side has.
    """
    options: dict[str, Any] = {"flip_stem": flip_stem, "adapt_input": adapt_input, "class_order": class_order}
    if part != "all" and "encoder" in info_of(model).origin:
        return match_encoder(weights, model, skip=skip, map=map or {}, part=part, **options)
    return match(weights, slots_of(model), skip=skip, map=map, model=info_of(model).architecture, **options)
