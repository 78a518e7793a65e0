"""95 % intervals of what is measured: how far a figure may be off because these images were drawn and not others.

Shares of images, and what follows from one share, have Wilson's interval, which holds for few images and for no error
at all; that of a mean of shares takes as many images as would have the same variance (Korn and Graubard 1998). All else
is resampled: each image counts a random number of times (a Poisson bootstrap, percentiles of up to 1,000 draws).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.evaluation.metrics.pixels import boundary_f1
from regraft.wording import is_number, wilson_interval

__all__ = ["FEWEST", "label_intervals", "mask_intervals", "mean_interval", "mean_of_shares_interval", "resampled"]

Floats = npt.NDArray[np.float64]
Interval = list[float]

FEWEST = 10  # images; of fewer, resampling draws the same few again and again
_MOST_DRAWS, _FEWEST_DRAWS = 1000, 200
_MOST_NUMBERS = 20_000_000
_AT_ONCE = 50  # draws
_SEED = 95
_SMALLEST = float(np.finfo(np.float32).tiny)
_SHARES = ("top1", "top5", "exact")


def label_intervals(
    output: str, measures: Mapping[str, Any], probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> dict[str, Any]:
    """Return the metrics of labelled images with their intervals.

    Args:
        output: `softmax`, `binary` or `multilabel`.
        measures: What its metrics gave.
        probabilities: (N, C), that they were computed from.
        labels: (N,) class numbers, or (N, C) of 0 and 1.

    Returns:
        The measures; `intervals` has [low, high] by their names, and so has each row of `per_class`.
    """
    num = len(labels)
    found: dict[str, Any] = {
        key: list(wilson_interval(float(measures[key]), num)) for key in _SHARES if is_number(measures.get(key))
    }
    rows = [dict(row) for row in measures["per_class"]]
    if "confusion" in measures:
        counts = np.array(measures["confusion"], np.int64)
        found["balanced_accuracy"] = mean_of_shares_interval(counts.diagonal(), counts.sum(1))
        named: Sequence[int] = counts.sum(0).tolist()
    else:
        named = [int(row["predicted"]) for row in rows]
    for row, predicted in zip(rows, named, strict=True):
        row["intervals"] = _of_class(row, predicted)
    if num >= FEWEST:
        found |= _drawn(output, measures, rows, probabilities.astype(np.float64), labels)
    return {**measures, "intervals": found, "per_class": rows}


def mask_intervals(
    measures: Mapping[str, Any],
    hits: Floats,
    support: Floats,
    named: Floats,
    nats: Floats | None = None,
    boundaries: Floats | None = None,
) -> dict[str, Any]:
    """Return the metrics of masks with their intervals, over the images.

    Args:
        measures: What the metrics of masks gave.
        hits: (images, C), pixels that are right.
        support: (images, C), pixels that are of the class.
        named: (images, C), pixels that are called so.
        nats: (images,), what the pixels of each cost together; None gives the loss no interval.
        boundaries: (images, 2, 2, C), counts of boundary pixels; None gives boundary F1 no interval.
    """
    rows = [dict(row) for row in measures["per_class"]]
    if len(hits) < FEWEST:
        return dict(measures)

    costs = np.full(len(hits), math.nan) if nats is None else nats
    edges = np.zeros((len(hits), 2, 2, hits.shape[1])) if boundaries is None else boundaries

    def shares(weights: Floats) -> Floats:
        right, there, said = weights @ hits, weights @ support, weights @ named
        with np.errstate(divide="ignore", invalid="ignore"):
            overlap, recall, precision = right / (there + said - right), right / there, right / said
            pixels, loss = right.sum(1) / there.sum(1), weights @ costs / there.sum(1)
        near = boundary_f1((weights @ edges.reshape(len(hits), -1)).reshape(len(weights), *edges.shape[1:]))
        means = [_mean_defined(overlap), pixels, _mean_defined(recall), loss, _mean_defined(near)]
        return np.concatenate([np.stack(means, 1), overlap, recall, precision, near], 1)

    limits = resampled(len(hits), shares, 8 * hits.shape[1])
    names = ("miou", "pixel_accuracy", "class_accuracy", "loss", "boundary_f1")
    of_class, num = ("iou", "recall", "precision", "boundary_f1"), len(rows)
    for place, row in enumerate(rows):
        own = zip(of_class, limits[len(names) + place :: num], strict=True)
        row["intervals"] = {key: limit for key, limit in own if limit and is_number(row.get(key))}
    found = {key: limit for key, limit in zip(names, limits, strict=False) if limit and is_number(measures.get(key))}
    return {**measures, "intervals": found, "per_class": rows}


def mean_of_shares_interval(hits: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> Interval:
    """Return the interval of the mean of several shares, each of images of its own.

    A share of few images is drawn towards that of all before its variance is taken: two right ones of two prove little.

    Args:
        hits: (C,), how many are right.
        sizes: (C,), of how many; those of none do not count.
    """
    hits, sizes = hits[sizes > 0].astype(np.float64), sizes[sizes > 0].astype(np.float64)
    mean, all_together = float((hits / sizes).mean()), float(hits.sum() / sizes.sum())
    drawn = (hits + 2 * all_together) / (sizes + 2)
    variance, unit = float((drawn * (1 - drawn) / sizes).sum()), float((1 / sizes).sum())
    spread = mean * (1 - mean)
    num = spread * len(sizes) ** 2 / variance if variance > 0 and spread > 0 else len(sizes) ** 2 / unit
    return list(wilson_interval(mean, max(1.0, num)))


def resampled(num: int, statistic: Callable[[Floats], Floats], width: int = 1) -> list[Interval | None]:
    """Return the interval of each of several statistics over images that count a random number of times.

    Args:
        num: Images.
        statistic: Weights (draws, num) -> values (draws, statistics); NaN where one is not defined.
        width: Numbers that a draw of one image takes, by which the draws are fewer.
    """
    draws = min(_MOST_DRAWS, max(_FEWEST_DRAWS, _MOST_NUMBERS // max(1, num * width)))
    values = np.concatenate([statistic(weights) for weights in _weights(num, draws)])
    limits: list[Interval | None] = []
    for column in values.T:
        defined = column[np.isfinite(column)]
        limits.append(np.quantile(defined, (0.025, 0.975)).tolist() if len(defined) >= draws / 2 else None)
    return limits


def mean_interval(values: Floats) -> tuple[float, float]:
    """Return the interval of the mean of numbers, one for each image, by resampling."""
    (limits,) = resampled(len(values), lambda weights: _means(weights, values))
    low, high = limits or (float(values.mean()),) * 2
    return low, high


def _weights(num: int, draws: int) -> Iterator[Floats]:
    for start in range(0, draws, _AT_ONCE):
        noise = np.random.default_rng([_SEED, start])
        yield noise.poisson(1.0, (min(_AT_ONCE, draws - start), num)).astype(np.float64)


def _of_class(row: Mapping[str, Any], predicted: int) -> dict[str, Interval]:
    """Return the intervals of a class's recall, precision and F1, from its counts.

    F1 = 2 J / (1 + J), where J is the share of hits among all images that are of the class or are called so.
    """
    support, recall = int(row["support"]), row.get("recall")
    hits = round(support * float(recall)) if recall is not None else 0
    found = {}
    if support:
        found["recall"] = list(wilson_interval(hits / support, support))
    if predicted:
        found["precision"] = list(wilson_interval(hits / predicted, predicted))
    together = support + predicted - hits
    if together:
        found["f1"] = [2 * limit / (1 + limit) for limit in wilson_interval(hits / together, together)]
    return found


def _drawn(
    output: str,
    measures: Mapping[str, Any],
    rows: Sequence[dict[str, Any]],
    probabilities: Floats,
    labels: npt.NDArray[np.integer],
) -> dict[str, Interval]:
    """Return the intervals that are resampled; those of labels' average precisions go to their rows."""
    if output == "softmax":
        own = np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST)
        return _named(measures, ("loss",), resampled(len(labels), lambda weights: _means(weights, -np.log(own))))
    positive = (labels == 1)[:, None] if output == "binary" else labels != 0
    scores = probabilities[:, 1:] if output == "binary" else probabilities
    nats = -np.log(np.maximum(np.where(positive, scores, 1 - scores), _SMALLEST)).mean(1)
    ranked = [_Ranked(scores[:, place], positive[:, place]) for place in range(scores.shape[1])]
    if output == "binary":
        limits = resampled(
            len(labels), lambda weights: np.concatenate([_means(weights, nats), ranked[0].areas(weights)], 1), 4
        )
        return _named(measures, ("loss", "auc", "ap"), limits)
    limit = np.array([float(row["threshold"]) for row in rows])
    called = scores >= limit

    def statistics(weights: Floats) -> Floats:
        precisions = np.stack([each.areas(weights)[:, 1] for each in ranked], 1)
        hits, sizes = weights @ (called & positive), weights @ (called.astype(np.int64) + positive)
        with np.errstate(divide="ignore", invalid="ignore"):
            micro, each_f1 = 2 * hits.sum(1) / sizes.sum(1), 2 * hits / sizes
        means = np.stack([_mean_defined(precisions), micro, _mean_defined(each_f1)], 1)
        return np.concatenate([_means(weights, nats), means, precisions], 1)

    limits = resampled(len(labels), statistics, 4 * len(rows))
    for row, found in zip(rows, limits[4:], strict=True):
        if found and is_number(row.get("ap")):
            row["intervals"]["ap"] = found
    return _named(measures, ("loss", "map", "f1_micro", "f1_macro"), limits)


