"""Archives as sources: where the data set inside one begins, what it is called, and what is said of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from regraft.data.files import access
from regraft.data.files.archive_kinds import archive_kind, archive_stem
from regraft.data.files.archives import archive_at
from regraft.data.files.shards import is_pattern
from regraft.data.sources.listing import SPLIT_WORDS
from regraft.data.sources.walk import is_hidden

__all__ = ["archive_notes", "is_archive", "source_name", "source_root"]

_LISTS = (".csv", ".tsv", ".txt", ".lst")


def is_archive(source: Path) -> bool:
    """Return whether a source is a file that is read as a folder."""
    return source.is_file() and archive_kind(os.fspath(source)) is not None


def source_root(source: Path) -> Path:
    """Return where the data set of a source begins: for an archive of one folder, as `zip -r photos.zip photos` makes
    it, in that folder.

    A folder that is called like a split, or that holds nothing but images, as that of a class does, is part of the data
    set.

    Raises:
        DataError: The archive cannot be used.
    """
    if not is_archive(source):
        return source
    root = source
    while (alone := _only_folder(root)) is not None:
        root = alone
    return root


def source_name(source: Path) -> str:
    """Return what a data set is called: its folder, or its file without the end."""
    if is_pattern(source.name) and not source.exists():
        return re.split(r"[{*?\[]", source.name)[0].rstrip("-_. ") or source.parent.name
    if is_archive(source):
        return archive_stem(source.name)
    return source.stem if access.is_file(source) else source.name


def archive_notes(source: Path) -> tuple[str, ...]:
    """Return what a person should know about an archive; nothing for other sources."""
    archive = archive_at(os.fspath(source)) if is_archive(source) else None
    return () if archive is None else archive.index.notes


def _only_folder(folder: Path) -> Path | None:
    names = [name for name in access.names_in(folder) if not is_hidden(name)]
    if len(names) != 1 or names[0].lower() in SPLIT_WORDS or not access.is_folder(folder / names[0]):
        return None
    with access.entries(folder / names[0]) as found:
        is_more = any(entry.is_dir() or entry.name.lower().endswith(_LISTS) for entry in found)
    return folder / names[0] if is_more else None
