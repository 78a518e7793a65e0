"""How good predictions of two classes by one logit are: at the stored threshold, at 0.5, and at all thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.evaluation.metrics.metrics import classification_metrics
from regraft.evaluation.metrics.scores import Cuts, average_precision, cuts, roc_auc
from regraft.models.describe.outputs import DEFAULT_THRESHOLD

__all__ = ["binary_metrics"]

_MOST_POINTS = 200  # of a curve; more are not seen in a chart


def binary_metrics(
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    class_names: Sequence[str],
    thresholds: Mapping[str, float],
) -> dict[str, Any]:
    """Return the metrics of a binary classifier, as plain numbers ready for JSON.

    Args:
        probabilities: Shape (N, 2), rows summing to 1.
        labels: Shape (N,), 0 and 1.
        class_names: The two names; the second is the positive class.
        thresholds: From which probability on the positive class is named.

    Returns:
        What `classification_metrics` gives for the names by threshold, and `positive`; `threshold`; `at_default`
        (`top1` and `balanced_accuracy` with the threshold 0.5); `auc` and `ap` (None where only one class occurs);
        `roc`, points [false positive rate, true positive rate]; `precision_recall`, points [recall, precision];
        `notes`, sentences on what is not defined.

    Raises:
        DataError: When there are no images, or shapes, labels or probabilities do not fit.
    """
    positive = class_names[1]
    threshold = thresholds.get(positive, DEFAULT_THRESHOLD)
    named = (probabilities[:, 1] >= threshold).astype(np.int64)
    measures = classification_metrics(probabilities, labels, class_names, named=named)
    at_half = (probabilities[:, 1] >= DEFAULT_THRESHOLD).astype(np.int64)
    at_default = classification_metrics(probabilities, labels, class_names, named=at_half)
    scores, is_positive = probabilities[:, 1], labels == 1
    one_kind = is_positive.all() or not is_positive.any()
    return {
        **measures,
        "positive": positive,
        "threshold": threshold,
        "at_default": {key: at_default[key] for key in ("top1", "balanced_accuracy")},
        "auc": _defined(roc_auc(scores, is_positive)),
        "ap": None if one_kind else _defined(average_precision(scores, is_positive)),
        **({} if one_kind else _curves(cuts(scores, is_positive))),
        "notes": [_one_kind_note(class_names[int(labels[0])])] if one_kind else [],
    }


def _one_kind_note(name: str) -> str:
    return f"All images are {name!r}, so there is no ROC-AUC and no average precision."


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _curves(cut: Cuts) -> dict[str, list[list[float]]]:
    """Return points of both curves, thinned evenly over the cuts; the ROC from corner to corner."""
    shown = np.unique(np.linspace(0, len(cut.hits) - 1, _MOST_POINTS).round().astype(np.int64))
    hits, false = cut.hits[shown], cut.false[shown]
    recall = hits / cut.num_positive
    roc = np.stack([np.append(0.0, false / cut.num_negative), np.append(0.0, recall)], 1)
    return {
        "roc": roc.round(6).tolist(),
        "precision_recall": np.stack([recall, hits / (hits + false)], 1).round(6).tolist(),
    }
