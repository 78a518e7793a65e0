"""Finding the image files below a folder, whatever else lies there."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regraft.data.decode.sniff import known_format
from regraft.data.files import access
from regraft.data.files.access import Entry
from regraft.data.paths import FileFacts, Paths
from regraft.errors import DataError

__all__ = ["STRAY_PICTURE", "Walk", "find_pictures", "is_folder", "is_hidden", "is_picture_name"]


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "lost+found", "system volume information", "__pycache__"}
_SYSTEM_NAMES = _SYSTEM_FILES | _SYSTEM_FOLDERS
# Suffixes that promise an image: accepted here, and judged when they are decoded. The second row are images that
# regraft does not read: they must come out as quarantined files with a reason, not vanish as "not an image".
_PICTURES = _suffixes(
    ".jpg .jpeg .jpe .jfif .jif .png .webp .bmp .dib .tif .tiff .gif .avif .mpo "
    ".heic .heif .hif .jxl .jp2 .j2k .ppm .pgm .pbm .pnm .psd .tga"
)
_CAMERA_RAW = _suffixes(".cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef .srw")
_OTHERS = _suffixes(
    ".txt .md .rst .csv .tsv .json .jsonl .xml .yaml .yml .toml .ini .cfg .log .html .htm .pdf .doc .docx .xls .xlsx "
    ".py .ipynb .js .sh .bat .zip .tar .gz .tgz .bz2 .xz .7z .rar .npy .npz .mat .h5 .hdf5 .pt .pth .ckpt .pkl .pickle "
    ".parquet .arrow .db .sqlite .lock .mp4 .avi .mov .mkv .webm .mp3 .wav .svg .eps .ps .ai"
)


STRAY_PICTURE = "image outside the class folders"


def find_pictures(folder: str | os.PathLike[str]) -> tuple[list[str], dict[str, int]]:
    """Return the image files below a folder, sorted by path, and how many other files were left out, by reason.

    Raises:
        DataError: If a folder below it cannot be opened.
    """
    walk = Walk()
    walk.enter(os.fspath(folder))
    paths = walk.pictures(os.fspath(folder))
    if walk.mistakes:
        raise DataError(
            f"Not every folder below {os.fspath(folder)!r} can be read.",
            "each of them lists its files",
            "correct the rights of these folders",
            details=walk.mistakes,
        )
    return list(paths), dict(sorted(walk.ignored.items()))


@dataclass
class Walk:
    """One walk over folders: what was seen, and what was left out and why."""

    seen: set[tuple[int, int]] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def enter(self, folder: Path | str) -> bool:
        """Return whether this folder is met for the first time, whatever name leads to it."""
        status = access.state_of(folder)
        key = (status.st_dev, status.st_ino)
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def entries(self, folder: Path | str) -> list[Entry]:
        """Return the entries of a folder, sorted by name; one that cannot be opened is noted as a mistake."""
        try:
            with access.entries(folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.mistakes.append(f"{str(folder)!r} cannot be opened ({error.strerror}).")
            return []

    def folders(self, folder: Path) -> list[Path]:
        """Return the visible folders in a folder, sorted; files beside them are counted as ignored."""
        found = []
        for entry in self.entries(folder):
            if is_hidden(entry.name):
                self.ignored["hidden or system " + ("folder" if is_folder(entry) else "file")] += 1
            elif is_folder(entry):
                found.append(Path(entry.path))
            else:
                self.ignored[_no_picture(entry) or STRAY_PICTURE] += 1
        return found

    def pictures(self, folder: Path | str) -> Paths:
        """Return the image files below a class folder, sorted by their path, with their sizes and times."""
        found: list[str] = []
        facts = array("q")
        waiting = [str(folder)]
        while waiting:
            inner = []
            for entry in self._streamed(waiting.pop()):
                if is_hidden(entry.name):
                    self.ignored["hidden or system " + ("folder" if is_folder(entry) else "file")] += 1
                elif is_folder(entry):
                    inner.append(entry.path)
                elif reason := _no_picture(entry):
                    self.ignored[reason] += 1
                else:
                    found.append(entry.path)
                    facts.extend(_facts(entry))
            waiting += self._new(sorted(inner))
        order = sorted(range(len(found)), key=found.__getitem__)
        known = np.frombuffer(facts, dtype=FileFacts) if found else np.zeros(0, dtype=FileFacts)
        return Paths.of((found[row] for row in order), known[order])

    def _streamed(self, folder: str) -> Iterator[Entry]:
        """Yield what lies in a folder, in any order, without holding all of it."""
        try:
            with access.entries(folder) as found:
                yield from found
        except OSError as error:
            self.mistakes.append(f"{folder!r} cannot be opened ({error.strerror}).")

    def _new(self, folders: Sequence[str]) -> Iterator[str]:
        """Yield those that are met for the first time."""
        for folder in folders:
            if self.enter(folder):
                yield folder
            else:
                self.ignored["folder met before (a link)"] += 1


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name belongs to a system, not to a data set."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_picture_name(name: str) -> bool:
    """Return whether the suffix of a file's name promises an image."""
    return _suffix(name) in _PICTURES


def _suffix(name: str) -> str:
    """Return the suffix of a visible file's name in lower case, with its dot; empty without one."""
    place = name.rfind(".")
    return name[place:].lower() if place > 0 else ""


def is_folder(entry: Entry) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _facts(entry: Entry) -> tuple[int, int]:
    """Return size and last change of a file; one that is gone by now has the size -1."""
    try:
        status = entry.stat()
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _no_picture(entry: Entry) -> str:
    """Return why a file is not listed; empty for one that is."""
    try:
        is_file = entry.is_file()
    except OSError:
        is_file = False
    if not is_file:
        return "broken link" if entry.is_symlink() else "not a regular file"
    suffix = _suffix(entry.name)
    if suffix in _PICTURES:
        return ""
    if suffix in _CAMERA_RAW:
        return "camera raw file, which regraft does not read"
    if suffix in _OTHERS:
        return "not an image"
    try:
        with access.open_bytes(entry.path) as file:
            return "" if known_format(file.read(32)) else "not an image"
    except OSError:
        return "cannot be opened"
