"""Which file a row of a list means."""

from __future__ import annotations

import os
from collections.abc import Sequence

from regraft.data.files import access
from regraft.data.sources.listing import folded
from regraft.data.sources.walk import Walk, is_folder, is_hidden, is_picture_name

__all__ = ["Locator"]

_MOST_FILES = 2_000_000  # that are looked at to find a name without its folder
_WEB = ("http://", "https://", "s3://", "gs://", "ftp://", "file://")


class Locator:
    """Finds the files that rows name, in one or more folders.

    A path is looked for in each folder in turn. One that is written with backslashes is read with slashes where that
    helps. A name without a folder, such as an id, is looked for among all images below, with or without its suffix.

    Args:
        folders: Absolute paths; the first one is the root of the data set.

    Attributes:
        num_backslashes: How many rows had their backslashes read as slashes.
        num_outside: How many rows lead out of all folders by `..`.
        example_outside: The first of them.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = list(dict.fromkeys(folders))
        self.num_backslashes = 0
        self.num_outside = 0
        self.example_outside = ""
        self._near: dict[str, list[str]] = {}
        self._below: dict[str, dict[str, list[str]]] = {}
        self._entries: dict[str, dict[str, str]] = {}

    def find(self, written: str, near: str = "") -> tuple[str, str]:
        """Return the absolute path of the file that a row names; or an empty text, and the reason if there is a special
        one.

        Args:
            written: What stands in the row.
            near: The name of a folder to look into as well, such as `train` for the list `train.csv`; an absolute path
                comes before all others.
        """
        folders = self._folders(near)
        for text in (written, written.replace("\\", "/")) if "\\" in written else (written,):
            for folder in folders:
                path = os.path.normpath(os.path.join(folder, text))
                if access.is_file(path):
                    self.num_backslashes += text is not written
                    self._note_outside(written, text, path)
                    return path, ""
        if "/" in written or "\\" in written:
            return "", ""
        for folder in folders if os.path.isabs(near) else folders[len(self.folders) :] + self.folders:
            found = self._index(folder).get(written, ())
            if len(found) == 1:
                return found[0], ""
            if found:
                return "", f"{written!r} may be any of {len(found)} files, for example {found[0]!r} and {found[1]!r}"
        return "", ""

    def _folders(self, near: str) -> list[str]:
        if near not in self._near:
            inside = [os.path.join(folder, near) for folder in self.folders if near]
            inside = [folder for folder in dict.fromkeys(inside) if access.is_folder(folder)]
            self._near[near] = [*inside, *self.folders] if os.path.isabs(near) else [*self.folders, *inside]
        return self._near[near]

    def hint(self, written: str) -> str:
        """Return why no file was found, for people."""
        if "\0" in written:
            return "the path holds a NUL byte"
        if written.lower().startswith(_WEB):
            return f"{written!r} is a web address; regraft reads files"
        text = written.replace("\\", "/")
        for folder in self.folders:
            path = os.path.normpath(os.path.join(folder, text))
            if access.is_folder(path):
                return f"{written!r} is a folder, not a file"
            if twin := self._twin(path):
                return f"there is no file {written!r}, but {_relative(twin, folder)!r}: mind upper and lower case"
        if tail := self._tail(text):
            return f"there is no file {written!r}, but {tail!r}: write the paths relative to the list"
        return f"there is no file {written!r}"

    def _note_outside(self, written: str, text: str, path: str) -> None:
        if not text.startswith("..") and "/.." not in text:
            return
        if not any(path.startswith(folder.rstrip(os.sep) + os.sep) for folder in self.folders):
            self.num_outside += 1
            self.example_outside = self.example_outside or written

    def _index(self, folder: str) -> dict[str, list[str]]:
        """Return the images below a folder by their names, and by their names without suffix."""
        if folder not in self._below:
            found: dict[str, list[str]] = {}
            self._below[folder] = found
            for path in _pictures_below(folder):
                name = os.path.basename(path)
                for key in {name, os.path.splitext(name)[0]}:
                    found.setdefault(key, []).append(path)
        return self._below[folder]

    def _twin(self, path: str) -> str:
        """Return a file whose path differs only in how it is written: case, or composed and decomposed accents."""
        parent, name = os.path.split(path)
        if parent == path:
            return ""
        if not access.is_folder(parent):
            parent = self._twin(parent)
        if not parent:
            return ""
        if parent not in self._entries:
            try:
                self._entries[parent] = {folded(entry): entry for entry in access.names_in(parent)}
            except OSError:
                self._entries[parent] = {}
        twin = self._entries[parent].get(folded(name))
        return os.path.join(parent, twin) if twin else ""

    def _tail(self, text: str) -> str:
        """Return the end of a path that exists below one of the folders: lists are moved from one machine to
        another.
        """
        parts = [part for part in text.split("/") if part not in ("", ".", "..")]
        for start in range(1, len(parts)):
            tail = os.path.join(*parts[start:])
            if any(access.is_file(os.path.join(folder, tail)) for folder in self.folders):
                return tail
        return ""


def _pictures_below(folder: str) -> list[str]:
    """Return every file below a folder that is called like an image; folders that are links count too, each of them
    once.
    """
    walk = Walk()
    walk.enter(folder)
    found, waiting, num_files = [], [folder], 0
    while waiting and num_files <= _MOST_FILES:
        for entry in walk.entries(waiting.pop()):
            num_files += 1
            if is_hidden(entry.name):
                continue
            if is_folder(entry):
                if walk.enter(entry.path):
                    waiting.append(entry.path)
            elif is_picture_name(entry.name):
                found.append(entry.path)
    return sorted(found)


def _relative(path: str, folder: str) -> str:
    return os.path.relpath(path, folder) if path.startswith(folder.rstrip(os.sep) + os.sep) else path
