"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), which frames TensorBoard's records; Python's zlib has another one."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["crc32c"]

_POLYNOMIAL = 0x82F63B78  # reflected
_ROW = 1024  # bytes that one lane of the wide way takes
_WIDE = 8 * _ROW  # from here on the wide way is faster

States = npt.NDArray[np.uint32]


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes."""
    state = 0xFFFFFFFF
    if len(data) >= _WIDE:
        state, data = _wide(state, data)
    table = _table()
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def _wide(state: int, data: bytes) -> tuple[int, bytes]:
    """The state after all whole rows of `data`, and what is left: each row by itself, then one after the other.

    A checksum is linear: that of a row behind another is its own, combined with the other's moved on by a row of zeros.
    """
    num_rows = len(data) // _ROW
    rows = np.frombuffer(data, dtype=np.uint8, count=num_rows * _ROW).reshape(num_rows, _ROW)
    moved = _moved_by_a_row()
    for own in _advance(np.zeros(num_rows, dtype=np.uint32), rows).tolist():
        low = moved[0][state & 0xFF] ^ moved[1][state >> 8 & 0xFF]
        state = own ^ low ^ moved[2][state >> 16 & 0xFF] ^ moved[3][state >> 24]
    return state, data[num_rows * _ROW :]


def _advance(states: States, rows: npt.NDArray[np.uint8]) -> States:
    """Each lane's state after its row of bytes."""
    table = np.array(_table(), dtype=np.uint32)
    for column in np.ascontiguousarray(rows.T):
        states = table[(states ^ column) & np.uint32(0xFF)] ^ states >> np.uint32(8)
    return states


@cache
def _moved_by_a_row() -> tuple[tuple[int, ...], ...]:
    """For each of the four bytes of a state, and each value of it: the state after a row of zeros."""
    starts = np.arange(256, dtype=np.uint32)[None] << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    ends = _advance(starts.ravel(), np.zeros((starts.size, _ROW), dtype=np.uint8))
    return tuple(tuple(row) for row in ends.reshape(4, 256).tolist())


@cache
def _table() -> tuple[int, ...]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (_POLYNOMIAL if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)
