"""What a table of predictions says beside its metrics: how far its probabilities can be believed."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from regraft.evaluation.trust.reliability import reliability
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.outputs import probabilities as probabilities_of

__all__ = ["Calibrated", "calibration_account"]

_POINTS = 20


class Calibrated(Protocol):
    """What predicts: the kind of its output, and what its logits are divided by."""

    output: str
    calibration: Calibration | None


def calibration_account(
    predictor: Calibrated,
    logits: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
) -> dict[str, Any]:
    """Return the reliability of probabilities, and that of the raw logits where they were calibrated.

    Args:
        predictor: What they come from.
        logits: (N, views, num_logits), raw.
        probabilities: (N, C), as they are told.
        labels: (N,) class numbers, or (N, C) of 0 and 1.

    Returns:
        `told` (`reliability` of the probabilities); of one class for each image `risk_coverage`, points [share that is
        answered, share of these that is wrong] where the surest are answered first; where the network is calibrated
        also `raw`, `temperatures` and `num_images`, those that they were fitted on.
    """
    told: dict[str, Any] = {"told": reliability(predictor.output, probabilities, labels)}
    if labels.ndim == 1:
        told["risk_coverage"] = _risk_coverage(probabilities, labels)
    if predictor.calibration is None:
        return told
    views = torch.from_numpy(logits).transpose(0, 1)
    raw = torch.stack([probabilities_of(predictor.output, view) for view in views]).mean(0).numpy()
    return {**told, "raw": reliability(predictor.output, raw, labels), **predictor.calibration.to_dict()}


def _risk_coverage(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> list[list[float]]:
    """Return the points of the curve at even shares of the images; equal confidences are never told apart."""
    confidence, wrong = probabilities.max(1), probabilities.argmax(1) != labels
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    shown = np.unique(np.searchsorted(ends + 1, np.linspace(0.05, 1, _POINTS) * len(labels), side="left"))
    places = ends[np.minimum(shown, len(ends) - 1)]
    risks = wrong[order].cumsum()[places] / (places + 1)
    points: list[list[float]] = np.stack([(places + 1) / len(labels), risks], 1).round(6).tolist()
    return points
