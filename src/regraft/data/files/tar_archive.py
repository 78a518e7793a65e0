"""TAR archives: their members, found by one way through their headers (POSIX.1-2001 pax, ustar, and GNU's additions).

The standard library's `tarfile` makes an object of each member, a kilobyte, and reads a million of them in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from regraft.data.files.index import Index, Kind
from regraft.data.files.member_names import inner_path, unsafe_reason
from regraft.data.files.members import Members
from regraft.errors import DataError

__all__ = ["BLOCK", "is_tar", "list_tar"]

BLOCK = 512
_MOST_NAME = 1 << 16  # bytes of a long name, and of pax records
_REGULAR, _FOLDER, _HARD, _LINKS = b"0\0007", b"5", b"1", b"2"
_GNU_NAME, _GNU_LINK, _GNU_SPARSE = b"L", b"K", b"S"
_PAX, _PAX_ALL = b"xX", b"g"
_DEVICES = b"346"
_REST = 1 << 20

Read = Callable[[int, int], bytes]  # place, number of bytes


@dataclass
class _Beside:
    """What headers say of the member that comes next."""

    name: str | None = None
    link: str | None = None
    size: int | None = None
    sparse: bool = False


@dataclass
class _Way:
    """The way through an archive: what was found, and where."""

    members: Members
    rows: dict[str, int] = field(default_factory=dict)
    last: str = ""


def is_tar(head: bytes) -> bool:
    """Return whether a file that begins with these 512 bytes is a TAR archive."""
    return len(head) >= BLOCK and head[0] != 0 and _sum_fits(head[:BLOCK])


def list_tar(read: Read, size: int | None, path: str, kind: Kind) -> Index:
    """Return the index of a TAR archive.

    Args:
        read: Returns bytes from a place on, which never goes back; fewer at the end.
        size: How many bytes there are; None where only reading on can tell.
        path: The archive, for messages.
        kind: What the index is called.

    Raises:
        DataError: It is cut off or damaged.
    """
    way = _Way(Members(kind))
    place, beside, has_end = 0, _Beside(), False
    while header := read(place, BLOCK):
        if not header.strip(b"\0") and len(header) == BLOCK:
            has_end = True
            break
        if len(header) < BLOCK or not _sum_fits(header):
            what = "is cut off" if len(header) < BLOCK else "is damaged"
            raise _damaged(path, f"{what} behind the member {way.last!r}" if way.last else what)
        place += BLOCK
        num_bytes = _number(header[124:136])
        if num_bytes is None or (size is not None and place + num_bytes > size):
            raise _damaged(path, f"is cut off in the member {_name(header)!r}")
        kind_of = header[156:157]
        if kind_of in (_GNU_NAME, _GNU_LINK) or kind_of in _PAX or kind_of == _PAX_ALL:
            _look_ahead(beside, kind_of, _short(read, place, num_bytes, path))
            place += _padded(num_bytes)
            continue
        num_bytes = num_bytes if beside.size is None else beside.size
        if size is not None and place + num_bytes > size:
            raise _damaged(path, f"is cut off in the member {beside.name or _name(header)!r}")
        place += _add(way, header, beside, place, num_bytes)
        beside = _Beside()
    while has_end and size is None and (rest := read(place, _REST)):  # what ends the stream proves the whole of it
        place += len(rest)
    if not has_end:
        way.members.notes.append("The archive has no end mark: it may have been cut off behind its last member.")
    return way.members.index()


def _add(way: _Way, header: bytes, beside: _Beside, place: int, num_bytes: int) -> int:
    """Add one member; returns how many bytes follow its header."""
    kind = header[156:157]
    name = way.last = beside.name or _name(header)
    link = beside.link or _text(header[157:257])
    if kind == _FOLDER or (kind in _REGULAR and name.endswith("/")):
        way.members.add_folder(name)
        return 0
    path = inner_path(name) if not unsafe_reason(name) else ""
    if kind == _HARD and path:
        _add_hard_link(way, name, path, link)
        return 0
    fault = ""
    if kind == _GNU_SPARSE or beside.sparse:
        fault = "is stored with holes (sparse), which is not read inside an archive"
    elif kind == _LINKS:
        fault = f"is a link to {link!r}, and links in archives are not followed"
    elif kind in _DEVICES:
        fault = "is a device or a pipe, not a file"
    has_bytes = kind not in (_LINKS, _HARD) and kind not in _DEVICES
    row = way.members.add_file(name, place, num_bytes if has_bytes else 0, fault=fault)
    if row >= 0 and not fault:
        way.rows[path] = row
    return _padded(num_bytes) if has_bytes else 0


def _add_hard_link(way: _Way, name: str, path: str, link: str) -> None:
    """Add a second name of an earlier member: the same bytes."""
    row = way.rows.get(inner_path(link)) if not unsafe_reason(link) else None
    if row is None:
        way.members.add_file(name, 0, 0, fault=f"is a link to {link!r}, which does not come before it")
        return
    offset, size = (int(way.members.column(column)[row]) for column in ("offset", "size"))
    way.rows[path] = way.members.add_file(name, offset, size)


def _look_ahead(beside: _Beside, kind: bytes, data: bytes) -> None:
    """Note what an extended header says of the next member; what one says of all members is not about names."""
    if kind == _GNU_NAME:
        beside.name = _text(data)
    elif kind == _GNU_LINK:
        beside.link = _text(data)
    elif kind in _PAX:
        records = _pax_records(data)
        beside.name = records.get("GNU.sparse.name") or records.get("path") or beside.name
        beside.link = records.get("linkpath") or beside.link
        beside.sparse = any(key.startswith("GNU.sparse") for key in records)
        if (records.get("size") or "").isdecimal():
            beside.size = int(records["size"])


def _pax_records(data: bytes) -> dict[str, str]:
    """Return the records `LENGTH KEY=VALUE`; those behind a damaged one are left out."""
    found = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) + 1 < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length)].removesuffix(b"\n").partition(b"=")
        found[_decoded(key)] = _decoded(value)
        data = data[int(length) :]
    return found


def _short(read: Read, place: int, num_bytes: int, path: str) -> bytes:
    """Return the bytes of an extended header."""
    if num_bytes > _MOST_NAME:
        raise _damaged(path, f"is damaged: it has a name of {num_bytes:,} bytes")
    data = read(place, num_bytes)
    if len(data) < num_bytes:
        raise _damaged(path, "is cut off")
    return data


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes) -> str:
    return _decoded(data.partition(b"\0")[0])


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK) * BLOCK


def _number(digits: bytes) -> int | None:
    """Return a number in octal digits, or in binary where its first bit is set; None where it is neither."""
    if digits[0] & 0x80:
        number = int.from_bytes(digits[1:], "big")
        return number if digits[0] == 0x80 and number < 1 << 62 else None
    text = digits.strip(b" \0")
    if not text:
        return 0
    try:
        return int(text, 8) if text.isdigit() else None
    except ValueError:
        return None


def _sum_fits(header: bytes) -> bool:
    """Return whether a header has the checksum that stands in it."""
    wanted = _number(header[148:156])
    return wanted is not None and wanted == sum(header.translate(None, b"\0")) - sum(header[148:156]) + 8 * ord(" ")


def _damaged(path: str, what: str) -> DataError:
    return DataError(
        f"{path!r} {what}.", "a whole TAR archive", f"copy or download it again; `tar -tf {path}` tests it"
    )
