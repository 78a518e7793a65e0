"""How long a stage is, in steps and in epochs, for a number of images."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.settings.stage import DEFAULT_EPOCHS, Stage

__all__ = ["Length", "image_work", "length_of"]


@dataclass(frozen=True)
class Length:
    """The maximum length of a stage; early stopping may end it sooner.

    Attributes:
        steps_per_epoch: Optimizer steps in one pass over the training images.
        steps: Optimizer steps in total.
        counts_steps: Whether the stage was given in steps, so that its schedule counts steps too.
    """

    steps_per_epoch: int
    steps: int
    counts_steps: bool

    @property
    def epochs(self) -> int:
        """Epochs, of which the last may be shorter in a stage that is given in steps."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def unit(self) -> int:
        """Steps in one unit of the schedule: an epoch, or a step."""
        return 1 if self.counts_steps else self.steps_per_epoch


def length_of(stage: Stage, num_images: int, batch_size: int) -> Length:
    """Return the length of a stage for a number of training images and a batch size."""
    steps_per_epoch = max(1, -(-num_images // (batch_size * stage.accumulate)))
    if stage.steps is not None:
        return Length(steps_per_epoch, stage.steps, counts_steps=True)
    return Length(steps_per_epoch, (stage.epochs or DEFAULT_EPOCHS) * steps_per_epoch, counts_steps=False)


def image_work(stage: Stage, size: tuple[int, int]) -> float:
    """Return the work of a training image in a stage, relative to an image of the run's `size` (height and width)."""
    height, width = stage.train_size or size
    return height * width / (size[0] * size[1])