def _named(measures: Mapping[str, Any], names: Sequence[str], limits: Sequence[Interval | None]) -> dict[str, Interval]:
    pairs = zip(names, limits, strict=False)
    return {name: limit for name, limit in pairs if limit is not None and is_number(measures.get(name))}


def _means(weights: Floats, values: Floats) -> Floats:
    """Return the weighted means (draws, 1)."""
    means: Floats = (weights @ values / np.maximum(weights.sum(1), 1))[:, None]
    return means


def _mean_defined(values: Floats) -> Floats:
    """Return the mean over the columns that are defined; NaN where none is."""
    defined = np.isfinite(values)
    total = np.where(defined, values, 0.0).sum(1)
    return np.where(defined.any(1), total / np.maximum(defined.sum(1), 1), math.nan)


class _Ranked:
    """Scores in falling order, with equal ones together, whose areas are computed for many weights at once."""

    def __init__(self, scores: Floats, positive: npt.NDArray[np.bool_]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        falling = scores[self._order]
        self._first = np.flatnonzero(np.append(True, np.diff(falling) != 0))
        self._positive = positive[self._order]

    def areas(self, weights: Floats) -> Floats:
        """Return ROC-AUC and average precision (draws, 2) by weights (draws, N)."""
        ordered = weights[:, self._order]
        hits = np.add.reduceat(ordered * self._positive, self._first, axis=1)
        false = np.add.reduceat(ordered * ~self._positive, self._first, axis=1)
        all_hits, all_false = hits.cumsum(1), false.cumsum(1)
        num_hits, num_false = all_hits[:, -1], all_false[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            area = (false * (all_hits - hits / 2)).sum(1) / (num_hits * num_false)
            precision = np.nan_to_num(all_hits / (all_hits + all_false))
            average = (hits * precision).sum(1) / num_hits
        return np.stack([area, average], 1)
