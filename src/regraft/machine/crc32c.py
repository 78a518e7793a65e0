"""CRC-32C (Castagnoli), the checksum of TensorFlow's files and of TensorBoard's records; Python's zlib has another one.

A few bytes are summed one by one. A CRC is linear: the lanes of a long run are summed on their own and then joined,
each moved on by the length of those behind it. Source: RFC 3720, appendix B.4, for the polynomial; `crc32c.h` of
LevelDB for the masking.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["crc32c", "masked"]

_POLYNOMIAL = 0x82F63B78
_FEW = 2048  # below that, bytes one by one are faster
_PIECE = 1 << 20
Table = NDArray[np.uint32]


def masked(crc: int) -> int:
    """Return a checksum as it is stored: rotated and moved, so that checksums of data with checksums in it stay
    good.
    """
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def crc32c(data: bytes | memoryview | NDArray[np.uint8]) -> int:
    """Return the checksum of some bytes."""
    values = np.frombuffer(data, dtype=np.uint8)
    crc = 0xFFFF_FFFF
    if values.size < _FEW:
        table = _byte_list()
        for byte in values.tobytes():
            crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
        return crc ^ 0xFFFF_FFFF
    for start in range(0, values.size, _PIECE):
        piece = values[start : start + _PIECE]
        crc = _moved(crc, piece.size) ^ _plain(piece)
    return crc ^ 0xFFFF_FFFF


def _plain(values: NDArray[np.uint8]) -> int:
    """Return the sum without start and end values, for which zeros in front change nothing."""
    lane = 1 << min(10, max(4, values.size.bit_length() // 2))
    num_lanes = 1 << max(0, -(-values.size // lane) - 1).bit_length()
    padded = np.zeros((num_lanes, lane), dtype=np.uint8)
    padded.reshape(-1)[padded.size - values.size :] = values
    low, high = _word_tables()
    sums = np.zeros(num_lanes, dtype="<u4")
    for words in np.ascontiguousarray(padded.view("<u4").T):
        halves = (sums ^ words).view("<u2")
        sums = low[halves[0::2]] ^ high[halves[1::2]]
    while sums.size > 1:
        sums = _move(sums[0::2], lane) ^ sums[1::2]
        lane *= 2
    return int(sums[0])


def _moved(crc: int, num_bytes: int) -> int:
    """Return a sum after so many more bytes of zero."""
    sums = np.array([crc], dtype=np.uint32)
    for bit in range(num_bytes.bit_length()):
        if num_bytes >> bit & 1:
            sums = _move(sums, 1 << bit)
    return int(sums[0])


def _move(sums: Table, num_bytes: int) -> Table:
    """Return sums after `num_bytes` (a power of two) more bytes of zero: a linear map, looked up byte by byte."""
    moved = np.zeros_like(sums)
    for place, table in enumerate(_move_tables(num_bytes)):
        moved ^= table[sums >> np.uint32(8 * place) & np.uint32(0xFF)]
    return moved


@cache
def _move_tables(num_bytes: int) -> Table:
    """Return four tables of 256: what each byte of a sum becomes."""
    every = np.arange(256, dtype=np.uint32)
    tables = np.stack([every << np.uint32(8 * place) for place in range(4)])
    if num_bytes == 1:
        return np.asarray(_byte_table()[tables & 0xFF] ^ (tables >> np.uint32(8)))
    half = num_bytes // 2
    return np.stack([_move(_move(row, half), half) for row in tables])


@cache
def _word_tables() -> tuple[Table, Table]:
    """Return lookup tables for the low and the high half of a word: a checksum takes in four bytes at a time."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _move(halves, 4), _move(halves << np.uint32(16), 4)


@cache
def _byte_table() -> Table:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> np.uint32(1) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table


@cache
def _byte_list() -> list[int]:
    return [int(entry) for entry in _byte_table()]
