"""Zip archives as weight formats use them: a list of members with their byte ranges, nothing extracted to the disk.

Stricter than the zip format: one member for each name, the same name in both headers, stored or deflated members only,
no encryption, sizes that the bytes can hold. Values are checked against the CRC of the member.
Source of the layout: PKWARE's APPNOTE.TXT, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from regraft.errors import WeightsError
from regraft.weights.readers.span import SourceFile

__all__ = ["Archive", "Member", "is_zip", "open_archive"]

_STORED, _DEFLATED = 0, 8
_MAX_MEMBERS = 200_000
_MAX_DIRECTORY = 256 * 2**20
# A deflated member may be this many times its stored size once it is larger than _FREE bytes (weights hardly shrink).
_MAX_RATIO = 100
_FREE = 16 * 2**20
_NO_OFFSET = 0xFFFFFFFF
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

    def read(self, member: Member) -> bytes:
        """All bytes of a member.

        Raises:
            WeightsError: They are damaged, or not as many as declared.
        """
        stored = self.source.read(member.start, member.stored_size).data
        content = _inflated(self.source, member, stored) if member.deflated else bytes(stored)
        if len(content) != member.size or zlib.crc32(content) != member.crc:
            raise damaged(self.source, f"the checksum of {member.name!r} does not hold")
        return content

    def head(self, member: Member, num_bytes: int) -> bytes:
        """The first bytes of a member, unchecked: enough for a header."""
        if not member.deflated:
            return bytes(self.source.read(member.start, min(num_bytes, member.size)).data)
        stored = self.source.read(member.start, min(member.stored_size, num_bytes + 4096)).data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, num_bytes)
        except zlib.error as error:
            raise damaged(self.source, f"{member.name!r} cannot be inflated") from error

    def check(self, member: Member) -> None:
        """Compare a stored member with its checksum, a piece at a time.

        Raises:
            WeightsError: They differ.
        """
        crc = 0
        with self.source.mapped() as view:
            for start in range(member.start, member.start + member.stored_size, 2**24):
                with view[start : min(start + 2**24, member.start + member.stored_size)] as piece:
                    crc = zlib.crc32(piece, crc)
        if crc != member.crc:
            raise damaged(self.source, f"the checksum of {member.name!r} does not hold")


def is_zip(head: bytes) -> bool:
    """Whether a file starts like a zip archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def damaged(source: SourceFile, why: str) -> WeightsError:
    return WeightsError(
        f"{str(source.path)!r} is a damaged or cut zip file: {why}.",
        "A whole archive was expected, with its directory at the end.",
        "Download or copy it again, and compare its size with the original's.",
    )


def open_archive(source: SourceFile) -> Archive:
    """Read the directory of a zip file.

    Raises:
        WeightsError: It is cut, damaged, ambiguous (two members of one name) or a bomb.
    """
    with source.mapped() as view:
        try:
            count, size, start = _directory(source, view)
            with view[start : start + size] as directory:
                found = _members(source, view, directory, count)
        except (struct.error, ValueError, IndexError) as error:
            raise damaged(source, str(error)) from error
    _require_apart(source, found)
    return Archive(source, {member.name: member for member in found})


def _directory(source: SourceFile, view: memoryview) -> tuple[int, int, int]:
    """Number of members, size and start of the central directory."""
    tail_start = max(0, len(view) - _END.size - 65535)
    at = bytes(view[tail_start:]).rfind(b"PK\x05\x06")
    if at < 0:
        raise damaged(source, "it has no directory at its end")
    at += tail_start
    _, disk, disk_of_directory, _, count, size, start, comment = _END.unpack_from(view, at)
    if at + _END.size + comment != len(view):
        raise damaged(source, "something follows its end")
    end = at
    if _NO_OFFSET in (size, start) or count == 0xFFFF:
        at64 = at - _LOCATOR64.size
        signature, _, end64, _ = _LOCATOR64.unpack_from(view, at64) if at64 >= 0 else (b"", 0, 0, 0)
        if signature == b"PK\x06\x07":
            signature, _, _, _, disk, disk_of_directory, _, count, size, start = _END64.unpack_from(view, end64)
            end = end64
            if signature != b"PK\x06\x06":
                raise damaged(source, "its zip64 end is missing")
    if disk or disk_of_directory or start + size != end or size > _MAX_DIRECTORY or count > _MAX_MEMBERS:
        raise damaged(source, f"its directory ({count} members, {size} bytes at {start}) does not fit")
    return count, size, start


def _members(source: SourceFile, view: memoryview, directory: memoryview, count: int) -> list[Member]:
    found: list[Member] = []
    names: set[str] = set()
    at = 0
    for _ in range(count):
        member, at = _member(source, view, directory, at)
        if member.name in names:
            raise WeightsError(
                f"{str(source.path)!r} holds two members of the name {member.name!r}.",
                "Each name must stand for one array; programs differ in which of two they read.",
                "Ask for a clean copy, or write the file again with the one you mean.",
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
    """The 64-bit values of the zip64 extra field, for those that did not fit in 32 bits."""
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
    """Where a member's bytes begin: behind its local header, which has to say the same as the directory."""
    fields = _LOCAL.unpack_from(view, local)
    name_size, extra_size = fields[9:]
    start = local + _LOCAL.size
    same_name = bytes(view[start : start + name_size]) == raw_name
    if fields[0] != b"PK\x03\x04" or not same_name or fields[2] & 0x1 != flags & 0x1 or fields[3] != method:
        raise damaged(source, f"the headers of {raw_name.decode('utf-8', 'replace')!r} contradict each other")
    return int(start + name_size + extra_size)


def _require_sane(source: SourceFile, member: Member, flags: int, method: int) -> None:
    if flags & 0x41 or method not in (_STORED, _DEFLATED):
        raise damaged(source, f"{member.name!r} is encrypted or packed in a way that weights never are")
    if member.start + member.stored_size > source.size or (not member.deflated and member.size != member.stored_size):
        raise damaged(source, f"{member.name!r} is larger than the file")
    if member.size > _FREE and member.size > _MAX_RATIO * member.stored_size:
        raise WeightsError(
            f"{str(source.path)!r} is refused: its member {member.name!r} has {member.stored_size} bytes "
            f"and declares {member.size} (a zip bomb).",
            f"Packed weights are never {_MAX_RATIO} times smaller than the numbers.",
            "Do not use it.",
        )


def _require_apart(source: SourceFile, members: list[Member]) -> None:
    """Members that share bytes are how one small file unpacks to terabytes."""
    end = 0
    for member in sorted(members, key=lambda one: one.start):
        if member.start < end:
            raise damaged(source, f"{member.name!r} overlaps another member")
        end = member.start + member.stored_size


def _inflated(source: SourceFile, member: Member, stored: memoryview) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(stored, member.size + 1)
    except zlib.error as error:
        raise damaged(source, f"{member.name!r} cannot be inflated ({error})") from error
    if not inflater.eof and len(content) <= member.size and inflater.unconsumed_tail:
        raise damaged(source, f"{member.name!r} is longer than declared")
    return content
