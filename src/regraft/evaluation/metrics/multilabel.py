"""How good predictions of any number of labels are: each label by itself, all together, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import DataError
from regraft.evaluation.metrics.scores import average_precision
from regraft.models.describe.outputs import DEFAULT_THRESHOLD
from regraft.wording import quantity

__all__ = ["multilabel_metrics"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
_SMALLEST = float(np.finfo(np.float32).tiny)
_MOST_NAMED = 10


def multilabel_metrics(
    probabilities: Floats, labels: npt.NDArray[np.integer], class_names: Sequence[str], thresholds: Mapping[str, float]
) -> dict[str, Any]:
    """Return the metrics of a multi-label classifier, as plain numbers ready for JSON.

    What cannot be divided is None and not in any mean: the recall of a label that no image has, the precision of one
    that is never named, the F1 of one that is neither.

    Args:
        probabilities: Shape (N, C), each from 0 to 1.
        labels: Shape (N, C), 1 where the image has the label.
        class_names: The C names.
        thresholds: From which probability on a label is named.

    Returns:
        `num_images`; `loss` (mean negative log-likelihood over images and labels, in nats); `map` (mean of the average
        precisions of the labels that occur); `f1_micro`, `f1_macro`, `exact` (share of images whose labels are all
        right), with `at_default` the same three for thresholds of 0.5; `per_class`, a list of dicts with `name`,
        `threshold`, `ap`, `precision`, `recall`, `f1`, `support` and `predicted`; `class_names`; `notes`, sentences on
        what is not defined.

    Raises:
        DataError: When there are no images, or shapes or probabilities do not fit.
    """
    _check(probabilities, labels, class_names)
    positive = labels != 0
    limits = np.array([thresholds.get(name, DEFAULT_THRESHOLD) for name in class_names])
    named = probabilities >= limits
    precisions = [_average_precision(probabilities[:, place], positive[:, place]) for place in range(len(class_names))]
    return {
        "num_images": len(labels),
        "loss": _loss(probabilities, positive),
        "map": _mean(precisions),
        **_together(named, positive),
        "at_default": _together(probabilities >= DEFAULT_THRESHOLD, positive),
        "per_class": _per_class(named, positive, precisions, limits, class_names),
        "class_names": list(class_names),
        "notes": [*_notes(positive, class_names), *_kept_notes(thresholds, class_names)],
    }


def _check(probabilities: Floats, labels: npt.NDArray[np.integer], class_names: Sequence[str]) -> None:
    wrong = []
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        wrong.append(f"probabilities have the shape {probabilities.shape}, with {quantity(len(class_names), 'label')}")
    elif not (np.isfinite(probabilities).all() and (probabilities >= 0).all() and (probabilities <= 1).all()):
        wrong.append("there are rows that hold no probabilities")
    if labels.shape != probabilities.shape:
        wrong.append(f"labels have the shape {labels.shape}, probabilities {probabilities.shape}")
    elif not len(labels):
        wrong.append("there is not one image")
    if wrong:
        raise DataError(
            "These predictions cannot be measured.",
            "probabilities and labels have the shape (images, labels)",
            "evaluate labelled images with a model that knows their labels",
            details=wrong,
        )


def _average_precision(scores: Floats, positive: Bools) -> float | None:
    return average_precision(scores, positive) if positive.any() else None


def _loss(probabilities: Floats, positive: Bools) -> float:
    wide = probabilities.astype(np.float64)
    return float(-np.log(np.maximum(np.where(positive, wide, 1 - wide), _SMALLEST)).mean())


def _together(named: Bools, positive: Bools) -> dict[str, float | None]:
    hits, sizes = (named & positive).sum(0), named.sum(0) + positive.sum(0)
    return {
        "f1_micro": _divide(2 * int(hits.sum()), int(sizes.sum())),
        "f1_macro": _mean([_divide(2 * int(hit), int(size)) for hit, size in zip(hits, sizes, strict=True)]),
        "exact": float((named == positive).all(1).mean()),
    }


def _per_class(
    named: Bools, positive: Bools, precisions: Sequence[float | None], limits: Floats, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    hits, predicted, support = (counts.sum(0).tolist() for counts in (named & positive, named, positive))
    return [
        {
            "name": name,
            "threshold": float(limits[i]),
            "ap": precisions[i],
            "precision": _divide(hits[i], predicted[i]),
            "recall": _divide(hits[i], support[i]),
            "f1": _divide(2 * hits[i], predicted[i] + support[i]),
            "support": support[i],
            "predicted": predicted[i],
        }
        for i, name in enumerate(class_names)
    ]


def _notes(positive: Bools, class_names: Sequence[str]) -> list[str]:
    never = [name for name, occurs in zip(class_names, positive.sum(0).tolist(), strict=True) if not occurs]
    if not never:
        return []
    shown = ", ".join(map(repr, never[:_MOST_NAMED])) + (", ..." if len(never) > _MOST_NAMED else "")
    return [f"Labels that no image here has ({len(never)}): {shown}; they are in no mean average precision."]


def _kept_notes(thresholds: Mapping[str, float], class_names: Sequence[str]) -> list[str]:
    """Return a note that lists the labels that kept the default threshold; empty where there are none."""
    kept = [name for name in class_names if thresholds.get(name) == DEFAULT_THRESHOLD]
    if not kept:
        return []
    shown = ", ".join(map(repr, kept[:_MOST_NAMED])) + (", ..." if len(kept) > _MOST_NAMED else "")
    return [
        f"The threshold 0.5 is kept for {len(kept)} of {len(class_names)} labels: {shown}; in validation no other was "
        "better by more than its error, or there were too few images."
    ]


def _divide(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
