"""How much of the disk decoded pixels may take: what was not used for longest gives way."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from regraft import commit
from regraft.data.cache.store import RESERVE_BYTES
from regraft.errors import StorageError
from regraft.machine.in_use import is_held

__all__ = ["make_room"]

_IN_USE_SECONDS = 3600.0


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
    old = [path for path in others if time.time() - _last_use(path) > _IN_USE_SECONDS]
    removable = [path for path in old if not is_held(path / "store.json")]
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
