"""TensorFlow's table format (the LevelDB table): sorted keys and values in blocks, as checkpoints use it.

A file is: blocks, an index block of block places, and a footer of 48 bytes that ends in a magic number. A block shares
key prefixes between entries and may be compressed with Snappy.
Source: the table format page of LevelDB (doc/table_format.md) and Snappy's format description.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from regraft.machine.crc32c import crc32c, masked
from regraft.weights.limits import budget
from regraft.weights.readers.protobuf import ProtobufError, read_varint

__all__ = ["MAGIC", "Entry", "entries", "is_table", "snappy"]

MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # compression type and checksum after each block
_MAX_BLOCK = 1 << 31
_CHECKED = 1 << 20  # larger blocks hold the values of a V1 checkpoint, which are read later, if at all
_MAX_KEY = 1 << 14
_TAG_STEPS, _ENTRY_STEPS, _BLOCK_STEPS = 1, 4, 16
_MAX_KEYS = 1 << 26  # bytes of all keys together: prefix sharing could make gigabytes of them out of nothing


@dataclass(frozen=True)
class Entry:
    """One key with its value; `offset` is where the value lies in the file, or None when its block was compressed."""

    key: bytes
    value: memoryview
    offset: int | None


def is_table(tail: bytes) -> bool:
    """Return whether a file that ends in these bytes is a table."""
    return tail.endswith(MAGIC)


def entries(table: memoryview) -> Iterator[Entry]:
    """Yield all entries in key order.

    Raises:
        ProtobufError: The file is truncated or damaged.
    """
    if len(table) < _FOOTER or not is_table(bytes(table[-8:])):
        raise ProtobufError("no table footer at the end of the file")
    footer = table[-_FOOTER:]
    position = 0
    for _ in range(2):  # the meta index, which is not needed
        _, position = read_varint(footer, position)
    index_place, position = read_varint(footer, position)
    index_size, _ = read_varint(footer, position)
    index, _ = _block(table, index_place, index_size)
    num_bytes = num_keys = 0
    spent = budget()
    for _, handle, _ in _block_entries(index):
        spent.step(_BLOCK_STEPS)
        place, after = read_varint(handle, 0)
        size, _ = read_varint(handle, after)
        num_bytes += size
        if num_bytes > len(table):
            raise ProtobufError("its blocks overlap")
        block, raw = _block(table, place, size)
        for key, value, start in _block_entries(block):
            spent.step(_ENTRY_STEPS)
            num_keys += len(key) + 64
            if num_keys > _MAX_KEYS:
                raise ProtobufError("more keys than any real checkpoint has")
            yield Entry(key, value, place + start if raw else None)


def _block(table: memoryview, place: int, size: int) -> tuple[memoryview, bool]:
    """Return the contents of one block, and whether they are the file's own bytes."""
    end = place + size
    if end + _TRAILER > len(table) - _FOOTER:
        raise ProtobufError("a block lies outside the file")
    contents, kind = table[place:end], table[end]
    if size <= _CHECKED and masked(crc32c(table[place : end + 1])) != int.from_bytes(
        table[end + 1 : end + 5], "little"
    ):
        raise ProtobufError("a block has a wrong checksum")
    if kind == 0:
        return contents, True
    if kind == 1:
        return memoryview(snappy(contents)), False
    raise ProtobufError(f"compression {kind}")


def _block_entries(block: memoryview) -> Iterator[tuple[bytes, memoryview, int]]:
    if len(block) < 4:
        raise ProtobufError("a block without restart points")
    num_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * num_restarts
    if end < 0:
        raise ProtobufError("more restart points than the block has bytes")
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        fresh, position = read_varint(block, position)
        size, position = read_varint(block, position)
        if shared > len(key) or shared + fresh > _MAX_KEY or position + fresh + size > end:
            raise ProtobufError("an entry reaches out of its block")
        key = key[:shared] + bytes(block[position : position + fresh])
        position += fresh
        yield key, block[position : position + size], position
        position += size


def snappy(packed: memoryview) -> bytearray:
    """Decompress one Snappy block (raw format).

    Raises:
        ProtobufError: It is damaged, or says that it holds more than Snappy can compress into its bytes.
    """
    length, position = read_varint(packed, 0)
    if length > min(_MAX_BLOCK, 64 * len(packed)):
        raise ProtobufError(f"a block of {len(packed)} bytes claims to hold {length}")
    spent = budget()
    spent.unpack(length, len(packed), "a block of the table")
    out = bytearray()
    end = len(packed)
    while position < end:
        spent.step(_TAG_STEPS)
        tag = packed[position]
        position += 1
        if tag & 3 == 0:
            size, position = _literal_size(packed, tag >> 2, position)
            if size > end - position:
                raise ProtobufError("a literal is truncated")
            out += packed[position : position + size]
            position += size
        else:
            size, distance, position = _copy(packed, tag, position)
            _repeat(out, size, distance)
        if len(out) > length:
            raise ProtobufError("a block holds more than it claims")
    if len(out) != length:
        raise ProtobufError("a block holds less than it claims")
    return out


def _literal_size(packed: memoryview, code: int, position: int) -> tuple[int, int]:
    if code < 60:
        return code + 1, position
    width = code - 59
    return int.from_bytes(_take(packed, position, width), "little") + 1, position + width


def _copy(packed: memoryview, tag: int, position: int) -> tuple[int, int, int]:
    if tag & 3 == 1:
        low = _take(packed, position, 1)[0]
        return 4 + (tag >> 2 & 7), (tag >> 5) << 8 | low, position + 1
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, int.from_bytes(_take(packed, position, width), "little"), position + width


def _take(packed: memoryview, position: int, size: int) -> bytes:
    if position + size > len(packed):
        raise ProtobufError("a block is truncated")
    return bytes(packed[position : position + size])


def _repeat(out: bytearray, size: int, distance: int) -> None:
    if not 0 < distance <= len(out):
        raise ProtobufError("a copy from before the start of the block")
    pattern = bytes(out[len(out) - distance : len(out) - distance + size])
    while len(pattern) < size:
        pattern += pattern
    out += pattern[:size]
