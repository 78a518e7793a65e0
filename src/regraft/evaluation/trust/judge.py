"""Judges predictions by what a network keeps of its validation images: sets of classes, images of no known kind."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from regraft.errors import SettingsError
from regraft.evaluation.trust.conformal import candidates, score_limit
from regraft.evaluation.trust.novelty import lowered, strangeness
from regraft.models.describe.info import ModelInfo
from regraft.models.describe.trust import Detector

__all__ = ["Judge", "Verdict"]


class Verdict(NamedTuple):
    """What is said of one image beside its probabilities.

    Attributes:
        candidates: Positions of the classes in its set, the most probable first; None where none was asked for.
        typicality: The share of validation images that look at least as strange; None where that was not asked for.
    """

    candidates: tuple[int, ...] | None
    typicality: float | None


class Judge:
    """What was asked for, ready for many images.

    Args:
        info: Of the network.
        sets: The share of images whose set is to hold the true class; None makes no sets.
        reject: Whether images of no known kind are to be told.
        scores: What sets are limited by; None takes what the network keeps.

    Raises:
        SettingsError: The network does not keep what that takes.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        sets: float | None,
        reject: bool,
        scores: npt.NDArray[np.floating] | None = None,
    ) -> None:
        trust = info.trust
        self._limit: float | None = None
        self.detector: Detector | None = None
        if sets is not None:
            if scores is None:
                if trust is None or trust.nonconformity is None:
                    raise _not_kept("--sets", info, "sets")
                scores = trust.nonconformity.numpy()
            self._limit = score_limit(scores, sets)
        if reject:
            if trust is None or trust.detector is None:
                raise _not_kept("--reject", info, "reject")
            self.detector = trust.detector

    def __call__(
        self,
        probabilities: npt.NDArray[np.floating],
        logits: npt.NDArray[np.float32],
        features: npt.NDArray[np.float32] | None,
    ) -> list[Verdict]:
        """Return what is said of each image of a batch.

        Args:
            probabilities: (N, C).
            logits: (N, num_logits), raw.
            features: (N, d); None where the pass gives none.
        """
        sets = [None if self._limit is None else tuple(candidates(row, self._limit)) for row in probabilities]
        if self.detector is None:
            return [Verdict(own, None) for own in sets]
        given = None if features is None else torch.from_numpy(features)
        scores = lowered(strangeness(self.detector, given, torch.from_numpy(logits))).numpy()
        typical = self.detector.typical.numpy()
        stranger = len(typical) - np.searchsorted(typical, scores, side="left")
        shares = (1 + stranger) / (1 + len(typical))
        return [Verdict(own, float(share)) for own, share in zip(sets, shares, strict=True)]


def _not_kept(option: str, info: ModelInfo, what: str) -> SettingsError:
    reason = "" if info.trust is None else info.trust.notes.get(what, "")
    return SettingsError(
        f"{option} was asked for, and this model keeps nothing to judge images by"
        + (f": {reason}." if reason else " (it was written by an older version, or had few validation images)."),
        "a model that regraft has trained, with at least 20 validation images",
        "" if reason else "train again, or leave the option out",
    )
