"""Object headers: what an HDF5 object is, as a list of messages, found by the address of its header."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from regraft.weights.readers.hdf5.format.file_bytes import FileBytes, FormatError, NotClassicError

__all__ = ["Message", "ObjectHeaders"]

_MAX_MESSAGES = 3_000_000
_CONTINUATION = 0x10


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an object header: its kind and where its content is."""

    kind: int
    start: int
    size: int


class ObjectHeaders:
    """The object headers of one file, each parsed once."""

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        self._num_messages = 0
        self._headers: dict[int, list[Message]] = {}

    def messages(self, address: int) -> list[Message]:
        """Return the messages of an object header, its continuations included."""
        found = self._headers.get(address)
        if found is None:
            self._headers[address] = found = list(self._parsed(address + self._file.base))
            self._num_messages += len(found)
            if self._num_messages > _MAX_MESSAGES:
                raise FormatError("its objects have more settings than those of any model")
        return found

    def first(self, address: int, kind: int) -> Message | None:
        return next((message for message in self.messages(address) if message.kind == kind), None)

    def _parsed(self, at: int) -> Iterator[Message]:
        file = self._file
        version, _, count, _, size = file.unpack("<BBHII", at)
        if version != 1:
            if file.take(at, 4) == b"OHDR":
                raise NotClassicError("a newer object header")
            raise FormatError(f"an object header is missing at {at}")
        blocks = [(at + 16, size)]
        for start, length in blocks:
            end = start + length
            while start + 8 <= end and count > 0:
                kind, size, flags = file.unpack("<HHB", start)
                count -= 1
                content = start + 8
                if kind == _CONTINUATION:
                    offset, more = file.unpack("<QQ", content)
                    blocks.append((offset + file.base, more))
                elif flags & 2 and kind:
                    raise NotClassicError("a shared message")
                elif kind:
                    yield Message(kind, content, size)
                start = content + size
