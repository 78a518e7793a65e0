"""Everything that one run of a plan is made of; stages, steps and callbacks read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch import nn

from regraft.data.cache import PixelCache
from regraft.data.labels import Labels
from regraft.errors import StoppedError
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Precision
from regraft.plan.make import Plan
from regraft.run.folder import RunFolder
from regraft.train.callbacks import Callbacks
from regraft.train.engine import Engine
from regraft.train.saver import Saver
from regraft.train.shelf import FeatureShelf
from regraft.train.sinks import Sinks
from regraft.train.state import Progress
from regraft.train.stop import StopFlag

__all__ = ["Session", "stopped"]


@dataclass
class Session:
    """One run of a plan over a data set whose pixels are decoded.

    Attributes:
        model: The adapted model; it is trained in place.
        plan: The stages.
        run_folder: Where everything is written.
        pixels: Decoded images by split; `train` and `val` are needed.
        labels: Their labels by split.
        class_names: The names of the labels.
        palette: In segmentation: red, green, blue of each value of a mask, uint8 (256, 3).
        normaliser: Pixels -> network input.
        engine: Device, autocast, loss scaling.
        sinks: Where news goes.
        saver: What writes checkpoints.
        stop: The signal flag.
        seed: Of order, augmentation and dropout.
        batch_size: Of stages that do not say.
        monitor: The metric of an epoch that selects the best.
        mode: `min` or `max`.
        precision: Of stages that do not say.
        save_steps: Save at every so many steps as well; None saves at epoch ends and every ten minutes.
        progress: Where the run stands.
        callbacks: Who else is told what happens.
        feature_cache: `off`, `auto`, or the number of views of augmented images (see `FeatureSource`).
        shelf: The features that the stages keep.
    """

    model: nn.Module
    plan: Plan
    run_folder: RunFolder
    pixels: Mapping[str, PixelCache]
    labels: Mapping[str, Labels]
    class_names: Sequence[str]
    normaliser: Normaliser
    engine: Engine
    sinks: Sinks
    saver: Saver
    stop: StopFlag
    seed: int
    batch_size: int
    monitor: str
    mode: str
    precision: Precision = "fp32"
    save_steps: int | None = None
    progress: Progress = field(default_factory=Progress)
    callbacks: Callbacks = field(default_factory=Callbacks)
    feature_cache: str | int = "auto"
    palette: npt.NDArray[np.uint8] | None = None
    shelf: FeatureShelf = field(default_factory=FeatureShelf)

    def engine_of(self, precision: Precision | None) -> Engine:
        """The engine of a stage: the run's, or one with another precision. One process has one at a time."""
        wanted = replace(self.engine.numerics, precision=precision or self.precision)
        return self.engine if wanted == self.engine.numerics else Engine(wanted)

    def stop_requested(self) -> bool:
        """Whether a signal has come, to any process; all of them ask at the same place."""
        return self.engine.any(self.stop.requested)

    def wait_for_disk(self) -> None:
        """Return, in every process, when the last checkpoint is on the disk; raises what its writing met."""
        self.engine.from_main(self.saver.wait)

    def raise_failure(self) -> None:
        """Raise what a callback raised, in every process, once the state is on the disk."""
        self.engine.from_main(self._raise_failure_here)

    def _raise_failure_here(self) -> None:
        if self.callbacks.has_failed:
            self.saver.wait()
            self.callbacks.raise_failure(str(self.run_folder.path))

    def stopped(self) -> StoppedError:
        """The error that ends the run on a signal, once the state is on the disk."""
        self.wait_for_disk()
        return stopped(self.run_folder, self.stop)


def stopped(run: RunFolder, stop: StopFlag) -> StoppedError:
    """The error that ends a run on a signal, with the command to go on."""
    return StoppedError(
        f"Stopped by {'SIGTERM' if stop.exit_code == 143 else 'Ctrl-C'}; the state of {str(run.path)!r} is saved.",
        "Nothing is lost.",
        f"Type `regraft resume {run.path}` to go on to the same result.",
        exit_code=stop.exit_code,
    )
