"""The runs in a folder, one row for each, read without trust: what is damaged or absent is a dash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError, StorageError
from regraft.run.folder import RunFolder
from regraft.run.folds_folder import FOLDS, fold_runs, is_folds
from regraft.run.stored import stored_json, stored_yaml
from regraft.visible import visible

__all__ = ["RunRow", "holds_runs", "list_runs", "table_of_runs"]

_MOST_FOLDERS = 10_000


@dataclass(frozen=True)
class RunRow:
    """One run, or all runs of a cross-validation, in short.

    Attributes:
        name: Its folder's name.
        state: finished, running, interrupted (killed, or its machine went down), stopped, failed, not begun.
        stages: The names of its stages, or how many folds are finished.
        best: The best value of what selects the best epoch, with its name.
        data: Where its images lie.
        written: When the run was last written to, local time.
    """

    name: str
    state: str
    stages: str
    best: str
    data: str
    written: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def holds_runs(root: Path) -> bool:
    """Return whether a folder is one that runs lie in, and no run itself."""
    return root.is_dir() and not (root / "recipe.yaml").is_file() and next(_folders(root), None) is not None


def list_runs(root: str | Path) -> list[RunRow]:
    """Return the runs right below a folder, the last one written to last."""
    rows = [(_written(path), _row(path)) for path in _folders(Path(root))]
    return [row for _, row in sorted(rows, key=lambda pair: (pair[0], pair[1].name))]


def table_of_runs(found: list[RunRow]) -> str:
    """Return runs as lines with aligned columns."""
    rows = [("run", "state", "stages", "best", "data", "written")]
    rows += [(row.name, row.state, row.stages, row.best, row.data, row.written) for row in found]
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in shown) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )


def _folders(root: Path) -> Iterator[Path]:
    try:
        found = [path for path, _ in zip(root.iterdir(), range(_MOST_FOLDERS), strict=False)]
    except OSError:
        return
    for path in sorted(found):
        if (path / "recipe.yaml").is_file() or is_folds(path):
            yield path


def _row(path: Path) -> RunRow:
    if is_folds(path):
        return _row_of_folds(path)
    run, recipe = RunFolder(path), _yaml(path / "recipe.yaml")
    stages = recipe.get("stages")
    names = [str(stage.get("name")) for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return RunRow(path.name, _state(run), ", ".join(names) or "–", _best(run, recipe), _data(recipe), _when(path))


def _row_of_folds(path: Path) -> RunRow:
    record = _json(path / FOLDS)
    try:
        runs = [RunFolder(run) for run in fold_runs(path)]
    except RegraftError:
        runs = []
    num_finished = sum(_state(run) == "finished" for run in runs)
    measures = record.get("measures")
    states = [_state(run) for run in runs if run.recipe.is_file()]
    state = "finished" if isinstance(measures, dict) else next((s for s in states if s != "finished"), "interrupted")
    best = "–"
    if isinstance(measures, dict):
        for name in ("miou", "map", "auc", "top1"):
            values = measures.get(name)
            if isinstance(values, dict) and isinstance(values.get("mean"), float):
                best = f"mean {name} {values['mean']:.4f}"
                break
    recipe = record.get("recipe") if isinstance(record.get("recipe"), dict) else {}
    stages = f"{num_finished} of {len(runs)} folds"
    return RunRow(path.name, state, stages, best, _data(recipe or {}), _when(path))


def _state(run: RunFolder) -> str:
    state = str(_json(run.status).get("state") or "not begun")
    return "interrupted" if state == "running" and not run.is_held() else state


def _best(run: RunFolder, recipe: dict[str, Any]) -> str:
    best = _json(run.best)
    value = best.get("value")
    with contextlib.suppress(OverflowError):  # JSON has whole numbers of any length
        return f"{recipe.get('monitor', '')} {value:.4f}".strip() if isinstance(value, int | float) else "–"
    return "–"


def _data(recipe: dict[str, Any]) -> str:
    data = recipe.get("data")
    return str(data.get("source") or "–") if isinstance(data, dict) else "–"


def _written(path: Path) -> float:
    for name in ("status.json", FOLDS, "recipe.yaml"):
        with contextlib.suppress(OSError):
            return (path / name).stat().st_mtime
    return 0.0


def _when(path: Path) -> str:
    return datetime.fromtimestamp(_written(path)).strftime("%Y-%m-%d %H:%M")  # local time, as log.txt has it


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(StorageError):
        found: dict[str, Any] = stored_json(path)
        return found
    return {}


def _yaml(path: Path) -> dict[str, Any]:
    with contextlib.suppress(StorageError):
        found: dict[str, Any] = stored_yaml(path)
        return found
    return {}
