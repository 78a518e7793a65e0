"""Where decoded pixels are kept between runs, and how much of the disk they may take."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

from regraft import commit
from regraft.data.cache.store import RESERVE_BYTES
from regraft.errors import StorageError
from regraft.machine.disk import disk_errors

__all__ = ["cache_folder", "make_room", "private_folder"]

_IN_USE_SECONDS = 3600.0


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


def make_room(root: Path, own: Path, num_bytes: int, *, share: float) -> bool:
    """Return whether `num_bytes` more fit below `root`, after removing what other stores have not used for longest.

    Args:
        root: The folder of all stores.
        own: The store that grows; it stays.
        num_bytes: How much it grows.
        share: The part that all stores may take of the disk, counted without what is there beside them.
    """
    stores = (path for path in root.iterdir() if path != own and path.is_dir()) if root.is_dir() else ()
    others = sorted(stores, key=_last_use)
    free = shutil.disk_usage(_existing(root)).free
    sizes = {path: _size(path) for path in others}
    kept, total = _size(own), sum(sizes.values())
    limit = share * (free + kept + total)
    removable = [path for path in others if time.time() - _last_use(path) > _IN_USE_SECONDS]
    spare = sum(sizes[path] for path in removable)
    if kept + total - spare + num_bytes > limit or free + spare < num_bytes + RESERVE_BYTES:
        return False
    for path in removable:
        if kept + total + num_bytes <= limit and free >= num_bytes + RESERVE_BYTES:
            break
        with contextlib.suppress(StorageError):
            commit.remove(path)
            total, free = total - sizes[path], free + sizes[path]
    return kept + total + num_bytes <= limit and free >= num_bytes + RESERVE_BYTES


def _existing(path: Path) -> Path:
    return next(parent for parent in [path, *path.absolute().parents] if parent.exists())


def _last_use(path: Path) -> float:
    try:
        return (path / "store.json").stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return 0
