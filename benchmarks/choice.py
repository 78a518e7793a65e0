"""What it costs to deliver the network that a rule chooses, and not the best that was trained.

    uv run python benchmarks/choice.py PHOTOS [--images 100] [--size 96] [--seeds 2] [--threads 1]

PHOTOS has train, validation and test. A probe solved by L-BFGS, then all layers, for 6 and 15 epochs, with label
smoothing 0 and 0.1 and mixup 0 and 0.2. The logits of every epoch, of validation and test, in fp32, are kept, and each
rule chooses from the same: its regret is the test accuracy of the best epoch of all stages minus that of the chosen
one.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

import regraft as rg
from peers import folder, machine
from regraft.data.cache.cache import PixelCache
from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.training.checkpoint.state import Best, packed
from regraft.training.loop.choice import choose
from regraft.training.loop.session import Session
from regraft.training.loop.stage_run import StageRun

SUFFIXES = {".jpg", ".jpeg", ".png"}
AUGMENT = {"flip": "horizontal", "rotation": 10, "zoom": 0.15, "shift": 0.05, "brightness": 0.15, "contrast": 0.15}
ALL = {
    "name": "all",
    "train": "all",
    "optimizer": "adamw",
    "lr": 6e-4,
    "layer_decay": 0.8,
    "weight_decay": 0.02,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "augment": AUGMENT,
    "ema": 0.99,
}


class Logits(rg.Callback):
    """Keeps the logits of validation and test after every epoch, computed in plain fp32."""

    def __init__(self, test: Sequence[str]) -> None:
        self.paths = test
        self.kept: dict[str, list[Any]] = {"val": [], "test": [], "stage": [], "val_loss": []}

    def on_run_start(self, session: Session) -> None:
        val = session.pixels["val"]
        self.images = {"val": rows(val), "test": rows(PixelCache(self.paths, val.program))}

    def on_epoch_end(self, stage: StageRun, record: Mapping[str, Any]) -> None:
        stage.model.eval()
        with nullcontext() if stage.state.average is None else stage.state.average.applied():
            self._keep(stage)
        self.kept["stage"].append(record["stage_index"])
        self.kept["val_loss"].append(record["val_loss"])

    @torch.no_grad()
    def _keep(self, stage: StageRun) -> None:
        normaliser = stage.session.normaliser
        for name, images in self.images.items():
            parts = [stage.model(normaliser(normaliser.pixels(part))) for part in np.array_split(images, 8)]
            self.kept[name].append(torch.cat(parts).float().cpu().numpy())


def subset(photos: Path, num_images: int) -> Path:
    """Links to the first so many photos of each class to train on, and to all that the others are."""
    place = folder() / f"{photos.name}-choice-{num_images}"
    for source in sorted(photos.glob("*/*")):
        target = place / source.relative_to(photos)
        target.mkdir(parents=True, exist_ok=True)
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        for file in files[: num_images if source.parent.name == "train" else None]:
            if not (target / file.name).exists():
                (target / file.name).symlink_to(file)
    return place


def train(photos: Path, kept: Path, settings: Mapping[str, Any], *, size: int, threads: int) -> None:
    """A run whose logits are kept in a file."""
    stage = {**ALL, **{key: settings[key] for key in ("epochs", "label_smoothing", "mixup")}}
    recipe = {
        "model": {"image_size": size},
        "seed": settings["seed"],
        "data": {"source": str(photos), "batch_size": 32},
        "numerics": {"threads": threads},
        "stages": [{"name": "head", "train": "head", "optimizer": "lbfgs"}, stage],
    }
    data = rg.open_data(photos)
    logits = Logits(data.splits["test"].paths)
    with tempfile.TemporaryDirectory() as out:
        rg.run_recipe(recipe, out=Path(out) / "run", data=data, callbacks=[logits], show=False)
    labels = {f"{name}_labels": data.splits[name].labels for name in ("val", "test")}
    np.savez_compressed(kept, **labels, **{name: np.asarray(values) for name, values in logits.kept.items()})


def rows(cache: PixelCache) -> npt.NDArray[np.uint8]:
    return np.stack([cache.row(row) for row in range(len(cache))])


@dataclass(frozen=True)
class Epochs:
    """The epochs of a run, by what each rule looks at."""

    stages: npt.NDArray[np.int64]
    raw: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    test: npt.NDArray[np.float64]

    @classmethod
    def read(cls, kept: Path) -> Epochs:
        """The epochs whose logits a file has; raw losses, too, are of these logits."""
        with np.load(kept) as file:
            val, test, stages = file["val"], file["test"], file["stage"]
            labels, test_labels = file["val_labels"], file["test_labels"]
        targets = torch.from_numpy(labels)
        raw = [float(functional.cross_entropy(torch.from_numpy(logits).double(), targets)) for logits in val]
        losses = [calibrated_losses(torch.from_numpy(logits), targets).numpy() for logits in val]
        right = (val.argmax(2) == labels).mean(1)
        return cls(stages, np.array(raw), np.array(losses), right, 100 * (test.argmax(2) == test_labels).mean(1))

    def best(self, epoch: int) -> Best:
        """An epoch as regraft holds it."""
        losses = self.losses[epoch]
        name = str(self.stages[epoch])
        return Best(epoch, name, epoch, float(losses.mean()), losses=packed(torch.from_numpy(losses)))

    def of_stages(self) -> list[list[Best]]:
        """The epochs of each stage."""
        return [
            [self.best(epoch) for epoch in np.flatnonzero(self.stages == stage)] for stage in np.unique(self.stages)
        ]


def by_raw_loss(epochs: Epochs) -> int:
    return int(epochs.raw.argmin())


def by_calibrated_loss(epochs: Epochs) -> int:
    return int(epochs.losses.mean(1).argmin())


def by_stages_and_noise(epochs: Epochs) -> int:
    """The smallest loss of each stage; a later stage unless an earlier one is really better."""
    bests = [min(stage, key=lambda best: best.value) for stage in epochs.of_stages()]
    chosen = choose(bests, "min")
    return by_calibrated_loss(epochs) if chosen is None else chosen.step


def by_noise(epochs: Epochs) -> int:
    """As regraft does: a later epoch, and a later stage, unless an earlier one is really better."""
    head, *stages = epochs.of_stages()
    bests = [min(head, key=lambda best: best.value), *(choose(stage, "min") for stage in stages)]
    chosen = choose([best for best in bests if best is not None], "min")
    return by_calibrated_loss(epochs) if chosen is None else chosen.step


def by_accuracy(epochs: Epochs) -> int:
    """Validation accuracy, and of equal ones the calibrated loss."""
    return min(range(len(epochs.raw)), key=lambda e: (-epochs.accuracy[e], epochs.losses[e].mean()))


def by_the_end(epochs: Epochs) -> int:
    return len(epochs.raw) - 1


RULES = {
    "raw loss (before)": by_raw_loss,
    "calibrated loss": by_calibrated_loss,
    "calibrated loss, later stages unless really worse": by_stages_and_noise,
    "calibrated loss, later epochs and stages unless really worse (now)": by_noise,
    "accuracy, then calibrated loss": by_accuracy,
    "the last epoch": by_the_end,
}


def report(runs: Mapping[str, Path]) -> None:
    """The regret of each rule on the mean, and what the first and the present one choose in each run."""
    regrets: dict[str, list[float]] = {rule: [] for rule in RULES}
    print("run | best | raw loss: stage, test, regret | now: stage, test, regret")
    for name, kept in runs.items():
        epochs = Epochs.read(kept)
        shown = [f"{epochs.test.max():.1f}"]
        for rule, choice in RULES.items():
            chosen = choice(epochs)
            regrets[rule].append(float(epochs.test.max() - epochs.test[chosen]))
            if rule.endswith((" (before)", " (now)")):
                shown.append(f"{epochs.stages[chosen]}, {epochs.test[chosen]:.1f}, {regrets[rule][-1]:.1f}")
        print(" | ".join([name, *shown]))
    for rule, values in regrets.items():
        print(
            f"{rule}: regret {np.mean(values):.2f} points on the mean of {len(values)} runs, {max(values):.1f} at most"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=100, help="of each class to train on")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    photos = subset(arguments.photos.absolute(), arguments.images)
    runs = {}
    for seed, smoothing, mixup, epochs in itertools.product(range(1, arguments.seeds + 1), (0, 0.1), (0, 0.2), (6, 15)):
        settings = {"seed": seed, "label_smoothing": smoothing, "mixup": mixup, "epochs": epochs}
        name = "-".join(f"{key}{value}" for key, value in settings.items())
        kept = folder() / f"choice-{arguments.images}-{arguments.size}-{name}.npz"
        if not kept.exists():
            train(photos, kept, settings, size=arguments.size, threads=arguments.threads)
        runs[name] = kept
    print(machine())
    report(runs)


if __name__ == "__main__":
    main()
