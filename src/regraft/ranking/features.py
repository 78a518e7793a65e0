"""A backbone's features of some images: what its classifier reads, computed once, as the head's stage computes them."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from regraft.compute.program import SplitProgram, split_program
from regraft.data.cache.cache import PixelCache
from regraft.data.labels import Labels
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.plan.freezing.freeze import freeze
from regraft.training.engine import Engine
from regraft.training.features.feature_pass import Keeping
from regraft.training.features.features import FeatureSource
from regraft.training.features.variation import Variation
from regraft.training.images import Images

__all__ = ["Backbone", "Measured"]


class Measured(NamedTuple):
    """Features, and what they cost.

    Attributes:
        features: (N, D).
        each: Seconds of one image through the network, after the first batch.
    """

    features: npt.NDArray[np.float64]
    each: float


class Backbone:
    """An adapted network, cut before its classifier.

    Args:
        model: The network; all but its new classifier is frozen, in place.
        engine: What computes.

    Raises:
        SettingsError: The network cannot be cut there.
    """

    def __init__(self, model: nn.Module, engine: Engine) -> None:
        self.model, self._engine = model, engine
        freeze(model, list(info_of(model).new_layers))
        engine.place(model)
        self._program = _cut(model)

    @property
    def megabytes(self) -> float:
        """Of its weights in fp32, without the classifier that is new."""
        info = info_of(self.model)
        held = {name: tensor for name, tensor in self.model.state_dict().items() if not info.is_new(name)}
        return float(sum(tensor.numel() for tensor in held.values())) * 4 / 1e6

    def features(self, pixels: PixelCache, labels: Labels) -> Measured:
        """Return the features of decoded images.

        Raises:
            SettingsError: They are not finite.
        """
        times: list[tuple[float, float]] = []
        keeping = Keeping(epochs=2, check=lambda num: times.append((time.perf_counter(), num)))
        normaliser = Normaliser(preprocessing_of(self.model), self._engine.device)
        images = Images({"train": pixels}, {"train": labels}, (), normaliser)
        began = time.perf_counter()
        source = FeatureSource(self.model, self._program, images, self._engine, Variation(seed=0), keeping)
        found, _ = source.matrix("train")
        matrix = found.float().reshape(*found.shape[:2], -1).mean(2).double().cpu().numpy()
        if not np.isfinite(matrix).all():
            raise SettingsError("Its features are not finite.")
        seconds, num_images = time.perf_counter() - began, float(len(pixels))
        if len(times) > 1:  # the first batch warms up
            seconds, num_images = times[-1][0] - times[0][0], sum(num for _, num in times[1:])
        return Measured(matrix, seconds / num_images)


def _cut(model: nn.Module) -> SplitProgram:
    with torch.no_grad():
        program = split_program(model)
    if program.prefix is None or len(program.boundary) != 1:
        raise SettingsError("It cannot be cut into features and a classifier.")
    return program
