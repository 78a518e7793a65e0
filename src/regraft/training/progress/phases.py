"""The parts of a run's work that differ in speed, and what an image costs in each before that is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from regraft.plan.length import Length
from regraft.settings.stage import Stage

__all__ = ["DECODING", "Costs", "Kind", "Phase", "Work", "passes_of"]

Kind = Literal["decode", "features", "train", "validate"]
_FORWARD, _BACKWARD = 1.0, 2.0  # gradients are computed of weights and of inputs
_TRAINED: Mapping[tuple[str, ...], float] = {("head",): 0.0, ("all",): 1.0}
_PARTLY = 0.5  # of the network that trains, where it is neither the head nor all
_LEAST = 0.02  # of a head on kept features


class Phase(NamedTuple):
    """One kind of work in one stage.

    Attributes:
        stage: The stage's name; empty outside of all stages.
        kind: What its images go through.
    """

    stage: str
    kind: Kind


DECODING = Phase("", "decode")


class Work(NamedTuple):
    """How much there is to do in a phase.

    Attributes:
        units: Images, each by its size relative to the run's.
        cost: Of a unit, relative to a forward pass.
    """

    units: float
    cost: float


class Costs(NamedTuple):
    """What an image costs in a stage, relative to a forward pass of the whole network.

    Attributes:
        features: Of the frozen part alone, once, where its features are kept; 0 where there is none.
        train: A training step.
        validate: Of an image of validation.
        keeps_train: Whether the features of training images are kept.
    """

    features: float
    train: float
    validate: float
    keeps_train: bool

    @classmethod
    def of(cls, stage: Stage, length: Length, feature_cache: str | int) -> Costs:
        """Return the costs of a stage by what it trains: its head, all layers, or something between."""
        trained = _TRAINED.get(stage.selectors, _PARTLY)
        frozen = _FORWARD * (1 - trained)
        keeps = feature_cache != "off" and frozen > 0
        keeps_train = keeps and passes_of(stage, length, feature_cache) == 1
        train = (_FORWARD + _BACKWARD) * trained + (0.0 if keeps_train else frozen)
        validate = _FORWARD * trained + (0.0 if keeps else frozen)
        return cls(frozen if keeps else 0.0, max(train, _LEAST), max(validate, _LEAST), keeps_train)


def passes_of(stage: Stage, length: Length, feature_cache: str | int) -> int:
    """Return the number of times each training image passes the frozen part; an empty frozen part costs nothing."""
    varies = (stage.augment is not None and not stage.augment.is_identity) or stage.mixes
    if feature_cache == "off" or (varies and (stage.mixes or feature_cache == "auto")):
        return length.epochs
    return min(int(feature_cache), length.epochs) if varies else 1
