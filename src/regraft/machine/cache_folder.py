"""Where regraft keeps what it can make again: the folder of its caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from regraft.errors import StorageError
from regraft.machine.disk import disk_errors

__all__ = ["cache_folder", "private_folder"]


def cache_folder() -> Path:
    """Return the folder of regraft's caches: REGRAFT_CACHE, or what this system has for such files.

    That is `~/.cache/regraft` (XDG_CACHE_HOME), on macOS `~/Library/Caches/regraft`, on Windows
    `%LOCALAPPDATA%\\regraft\\cache`.

    Raises:
        StorageError: There is no home folder.
    """
    given = os.environ.get("REGRAFT_CACHE")
    try:
        if given:
            return Path(given).expanduser().absolute()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData" / "Local") / "regraft" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "regraft"
        xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "regraft"
    except RuntimeError as error:
        raise StorageError(
            "This user has no home folder for a cache.",
            "a cache needs a folder that may be written to",
            "set REGRAFT_CACHE to one",
        ) from error


def private_folder(path: Path) -> Path:
    """Return the folder `path`, made where it is missing; nobody else may own it or write to it.

    Raises:
        StorageError: It cannot be made, or it is not this user's alone.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022 or path.is_symlink()):
        raise StorageError(
            f"The folder {str(path)!r} is not this user's alone.",
            "pixels are taken from a cache that nobody else can write to",
            "remove it, correct its rights, or set REGRAFT_CACHE to another folder",
        )
    return path
