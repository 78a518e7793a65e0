"""What is told of a training to others: settings, counts and figures; no names of files, no paths of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from regraft.evaluation.tasks import TASKS
from regraft.run.folder import RunFolder
from regraft.run.stored import stored_json

__all__ = ["recipe_text", "results_of", "told_path"]

_SPLITS = ("test", "val")
_ABOUT = ("split", "label", "used_for_selection", "output", "num_images", "num_pixels", "num_errors", "loss")
_DETAILS = ("intervals", "per_class", "confusion", "class_names", "calibration", "at_default")
_MEASURES = {name for task in TASKS.values() for name in task.names}
_KEPT = (*_ABOUT, *sorted(_MEASURES), *_DETAILS)


def results_of(run: RunFolder) -> dict[str, Any]:
    """Return what a run trained on and how it came out, as plain data.

    Raises:
        StorageError: A record of the run is damaged.
    """
    splits, status, recipe = run.read(run.splits) or {}, run.read(run.status) or {}, run.settings()
    best = status.get("best") or {}
    chosen = {key: best[key] for key in ("stage", "epoch", "monitor", "mode", "value") if best.get(key) is not None}
    images = {str(name): len(rows) for name, rows in (splits.get("splits") or {}).items()}
    measures = {name: _measures(run.predictions / f"{name}.json") for name in _SPLITS}
    return {
        "weights": told_path(str(recipe["model"].get("weights", "pretrained"))),
        "data": {"name": told_path(str(splits.get("name", ""))), "images": images},
        "stages": [str(stage.get("name")) for stage in recipe.get("stages") or ()],
        "chosen": chosen,
        "measures": {name: kept for name, kept in measures.items() if kept},
    }


def recipe_text(run: RunFolder) -> str:
    """Return the recipe of a run with names where it has paths of this machine.

    Raises:
        StorageError: It is damaged.
    """
    settings = run.settings()
    told = _without_paths(settings)
    if isinstance(settings["data"].get("group"), str):
        told["data"]["group"] = settings["data"]["group"]  # a pattern of paths inside the data set
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True)


def told_path(text: str) -> str:
    """Return a path as others may see it: the last name of one that leads through this machine, others as they are.

    Of an address, what stands before its host and behind its path, which may be a secret, is left out.
    """
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme != "file":
            return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        text = parts.path
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or path.parts[:1] == ("~",) or ".." in path.parts or text.startswith("~"):
            return path.name or "data"
    return text


def _without_paths(value: Any) -> Any:
    if isinstance(value, str):
        return told_path(value)
    if isinstance(value, Mapping):
        return {key: _without_paths(item) for key, item in value.items()}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _measures(path: Path) -> dict[str, Any]:
    """Return the figures of a split; empty where it was not evaluated."""
    stored: dict[str, Any] = stored_json(path) if path.is_file() else {}
    return {key: stored[key] for key in _KEPT if stored.get(key) is not None}
