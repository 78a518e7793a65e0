"""Sources that are no data set and are often given as one: archives of other kinds, files that are not there."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from regraft.data.files import access
from regraft.data.files.archive_kinds import is_table_of_images
from regraft.data.files.shards import looks_packed
from regraft.data.sources.packed import is_archive
from regraft.data.sources.walk import is_picture_name
from regraft.errors import DataError

__all__ = ["is_packed_images", "require_file", "require_no_archive"]

_MOST_NAMES, _MOST_BYTES = 1000, 1 << 26  # of an archive that are looked at, of a tar archive that are passed

_MAGIC = ((b"PK\x03\x04", "unzip"), (b"\x1f\x8b", "gunzip -k"), (b"7z\xbc\xaf", "7z x"), (b"Rar!", "unrar x"),
          (b"\xfd7zXZ", "xz -dk"), (b"BZh", "bunzip2 -k"), (b"\x28\xb5\x2f\xfd", "zstd -d"))  # fmt: skip


def require_no_archive(path: Path) -> None:
    """Raise DataError for an archive of a kind that is not read in place; a table of Excel is one too, and is not
    meant.
    """
    if not path.is_file() or is_archive(path):
        return
    try:
        with path.open("rb") as stream:
            head = stream.read(262)
    except OSError:
        return
    command = _unpacking(head)
    if command is None and looks_packed(path.name):
        raise DataError(
            f"{str(path)!r} is {'empty' if not head else 'called like an archive, and is none'}.",
            "a whole archive, .zip, .tar or .tar.gz",
            "download or copy it again",
        )
    if command is None or _is_table(path):
        return
    raise DataError(
        f"{str(path)!r} is an archive of a kind that is not read in place.",
        ".zip, .tar or .tar.gz, a folder with one folder of images for each class, a list or a table",
        f"`{command} {path.name}`, then give what it makes",
    )


def is_packed_images(path: Path) -> bool:
    """Return whether a file is an archive or a table of images, where weights may be meant too: many of their files are
    archives.

    Its first names tell, which are read from its list; nothing is unpacked but the start of a packed tar archive.

    Raises:
        DataError: It is one, of a kind that is not read in place.
    """
    if not path.is_file():
        return False
    if is_table_of_images(os.fspath(path)):
        return True
    try:
        with path.open("rb") as stream:
            head = stream.read(262)
        names = list(_names(path)) if _unpacking(head) else []
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError):
        return False  # what it is instead, its reader says
    if not names or sum(map(is_picture_name, names)) <= len(names) / 2:
        return False
    require_no_archive(path)
    return True


def _names(path: Path) -> Iterable[str]:
    """Return the first names of the files in a zip or tar archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist()[:_MOST_NAMES] if not name.endswith("/")]
    names: list[str] = []
    with tarfile.open(path) as packed:
        num_bytes = 0
        for member in islice(packed, _MOST_NAMES):
            names += [member.name] if member.isfile() else []
            num_bytes += member.size
            if num_bytes > _MOST_BYTES:  # the way to the next name leads through them, which may be packed zeros
                break
    return names


def _unpacking(head: bytes) -> str | None:
    """Return the command that unpacks a file that begins like this; None where it is not an archive."""
    command = next((command for magic, command in _MAGIC if head.startswith(magic)), None)
    return "tar -xf" if head[257:262] == b"ustar" else command


def require_file(given: Mapping[str, Path | None]) -> None:
    """Raise DataError for files of labels or names that are not there."""
    for key, path in given.items():
        if path is None or access.exists(path):
            continue
        if not path.name.startswith("*") or not access.files_like(path.parent, path.name):
            raise DataError(
                f"There is no file {os.fspath(path)!r}.",
                f"the file that data.{key} names",
                f"check the spelling of data.{key} (`--{key.replace('_', '-')}`)",
            )


def _is_table(path: Path) -> bool:
    if path.suffix.lower() in (".xlsx", ".xlsm", ".ods", ".csv", ".tsv", ".txt"):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "[Content_Types].xml" in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
