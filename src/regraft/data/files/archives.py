"""Archives that paths lead into: each is read through once, and its index is kept in memory and in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from regraft import commit
from regraft.data.files.archive_kinds import archive_kind
from regraft.data.files.arrow_tables import ParquetRows, list_arrow, list_parquet
from regraft.data.files.disk_file import ChangedError, DiskFile
from regraft.data.files.gzip_stream import GzipStream
from regraft.data.files.index import Index, Kind
from regraft.data.files.remote.listing import list_remote
from regraft.data.files.remote.rows import RemoteRows
from regraft.data.files.tar_archive import list_tar
from regraft.data.files.zip_archive import list_zip, read_zip_member
from regraft.errors import DataError, StorageError
from regraft.machine.cache_folder import cache_folder, private_folder
from regraft.machine.in_use import note_use

__all__ = ["MAX_BYTES", "Archive", "archive_at", "archive_of", "has_remote", "may_lead_inside"]

MAX_BYTES = 1 << 30  # of one image, or of one list
_YOUNG_NS = 2_000_000_000  # a file system's clock ticks every two seconds at worst
_MOST_FOLDERS = 1 << 16
_AHEAD = 1 << 14  # bytes that are read with a header

_KNOWN: dict[str, Archive | tuple[DiskFile, DataError]] = {}
_ROOTS: dict[str, str | None] = {}  # the archive that a folder lies in
_LISTED_BY: dict[Kind, Callable[[DiskFile], Index]] = {
    "zip": list_zip,
    "parquet": list_parquet,
    "arrow": list_arrow,
    "remote": list_remote,
}
_ONE = threading.RLock()


class Archive:
    """One archive in one state, and its index.

    Attributes:
        file: The archive.
        index: Where its members lie.
    """

    def __init__(self, file: DiskFile, kind: Kind) -> None:
        self.file = file
        self._stream = GzipStream(file) if kind == "tar.gz" else None
        self._rows: ParquetRows | None = None
        self._remote = RemoteRows(file, MAX_BYTES) if kind == "remote" else None
        kept = _kept(file)
        self.index = kept if kept is not None and kept.kind == kind else self._listed(kind)
        if kept is not self.index:
            _keep(file, self.index)
        if self.index.refused:
            raise DataError(
                f"The archive {file.path!r} has members that are not safe.",
                "every member lies in a folder of its archive",
                "pack the images again, from the folder that they lie in",
                details=self.index.refused,
            )

    def read(self, row: int) -> bytes | str:
        """Return the bytes of a member, or the reason as text why there are none."""
        fault = self.index.faults.get(row)
        if fault:
            return fault
        size = int(self.index.table["size"][row])
        if size > MAX_BYTES:
            return f"has {size / 2**30:.1f} GiB, more than the limit of {MAX_BYTES / 2**30:.0f} GiB"
        try:
            if self.index.kind == "zip":
                return read_zip_member(self.file, self.index, row)
            if self._remote is not None:
                return self._remote.read(self.index, row)
            if self.index.kind == "parquet":
                return self._from_parquet(row)
            data = self._read(int(self.index.table["offset"][row]), size)
        except ChangedError:
            return "lies in an archive that has changed meanwhile"
        except DataError as error:
            return f"cannot be read ({error.what})"
        except OSError as error:
            return f"cannot be read ({error})"
        return data if len(data) == size else "is cut off"

    def begin(self, rows: Iterable[int]) -> None:
        """Begin to fetch members that `read` will be asked for, where they are far away."""
        if self._remote is not None:
            self._remote.begin(self.index, rows)

    def _from_parquet(self, row: int) -> bytes | str:
        if self._rows is None:
            self._rows = ParquetRows(self.file)
        return self._rows.read(self.index, row, self.index.folder_of(row))

    def _read(self, place: int, num_bytes: int) -> bytes:
        source = self.file if self._stream is None else self._stream
        return source.read(place, num_bytes)

    def _listed(self, kind: Kind) -> Index:
        try:
            if kind in _LISTED_BY:
                return _LISTED_BY[kind](self.file)
            if kind == "tar":
                return list_tar(self.file.ahead(_AHEAD), self.file.size, self.file.path, kind)
            return list_tar(self._read, None, self.file.path, kind)
        except (ChangedError, OSError) as error:
            reason = getattr(error, "strerror", None) or "it has changed meanwhile"
            raise DataError(f"The archive {self.file.path!r} cannot be read ({reason}).") from None


def has_remote() -> bool:
    """Return whether this process reads from an archive whose members are far away."""
    return any(isinstance(known, Archive) and known.index.kind == "remote" for known in tuple(_KNOWN.values()))


def may_lead_inside(path: str) -> bool:
    """Return whether the folder of a path was found to lie in an archive before: looking for it on the disk is idle."""
    return _ROOTS.get(os.path.dirname(path)) is not None


def archive_of(path: str) -> tuple[Archive, str] | None:
    """Return the archive that a path leads into, and the path inside it; None for a path that leads into none.

    Raises:
        DataError: There is one, and it cannot be used.
        OSError: It is gone.
    """
    full = os.path.abspath(path)
    parent = os.path.dirname(full)
    root, found = _ROOTS.get(parent), None
    if root is not None:
        with contextlib.suppress(OSError):  # it is gone
            found = archive_at(root)
    if root is None or found is None:  # or something else stands in its place now
        root = _root_above(parent)
        if root is None:
            return None
        if len(_ROOTS) > _MOST_FOLDERS:
            _ROOTS.clear()
        _ROOTS[parent] = root
        found = archive_at(root)
    return None if found is None else (found, full[len(root) + 1 :].replace(os.sep, "/"))


def archive_at(path: str) -> Archive | None:
    """Return the archive that a file is; None for any other file.

    Raises:
        DataError: It is one that cannot be used.
        OSError: There is no file.
    """
    root = os.path.abspath(path)
    file = DiskFile.at(root)
    known = _KNOWN.get(root)
    if known is None or (known.file if isinstance(known, Archive) else known[0]) != file:
        with _ONE:
            known = _KNOWN.get(root)
            if known is None or (known.file if isinstance(known, Archive) else known[0]) != file:
                kind = archive_kind(root)
                if kind is None:
                    return None
                known = _KNOWN[root] = _opened(file, kind)
    if isinstance(known, Archive):
        return known
    raise DataError(known[1].what, known[1].expected, known[1].next_step, details=known[1].details)


def _opened(file: DiskFile, kind: Kind) -> Archive | tuple[DiskFile, DataError]:
    try:
        return Archive(file, kind)
    except DataError as error:
        return file, error


def _root_above(folder: str) -> str | None:
    """Return the file that stands where a path needs a folder."""
    while True:
        try:
            status = os.stat(folder)
        except (OSError, ValueError):
            parent = os.path.dirname(folder)
            if parent == folder:
                return None
            folder = parent
            continue
        is_file = os.path.isfile(folder) if status.st_mode else False
        return folder if is_file else None


def _kept(file: DiskFile) -> Index | None:
    """Return the index that the cache holds of this state of a file; None where it holds none."""
    with contextlib.suppress(StorageError, OSError, LookupError, TypeError, ValueError):
        place = _place(file)
        index = Index.from_bytes(place.read_bytes())
        with contextlib.suppress(OSError):  # where nothing can be written, nothing is cleared
            os.utime(place)
        note_use(place.parent)
        return index
    return None


def _keep(file: DiskFile, index: Index) -> None:
    """Put an index into the cache, where there is one; a file that has just changed may change again unseen."""
    if file.mtime > time.time_ns() - _YOUNG_NS:
        return
    with contextlib.suppress(StorageError, OSError):
        place = _place(file)
        private_folder(place.parent)
        commit.write_bytes(place, index.to_bytes())
        note_use(place.parent)
        for older in place.parent.glob(f"{place.name.partition('-')[0]}-*.index"):
            if older != place:
                commit.remove_file(older)


def _place(file: DiskFile) -> Path:
    path, state = (
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        for text in (file.path, f"{file.size}\0{file.mtime}\0{file.ctime}")
    )
    return cache_folder() / "archives" / f"{path}-{state}.index"
