"""Records read back from a folder that may be damaged, or a stranger's: files of its own, bounded, of known shapes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from regraft.errors import StorageError

__all__ = ["NUMBER", "Shape", "require_plain", "stored_json", "stored_text", "stored_yaml"]

# What a value may be: types, {key: shape} with optional keys (or nothing at all), {str: shape} for any key, [shape] for
# a list of such.
Shape = Any
NUMBER = (int, float, type(None))  # NaN is written as nothing
_MOST_JSON = 1 << 30  # the splits of ten million images
_MOST_YAML = 1 << 20
_READING = (OSError, ValueError, TypeError, RecursionError, MemoryError, yaml.YAMLError)


def require_plain(path: Path) -> None:
    """Raise where a name in a folder is a link, or no plain file or folder: reading or writing would leave the folder.

    Raises:
        StorageError: It says where the link leads.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if stat.S_ISLNK(mode):
        raise _strange(path, f"is a link to {os.readlink(path)!r}")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise _strange(path, "is a device, a pipe or a socket")


def stored_text(path: Path, *, most: int = _MOST_JSON, linked: bool = False) -> str:
    """Return the text of a record.

    Args:
        path: The file.
        most: Bytes that it may have.
        linked: Whether it may be a link to a plain file, as in the hub's cache.

    Raises:
        StorageError: It is a link, no file, larger, no UTF-8, or cannot be read.
    """
    if not linked:
        require_plain(path)
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a file")
        if found.st_size > most:
            raise ValueError(f"it has {found.st_size:,} bytes, the limit is {most:,}")
        return path.read_text(encoding="utf-8")
    except _READING as error:
        raise _unreadable(path, error) from error


def stored_json(path: Path, shape: Shape = dict, *, linked: bool = False) -> Any:
    """Return a JSON record.

    Args:
        path: The file.
        shape: What it must be.
        linked: Whether it may be a link to a plain file.

    Raises:
        StorageError: It cannot be read, is not JSON, is nested too deep, or has another shape; it says where.
    """
    text = stored_text(path, linked=linked)
    try:
        value = json.loads(text)
        _require(value, shape)
    except _READING as error:
        raise _unreadable(path, error) from error
    return value


def stored_yaml(path: Path, shape: Shape = dict) -> Any:
    """Return a YAML record without aliases; as `stored_json`."""
    text = stored_text(path, most=_MOST_YAML)
    try:
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it uses YAML aliases")
        value = yaml.safe_load(text)
        _require(value, shape)
        _require(value, _named)
    except _READING as error:
        raise _unreadable(path, error) from error
    return value


def _require(value: Any, shape: Shape) -> None:
    for mistake in _mistakes(value, shape, ""):
        raise ValueError(mistake)


def _mistakes(value: Any, shape: Shape, where: str) -> Iterator[str]:
    """Yield where a value has another shape."""
    if value is None and where and isinstance(shape, Mapping) and str not in shape:
        return
    if callable(shape) and not isinstance(shape, type):
        yield from shape(value, where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield _other(value, where, "a list")
            return
        for number, item in enumerate(value):
            yield from _mistakes(item, shape[0], f"{where}[{number}]")
    elif isinstance(shape, Mapping):
        if not isinstance(value, dict):
            yield _other(value, where, "a mapping")
            return
        for key, item in value.items():
            if str in shape or key in shape:
                yield from _mistakes(item, shape.get(key, shape.get(str)), f"{where}.{key}")
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape in (int, NUMBER)):
        names = " or ".join(
            _WORDS.get(kind, kind.__name__) for kind in (shape if isinstance(shape, tuple) else (shape,))
        )
        yield _other(value, where, names)


def _named(value: Any, where: str) -> Iterator[str]:
    """Return keys that are not words; YAML has numbers, dates and nothing as keys too."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{where.lstrip('.') or 'it'} has the key {key!r}, which is not a string"
            yield from _named(item, f"{where}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _named(item, f"{where}[{number}]")


_WORDS = {dict: "a mapping", list: "a list", str: "a string", int: "a whole number", float: "a number"}
_WORDS |= {bool: "true or false", type(None): "nothing"}


def _other(value: Any, where: str, expected: str) -> str:
    found = _WORDS.get(type(value), type(value).__name__)
    return f"{where.lstrip('.') or 'it'} is {found}, expected {expected}"


def _unreadable(path: Path, error: BaseException) -> StorageError:
    reason = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:500]
    return StorageError(
        f"{str(path)!r} cannot be read: {reason}.",
        "a record that regraft wrote",
        "restore it from a copy, or train again into a new folder",
    )


def _strange(path: Path, what: str) -> StorageError:
    return StorageError(
        f"{str(path)!r} {what}.",
        "a folder of regraft's holds files and folders of its own, so that nothing outside is read or written",
        "put the file itself there, or take the link away",
    )
