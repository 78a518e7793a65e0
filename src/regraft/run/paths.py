"""The run folder's layout: every path in one class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunPaths"]


@dataclass(frozen=True, repr=False)
class _Entries:
    """What lies in a run's folder itself.

    Attributes:
        path: The run's folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def command(self) -> Path:
        return self.path / "command.txt"

    @property
    def launch(self) -> Path:
        """The number that torchrun gave its job, for one that is restarted."""
        return self.path / "launch.txt"

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
    def architecture(self) -> Path:
        return self.path / "architecture.json"

    @property
    def evidence(self) -> Path:
        """What a solved head knows of its images, between the end of its stage and that of the run."""
        return self.path / "evidence.safetensors"

    @property
    def match(self) -> Path:
        return self.path / "match.json"

    @property
    def audit(self) -> Path:
        return self.path / "audit.json"

    @property
    def check(self) -> Path:
        return self.path / "check.json"

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
    def networks(self) -> Path:
        """Which networks are kept beside the one that is delivered: the best of each stage, and the last."""
        return self.path / "networks.json"

    @property
    def statistics(self) -> Path:
        """Sums over the features of the training images, from which classes are added."""
        return self.path / "statistics.safetensors"

    @property
    def additions(self) -> Path:
        """Which classes were added to the run that this one was made of."""
        return self.path / "additions.json"

    @property
    def tta(self) -> Path:
        """Which views at prediction the validation images ask for."""
        return self.path / "tta.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def neighbours(self) -> Path:
        """Features of some training images, by which those most like an error are found."""
        return self.path / "neighbours.safetensors"

    @property
    def batches(self) -> Path:
        return self.path / "batches"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def model(self) -> Path:
        return self.path / "model"


class RunPaths(_Entries):
    """The files and folders of a run: those of its folder, and below them those of a step or a split."""

    def nearest(self, split: str) -> Path:
        """Return the record of the training images that are most like each error of a split."""
        return self.predictions / "nearest" / f"{split}.json"

    def heat_maps(self, split: str) -> Path:
        """Return the record of the heat maps of a few images of a split."""
        return self.predictions / "heat-maps" / f"{split}.json"

    def pixel_counts(self, split: str) -> Path:
        """Return what was counted of each mask of a fold's split, for the metrics of all folds together."""
        return self.predictions / f"{split}-counts.safetensors"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Return steps that have a checkpoint folder, oldest first; whether it is whole is for `commit.damage` to
        say.
        """
        return self._steps("step")

    def lone_weights(self, step: int) -> Path:
        """Return the folder of the weights alone, of a step whose optimizer nothing needs any more."""
        return self.checkpoints / f"weights-{step:06d}"

    def lone_weights_steps(self) -> list[int]:
        """Return steps of which the weights alone are kept, oldest first."""
        return self._steps("weights")

    def weights(self, step: int) -> Path:
        """Return the folder that holds the weights of a step: its checkpoint, or that of the weights alone."""
        whole, lone = self.checkpoint(step), self.lone_weights(step)
        return lone if lone.is_dir() and not whole.is_dir() else whole

    def _steps(self, kind: str) -> list[int]:
        if not self.checkpoints.is_dir():
            return []
        matches = [re.fullmatch(rf"{kind}-(\d+)", entry.name) for entry in self.checkpoints.iterdir()]
        return sorted(int(match[1]) for match in matches if match)
