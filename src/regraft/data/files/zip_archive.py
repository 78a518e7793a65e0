"""ZIP archives: their list of members, and the bytes of one (PKWARE APPNOTE 6.3).

The standard library's `zipfile` makes an object of each member, half a kilobyte, and believes their sizes.
"""

from __future__ import annotations

import bz2
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from regraft.data.files.disk_file import DiskFile
from regraft.data.files.index import Index
from regraft.data.files.member_names import inner_path
from regraft.data.files.members import Members
from regraft.errors import DataError

__all__ = ["is_zip", "list_zip", "read_zip_member"]

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MOST_COMMENT = 1 << 16
_BLOCK = 1 << 20
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12
_METHODS = {9: "Deflate64", 14: "LZMA", 93: "Zstandard", 95: "XZ", 99: "AES"}
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_UTF_8, _ENCRYPTED = 0x800, 0x2041  # flags: also strong encryption, and headers that are encrypted
_UNIX, _LINK = 3, 0o120000
_BOMB_BYTES, _BOMB_RATIO = 1 << 26, 200  # a member larger than this is not packed this much smaller
_BOXES = re.compile("[\u2500-\u259f]")
_SPARE = 256  # bytes of extra fields that one reading takes along


class _Inflate(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def is_zip(head: bytes) -> bool:
    """Return whether a file that begins like this is a ZIP archive."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def list_zip(file: DiskFile) -> Index:
    """Return the index of a ZIP archive.

    Raises:
        DataError: It is cut off, damaged, or divided over several files.
    """
    place, num_bytes, num_members, shift = _directory(file)
    members, strange = Members("zip"), ""
    for entry, name, extra in _entries(file, place, num_bytes, num_members):
        _add(members, entry, name, extra, shift)
        strange = strange or _misread(name, entry[4])
    if strange:
        members.notes.append(
            f"Names such as {strange!r} are in an encoding that the archive does not tell; packed anew with names in "
            "UTF-8, it shows them as they were."
        )
    _mark_overlaps(members, place)
    return members.index()


def read_zip_member(file: DiskFile, index: Index, row: int) -> bytes | str:
    """Return the bytes of a member, or the reason as text why there are none."""
    offset, size, packed, _, crc, length, method = index.table[row].item()
    data = file.read(offset, _LOCAL.size + length + _SPARE + packed)
    if len(data) < _LOCAL.size or data[:4] != b"PK\x03\x04":
        return "is damaged (its header in the archive is not there)"
    fields = _LOCAL.unpack_from(data)
    begin = _LOCAL.size + fields[9] + fields[10]
    name = _text(data[_LOCAL.size : _LOCAL.size + fields[9]], fields[2])
    if inner_path(name).rpartition("/")[2] != index.name(row):
        return "has another name in its own header than in the archive's list"
    body = data[begin : begin + packed] if begin + packed <= len(data) else file.read(offset + begin, packed)
    if len(body) < packed:
        return "is cut off"
    content = _unpacked(body, size, method)
    if isinstance(content, bytes) and zlib.crc32(content) != crc:
        return "is damaged (its checksum in the archive is another one)"
    return content


def _directory(file: DiskFile) -> tuple[int, int, int, int]:
    """Return place, bytes and number of members of the list, and how many bytes were put before the archive."""
    tail_at = max(0, file.size - _END.size - _MOST_COMMENT)
    tail = file.read(tail_at, file.size - tail_at)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged(file, "is cut off: the list of its members, which is its end, is not there")
    _, disk, first_disk, _, num_members, num_bytes, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    if (end >= _LOCATOR_64.size and _FULL_16 in (num_members, disk)) or _FULL_32 in (num_bytes, offset):
        locator = file.read(end - _LOCATOR_64.size, _LOCATOR_64.size)
        if locator[:4] == b"PK\x06\x07":
            far = _LOCATOR_64.unpack(locator)[2]
            record = file.read(far, _END_64.size)
            if len(record) < _END_64.size or record[:4] != b"PK\x06\x06":
                raise _damaged(file, "is damaged: its end points to a list that is not there")
            _, _, _, _, disk, first_disk, _, num_members, num_bytes, offset = _END_64.unpack(record)
            end = far
    if disk or first_disk:
        raise _damaged(file, "is one part of an archive in several files")
    shift = end - num_bytes - offset
    if shift < 0 or offset + num_bytes + shift > file.size:
        raise _damaged(file, "is cut off or damaged: the list of its members lies beyond its end")
    return offset + shift, num_bytes, num_members, shift


def _entries(
    file: DiskFile, place: int, num_bytes: int, num_members: int
) -> Iterator[tuple[tuple[int, ...], bytes, bytes]]:
    """Yield the numbers, the name and the extra fields of each member."""
    end, data, at = place + num_bytes, b"", 0
    for _ in range(num_members):
        if len(data) - at < _BLOCK and place < end:
            block = file.read(place, min(4 * _BLOCK, end - place))
            place += max(len(block), 1)
            data, at = data[at:] + block, 0
        if len(data) - at < _ENTRY.size or data[at : at + 4] != b"PK\x01\x02":
            raise _damaged(file, "is damaged: the list of its members breaks off")
        entry = _ENTRY.unpack_from(data, at)
        name, extra = (at + _ENTRY.size, at + _ENTRY.size + entry[12])
        stop = extra + entry[13] + entry[14]
        if stop > len(data):
            raise _damaged(file, "is damaged: the list of its members breaks off")
        yield entry[1:], data[name:extra], data[extra : extra + entry[13]]
        at = stop


def _add(members: Members, entry: tuple[int, ...], raw: bytes, extra: bytes, shift: int) -> None:
    _, system, _, _, flags, method, _, _, crc, packed, size, *_, attributes, offset = entry
    if _FULL_32 in (size, packed, offset):
        size, packed, offset = _wide(extra, size, packed, offset)
    name = _text(raw, flags)
    if name.endswith(("/", "\\")):
        members.add_folder(name)
        return
    mode = attributes >> 16 if system == _UNIX else 0
    fault = ""
    if flags & _ENCRYPTED:
        fault = "is encrypted (unpack the archive with its password)"
    elif mode & 0o170000 == _LINK:
        fault = "is a link, and links in archives are not followed"
    elif method not in (_STORED, _DEFLATED, _BZIP2):
        fault = f"is compressed by {_METHODS.get(method, f'method {method}')}, which is not read inside an archive"
    elif method == _STORED and size != packed:
        fault = "is damaged (its sizes contradict each other)"
    elif size > _BOMB_BYTES and size > _BOMB_RATIO * packed:
        fault = f"would grow from {packed:,} to {size:,} bytes, and no image is packed that small"
    row = members.add_file(name, offset + shift, size, packed=packed, method=method, crc=crc, fault=fault)
    if row >= 0 and offset + shift < 0:
        members.set_fault(row, "is damaged (it begins before the archive)")


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Return the three numbers, those that do not fit in 32 bits from the extra field for them."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            size, packed, offset = (
                next(wide, value) if value == _FULL_32 else value for value in (size, packed, offset)
            )
            break
        at += 4 + length
    return size, packed, offset


def _mark_overlaps(members: Members, end: int) -> None:
    """Note the members that share bytes: one byte of an archive never belongs to two of them."""
    begin = members.column("offset")
    stop = begin + _LOCAL.size + members.column("packed")
    order = np.argsort(begin, kind="stable")
    following = np.append(begin[order][1:], end)
    reach = np.maximum.accumulate(stop[order]) if len(order) else stop
    for place in np.flatnonzero(reach > following).tolist():
        for row in order[place : place + 2].tolist():
            members.set_fault(row, "overlaps another part of the archive")


def _text(raw: bytes, flags: int) -> str:
    """Return a name; without a mark for it, it is UTF-8 all the same where it can be, as macOS writes it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape") if flags & _UTF_8 else raw.decode("cp437")


def _misread(raw: bytes, flags: int) -> str:
    """Return a name that holds what nobody writes in one, lines of boxes: it is in an encoding of another country."""
    name = "" if raw.isascii() else _text(raw, flags)
    return name if _BOXES.search(name) else ""


def _unpacked(body: bytes, size: int, method: int) -> bytes | str:
    """Return the content of a member; it never takes more memory than its size says."""
    if method == _STORED:
        return body
    inflate: _Inflate = zlib.decompressobj(-15) if method == _DEFLATED else bz2.BZ2Decompressor()
    try:
        content = inflate.decompress(body, size + 1)
    except (zlib.error, OSError, EOFError, ValueError):
        return "is damaged (it cannot be decompressed)"
    if len(content) > size:
        return f"is longer than the {size:,} bytes that the archive says"
    return content if len(content) == size else "is cut off"


def _damaged(file: DiskFile, what: str) -> DataError:
    return DataError(
        f"{file.path!r} {what}.", "a whole ZIP archive", f"copy or download it again; `unzip -t {file.name}` tests it"
    )
