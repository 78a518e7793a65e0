"""How good predictions are: loss, accuracies, the confusion matrix and what follows from it for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import DataError
from regraft.wording import quantity

__all__ = ["classification_metrics", "confusion_matrix"]

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

_TOP_K = 5
# The smallest normal float32: a probability that a softmax rounded to 0 costs 87 nats, not infinity.
_SMALLEST = float(np.finfo(np.float32).tiny)


def classification_metrics(
    probabilities: Floats, labels: Ints, class_names: Sequence[str], *, named: Ints | None = None
) -> dict[str, Any]:
    """Return the metrics of a single-label classifier, as plain numbers ready for JSON.

    Args:
        probabilities: Shape (N, C), rows summing to 1.
        labels: Shape (N,), the true classes as positions in `class_names`.
        class_names: The C names.
        named: Shape (N,), the classes that are named; None names the most probable ones.

    Returns:
        `num_images`; `loss` (mean negative log-likelihood in nats); `top1`; `top5` (None where C <= 5, as every guess
        would count); `balanced_accuracy` (mean recall of the classes that occur); `per_class`, a list of dicts with
        `name`, `precision`, `recall`, `f1` (0 where nothing can be divided, as in scikit-learn) and `support`;
        `confusion`, C lists of C counts, rows are the truth; `class_names`.

    Raises:
        DataError: When there are no images, or shapes, labels or probabilities do not fit.
    """
    _check(probabilities, labels, class_names)
    num_images, num_classes = probabilities.shape
    named = probabilities.argmax(1) if named is None else named
    counts = confusion_matrix(labels, named, num_classes)
    recalls = _divide(counts.diagonal(), counts.sum(1))
    likelihoods = np.maximum(probabilities[np.arange(num_images), labels].astype(np.float64), _SMALLEST)
    return {
        "num_images": num_images,
        "loss": float(-np.log(likelihoods).mean()),
        "top1": float((named == labels).mean()),
        "top5": float((_ranks(probabilities, labels) < _TOP_K).mean()) if num_classes > _TOP_K else None,
        "balanced_accuracy": float(recalls[counts.sum(1) > 0].mean()),
        "per_class": _per_class(counts, recalls, class_names),
        "confusion": counts.tolist(),
        "class_names": list(class_names),
    }


def confusion_matrix(labels: Ints, predictions: Ints, num_classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix, int64 of shape (C, C): rows are the truth, columns the prediction."""
    pairs = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def _check(probabilities: Floats, labels: Ints, class_names: Sequence[str]) -> None:
    wrong = []
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        wrong.append(
            f"probabilities have the shape {probabilities.shape}, with {quantity(len(class_names), 'class name')}"
        )
    elif not np.isfinite(probabilities).all() or (probabilities < 0).any():
        bad = (~np.isfinite(probabilities) | (probabilities < 0)).any(1)
        wrong.append(f"rows that hold no probabilities: {int(bad.sum())}")
    if labels.shape != probabilities.shape[:1]:
        wrong.append(
            f"labels have the shape {labels.shape}, with {quantity(len(probabilities), 'row')} of probabilities"
        )
    elif labels.size == 0:
        wrong.append("there is not one image with a label")
    elif labels.min() < 0 or labels.max() >= len(class_names):
        wrong.append(
            f"labels go from {labels.min()} to {labels.max()}, with {quantity(len(class_names), 'class name')}"
        )
    if wrong:
        raise DataError(
            "These predictions cannot be measured.",
            "probabilities have the shape (images, classes), labels are positions in the class names",
            "evaluate labelled images with a model that knows their classes",
            details=wrong,
        )


def _ranks(probabilities: Floats, labels: Ints) -> npt.NDArray[np.int64]:
    """Return the rank of the true class from 0 (most probable); ties go to the lower class number, as in argmax."""
    true = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1])[None] < labels[:, None]
    before = (probabilities > true) | ((probabilities == true) & earlier)
    ranks: npt.NDArray[np.int64] = before.sum(1, dtype=np.int64)
    return ranks


def _per_class(counts: npt.NDArray[np.int64], recalls: Floats, class_names: Sequence[str]) -> list[dict[str, Any]]:
    hits, predicted, support = counts.diagonal(), counts.sum(0), counts.sum(1)
    precisions, f1 = _divide(hits, predicted), _divide(2 * hits, predicted + support)
    return [
        {
            "name": name,
            "precision": float(precisions[i]),
            "recall": float(recalls[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(class_names)
    ]


def _divide(numerator: Ints, denominator: Ints) -> npt.NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator != 0)
