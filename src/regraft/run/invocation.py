"""How and when this process was started: commands that are printed can be pasted, and time counts from the start."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

__all__ = ["as_typed", "begin", "command_line", "command_name", "seconds_so_far", "typed_path"]

_called_at = [0.0]  # of the last command that another program called
_WRITTEN = re.compile(r"`regraft (?=[A-Za-z-])")


def command_name() -> str:
    """Return the command to type for `regraft`: `uv run regraft`, `python -m regraft`, a path, or the bare name."""
    if os.environ.get("UV_RUN_RECURSION_DEPTH"):  # uv run sets it; the command may be on no other PATH
        return "uv run regraft"
    program, found = Path(sys.argv[0]), shutil.which("regraft")
    if program.name == "__main__.py" and found is None:
        return f"{_python()} -m regraft"
    if program.stem == "regraft" and len(program.parts) > 1 and not _is_same(found, program):
        return shlex.quote(str(program))
    return "regraft"


def command_line() -> str:
    """Return this process's command as a run's folder keeps it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def as_typed(text: str) -> str:
    """Return a text for people, with its commands (`regraft resume RUN`, in backquotes) as the user types them."""
    return _WRITTEN.sub(lambda _: f"`{command_name()} ", text)


def typed_path(path: str | Path) -> str:
    """Return a path as an argument of a command that can be pasted: quoted where a shell would take it apart."""
    return shlex.quote(str(path))


def _python() -> str:
    name = Path(sys.executable).name
    return name if _is_same(shutil.which(name), Path(sys.executable)) else shlex.quote(sys.executable)


def _is_same(found: str | None, program: Path) -> bool:
    """Return whether a shell that is given the bare name starts this very file."""
    try:
        return found is not None and os.path.samefile(found, program)
    except OSError:
        return False


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
