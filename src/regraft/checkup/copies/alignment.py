"""Whether one thumbnail shows what another does, once it is laid over it: shifted, scaled, turned, mirrored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regraft.checkup.copies.thumbnails import Thumbnails

__all__ = ["likeness"]

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Masked = npt.NDArray[np.bool_]

_CHUNK = 256  # pairs at a time
_COARSE, _FINE = 24, 48  # the sides at which pairs are laid over each other
_STEPS = (5, 4)  # of the alignment, at each of them
_RADII = (4, 3)  # what is wider than twice this many pixels is shade, not detail
_NUM_STARTS = 2  # of the up to eight ways to lay one over the other that are tried further
_UNLIKE = 0.35  # likeness after the coarse alignment below which the fine one is spared
_LEAST_COMMON = 0.4  # of the image, that both show
_FLAT = 2.0  # standard deviation of details below which there are none
_HOPELESS = 0.4  # likeness as they are, below which no copy was found to be
_ENOUGH = 0.9  # likeness from which no other way is tried


def likeness(thumbnails: Thumbnails, pairs: Rows) -> Values:
    """Return how alike the details of each pair of images are: the correlation of their edges where both overlap.

    The second image is laid over the first by an affine transform near the identity, found by least squares (Lucas and
    Kanade, IJCAI 1981), after being mirrored or not, and with or without the frame of each. What is stretched, sheared
    or turned a lot on the way is no copy.

    Args:
        thumbnails: Of the images.
        pairs: Two rows each, (pairs, 2).

    Returns:
        From -1 to 1 for each pair; 0 where an image has no details.
    """
    framed = thumbnails.inner()
    rows = np.unique(pairs)
    sketches = _Sketches(thumbnails, np.unique(np.concatenate([rows, framed[rows]])))
    found = np.zeros(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), _CHUNK):
        one, two = pairs[start : start + _CHUNK].T
        found[start : start + _CHUNK] = _of_pairs(thumbnails, sketches, framed, one, two)
    return found


class _Sketches:
    """The coarse details of thumbnails, as vectors whose products are their correlations; 0 where there are none.

    Args:
        thumbnails: Of all images.
        numbers: Those that will be compared, in order.
    """

    def __init__(self, thumbnails: Thumbnails, numbers: Rows) -> None:
        self._numbers = numbers
        # Half as large as in fp32, and exact enough to say which pairs are worth a closer look.
        self._vectors = np.empty((len(numbers), _COARSE, _COARSE), dtype=np.float16)
        for start in range(0, len(numbers), _CHUNK):
            part = slice(start, start + _CHUNK)
            values = _details(_sized(thumbnails.take(numbers[part]), _COARSE), _RADII[0])
            values -= values.mean((1, 2), keepdims=True)
            spread = (values**2).mean((1, 2), keepdims=True)
            self._vectors[part] = np.where(spread > _FLAT**2, values / (np.sqrt(spread + 1e-12) * _COARSE), 0)

    def correlations(self, one: Rows, two: Rows, mirrored: Masked) -> Values:
        """Return how alike each two are as they are, the second mirrored or not."""
        a, b = (self._vectors[np.searchsorted(self._numbers, numbers)].astype(np.float32) for numbers in (one, two))
        b[mirrored] = b[mirrored, :, ::-1]
        return np.asarray(np.einsum("nij,nij->n", a, b), dtype=np.float32)


def _of_pairs(thumbnails: Thumbnails, sketches: _Sketches, framed: Rows, one: Rows, two: Rows) -> Values:
    """Return the best likeness of each pair over the most promising ways to lay one over the other."""
    pair, a, b, mirrored = _ways(framed, one, two)
    promise = sketches.correlations(a, b, mirrored)
    order = np.lexsort((-promise, pair))  # of each pair, the best first
    place = np.arange(len(order)) - np.searchsorted(pair[order], pair[order])
    best = np.zeros(len(one), dtype=np.float32)
    for turn in range(_NUM_STARTS):
        way = order[place == turn]
        way = way[(promise[way] >= _HOPELESS) & (best[pair[way]] < _ENOUGH)]
        if not len(way):
            continue
        moving = thumbnails.take(b[way])
        moving[mirrored[way]] = moving[mirrored[way], :, ::-1]
        best[pair[way]] = np.maximum(best[pair[way]], _aligned(thumbnails.take(a[way]), moving))
    return best


def _ways(framed: Rows, one: Rows, two: Rows) -> tuple[Rows, Rows, Rows, Masked]:
    """Return every way to lay one image of a pair over the other: the pair, both rows, and whether one is mirrored."""
    pair = np.arange(len(one))
    rows = [(pair, a, b) for a in (one, framed[one]) for b in (two, framed[two])]
    table = np.unique(np.concatenate([np.stack(way, axis=1) for way in rows]), axis=0)
    pair, a, b = np.repeat(table, 2, axis=0).T
    return pair, a, b, np.arange(len(pair)) % 2 == 1


def _aligned(one: Pixels, two: Pixels) -> Values:
    warp = np.tile(np.eye(2, 3, dtype=np.float32), (len(one), 1, 1))
    found, left = np.zeros(len(one), dtype=np.float32), np.arange(len(one))
    for side, steps, radius in zip((_COARSE, _FINE), _STEPS, _RADII, strict=True):
        fixed, moving = (_details(_sized(images[left], side), radius) for images in (one, two))
        here = warp[left]
        for _ in range(steps):
            here = _improved(fixed, moving, here)
        warp[left] = here
        moved, common, _, _ = _warped(moving, here)
        found[left] = np.where(_is_plausible(here), _correlation(fixed, moved, common), 0)
        if side != _FINE:
            left = left[found[left] >= _UNLIKE]
            found[:] = 0
        if not len(left):
            break
    return found


def _is_plausible(warp: Values) -> Masked:
    """Return whether a transform is one that copies go through: hardly stretched, sheared or turned."""
    a, b, c, d = warp[:, 0, 0], warp[:, 0, 1], warp[:, 1, 0], warp[:, 1, 1]
    scale, stretch, shear, turn = np.maximum(abs(a - 1), abs(d - 1)), abs(a - d), abs(b + c), abs(b - c)
    return np.asarray((scale < 0.3) & (stretch < 0.15) & (shear < 0.08) & (turn < 0.24))


def _sized(images: Pixels, side: int) -> Values:
    factor = images.shape[1] // side
    if factor == 1:
        return images.astype(np.float32)
    values = images.astype(np.uint16)
    parts = [values[:, row::factor, column::factor] for row in range(factor) for column in range(factor)]
    return np.asarray(np.sum(parts, axis=0, dtype=np.float32) / factor**2, dtype=np.float32)


def _details(images: Values, radius: int) -> Values:
    """Return images without what changes slowly in them."""
    return images - _box(_box(images, radius, 1), radius, 2)


def _box(images: Values, radius: int, axis: int) -> Values:
    width = [(0, 0)] * 3
    width[axis] = (radius + 1, radius)
    sums = np.cumsum(np.pad(images, width, mode="edge"), axis=axis, dtype=np.float32)
    side, size = images.shape[axis], 2 * radius + 1
    high, low = (np.take(sums, np.arange(side) + shift, axis=axis) for shift in (size, 0))
    return np.asarray((high - low) / size, dtype=np.float32)


def _grid(side: int) -> tuple[Values, Values]:
    places = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
    return np.tile(places, side), np.repeat(places, side)


def _warped(images: Values, warp: Values) -> tuple[Values, Values, Values, Values]:
    """Return the images as seen through the transforms, where they are seen at all, and their slopes along x and y."""
    num, side = images.shape[:2]
    x, y = _grid(side)
    points = np.stack([x, y, np.ones_like(x)])
    at = ((warp @ points) + 1) * side / 2 - 0.5  # (pairs, 2, pixels), in pixels
    common = ((at >= 0) & (at <= side - 1)).all(1).astype(np.float32)
    at = np.clip(at, 0, side - 1.001)
    whole = at.astype(np.int64)
    u, v = (at - whole).astype(np.float32).transpose(1, 0, 2)
    flat, corner = images.reshape(num, -1), whole[:, 1] * side + whole[:, 0]
    one, two, three, four = (np.take_along_axis(flat, corner + shift, 1) for shift in (0, 1, side, side + 1))
    top, bottom = one + u * (two - one), three + u * (four - three)
    across = (1 - v) * (two - one) + v * (four - three)
    return top + v * (bottom - top), common, across * side / 2, (bottom - top) * side / 2


def _improved(fixed: Values, moving: Values, warp: Values) -> Values:
    """Return the transforms after one step of least squares, with the contrast left free."""
    x, y = _grid(fixed.shape[1])
    seen, common, across, down = _warped(moving, warp)
    goal = fixed.reshape(len(fixed), -1)
    slopes = [across * x, across * y, across, down * x, down * y, down, -goal]
    matrix = np.stack(slopes, 1) * common[:, None]
    products = matrix @ matrix.transpose(0, 2, 1)
    size = np.trace(products, axis1=1, axis2=2)[:, None, None] / 7
    products += (1e-3 * size + 1e-6) * np.eye(7, dtype=np.float32)
    wanted = -(matrix @ (seen * common)[:, :, None])
    step = np.linalg.solve(products, wanted)[:, :6, 0]
    return np.asarray(warp + np.clip(step, -0.2, 0.2).reshape(-1, 2, 3), dtype=np.float32)


def _correlation(fixed: Values, moved: Values, common: Values) -> Values:
    """Return the correlation of two images where both are seen; 0 where that is too little, or has no details."""
    goal = fixed.reshape(len(fixed), -1)
    num = common.sum(1)
    weight = common / np.maximum(num, 1)[:, None]
    one, two = (values - (values * weight).sum(1)[:, None] for values in (goal, moved))
    of_one, of_two = ((values**2 * weight).sum(1) for values in (one, two))
    together = (one * two * weight).sum(1) / np.sqrt(np.maximum(of_one * of_two, 1e-12))
    usable = (num >= _LEAST_COMMON * common.shape[1]) & (np.minimum(of_one, of_two) > _FLAT**2)
    return np.asarray(np.where(usable, together, 0), dtype=np.float32)
