"""Nearest neighbours among features, without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["near_features", "similarity"]

Values = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_MOST_COMPARED = 4096  # rows that are compared with each other, all with all
_PER_CELL = 512  # rows of a cell, about, where there are more
_NUM_CELLS = 2  # that each row is in: neighbours on both sides of a border meet in one of them
_WIDTH = 128  # of the directions in which cells are searched
_SAMPLE = 8192  # rows that directions and cells are found from
_ROUNDS = 4
_CHUNK = 2048


def near_features(features: Values, *, most: int, least: float, seed: int = 0) -> Rows:
    """Return pairs of rows, (pairs, 2), where one is among the nearest neighbours of the other.

    Where there are many, rows are put into cells around centres (Jegou, Douze and Schmid, "Product quantization for
    nearest neighbor search", TPAMI 2011, section IV: an inverted file), each into the nearest two, and compared within
    these.

    Args:
        features: (rows, D).
        most: How many neighbours of each row to take.
        least: The least cosine of a pair.
        seed: Of the centres.
    """
    if len(features) < 2:
        return np.empty((0, 2), dtype=np.int64)
    found = [np.empty((0, 2), dtype=np.int64)]
    if len(features) <= _MOST_COMPARED:
        found.append(_within(features, np.arange(len(features)), most, least))
    else:
        narrow = _narrowed(features, np.random.default_rng(seed))
        for rows in _cells(narrow, np.random.default_rng(seed)):
            found.append(_within(features, rows, most, least))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def similarity(features: Values, pairs: Rows) -> Values:
    """Return the cosine of each pair of rows."""
    found = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), _CHUNK):
        one, two = pairs[start : start + _CHUNK].T
        found[start : start + _CHUNK] = np.einsum("nd,nd->n", _unit(features[one]), _unit(features[two]))
    return found


def _narrowed(features: Values, rng: np.random.Generator) -> Values:
    """Return the features along the directions in which they vary most, at most 128 of them, of unit length."""
    sample = _unit(features[rng.choice(len(features), min(_SAMPLE, len(features)), replace=False)])
    centre = sample.mean(0)
    width = min(_WIDTH, features.shape[1])
    _, directions = np.linalg.eigh((sample - centre).T @ (sample - centre))
    directions = directions[:, -width:].astype(np.float32)
    narrow = np.empty((len(features), width), dtype=np.float32)
    for start in range(0, len(features), _CHUNK):
        narrow[start : start + _CHUNK] = (_unit(features[start : start + _CHUNK]) - centre) @ directions
    return _unit(narrow)


def _cells(narrow: Values, rng: np.random.Generator) -> Iterator[Rows]:
    """Yield the rows of each cell, of at most `_MOST_COMPARED`."""
    num = max(2, _NUM_CELLS * len(narrow) // _PER_CELL)
    sample = narrow[rng.choice(len(narrow), min(_SAMPLE, len(narrow)), replace=False)]
    centres = sample[:num].copy()
    for _ in range(_ROUNDS):
        cell = (sample @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, cell, sample)
        centres = np.where(sums.any(1, keepdims=True), sums, centres)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    nearest = np.empty((len(narrow), _NUM_CELLS), dtype=np.int64)
    for start in range(0, len(narrow), _CHUNK):
        near = narrow[start : start + _CHUNK] @ centres.T
        nearest[start : start + _CHUNK] = np.argpartition(-near, _NUM_CELLS - 1, axis=1)[:, :_NUM_CELLS]
    order = np.argsort(nearest.ravel(), kind="stable")
    bounds = np.flatnonzero(np.diff(nearest.ravel()[order])) + 1
    for rows in np.split(order // _NUM_CELLS, bounds):
        for start in range(0, len(rows), _MOST_COMPARED):  # more only where very many are alike
            yield rows[start : start + _MOST_COMPARED]


def _within(features: Values, rows: Rows, most: int, least: float) -> Rows:
    """Return the pairs among these rows, all compared with all."""
    of_rows, found = _unit(features[rows]), []
    take = min(most, len(rows) - 1)
    for start in range(0, len(rows) if take > 0 else 0, _CHUNK // 2):
        near = of_rows[start : start + _CHUNK // 2] @ of_rows.T
        near[np.arange(len(near)), start + np.arange(len(near))] = -2  # itself
        best = np.argpartition(-near, take - 1, axis=1)[:, :take]
        one, at = np.nonzero(np.take_along_axis(near, best, 1) >= least)
        found.append(np.stack([rows[start + one], rows[best[one, at]]], axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _unit(features: Values) -> Values:
    """Return rows of unit length."""
    values = features.astype(np.float32, copy=False)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), dtype=np.float32)
