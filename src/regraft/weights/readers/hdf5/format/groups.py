"""Groups: names, and the objects that they stand for."""

from __future__ import annotations

from collections.abc import Iterator

from regraft.weights.readers.hdf5.format.b_tree import GROUP_TREE, leaves
from regraft.weights.readers.hdf5.format.file_bytes import MAX_TEXT, UNDEFINED, FileBytes, FormatError, NotClassicError
from regraft.weights.readers.hdf5.format.headers import Message, ObjectHeaders

__all__ = ["Groups"]

_LINK_INFO, _LINK, _SYMBOL_TABLE = 0x02, 0x06, 0x11
_GROUP_KINDS = {_SYMBOL_TABLE, _LINK_INFO, _LINK}
_MEMBER_BYTES = 200  # that a member takes in memory


class Groups:
    """The groups of one file by the address of their header."""

    def __init__(self, file: FileBytes, headers: ObjectHeaders) -> None:
        self._file, self._headers = file, headers
        self._members: dict[int, dict[str, int | None]] = {}

    def is_group(self, address: int) -> bool:
        kinds = {message.kind for message in self._headers.messages(address)}
        return bool(kinds & _GROUP_KINDS)

    def members(self, address: int) -> dict[str, int | None]:
        """Return names in a group and the addresses of their objects; None for anything but a hard link."""
        if address not in self._members:
            found = dict(self._listed(address))
            self._members[address] = found
        return self._members[address]

    def _listed(self, address: int) -> Iterator[tuple[str, int | None]]:
        file = self._file
        for message in self._headers.messages(address):
            if message.kind == _LINK_INFO and self._is_dense(message):
                raise NotClassicError("a group with dense links")
            if message.kind == _LINK:
                yield self._link(message)
            if message.kind == _SYMBOL_TABLE:
                tree, heap = file.unpack("<QQ", message.start)
                file.expect(b"HEAP", heap + file.base)
                size, _, names = file.unpack("<QQQ", heap + file.base + 8)
                for node, _ in leaves(file, tree, GROUP_TREE, 8):
                    yield from self._symbols(node, names + file.base, size)

    def _is_dense(self, message: Message) -> bool:
        flags = self._file.unpack("BB", message.start)[1]
        return self._file.unpack("<Q", message.start + 2 + (8 if flags & 1 else 0))[0] != UNDEFINED

    def _link(self, message: Message) -> tuple[str, int | None]:
        file = self._file
        _, flags = file.unpack("BB", message.start)
        at = message.start + 2
        kind = file.unpack("B", at)[0] if flags & 8 else 0
        at += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(file.take(at, width), "little")
        name = file.name(file.take(at + width, min(size, MAX_TEXT)))
        return name, file.unpack("<Q", at + width + size)[0] if kind == 0 else None

    def _symbols(self, node: int, names: int, size: int) -> Iterator[tuple[str, int | None]]:
        file = self._file
        at = node + file.base
        file.expect(b"SNOD", at)
        count = file.unpack("<H", at + 6)[0]
        for index in range(count):
            offset, header, cached = file.unpack("<QQI", at + 8 + 40 * index)
            if offset >= size:
                raise FormatError("a name lies outside its heap")
            file.budget.hold(_MEMBER_BYTES)
            yield file.name(file.terminated(names + offset, names + size)), None if cached == 2 else header
