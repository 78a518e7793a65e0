"""How long the command has run: from the start of its process, or of the call, where another program makes it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

__all__ = ["begin", "seconds_so_far"]

_called_at = [0.0]


def begin() -> None:
    """Start the clock of a command that another program may call in its own process, as a notebook does."""
    _called_at[0] = time.time()


def seconds_so_far() -> float:
    """Return the seconds since the command began, the imports before its call included."""
    import psutil

    began = psutil.Process().create_time() if _is_the_program() else _called_at[0]
    return time.time() - began


def _is_the_program() -> bool:
    """Return whether this process is a `regraft` command (the script, or `python -m regraft`) and nothing else."""
    main = sys.modules.get("__main__")
    if getattr(getattr(main, "__spec__", None), "name", None) == "regraft.__main__":
        return True
    file = Path(getattr(main, "__file__", None) or "-")
    return "regraft" in (file.stem, file.parent.stem)  # on Windows the script is regraft.exe/__main__.py
