"""What a command can do while torch is still being imported. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import RegraftError
from regraft.models.store.unfinished import stored_config
from regraft.run.folds_folder import fold_runs

__all__ = ["short_turns", "stored_preprocessing"]


def stored_preprocessing(path: str | Path, checkpoint: str | None = None) -> Preprocessing | None:
    """Return the preprocessing of the model at `path` (a model folder, a run, a cross-validation), unchecked otherwise.

    None where there is none that can be read: loading the model says what is wrong with it.
    """
    try:
        path = next(iter(fold_runs(path)), Path(path))
        return Preprocessing.from_dict(stored_config(path, checkpoint)["regraft"]["preprocessing"])
    except (StopIteration, OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RegraftError):
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
