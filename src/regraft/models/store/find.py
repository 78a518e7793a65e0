"""Where a model lies: the folder itself, or that of a run. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from regraft.errors import SettingsError
from regraft.run.file_suffix import refuse_export
from regraft.run.invocation import typed_path

__all__ = ["CONFIG", "WEIGHTS", "find_model_folder"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def find_model_folder(path: str | Path) -> Path:
    """Return `path` itself, or its `model/` when it is a run folder.

    Raises:
        SettingsError: Neither holds a model.
    """
    path = Path(path)
    refuse_export(path)
    for folder in (path / "model", path):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if (path / "recipe.yaml").is_file():
        raise SettingsError(
            f"The run {str(path)!r} has no model yet, and no epoch of it has ended.",
            "training writes model/ when it ends",
            f"`regraft resume {typed_path(path)}` to continue it",
        )
    raise SettingsError(
        f"There is no model at {str(path)!r}.",
        f"a run folder, or a folder with {CONFIG} and {WEIGHTS}",
        "`regraft runs` to see the runs that are there",
    )
