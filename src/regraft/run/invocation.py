"""How this process was started, so that commands that are printed can be pasted as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["as_typed", "command_name", "typed_path"]

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
