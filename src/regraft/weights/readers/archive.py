"""Zip archives as weight formats use them: a list of members with their byte ranges, nothing extracted to the disk.

Stricter than the zip format: one member for each name, the same name in both headers, stored or deflated members only,
no encryption, sizes that the bytes can hold. Values are checked against the CRC of the member.
Source of the layout: PKWARE's APPNOTE.TXT, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from regraft.errors import WeightsError
from regraft.weights.limits import LimitError, budget, shown
from regraft.weights.readers.byte_range import SourceFile

__all__ = ["Archive", "Member", "is_zip", "open_archive"]

_STORED, _DEFLATED = 0, 8
_MAX_MEMBERS = 200_000
_MAX_DIRECTORY = 64 * 2**20
_MEMBER_STEPS = 8
_PIECE = 2**22
_NO_OFFSET = 0xFFFFFFFF
_FULL = (0xFFFF, _NO_OFFSET, _NO_OFFSET)
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Member:
    """One file in the archive."""

    name: str
    start: int
    stored_size: int
    size: int
    crc: int
    deflated: bool


@dataclass(frozen=True)
class Archive:
    """The members of a zip file by name, in the order of its directory."""

    source: SourceFile
    members: Mapping[str, Member]

    def read(self, member: Member) -> bytearray:
        """Return all bytes of a member.

        Raises:
            WeightsError: They are damaged, or not as many as declared.
        """
        content, at = bytearray(member.size), 0
        for piece in self.pieces(member):
            content[at : at + len(piece)] = piece
            at += len(piece)
        return content

    def pieces(self, member: Member) -> Iterator[memoryview]:
        """Yield all bytes of a member, a piece at a time.

        Raises:
            WeightsError: They are damaged, or not as many as declared; known with the last piece.
        """
        size = crc = 0
        for piece in self._inflated(member) if member.deflated else self._stored(member):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
            if size > member.size:
                raise damaged(self.source, f"{member.name!r} is longer than declared")
            yield piece
        if size != member.size or crc != member.crc:
            raise damaged(self.source, f"{member.name!r} has a wrong checksum")

    def _stored(self, member: Member) -> Iterator[memoryview]:
        end = member.start + member.stored_size
        for start in range(member.start, end, _PIECE):
            yield self.source.read(start, min(_PIECE, end - start)).data

    def _inflated(self, member: Member) -> Iterator[memoryview]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for stored in self._stored(member):
                left: bytes | memoryview = stored
                while left and not inflater.eof:
                    yield memoryview(inflater.decompress(left, _PIECE))
                    left = inflater.unconsumed_tail
            yield memoryview(inflater.flush())
        except zlib.error as error:
            raise damaged(self.source, f"{member.name!r} cannot be inflated ({error})") from error

    def head(self, member: Member, num_bytes: int) -> bytes:
        """Return the first bytes of a member, unchecked: enough for a header."""
        if not member.deflated:
            return bytes(self.source.read(member.start, min(num_bytes, member.size)).data)
        stored = self.source.read(member.start, min(member.stored_size, num_bytes + 4096)).data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, num_bytes)
        except zlib.error as error:
            raise damaged(self.source, f"{member.name!r} cannot be inflated") from error

    def view(self, member: Member, whole: memoryview) -> memoryview:
        """Return the bytes of a stored member in the mapped file."""
        return whole[member.start : member.start + member.size]

    def check(self, member: Member) -> None:
        """Compare a member with its checksum.

        Raises:
            WeightsError: They differ.
        """
        for _ in self.pieces(member):
            pass


def is_zip(head: bytes) -> bool:
    """Return whether a file starts like a zip archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def damaged(source: SourceFile, why: str) -> WeightsError:
    return WeightsError(
        f"{str(source.path)!r} is a damaged or truncated zip file: {why}.",
        "a whole archive, with its directory at the end",
        "download or copy it again, and compare its size with the original's",
    )


def open_archive(source: SourceFile) -> Archive:
    """Read the directory of a zip file; once, for the formats that are zip files ask one after the other.

    Raises:
        WeightsError: It is cut, damaged, ambiguous (two members of one name) or a bomb.
    """
    known = budget().remembered
    if source not in known:
        known[source] = _opened(source)
    archive: Archive = known[source]
    return archive


def _opened(source: SourceFile) -> Archive:
    with source.mapped() as view:
        try:
            count, size, start = _directory(source, view)
            with view[start : start + size] as directory:
                found = _members(source, view, directory, count)
        except (struct.error, ValueError, IndexError, OverflowError) as error:
            raise damaged(source, str(error)) from error
    _require_apart(source, found)
    return Archive(source, {member.name: member for member in found})


