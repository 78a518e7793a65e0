"""What a command can do while torch is still being imported. Imports no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regraft.data.preprocess import Preprocessing
from regraft.errors import RegraftError
from regraft.run.folder import fold_runs

__all__ = ["short_turns", "stored_preprocessing"]


def stored_preprocessing(path: str | Path) -> Preprocessing | None:
    """The preprocessing of the model at `path` (a model folder, a run, a cross-validation), unchecked otherwise.

    None where there is none that can be read: loading the model says what is wrong with it.
    """
    try:
        path = next(iter(fold_runs(path)), Path(path))
        files = [folder / "config.json" for folder in (path / "model", path)]
        file = next(file for file in files if file.is_file())
        config = json.loads(file.read_text(encoding="utf-8"))
        return Preprocessing.from_dict(config["regraft"]["preprocessing"])
    except (StopIteration, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RegraftError):
        return None


@contextmanager
def short_turns() -> Iterator[None]:
    """Let other threads have their turn at once: an import would make each wait 5 ms, several times for each image."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
