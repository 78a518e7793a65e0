"""The choice of views at prediction (test-time augmentation): more of them only where validation images gain by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft import commit
from regraft.data.labels import Labels
from regraft.errors import DataError, StorageError
from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.evaluation.trust.intervals import mean_interval
from regraft.models.describe.views import MIRRORING, PLACES, Views
from regraft.run.folder import RunFolder

__all__ = [
    "Gain",
    "ViewsChoice",
    "choose_views",
    "gain_of",
    "learnt_mirrored",
    "losses_of",
    "stored_choice",
    "write_choice",
]

Rows = Iterable[npt.NDArray[np.floating] | None]  # of each image (views, classes), as `multi` has them; or None
_FEWEST = 30  # images: an interval over fewer says nothing
_ROUNDING = 1e-6  # a loss that is lower by less is lower by the order of additions


@dataclass(frozen=True)
class Gain:
    """By how much views lower the loss at the best temperature: the mean, and its 95 % interval.

    Attributes:
        mean: Over the images, positive where the loss is lower.
        low: Lower end of the interval, by a paired bootstrap over the images.
        high: Its upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} (95 % interval {self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True)
class ViewsChoice:
    """The views that a run's validation images ask for.

    Attributes:
        views: Their name; None for the image alone.
        reason: Why, for people.
        gains: Of each kind of views that was tried, against the image alone.
        num_images: Validation images that were compared.
        step: Of the network that was asked.
        precision: What it was computed in.
    """

    views: Views | None
    reason: str
    gains: Mapping[Views, Gain]
    num_images: int
    step: int
    precision: str


def learnt_mirrored(run: RunFolder) -> bool:
    """Return whether a stage of the run trained on mirror images: else they may mean something else (digits, text)."""
    augments = [stage.get("augment") or {} for stage in run.settings()["stages"]]
    return any(augment.get("flip") in ("horizontal", "both") for augment in augments)


def choose_views(rows: Rows, labels: Labels, output: str, *, mirrored: bool, step: int, precision: str) -> ViewsChoice:
    """Return the views that validation images ask for: from few to many, each only where it beats those before.

    Args:
        rows: The probabilities of all views (`multi`) of each image, None where it cannot be read.
        labels: Of these images.
        output: A key of `regraft.models.describe.outputs.OUTPUTS`.
        mirrored: Whether mirror images mean the same.
        step: Of the network.
        precision: That it computes in.

    Raises:
        DataError: None of the images can be read.
    """
    found = list(rows)
    good = [row for row, views in enumerate(found) if views is not None]
    if not good:
        raise DataError(
            "None of the validation images can be read, and they choose the views.",
            "the validation images where the run found them",
            "put the files back, or set the views yourself, as `--tta flip`",
        )
    all_views = np.stack([views for views in found if views is not None])
    truth = labels[good]
    tried = [name for name in PLACES if mirrored or name not in MIRRORING]
    losses = {name: losses_of(all_views[:, PLACES[name]].mean(1), truth, output) for name in tried}
    alone = losses_of(all_views[:, 0], truth, output)
    gains = {name: gain_of(alone, losses[name]) for name in tried}
    best: Views | None = None
    lowest, gain = alone, None
    for name in tried if len(good) >= _FEWEST else ():
        further = gain_of(lowest, losses[name])
        if further.low > _ROUNDING:
            best, lowest, gain = name, losses[name], gains[name]
    reason = _reason(best, gain, gains, len(good), mirrored=mirrored)
    return ViewsChoice(best, reason, gains, len(good), step, precision)


def losses_of(probabilities: npt.NDArray[np.floating], labels: Labels, output: str) -> npt.NDArray[np.float64]:
    """Return the loss of each row of probabilities (N, classes) at the temperature that is best for all."""
    known = torch.from_numpy(np.asarray(probabilities, np.float64)).clamp(min=torch.finfo(torch.float32).tiny)
    targets = torch.from_numpy(np.asarray(labels).astype(np.int64))
    if output == "softmax":
        return _array(calibrated_losses(known.log(), targets))
    if output == "binary":
        return _array(calibrated_losses((known[:, 1:] / known[:, :1]).log(), targets[:, None], sigmoid=True))
    odds = known / (1 - known).clamp(min=torch.finfo(torch.float32).tiny)
    return _array(calibrated_losses(odds.log(), targets, sigmoid=True))


def gain_of(losses: npt.NDArray[np.float64], lower: npt.NDArray[np.float64]) -> Gain:
    """Return by how much the second losses are lower, paired by image."""
    gains = losses - lower
    return Gain(float(gains.mean()), *mean_interval(gains))


def stored_choice(run: RunFolder, *, step: int, precision: str) -> ViewsChoice | None:
    """Return the choice that was written for this network and precision; None where there is none."""
    with suppress(StorageError, KeyError, TypeError):
        record = run.read(run.tta)
        if record is not None and (record["step"], record["precision"]) == (step, precision):
            gains = {name: Gain(**gain) for name, gain in record["gains"].items()}
            return ViewsChoice(**{**record, "gains": gains})
    return None


def write_choice(run: RunFolder, choice: ViewsChoice) -> None:
    """Write a choice to the run, so that its images are asked once; a folder that is read-only keeps none."""
    with suppress(StorageError):
        commit.write_json(run.tta, asdict(choice))


def _array(losses: Tensor) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = losses.numpy()
    return found


def _reason(
    views: Views | None, gain: Gain | None, gains: Mapping[Views, Gain], num_images: int, *, mirrored: bool
) -> str:
    unmirrored = "" if mirrored else "; mirror images were left out, as no stage trained on them"
    if num_images < _FEWEST:
        return f"the image alone: {num_images} validation images are too few to choose by (expected: {_FEWEST})"
    tried = ", ".join(f"{name} {found}" for name, found in gains.items())
    if views is None or gain is None:
        lower = f"no views lower the loss of {num_images} validation images by more than its noise"
        return f"the image alone: {lower}: {tried}{unmirrored}"
    return f"{views}, {len(PLACES[views])} views: lower loss of {num_images} validation images by {gain}{unmirrored}"
