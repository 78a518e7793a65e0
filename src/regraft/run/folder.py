"""The run folder: every path in one class, and the lock that keeps two processes out of one folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regraft import commit
from regraft.errors import SettingsError, StorageError

__all__ = ["FOLDS", "RunFolder", "create_run", "fold_runs", "open_run", "require_new"]

_LOCK = ".lock"
_BEFORE_THE_RECIPE = ("checkpoints", "last", "command", "environment", "classes", "match", "status", "log")


FOLDS = "folds.json"  # the record of a cross-validation, beside fold-1/, fold-2/ ...


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; what `train` returns, and all that `evaluate`, `report` and `predict` need."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def command(self) -> Path:
        return self.path / "command.txt"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def changes(self) -> Path:
        return self.path / "changes.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def classes(self) -> Path:
        return self.path / "classes.json"

    @property
    def splits(self) -> Path:
        return self.path / "splits.json"

    @property
    def match(self) -> Path:
        return self.path / "match.json"

    @property
    def audit(self) -> Path:
        return self.path / "audit.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def metrics_csv(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.path / "last.json"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint folder, oldest first; whether it is whole is for `commit.damage` to say."""
        if not self.checkpoints.is_dir():
            return []
        matches = [re.fullmatch(r"step-(\d+)", entry.name) for entry in self.checkpoints.iterdir()]
        return sorted(int(match[1]) for match in matches if match)

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
        """A JSON record of this run, or None when it was never written.

        Raises:
            StorageError: The record is damaged.
        """
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{str(path)!r} cannot be read: {error}.",
                "Expected a JSON record that regraft wrote.",
                "Restore it from a copy, or train again into a new folder.",
            ) from error

    def settings(self) -> dict[str, Any]:
        """The resolved recipe as plain data.

        Raises:
            StorageError: It is damaged.
        """
        try:
            values = yaml.safe_load(self.recipe.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it holds no settings")
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise StorageError(
                f"{str(self.recipe)!r} cannot be read: {' '.join(str(error).split())}.",
                "Expected the recipe that regraft wrote when the run began.",
                "Restore it from a copy, or train again into a new folder.",
            ) from error
        return values

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a lock of a process that is gone is taken over.

        Raises:
            StorageError: Another process writes this run.
        """
        lock = self.path / _LOCK
        with commit.storage_errors(lock):
            descriptor = _open_locked(lock, self.path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # while it is held, so that nobody else's is removed
                lock.unlink()
            os.close(descriptor)


def create_run(out: str | Path | None, name: str) -> RunFolder:
    """A new, empty run folder: `out`, or the next free `runs/<name>-<n>`.

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
    return RunFolder(_next_free(Path("runs"), name or "photos"))


def require_new(out: str | Path) -> None:
    """Raise SettingsError when `out` exists and holds something.

    What a run leaves that ended before its first record was complete is nothing: the same command begins it again.
    """
    path = Path(out)
    if os.path.lexists(path) and not (path.is_dir() and _is_unbegun(path)):
        raise SettingsError(
            f"{str(path)!r} exists already{'' if path.is_dir() else ', and it is a file'}.",
            "A new run needs a new or empty folder; nothing is ever overwritten.",
            _other_out(path),
        )


def _is_unbegun(path: Path) -> bool:
    """Whether a folder holds nothing but the first writes of a run that never came to its recipe.yaml."""
    own = {_LOCK, *(getattr(RunFolder(path), name).name for name in _BEFORE_THE_RECIPE)}
    names = {entry.name for entry in path.iterdir() if not commit.is_temporary(entry.name)}
    return names <= own and RunFolder(path).checkpoint_steps() in ([], [0])


def _other_out(path: Path) -> str:
    if (path / "recipe.yaml").is_file():
        return f"Type `regraft resume {path}` to go on with the run in it, or give another --out."
    return "Give another --out, or leave it out for the next free runs/<data>-<n>."


def fold_runs(path: str | Path) -> list[Path]:
    """The run folders of a cross-validation, in order; none where `path` is something else.

    Raises:
        StorageError: Its record is damaged.
    """
    record = Path(path) / FOLDS
    if not record.is_file():
        return []
    try:
        num_folds = int(json.loads(record.read_text(encoding="utf-8"))["num_folds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{str(record)!r} cannot be read: {error}.",
            "Expected the record that regraft wrote.",
            "Restore it from a copy, or begin again in a new folder.",
        ) from error
    return [Path(path) / f"fold-{number}" for number in range(1, num_folds + 1)]


def open_run(path: str | Path) -> RunFolder:
    """An existing run folder.

    Raises:
        SettingsError: There is no run at `path`.
    """
    run = RunFolder(Path(path))
    if not run.recipe.is_file():
        exists = "is no run folder (it has no recipe.yaml)" if run.path.exists() else "does not exist"
        raise SettingsError(
            f"{str(path)!r} {exists}.",
            "Expected the folder that `regraft train` wrote, such as runs/photos-1.",
            "Type `ls runs` to see the runs that are there.",
        )
    return run


def _next_free(root: Path, name: str) -> Path:
    """Make the first `name-<n>` that nobody has; two processes never get the same one."""
    number = 1
    with commit.storage_errors(root / f"{name}-{number}"):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            path = root / f"{name}-{number}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
            number += 1


def _open_locked(lock: Path, path: Path) -> int:
    """Open and lock the file that bears the name now: the one opened may have been removed by who held it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, path)
            if _is_same_file(descriptor, lock):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: the open handle itself is what keeps a second writer from deleting the file
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StorageError(
            f"The run {str(path)!r} is being written by another process.",
            "One process writes one run folder.",
            "Wait until it ends, or give another --out.",
        ) from error
