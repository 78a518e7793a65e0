"""The folder of a cross-validation: its folds, and itself read as one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regraft.errors import StorageError
from regraft.run.folder import RunFolder
from regraft.run.stored import require_plain

__all__ = ["FOLDS", "MOST_FOLDS", "FoldsFolder", "fold_runs", "is_folds", "open_folds"]

FOLDS = "folds.json"  # the record of a cross-validation, beside fold-1/, fold-2/ ...
MOST_FOLDS = 10_000


@dataclass(frozen=True)
class FoldsFolder(RunFolder):
    """The folder of a cross-validation, read as one run: what all folds share is the first one's.

    Its predictions and its report are its own; it is never trained or resumed as a run.
    """

    @property
    def runs(self) -> list[RunFolder]:
        """The run of each fold, in order."""
        return [RunFolder(path) for path in fold_runs(self.path)]

    @property
    def record(self) -> Path:
        return self.path / FOLDS

    @property
    def recipe(self) -> Path:
        return self.path / "fold-1" / "recipe.yaml"

    @property
    def command(self) -> Path:
        return self.path / "fold-1" / "command.txt"

    @property
    def environment(self) -> Path:
        return self.path / "fold-1" / "environment.json"

    @property
    def classes(self) -> Path:
        return self.path / "fold-1" / "classes.json"

    @property
    def splits(self) -> Path:
        return self.path / "fold-1" / "splits.json"

    @property
    def match(self) -> Path:
        return self.path / "fold-1" / "match.json"

    @property
    def model(self) -> Path:
        return self.path / "fold-1" / "model"


def is_folds(path: str | Path) -> bool:
    """Return whether a folder is that of a cross-validation."""
    return (Path(path) / FOLDS).is_file()


def fold_runs(path: str | Path) -> list[Path]:
    """Return the run folders of a cross-validation, in order; none where `path` is something else.

    Raises:
        StorageError: Its record is damaged.
    """
    if not is_folds(path):
        return []
    record = Path(path) / FOLDS
    num_folds = RunFolder(Path(path)).read(record).get("num_folds")
    if num_folds is None or not 1 <= num_folds <= MOST_FOLDS:
        raise StorageError(
            f"{str(record)!r} cannot be read: num_folds is {num_folds!r}.",
            "the record that regraft wrote",
            "restore it from a copy, or begin again in a new folder",
        )
    runs = [Path(path) / f"fold-{number}" for number in range(1, num_folds + 1)]
    for run in runs:
        require_plain(run)
    return runs


def open_folds(path: str | Path) -> FoldsFolder | None:
    """Return the cross-validation in a folder; None where it holds something else.

    Raises:
        StorageError: Its record is damaged.
    """
    return FoldsFolder(Path(path)) if fold_runs(path) else None
