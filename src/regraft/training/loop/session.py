"""Everything that one run of a plan is made of; stages, steps and callbacks read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch import nn

from regraft.compute.numerics import Precision
from regraft.data.cache.cache import PixelCache
from regraft.data.labels import Labels
from regraft.models.describe.inputs import Normaliser
from regraft.plan.length import image_work
from regraft.plan.make import Plan
from regraft.run.folder import RunFolder
from regraft.settings.stage import Stage
from regraft.training.callbacks import Callbacks
from regraft.training.checkpoint.state import Progress
from regraft.training.engine import Engine
from regraft.training.features.feature_store import FeatureStore
from regraft.training.images import Images
from regraft.training.limits.stage_sizes import size_of
from regraft.training.loop.checkpoints import Checkpoints
from regraft.training.loop.sinks import Sinks
from regraft.training.options import RunOptions
from regraft.training.progress.phases import Kind, Phase

__all__ = ["Session"]


@dataclass
class Session:
    """One run of a plan over a data set whose pixels are decoded.

    Attributes:
        model: The adapted model; it is trained in place.
        plan: The stages.
        images: The decoded images by split; `train` and `val` are needed.
        options: How the run is carried out.
        engine: Device, autocast, loss scaling: of the present stage.
        sinks: Where news goes.
        checkpoints: When the state is saved, and what may end the run.
        progress: Where the run stands.
        features: The features that the stages keep.
        precision: Of stages that do not say.
    """

    model: nn.Module
    plan: Plan
    images: Images
    options: RunOptions
    engine: Engine
    sinks: Sinks
    checkpoints: Checkpoints
    progress: Progress
    features: FeatureStore = field(default_factory=FeatureStore)

    def __post_init__(self) -> None:
        self.precision: Precision = self.engine.numerics.precision

    def use_engine_of(self, stage: Stage) -> Engine:
        """Return the engine of a stage: the run's, or one with another precision. One process has one at a time."""
        wanted = replace(self.engine.numerics, precision=stage.precision or self.precision)
        if wanted != self.engine.numerics:
            self.engine = Engine(wanted)
        return self.engine

    def advance(self, stage: Stage, kind: Kind, num_images: float, doing: str, loss: float | None = None) -> None:
        """Add images of a stage that passed through the network to the progress."""
        self.sinks.enter(Phase(stage.name, kind))
        self.sinks.advance(image_work(stage, size_of(self.model)) * num_images, f"{stage.name} {doing}", loss)

    def skip(self, stage: Stage, num_images: float) -> None:
        """Take images that a stage will not validate out of the work that is left."""
        self.sinks.skip(image_work(stage, size_of(self.model)) * num_images, Phase(stage.name, "validate"))

    # What callbacks may read (docs/callbacks.md)

    @property
    def run_folder(self) -> RunFolder:
        return self.checkpoints.run_folder

    @property
    def callbacks(self) -> Callbacks:
        return self.checkpoints.callbacks

    @property
    def pixels(self) -> Mapping[str, PixelCache]:
        return self.images.pixels

    @property
    def labels(self) -> Mapping[str, Labels]:
        return self.images.labels

    @property
    def class_names(self) -> Sequence[str]:
        return self.images.class_names

    @property
    def palette(self) -> npt.NDArray[np.uint8] | None:
        return self.images.palette

    @property
    def normaliser(self) -> Normaliser:
        return self.images.normaliser

    @property
    def seed(self) -> int:
        return self.options.seed

    @property
    def monitor(self) -> str:
        return self.options.monitor

    @property
    def mode(self) -> str:
        return self.options.better
