"""The frozen part of a network, as the programs that run it."""

from __future__ import annotations

import copy
from functools import cached_property

from torch import Tensor, nn

from regraft.compute.numerics import Numerics
from regraft.compute.program import InferenceProgram, SplitProgram, prefix_key, program_batch_size
from regraft.training.features.feature_store import as_stored

__all__ = ["FrozenPart", "evaluation_batch", "program_batch"]

_EVALUATION_BATCH = 64
_MAP_BATCH = 8  # of images whose every pixel gets a class: their maps are large


def program_batch(numerics: Numerics, *, has_masks: bool) -> int:
    """Return the batch size of a frozen part; a smaller one where every pixel gets a class."""
    size = program_batch_size(numerics)
    return min(size, _MAP_BATCH) if has_masks else size


def evaluation_batch(*, has_masks: bool) -> int:
    """Return the batch size of a split that is evaluated."""
    return _MAP_BATCH if has_masks else _EVALUATION_BATCH


class FrozenPart:
    """What a stage does not train, from the image on: a program for each precision. It may be empty.

    Training images pass it in the precision of training, validation images in that of inference.

    Args:
        model: The whole model.
        program: The model, cut where its frozen part ends.
        numerics: What to compute with.
        has_masks: Whether every pixel gets a class.

    Attributes:
        boundary: Where it ends, as names of nodes in the model's graph.
        batch_size: Images that its programs take at a time.
    """

    def __init__(self, model: nn.Module, program: SplitProgram, numerics: Numerics, *, has_masks: bool) -> None:
        self.model, self.boundary = model, program.boundary
        self.batch_size = program_batch(numerics, has_masks=has_masks)
        self._prefix, self._numerics = program.prefix, numerics
        self._programs: dict[Numerics, InferenceProgram] = {}

    @property
    def is_empty(self) -> bool:
        return self._prefix is None

    @cached_property
    def key(self) -> str:
        """A hash of its graph and its weights; nothing where it is empty."""
        return "" if self._prefix is None else prefix_key(self._prefix)

    def numerics_of(self, split: str) -> Numerics:
        """Return the precision and layout that a split's images are computed in."""
        return self._numerics if split == "train" else self._numerics.for_inference

    def program(self, split: str) -> InferenceProgram | None:
        """Return the frozen part as an inference program for a split; None where nothing is frozen."""
        numerics = self.numerics_of(split)
        if self._prefix is not None and numerics not in self._programs:
            self._programs[numerics] = InferenceProgram(copy.deepcopy(self._prefix), numerics, self.batch_size)
        return self._programs.get(numerics)

    def __call__(self, split: str, inputs_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the features of network inputs, laid out as kept ones are; the inputs themselves where it is empty."""
        program = self.program(split)
        return (inputs_NCHW,) if program is None else as_stored(program(inputs_NCHW))
