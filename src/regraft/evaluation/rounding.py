"""What a precision below fp32 does to a model's answers: how many classes are others than in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from regraft.compute.numerics import Numerics
from regraft.data.dataset import DataSet
from regraft.errors import RegraftError
from regraft.evaluation.masks import MaskPredictor
from regraft.evaluation.predict import Predictor
from regraft.models.describe.outputs import output_of
from regraft.run.folder import RunFolder, open_run
from regraft.wording import quantity

__all__ = ["Rounding", "measure_rounding", "rounding_note"]

_MOST = 512  # images, evenly over the split: a share of 1 % is then known to half a percent
_UNITS = {"segmentation": "pixels"}


@dataclass(frozen=True)
class Rounding:
    """How a model's answers differ from those in fp32.

    Attributes:
        precision: What the answers were computed in.
        num_images: The validation images that were compared.
        num_other: How many of them, or of their pixels, get another class (or other labels).
        num_answers: How many answers there were: images, or pixels.
        unit: `images` or `pixels`.
    """

    precision: str
    num_images: int
    num_other: int
    num_answers: int
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def __str__(self) -> str:
        of = f"{quantity(self.num_images, 'validation image')}"
        if self.unit == "pixels":
            share = self.num_other / max(1, self.num_answers)
            return f"{self.precision}: {share:.2%} of the pixels of {of} get another class than in fp32"
        one = self.num_other == 1
        return f"{self.precision}: {self.num_other} of {of} {'gets' if one else 'get'} another class than in fp32"


def measure_rounding(model: nn.Module, paths: Sequence[str], numerics: Numerics) -> Rounding:
    """Compare a model's answers in the precision of inference with those in fp32, on up to 512 of these images.

    Args:
        model: From `load_model`.
        paths: Image files; those that cannot be read are left out.
        numerics: What it predicts with.
    """
    some = [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, min(_MOST, len(paths))).astype(int))]
    exact = replace(numerics, inference="fp32")
    answers = _pixels if output_of(model) == "segmentation" else _classes
    num_images = num_other = num_answers = 0
    for one, other in zip(answers(model, some, numerics), answers(model, some, exact), strict=True):
        num_images += len(one) > 0
        num_other += int((one != other).sum())
        num_answers += one.size
    unit = _UNITS.get(output_of(model), "images")
    return Rounding(numerics.inference, num_images, num_other, num_answers, unit)


def rounding_note(
    run: RunFolder | str | Path, model: nn.Module, numerics: Numerics, *, checkpoint: str | None = None
) -> str:
    """Say how many classes differ where a model predicts in less than fp32; empty where it does not.

    The run has counted them where it was trained to predict so; else they are counted now, on its validation images.

    Args:
        run: The run, or a model folder.
        model: The network that predicts.
        numerics: What it predicts with.
        checkpoint: Which of the run's networks it is; None for the one that was chosen, which alone was counted.
    """
    if numerics.inference == "fp32":
        return ""
    try:
        folder = run if isinstance(run, RunFolder) else open_run(run)
        stored = None if checkpoint is not None else (folder.read(folder.status) or {}).get("rounding")
        if isinstance(stored, Mapping) and stored.get("precision") == numerics.inference:
            return str(Rounding(**stored))
        paths = DataSet.from_dict(folder.read(folder.splits)).splits["val"].paths
        return str(measure_rounding(model, paths, numerics))
    except (RegraftError, KeyError, TypeError):
        return f"{numerics.inference}: some images may get another class than in fp32; there are no images to count on"


def _classes(model: nn.Module, paths: Sequence[str], numerics: Numerics) -> Iterator[np.ndarray[Any, Any]]:
    for prediction in Predictor(model, numerics).predict(paths):
        yield np.array([prediction.prediction] if prediction.error is None else [], dtype=object)


def _pixels(model: nn.Module, paths: Sequence[str], numerics: Numerics) -> Iterator[np.ndarray[Any, Any]]:
    for prediction in MaskPredictor(model, numerics).predict(paths):
        yield np.empty(0, np.uint8) if prediction.mask is None else prediction.mask
