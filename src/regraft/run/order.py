"""Which of two arguments is the run: commands take it first, and are often given it last."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from regraft.errors import SettingsError
from regraft.run.folds_folder import FOLDS
from regraft.run.invocation import typed_path

__all__ = ["require_run_first"]

_MARKS = ("recipe.yaml", "config.json", FOLDS)  # of a run, a model folder, a cross-validation


def require_run_first(verb: str, run: str | os.PathLike[str], others: Iterable[object]) -> None:
    """Raise SettingsError where the first argument is not a run but another one is."""
    if _holds_model(Path(run)):
        return
    swapped = next((Path(o) for o in others if isinstance(o, str | os.PathLike) and _holds_model(Path(o))), None)
    if swapped is not None:
        raise SettingsError(
            f"{str(swapped)!r} is a run or a model folder, and {os.fspath(run)!r} comes before it.",
            "the run first, and the images after it",
            f"`regraft {verb} {typed_path(swapped)} {typed_path(Path(run))}`",
        )


def _holds_model(path: Path) -> bool:
    try:
        return any((path / mark).is_file() for mark in _MARKS)
    except (OSError, ValueError):
        return False
