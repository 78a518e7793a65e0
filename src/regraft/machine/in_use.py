"""Files of the cache that a living process uses: held by a shared lock, which ends with the process."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO

__all__ = ["MARKER", "hold", "hold_to_the_end", "is_held", "note_use"]

MARKER = "used.lock"  # stands for all that lies in a folder
_RECENT_SECONDS = 3600.0  # where a file system has no locks, what was used since then is in use
_TRIES = 20
_HELD: dict[Path, BinaryIO | None] = {}


def hold(path: Path) -> BinaryIO | None:
    """Return the file, locked for others that would remove it, until it is closed; None where that cannot be done."""
    try:
        import fcntl

        file = path.open("rb")
    except (ImportError, OSError):
        return None
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return file
        except BlockingIOError:  # somebody looks whether it is held, which takes no time
            time.sleep(0.001)
        except OSError:
            break
    file.close()
    return None


def hold_to_the_end(path: Path) -> None:
    """Hold a file for as long as this process lives.

    Where it is looked at by another process just now, what holds it already stays.
    """
    _HELD[path] = hold(path) or _HELD.get(path)


def note_use(folder: Path) -> None:
    """Note that what lies in a folder is used now, and in use until this process ends."""
    with contextlib.suppress(OSError):
        (folder / MARKER).touch()
        hold_to_the_end(folder / MARKER)


def is_held(path: Path) -> bool:
    """Return whether a living process holds the file, be it this one."""
    try:
        with path.open("rb") as file:
            return _is_locked(file, path)
    except OSError:
        return False


def _is_locked(file: BinaryIO, path: Path) -> bool:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return time.time() - os.stat(path).st_mtime < _RECENT_SECONDS
    return False
