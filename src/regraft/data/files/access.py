"""The one way to files and folders, wherever they lie: on the disk, or inside an archive.

`photos.zip/cats/1.jpg` is a path like any other: what the disk does not have is looked for in the archive that the path
leads into. A file that is an archive counts as a folder where it is asked for by name (`is_folder`, `entries`); met on
a walk through a folder it stays a file. What lies on the disk takes the way that it always took.
"""

from __future__ import annotations

import fnmatch
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from regraft.data.files.archive_kinds import archive_kind
from regraft.data.files.archives import Archive, archive_at, archive_of, has_remote, may_lead_inside
from regraft.errors import DataError

__all__ = [
    "Entry",
    "entries",
    "exists",
    "fetch_ahead",
    "files_like",
    "has_file",
    "is_file",
    "is_folder",
    "leads_on",
    "names_in",
    "open_bytes",
    "open_text",
    "read_member",
    "state_of",
    "states_of",
    "walk",
]

Name = str | os.PathLike[str]


class Entry(Protocol):
    """What lies in a folder: the part of `os.DirEntry` that regraft asks for."""

    @property
    def name(self) -> str:
        """The name in its folder."""

    @property
    def path(self) -> str:
        """The name behind the path of its folder."""

    def is_dir(self) -> bool:
        """Return whether it is a folder."""

    def is_file(self) -> bool:
        """Return whether it is a regular file."""

    def is_symlink(self) -> bool:
        """Return whether it is a link."""

    def stat(self) -> os.stat_result:
        """Return its size and times."""


class _Member:
    """An entry of a folder inside an archive."""

    def __init__(self, archive: Archive, folder: str, name: str, number: int, row: int | None) -> None:
        self.name, self.path = name, os.path.join(folder, name)
        self._archive, self._number, self._row = archive, number, row

    def is_dir(self) -> bool:
        return self._row is None

    def is_file(self) -> bool:
        return not self.is_dir()

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> os.stat_result:
        return _status(self._archive, self._number, self._row)


def state_of(path: Name) -> os.stat_result:
    """Return size and times of a file or folder; a member has the times of its archive.

    Raises:
        OSError: There is none.
    """
    if may_lead_inside(os.fspath(path)) and (found := _inside(path)) is not None:
        return _state(*found)
    try:
        return os.stat(path)
    except OSError as error:
        found = _inside(path) if leads_on(error) else None
        if found is None:
            raise
        try:
            return _state(*found)
        except FileNotFoundError:
            raise error from None


def states_of(paths: Iterable[str]) -> Iterator[os.stat_result | None]:
    """Yield size and times of files as they are now; None for one that is not there.

    The archive that a folder lies in is looked at once.
    """
    inside: dict[str, tuple[Archive, str] | None] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if may_lead_inside(path) and folder not in inside:
            inside[folder] = _inside(folder) or _archive(folder)
        found = inside.get(folder)
        try:
            if found is None:
                yield state_of(path)
            else:
                archive, within = found
                yield _state(archive, f"{within}/{name}" if within else name)
        except (OSError, ValueError):
            yield None


def exists(path: Name) -> bool:
    """Return whether there is anything of this path."""
    return _mode(path) is not None


def is_file(path: Name) -> bool:
    """Return whether there is a regular file of this path; an archive is one."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Name) -> bool:
    """Return whether there is a folder of this path, or an archive."""
    mode = _mode(path)
    if mode is None or not stat.S_ISREG(mode):
        return mode is not None and stat.S_ISDIR(mode)
    return os.path.exists(path) and archive_kind(os.fspath(path)) is not None


@contextmanager
def entries(folder: Name) -> Iterator[Iterator[Entry]]:
    """Give what lies in a folder, in no particular order, as `os.scandir` does.

    Raises:
        OSError: There is no such folder, or it cannot be opened.
        DataError: It lies in an archive that cannot be used.
    """
    try:
        found = os.scandir(folder)
    except NotADirectoryError:
        inner = _inside(folder) or _archive(folder)
        if inner is None or inner[0].index.folder(inner[1]) is None:
            raise
        yield _members(*inner, os.fspath(folder))
        return
    with found:
        yield found


def names_in(folder: Name) -> list[str]:
    """Return the names of what lies in a folder, sorted.

    Raises:
        OSError: There is no such folder.
    """
    with entries(folder) as found:
        return sorted(entry.name for entry in found)


def walk(folder: Name) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and every one below it, links left out, each with the names of its files."""
    waiting = [os.fspath(folder)]
    while waiting:
        path = waiting.pop()
        files, inner = [], []
        try:
            with entries(path) as found:
                for entry in found:
                    if not entry.is_dir():
                        files.append(entry.name)
                    elif not entry.is_symlink():
                        inner.append(entry.path)
        except OSError:
            continue
        yield path, files
        waiting += reversed(inner)


