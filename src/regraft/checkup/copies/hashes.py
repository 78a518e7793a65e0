"""Perceptual hashes of thumbnails, and which of them are near each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regraft.checkup.copies.thumbnails import SIDE, Thumbnails

__all__ = ["hashes_of", "near_hashes"]

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]

_FREQUENCIES = 8  # along each side, without the constant one
_MOST_BITS = 10  # of 64 that differ
_NUM_PARTS = 4  # of a hash: of two that differ in 3 bits or fewer, one part is the same
_WINDOW = 8  # hashes with the same part that each is compared with, in the order of the others
_CHUNK = 4096


def hashes_of(thumbnails: Thumbnails, numbers: Pairs) -> tuple[Hashes, Hashes]:
    """Return the hash of each thumbnail, and of its mirror image: the signs of 64 low frequencies (pHash)."""
    places = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    waves = np.cos(np.arange(1, _FREQUENCIES + 1)[:, None] * places).astype(np.float32)
    signs = np.zeros((len(numbers), _FREQUENCIES, _FREQUENCIES), dtype=bool)
    for start in range(0, len(numbers), _CHUNK):
        part = thumbnails.take(numbers[start : start + _CHUNK]).astype(np.float32)
        signs[start : start + _CHUNK] = waves @ part @ waves.T > 0
    mirrored = signs.copy()
    mirrored[:, :, ::2] = ~mirrored[:, :, ::2]  # waves with an odd number of half periods change their sign
    return _packed(signs), _packed(mirrored)


def near_hashes(hashes: Hashes, mirrored: Hashes) -> Pairs:
    """Return pairs of rows whose hashes are near each other, one of them mirrored or not, as (pairs, 2).

    Hashes are sorted by each of four parts, and compared with the next ones of the same part: no search of all pairs.
    Any two that differ in 3 bits or fewer are found; of those that differ in up to 10, most are.
    """
    num = len(hashes)
    entries = np.concatenate([hashes, mirrored])
    found = [np.empty((0, 2), dtype=np.int64)]
    for part in range(_NUM_PARTS):
        turned = _rotated(entries, 16 * part)  # the part comes first
        order = np.argsort(turned, kind="stable")
        keys = turned[order] >> np.uint64(48)
        for step in range(1, _WINDOW + 1):
            one, two = order[:-step], order[step:]
            near = (keys[:-step] == keys[step:]) & (np.bitwise_count(entries[one] ^ entries[two]) <= _MOST_BITS)
            found.append(np.stack([one[near] % num, two[near] % num], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def _packed(signs: npt.NDArray[np.bool_]) -> Hashes:
    return np.packbits(signs.reshape(len(signs), -1), axis=1).view(np.uint64)[:, 0]


def _rotated(values: Hashes, bits: int) -> Hashes:
    if not bits:
        return values
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))
