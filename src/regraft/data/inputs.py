"""What a user names to be predicted: images, folders of them, patterns, lists, or what is in memory."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft.data.decode.memory import MemoryImage, images_in_memory, is_in_memory
from regraft.data.decode.sniff import is_address
from regraft.data.files import access
from regraft.data.files.shards import expanded, is_pattern, looks_packed
from regraft.data.sources.masks.not_inputs import without_masks
from regraft.data.sources.walk import find_pictures
from regraft.errors import DataError, SettingsError

__all__ = ["list_inputs", "list_named"]


def list_inputs(inputs: Any) -> tuple[list[str | MemoryImage], dict[str, int]]:
    """Return the images that `inputs` names, in its order, and how many other files were left out, by reason.

    Args:
        inputs: A file, a folder (its images, recursive, sorted), a pattern such as `photos/*.jpg`; an image in memory
            (NumPy uint8 (height, width, channels), PIL, the bytes of a file), a batch; or an iterable of files and of
            images in memory.

    Raises:
        DataError: A single input that does not exist, or a folder without images.
        SettingsError: Something else than an image.
    """
    if isinstance(inputs, str | os.PathLike):
        paths, ignored = list_named([os.fspath(inputs)])
        return list(paths), ignored
    if is_in_memory(inputs):
        return list(images_in_memory(inputs, "image")), {}
    found: list[str | MemoryImage] = []
    try:
        items = list(inputs)
    except TypeError:
        raise _unknown(inputs, "The input") from None
    for number, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            found.append(os.fspath(item))
        elif is_in_memory(item):
            found += images_in_memory(item, f"images[{number}]")
        else:
            raise _unknown(item, f"images[{number}]")
    return found, {}


def list_named(inputs: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return the image files that paths, folders and patterns name, one after the other, and what was left out, by
    reason.

    Masks that lie beside their images, and what regraft wrote itself, are left out of folders.

    Raises:
        DataError: An input that does not exist, or a folder without images; all mistakes at once.
    """
    found: list[str] = []
    ignored: Counter[str] = Counter()
    mistakes: list[DataError] = []
    for text in inputs:
        try:
            paths, left = _named(text)
        except DataError as error:
            mistakes.append(error)
            continue
        found += paths
        ignored.update(left)
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        first = mistakes[0]
        details = [error.what for error in mistakes]
        raise DataError(
            f"{len(mistakes)} of {len(inputs)} inputs name no image.", first.expected, first.next_step, details=details
        )
    return found, dict(sorted(ignored.items()))


def _named(text: str) -> tuple[list[str], dict[str, int]]:
    """Return the images that one path, folder or pattern names, and the number of ignored files by reason."""
    path = Path(text)
    if is_address(text):
        raise DataError(
            f"{text!r} is an address, and regraft downloads nothing.",
            "an image, a folder or an archive of images, or - for paths on stdin",
            "download it first, and name the file",
        )
    if access.is_folder(path):
        return _in_folder(path)
    if access.exists(path):
        return [str(path)], {}
    matches = (
        [match for one in expanded(os.path.expanduser(text)) for match in _matches(one)] if is_pattern(text) else []
    )
    if not matches:
        what = "No file or folder fits the pattern" if is_pattern(text) else "There is no file or folder"
        raise DataError(
            f"{what} {text!r}.",
            "an image, a folder of images, a pattern such as 'photos/*.jpg', or - for paths on stdin",
            "check the spelling of the path",
        )
    folders = [match for match in matches if os.path.isdir(match) or (looks_packed(match) and access.is_folder(match))]
    files = sorted(set(matches) - set(folders))
    ignored: Counter[str] = Counter()
    for folder in folders if not files else ():
        paths, left = _in_folder(Path(folder))
        files += paths
        ignored.update(left)
    return files, dict(ignored)


def _matches(pattern: str) -> list[str]:
    """Return the files and folders that a pattern names, sorted."""
    if glob.has_magic(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    return [pattern] if access.exists(pattern) else []


def _in_folder(path: Path) -> tuple[list[str], dict[str, int]]:
    pictures, ignored = find_pictures(path)
    found, masks = without_masks(str(path), pictures)
    ignored |= masks
    if not found:
        left_out = ", ".join(f"{count} x {reason}" for reason, count in masks.items())
        raise DataError(
            f"The folder {str(path)!r} holds no images" + (f" (left out: {left_out})." if masks else "."),
            "at least one image file, at any depth",
            "check the path; hidden folders are not searched",
        )
    return found, ignored


def _unknown(value: object, name: str) -> SettingsError:
    return SettingsError(
        f"{name} is a {type(value).__name__}.",
        "a path, a PIL image, a NumPy array of uint8 (height, width, channels), or the bytes of a file",
        "pass one of them, or a list",
    )
