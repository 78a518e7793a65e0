"""The run folder: its state and its records, and where new ones go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.errors import SettingsError, StorageError
from regraft.machine.processes import launch_id, num_restarts
from regraft.run.file_suffix import refuse_export
from regraft.run.invocation import command_line, typed_path
from regraft.run.lock import LOCK, is_held, locked
from regraft.run.paths import RunPaths
from regraft.run.records import network_name
from regraft.run.stored import NUMBER, Shape, require_plain, stored_json, stored_text, stored_yaml
from regraft.summary import Summary

__all__ = [
    "RunFolder",
    "create_run",
    "holds_model",
    "is_started_again",
    "next_free",
    "open_run",
    "require_new",
]

_BEFORE_THE_RECIPE = (
    "checkpoints",
    "last",
    "command",
    "launch",
    "environment",
    "classes",
    "architecture",
    "match",
    "status",
    "log",
)


_STATES = {
    "begun": " that was killed before its first epoch",
    "running": " that is going on, or was killed",
    "stopped": " that was stopped",
    "failed": " that has failed",
    "finished": " that is finished",
}
_RECORDS = (
    *("recipe", "command", "launch", "environment", "changes", "status", "classes", "splits", "match", "audit"),
    *(
        "metrics",
        "metrics_csv",
        "tensorboard",
        "log",
        "checkpoints",
        "last",
        "best",
        "networks",
        "predictions",
        "report",
    ),
    *("model", "batches", "neighbours"),
)
_NETWORK = {"stage": str, "epoch": int, "value": NUMBER, "step": int, "thresholds": {str: NUMBER}, "soup": [int]}
_BEST = {**_NETWORK, "monitor": str, "mode": str, "checkpoint": str}
_ROUNDING = {"precision": str, "num_images": int, "num_other": int, "num_answers": int, "unit": str}
_RECIPE = {"model": dict, "head": dict, "data": dict, "numerics": dict, "stages": [dict], "monitor": str}
_SHAPES: dict[str, Shape] = {
    "status.json": {"state": str, "message": str, "seconds": NUMBER, "step": int, "best": _BEST, "rounding": _ROUNDING},
    "best.json": _BEST,
    "last.json": {"step": int, "checkpoint": str},
    "networks.json": {"stages": [_NETWORK], "last": _NETWORK},
    "classes.json": [str],
    "splits.json": {"source": str, "root": str, "class_names": [str], "splits": {str: [list]}, "options": dict},
    "folds.json": {
        "num_folds": int,
        "recipe": dict,
        "measures": {str: {"folds": [NUMBER], "mean": NUMBER, "sd": NUMBER}},
    },
    "changes.json": {
        "changes": [{"why": str, "step": int, "changes": {str: dict}, "recipe_sha256": (str, type(None)), "time": str}]
    },
}


@dataclass(frozen=True, repr=False)
class RunFolder(RunPaths, Summary):
    """A run's folder; what `train` returns, and all that `evaluate`, `report` and `predict` need."""

    def facts(self) -> dict[str, object]:
        """Return its path, its state, and the best value so far."""
        try:
            status, best = self.read(self.status) or {}, self.read(self.best) or {}
        except StorageError as error:
            return {"path": str(self.path), "state": error.what}
        facts: dict[str, object] = {"path": str(self.path), "state": status.get("state", "unknown")}
        if best:
            facts["best"] = f"{network_name(best)}, {best.get('value')}"
        return facts

    @property
    def is_finished(self) -> bool:
        """Whether training has come to its end and the model folder is there; recipe.yaml is as it was then."""
        status = self.read(self.status) or {}
        return status.get("state") == "finished" and (self.model / "config.json").is_file()

    def sweep(self) -> None:
        """Remove what killed processes left anywhere in the folder. Raises StorageError."""
        for path in (self.path, self.checkpoints, self.predictions):
            commit.sweep(path)

    def read(self, path: Path) -> Any:
        """Return a JSON record of this run, or None when it was never written.

        Raises:
            StorageError: The record is damaged, of another shape than regraft writes, or a link.
        """
        if not os.path.lexists(path):
            return None
        return stored_json(path, _SHAPES.get(path.name, dict))

    def settings(self) -> dict[str, Any]:
        """Return the resolved recipe as plain data.

        Raises:
            StorageError: It is damaged, or a link.
        """
        values: dict[str, Any] = stored_yaml(self.recipe, _RECIPE)
        return values

    def require_plain(self) -> None:
        """Raise StorageError where a record, or a folder of them, is a link: it would be read and written elsewhere."""
        for path in (self.path / LOCK, *(getattr(self, name) for name in _RECORDS)):
            require_plain(path)
        for record in (self.nearest("any"), self.heat_maps("any")):
            require_plain(record.parent)
        for step in self.checkpoint_steps():
            require_plain(self.checkpoint(step))
        for step in self.lone_weights_steps():
            require_plain(self.lone_weights(step))

    def is_held(self) -> bool:
        """Return whether a process writes to the folder now; asks without taking the lock for longer than the
        question.
        """
        return is_held(self.path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a lock of a process that is gone is taken over.

        Raises:
            StorageError: Another process writes this run.
        """
        self.require_plain()
        with locked(self.path):
            yield


def create_run(out: str | Path | None, name: str) -> RunFolder:
    """Return a new, empty run folder: `out`, or the next free `runs/<name>-<n>`.

    Raises:
        SettingsError: `out` exists and holds something.
        StorageError: The folder cannot be made.
    """
    if out is not None:
        path = Path(out)
        require_new(path)
        with commit.storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path)
    return RunFolder(next_free(Path("runs"), name or "photos"))


def require_new(out: str | Path) -> None:
    """Raise SettingsError when `out` exists and holds something.

    What a run leaves that ended before its first record was complete is nothing: the same command begins it again.
    """
    path = Path(out)
    if os.path.lexists(path) and not (path.is_dir() and _is_unbegun(path)):
        raise SettingsError(
            f"{str(path)!r} exists already{_what_it_is(path)}.",
            "a new run needs a new or empty folder; nothing is ever overwritten",
            _other_out(path),
        )


def _what_it_is(path: Path) -> str:
    """Return the state of a run, as the end of a sentence; nothing for other folders."""
    run = RunFolder(path)
    if not path.is_dir():
        return ", and it is a file"
    if not run.recipe.is_file():
        return ""
    try:
        status = run.read(run.status)
        state = "begun" if status is None else str(status["state"])
    except (StorageError, KeyError, TypeError):
        state = "unknown"
    return f": it holds a run{_STATES.get(state, '')}"


def _is_unbegun(path: Path) -> bool:
    """Return whether a folder holds nothing but the first writes of a run that never came to its recipe.yaml."""
    own = {LOCK, *(getattr(RunFolder(path), name).name for name in _BEFORE_THE_RECIPE)}
    names = {entry.name for entry in path.iterdir() if not commit.is_temporary(entry.name)}
    return names <= own and RunFolder(path).checkpoint_steps() in ([], [0])


def _other_out(path: Path) -> str:
    if (path / "recipe.yaml").is_file():
        return f"`regraft resume {typed_path(path)}` to continue the run in it, or another --out"
    return "another --out, or none for the next free runs/<data>-<n>"


def open_run(path: str | Path) -> RunFolder:
    """Return an existing run folder.

    Raises:
        SettingsError: There is no run at `path`.
    """
    refuse_export(path)
    run = RunFolder(Path(path))
    if not run.recipe.is_file() and run.checkpoints.is_dir() and _is_unbegun(run.path):
        raise SettingsError(
            f"{str(path)!r} is a run that was killed before it began (it has no recipe.yaml yet).",
            "nothing of it can be resumed, and nothing is lost",
            _begin_again(run),
        )
    run.require_plain()
    if not run.recipe.is_file():
        exists = "is not a run folder (it has no recipe.yaml)" if run.path.exists() else "does not exist"
        inside = sorted(str(entry.parent) for entry in run.path.glob("*/recipe.yaml"))
        some = ", ".join(inside[:3]) + (" ..." if len(inside) > 3 else "")
        raise SettingsError(
            f"{str(path)!r} {exists}.",
            "the folder that `regraft train` wrote, such as runs/photos-1",
            f"one of the runs in it: {some}" if inside else "`regraft runs` to see the runs that are there",
        )
    return run


def _begin_again(run: RunFolder) -> str:
    """Return the command that began a run, as far as it was recorded."""
    command = stored_text(run.command).strip() if run.command.is_file() else ""
    return f"the same command again: `{command}`" if command else "the same command again"


def is_started_again(out: str | Path) -> bool:
    """Return whether a launcher such as torchrun has started this command before, and `out` holds the run it began.

    It is the same launch where the launcher counts a restart, or where its job has the same number: a machine that
    replaces another one counts from 0.
    """
    run = RunFolder(Path(out))
    if not run.recipe.is_file() or not (num_restarts() or launch_id()):
        return False
    try:
        same_command = stored_text(run.command).strip() == command_line()
        return same_command and (num_restarts() > 0 or stored_text(run.launch).strip() == launch_id())
    except StorageError:
        return False


def next_free(root: Path, name: str) -> Path:
    """Make the first `root/name-<n>` that nobody has; two processes never get the same one. Raises StorageError."""
    number = 1
    with commit.storage_errors(root / f"{name}-{number}"):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            path = root / f"{name}-{number}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
            number += 1


def holds_model(path: Path) -> bool:
    """Return whether a path is a run folder or a model folder."""
    return any((path / name).is_file() for name in ("recipe.yaml", "config.json", "model/config.json"))
