"""`match_weights`: the matcher of `regraft.weights`, given a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from regraft.models.info import info_of
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
) -> MatchReport:
    """Decide what of a weight file goes where in a model; nothing is changed.

    Args:
        weights: The file, from `read_weights`.
        model: The architecture that the file was made for.
        skip: Names or patterns (`fc8`, `head.*`) of layers or tensors, of either side, to leave out.
        map: Pairs by hand, {name in the model: name in the file}, of layers or of single tensors.
        flip_stem: Whether the stem's input channels are reversed (a file for BGR images, a model for RGB ones).
        adapt_input: Whether a stem of another number of input channels is adapted (3 -> 1 added up, 3 -> N repeated).
        class_order: For each class of the model its row in the file's classifier.

    Raises:
        WeightsError: `map` or `skip` names something that neither side has.
    """
    return match(
        weights,
        slots_of(model),
        skip=skip,
        map=map,
        model=info_of(model).architecture,
        flip_stem=flip_stem,
        adapt_input=adapt_input,
        class_order=class_order,
    )
