"""Where `predict` and `explain` write: a table, or a folder of its own; nothing that is there is written over."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from regraft import commit
from regraft.data.sources.packed import source_name

__all__ = ["TABLES", "next_folder", "output_folder", "plain_name", "written_table"]

TABLES = (".csv", ".jsonl")


def next_folder(run: Path, inputs: Sequence[str], root: str = "predictions") -> Path:
    """Make `<root>/<run>-<input>-<n>` with the first free number.

    Raises:
        StorageError: It cannot be made.
    """
    from regraft.run.folder import next_free

    path = run.resolve()
    name = path.parent.name if path.name == "model" else path.name
    return next_free(Path(root), f"{plain_name(name)}-{plain_name(_input_name(inputs))}")


def output_folder(out: Path) -> Path:
    """Return the folder that `--out` names, made where it is missing.

    Raises:
        StorageError: It cannot be made, or there is a file of that name.
    """
    with commit.storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".regraft-{os.getpid()}"
        probe.touch()  # what may not be written to is told before anything is computed
        probe.unlink()
    return out


@contextlib.contextmanager
def written_table(path: Path) -> Iterator[TextIO]:
    """Open a new text file in UTF-8 that gets its name when it is complete.

    Raises:
        StorageError: There is something of that name, or it cannot be written.
    """
    with commit.new_file(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        yield text
        text.flush()
        text.detach()


def _input_name(inputs: Sequence[str]) -> str:
    if inputs[0] == "-":
        return "stdin"
    path = Path(inputs[0])
    return source_name(path.resolve()) if path.exists() else path.stem


def plain_name(name: str) -> str:
    """Return a name without signs that mean something to shells and file systems."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "images"
