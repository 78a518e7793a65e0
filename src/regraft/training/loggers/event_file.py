"""TensorBoard's event files, written without TensorBoard: framed protocol buffers that grow while a run goes on.

A record is its length (uint64), the masked CRC-32C of the length, the data, and the masked CRC-32C of the data (the
TFRecord format of TensorFlow). The data is an Event message; the numbers of the fields below are those of TensorFlow's
event.proto, summary.proto, graph.proto, node_def.proto and attr_value.proto.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from regraft import commit
from regraft.machine.crc32c import crc32c, masked

__all__ = ["EventFile", "event_files", "graph_node", "histogram", "picture", "scalar"]

_FLUSH_SECONDS = 2.0
_FLUSH_BYTES = 1 << 20


class EventFile:
    """One event file: events are kept in memory for a moment, then appended.

    Args:
        folder: The folder of the run's event files, which TensorBoard reads in the order of their names.

    Attributes:
        path: The file.
        num_bytes: Its size at the last `flush`.
    """

    def __init__(self, folder: Path) -> None:
        words = [path.name.split(".")[3] for path in event_files(folder)]
        seconds = [int(word) for word in words if word.isascii() and word.isdigit()]
        second = max([int(time.time()), *(second + 1 for second in seconds)])
        self.path = folder / f"events.out.tfevents.{second:010d}.{socket.gethostname()}.{os.getpid()}"
        self.num_bytes = 0
        self._waiting: list[bytes] = []
        self._num_waiting, self._flushed_at = 0, time.monotonic()
        with commit.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._add(_text(3, "brain.Event:2"))

    def add_values(self, step: int, values: Iterable[bytes]) -> None:
        """Write what `scalar`, `picture` and `histogram` made, at an optimizer step."""
        self._add(_whole(2, step) + _bytes(5, b"".join(_bytes(1, value) for value in values)))

    def add_graph(self, nodes: Iterable[bytes]) -> None:
        """Write a graph of what `graph_node` made."""
        self._add(_bytes(4, b"".join(_bytes(1, node) for node in nodes)))

    def add_restart(self, step: int) -> None:
        """Make an open TensorBoard drop what it has from `step` on."""
        self._add(_whole(2, step) + _bytes(7, _whole(1, 1)))

    def flush(self) -> None:
        """Append what waits.

        Raises:
            StorageError: It cannot be written.
        """
        data, self._waiting, self._num_waiting = b"".join(self._waiting), [], 0
        self._flushed_at = time.monotonic()
        self.num_bytes = commit.append_bytes(self.path, data)

    def _add(self, fields: bytes) -> None:
        data = _double(1, time.time()) + fields
        length = struct.pack("<Q", len(data))
        record = length + _checksum(length) + data + _checksum(data)
        self._waiting.append(record)
        self._num_waiting += len(record)
        if self._num_waiting > _FLUSH_BYTES or time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self.flush()


def event_files(folder: Path) -> list[Path]:
    """Return the event files of a folder, oldest first."""
    return sorted(folder.glob("events.out.tfevents.[0-9]*.*"))


def scalar(tag: str, value: float) -> bytes:
    """Return a point of a curve."""
    return _text(1, tag) + _tag(2, 5) + struct.pack("<f", value)


def picture(tag: str, png: bytes, *, height: int, width: int, channels: int) -> bytes:
    """Return a PNG file."""
    return _text(1, tag) + _bytes(4, _whole(1, height) + _whole(2, width) + _whole(3, channels) + _bytes(4, png))


def histogram(tag: str, facts: Sequence[float], limits: Sequence[float], counts: Sequence[float]) -> bytes:
    """Return counts of numbers.

    Args:
        facts: The smallest and the largest number, how many there are, their sum and the sum of their squares.
        limits: The upper end of each bin.
        counts: The numbers in each bin.
    """
    low, high, num, total, squares = facts
    fields = _double(1, low) + _double(2, high) + _double(3, num) + _double(4, total) + _double(5, squares)
    return _text(1, tag) + _bytes(5, fields + _doubles(6, limits) + _doubles(7, counts))


def graph_node(name: str, kind: str, inputs: Iterable[str], settings: Mapping[str, str]) -> bytes:
    """Return a node of a graph: its name with slashes between levels, what it does, the nodes it reads, its
    settings.
    """
    attributes = (_text(1, key) + _bytes(2, _text(2, text)) for key, text in settings.items())
    return (
        _text(1, name)
        + _text(2, kind)
        + b"".join(_text(3, source) for source in inputs)
        + b"".join(_bytes(5, attribute) for attribute in attributes)
    )


# Protocol buffers: a tag is the field's number and its wire type (0 whole number, 1 double, 2 bytes, 5 float).


def _tag(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _whole(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _tag(field, 1) + struct.pack("<d", value)


def _doubles(field: int, values: Sequence[float]) -> bytes:
    return _bytes(field, struct.pack(f"<{len(values)}d", *values))


def _bytes(field: int, data: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode("utf-8", "backslashreplace"))


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked(crc32c(data)))
