"""What a delivered network keeps of its validation images: how wrong it was on them, and how strange they looked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Detector", "Trust"]


@dataclass(frozen=True, eq=False)
class Detector:
    """Tells images of no known kind from others, by features and logits of the same pass.

    Attributes:
        kind: How its score is computed, a key of `regraft.evaluation.trust.novelty.KINDS`.
        tensors: What it is computed from.
        typical: The scores of validation images, ascending; larger is stranger.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    typical: Tensor


@dataclass(frozen=True, eq=False)
class Trust:
    """What predictions are judged by.

    Attributes:
        nonconformity: 1 - the probability of the true class of each validation image, ascending; None for labels.
        detector: None where it could not be fitted.
        notes: What cannot be said, by what was asked for, with the reason.
    """

    nonconformity: Tensor | None
    detector: Detector | None
    notes: Mapping[str, str] = field(default_factory=dict)