def fetch_ahead(paths: Iterable[str]) -> None:
    """Begin to fetch files that will be read now, in this order, where they are far away; nothing for all others."""
    if not has_remote():
        return
    wanted: dict[int, tuple[Archive, list[int]]] = {}
    for path in paths:
        found = _inside(path)
        row = found[0].index.row(found[1]) if found is not None else None
        if found is not None and row is not None:
            wanted.setdefault(id(found[0]), (found[0], []))[1].append(row)
    for archive, rows in wanted.values():
        archive.begin(rows)


def files_like(folder: Name, pattern: str) -> list[Path]:
    """Return what fits a pattern of names below a folder, sorted; the pattern may name folders with slashes."""
    if os.path.isdir(folder):
        return sorted(Path(folder).glob(pattern))
    places = [Path(folder)]
    for part in pattern.replace("\\", "/").split("/"):
        places = [
            place / name
            for place in places
            if is_folder(place)
            for name in names_in(place)
            if fnmatch.fnmatchcase(name, part)
        ]
    return sorted(places)


def has_file(folder: Name, name: str) -> bool:
    """Return whether there is a regular file of this name in a folder."""
    return is_file(os.path.join(folder, name))


def open_bytes(path: Name) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        found = read_member(path) if leads_on(error) else None
        if found is None:
            raise
        if isinstance(found, str):
            raise OSError(error.errno, found, os.fspath(path)) from None
        return io.BytesIO(found)


def open_text(path: Name, encoding: str, errors: str = "strict", newline: str | None = None) -> TextIO:
    """Open a file to read it as text.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors=errors, newline=newline)


def leads_on(error: OSError) -> bool:
    """Return whether a path that was not found may lead into a file: then a folder on its way is none."""
    return isinstance(error, NotADirectoryError) or (os.name == "nt" and isinstance(error, FileNotFoundError))


def read_member(path: Name) -> bytes | str | None:
    """Return the bytes of a member of an archive, or the reason as text why there are none; None for a path that leads
    to no member.
    """
    try:
        found = archive_of(os.fspath(path))
    except (OSError, ValueError):
        return None
    except DataError as error:
        return f"cannot be read ({error.what})"
    if found is None:
        return None
    archive, inside = found
    row = archive.index.row(inside)
    return None if row is None else archive.read(row)


def _mode(path: Name) -> int | None:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if not leads_on(error):
            return None
    except ValueError:
        return None
    try:
        found = archive_of(os.fspath(path))
        return None if found is None else _state(*found).st_mode
    except (OSError, ValueError, DataError):
        return None


def _inside(path: Name) -> tuple[Archive, str] | None:
    try:
        return archive_of(os.fspath(path))
    except (OSError, ValueError):
        return None


def _archive(path: Name) -> tuple[Archive, str] | None:
    """Return an archive that is named itself, as its own folder."""
    found = archive_at(os.fspath(path)) if os.path.isfile(path) else None
    return None if found is None else (found, "")


def _members(archive: Archive, inside: str, folder: str) -> Iterator[Entry]:
    index, start = archive.index, f"{inside}/" if inside else ""
    for name in index.folders_in(inside):
        yield _Member(archive, folder, name, index.folder(start + name) or 0, None)
    for row in index.rows_in(inside):
        name = index.name(row)
        if index.folder(start + name) is None:
            yield _Member(archive, folder, name, 0, row)


def _state(archive: Archive, inside: str) -> os.stat_result:
    """Return what `os.stat` would say of a member.

    Raises:
        FileNotFoundError: There is no such member.
    """
    number = archive.index.folder(inside)
    row = archive.index.row(inside) if number is None else None
    if number is None and row is None:
        raise FileNotFoundError(inside)
    return _status(archive, number or 0, row)


def _status(archive: Archive, number: int, row: int | None) -> os.stat_result:
    """Return size and times of the file in a row, or of a folder by its number."""
    file, is_remote = archive.file, archive.index.kind == "remote"
    mode, size, changed = stat.S_IFDIR | 0o555, 0, file.mtime
    if row is not None:
        mode, size = stat.S_IFREG | 0o444, archive.index.table["size"].item(row)
        number = len(archive.index.folders) + row
        if is_remote:
            changed = archive.index.table["packed"].item(row)
    entry = changed if is_remote else file.ctime
    seconds = (changed // 10**9, changed // 10**9, entry // 10**9)
    return os.stat_result(
        (mode, number, -1 - file.inode, 1, 0, 0, size, *seconds),
        {"st_atime_ns": changed, "st_mtime_ns": changed, "st_ctime_ns": entry},
    )
