"""Groups of images that are copies of each other, exact or nearly so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from regraft.checkup.copies.alignment import likeness
from regraft.checkup.copies.hashes import hashes_of, near_hashes
from regraft.checkup.copies.neighbours import near_features, similarity
from regraft.checkup.copies.thumbnails import Thumbnails

__all__ = ["find_groups", "joined", "near_pairs", "of_some_detail"]

Rows = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]

_NEIGHBOURS = 8
_LEAST_COSINE = 0.62  # of features: copies that are less alike are left to the hashes
_LEAST_LIKENESS = 0.88
_LEAST_SIDE = 32  # pixels: smaller images (digits, icons) look alike without being copies
_ALIKE, _LIKELY = 0.75, 0.9  # likeness that is enough where features are as alike as the second says


def find_groups(
    thumbnails: Thumbnails,
    digests: Sequence[bytes],
    sides: Rows,
    rows: Rows,
    features: Features | None = None,
) -> list[Rows]:
    """Return groups of two and more images that show the same, the rows of each in order.

    Args:
        thumbnails: Of all images.
        digests: Of what each shows; equal ones are copies, whatever else is found.
        sides: The smaller side of each, in pixels.
        rows: The images to look at.
        features: Of these, (len(rows), D); None compares by hashes alone.
    """
    firsts: dict[bytes, int] = {}
    first_of = {row: firsts.setdefault(digests[row], row) for row in rows.tolist()}
    unique = np.array([row for row in rows.tolist() if first_of[row] == row], dtype=np.int64)
    chosen = None if features is None else features[np.isin(rows, unique)]
    pairs = of_some_detail(unique[near_pairs(thumbnails, unique, chosen)], lambda row: int(sides[row]), digests)
    same = np.array([(first, row) for row, first in first_of.items() if row != first], dtype=np.int64).reshape(-1, 2)
    return joined(np.concatenate([pairs, same]))


def near_pairs(
    thumbnails: Thumbnails,
    rows: Rows,
    features: Features | None = None,
    *,
    between: Rows | None = None,
    least: float = _LEAST_COSINE,
) -> Rows:
    """Return pairs of images that show the same, (pairs, 2), as positions in `rows`.

    Candidates come from perceptual hashes and from the nearest neighbours among features; each is then looked at.

    Args:
        thumbnails: Of all images.
        rows: The images to look at.
        features: Of these, (len(rows), D); None finds candidates by hashes alone.
        between: Of these, the part that each is in: pairs within a part are left out. None takes all pairs.
        least: The least cosine of the features of a candidate that no hash has brought up.
    """
    if len(rows) < 2:
        return np.empty((0, 2), dtype=np.int64)
    found = [near_hashes(*hashes_of(thumbnails, numbers)) for numbers in (rows, thumbnails.inner()[rows])]
    if features is not None:
        found.append(near_features(features, most=_NEIGHBOURS, least=least))
    pairs = np.unique(np.concatenate(found), axis=0)
    if between is not None:
        pairs = pairs[between[pairs[:, 0]] != between[pairs[:, 1]]]
    alike = likeness(thumbnails, rows[pairs])
    is_copy = alike >= _LEAST_LIKENESS
    if features is not None:
        is_copy |= (alike >= _ALIKE) & (similarity(features, pairs) >= _LIKELY)
    return np.asarray(pairs[is_copy])


def of_some_detail(pairs: Rows, side_of: Callable[[int], int], digests: Sequence[bytes]) -> Rows:
    """Return the pairs of images that have enough pixels for likeness to say that they are copies, or that are equal.

    Args:
        pairs: (pairs, 2) rows.
        side_of: Gives the smaller side of an image in pixels, by its row.
        digests: Of what each shows, by row.
    """
    small = [row for row in np.unique(pairs).tolist() if side_of(row) < _LEAST_SIDE]
    are_equal = np.array([digests[one] == digests[other] for one, other in pairs.tolist()], dtype=bool)
    return pairs[are_equal | ~np.isin(pairs, small).any(1)]


def joined(pairs: Rows) -> list[Rows]:
    """Return the connected components of a graph of pairs."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while parent.setdefault(row, row) != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, two in pairs.tolist():
        parent[root(one)] = root(two)
    groups: dict[int, list[int]] = {}
    for row in sorted(parent):
        groups.setdefault(root(row), []).append(row)
    return sorted((np.array(group) for group in groups.values()), key=lambda group: int(group[0]))