def _directory(source: SourceFile, view: memoryview) -> tuple[int, int, int]:
    """Return the number of members, size and start of the central directory."""
    tail_start = max(0, len(view) - _END.size - 65535)
    at = bytes(view[tail_start:]).rfind(b"PK\x05\x06")
    if at < 0:
        raise damaged(source, "it has no directory at its end")
    at += tail_start
    _, disk, disk_of_directory, _, count, size, start, comment = _END.unpack_from(view, at)
    if at + _END.size + comment != len(view):
        raise damaged(source, "there is data after its end")
    end, at64 = at, at - _LOCATOR64.size
    signature, _, end64, _ = _LOCATOR64.unpack_from(view, at64) if at64 >= 0 else (b"", 0, 0, 0)
    if signature == b"PK\x06\x07":  # torch always writes both ends
        end = end64
        signature, _, _, _, disk64, disk_of_directory64, _, *wide = _END64.unpack_from(view, end64)
        if signature != b"PK\x06\x06":
            raise damaged(source, "its zip64 end is missing")
        if any(short not in (long, full) for short, long, full in zip((count, size, start), wide, _FULL, strict=True)):
            raise damaged(source, "its two end records contradict each other")
        disk, disk_of_directory, (count, size, start) = disk64, disk_of_directory64, wide
    if disk or disk_of_directory or start + size != end or size > _MAX_DIRECTORY or count > _MAX_MEMBERS:
        raise damaged(source, f"its directory ({count} members, {size} bytes at {start}) does not fit")
    return count, size, start


def _members(source: SourceFile, view: memoryview, directory: memoryview, count: int) -> list[Member]:
    found: list[Member] = []
    names: set[str] = set()
    at = 0
    spent = budget()
    for _ in range(count):
        spent.step(_MEMBER_STEPS)
        member, at = _member(source, view, directory, at)
        if member.name in names:
            raise WeightsError(
                f"{str(source.path)!r} holds two members named {member.name!r}.",
                "each name must be unique; programs differ in which of the two they read",
                "ask for a clean copy, or write the file again with the one you mean",
            )
        names.add(member.name)
        found.append(member)
    if at != len(directory):
        raise damaged(source, "its directory is longer than its members")
    return found


def _member(source: SourceFile, view: memoryview, directory: memoryview, at: int) -> tuple[Member, int]:
    fields = _CENTRAL.unpack_from(directory, at)
    signature, _, _, flags, method, _, _, crc, stored_size, size = fields[:10]
    name_size, extra_size, comment_size, _, _, _, local = fields[10:]
    at += _CENTRAL.size
    raw_name = bytes(directory[at : at + name_size])
    extra = bytes(directory[at + name_size : at + name_size + extra_size])
    if signature != b"PK\x01\x02" or len(raw_name) != name_size or len(extra) != extra_size:
        raise damaged(source, "its directory breaks off")
    size, stored_size, local = _wide(extra, size, stored_size, local)
    name = raw_name.decode("utf-8" if flags & 0x800 else "cp437", "replace")
    start = _content_start(source, view, raw_name, flags, method, local)
    member = Member(name, start, stored_size, size, crc, method == _DEFLATED)
    _require_sane(source, member, flags, method)
    return member, at + name_size + extra_size + comment_size


def _wide(extra: bytes, *values: int) -> tuple[int, ...]:
    """Return the 64-bit values of the zip64 extra field, for those that did not fit in 32 bits."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + size]
        at += 4 + size
    result = []
    for value in values:
        if value == _NO_OFFSET and len(wide) >= 8:
            value, wide = struct.unpack_from("<Q", wide)[0], wide[8:]
        result.append(value)
    return tuple(result)


def _content_start(source: SourceFile, view: memoryview, raw_name: bytes, flags: int, method: int, local: int) -> int:
    """Return the offset of a member's bytes, behind its local header, which has to agree with the directory."""
    fields = _LOCAL.unpack_from(view, local)
    name_size, extra_size = fields[9:]
    start = local + _LOCAL.size
    same_name = bytes(view[start : start + name_size]) == raw_name
    if fields[0] != b"PK\x03\x04" or not same_name or fields[2] & 0x1 != flags & 0x1 or fields[3] != method:
        raise damaged(source, f"the headers of {raw_name.decode('utf-8', 'replace')!r} contradict each other")
    return int(start + name_size + extra_size)


def _require_sane(source: SourceFile, member: Member, flags: int, method: int) -> None:
    if flags & 0x41 or method not in (_STORED, _DEFLATED):
        raise damaged(source, f"{member.name!r} is encrypted, or compressed in a way that weights files never are")
    if member.start + member.stored_size > source.size or (not member.deflated and member.size != member.stored_size):
        raise damaged(source, f"{member.name!r} is larger than the file")
    if member.deflated:
        try:
            budget().unpack(member.size, member.stored_size, f"its member {shown(member.name)}")
        except LimitError as error:
            raise _bomb(source, str(error)) from error


def _bomb(source: SourceFile, why: str) -> WeightsError:
    return WeightsError(
        f"{str(source.path)!r} is refused: {why}.",
        "compressed weights are hardly smaller than the raw values",
        "do not use it",
    )


def _require_apart(source: SourceFile, members: list[Member]) -> None:
    """Refuse members that share bytes, which is how one small file unpacks to terabytes."""
    end = 0
    for member in sorted(members, key=lambda one: one.start):
        if member.start < end:
            raise damaged(source, f"{member.name!r} overlaps another member")
        end = member.start + member.stored_size
