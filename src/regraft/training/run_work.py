"""How much work a run is, in images of the run's size that pass once through the network."""

from __future__ import annotations

from collections.abc import Iterable

from regraft.data.dataset import DataSet
from regraft.plan.length import image_work, length_of
from regraft.plan.make import Plan
from regraft.settings.stage import Stage
from regraft.training.checkpoint.state import Progress
from regraft.training.loop.merging import num_candidates

__all__ = ["stages_work", "work_done"]


def stages_work(stages: Iterable[Stage], size: tuple[int, int], data: DataSet, batch_size: int) -> float:
    """Return the work of some stages.

    Args:
        stages: The stages.
        size: Height and width of images in stages that do not say.
        data: The images to train on and to validate on.
        batch_size: Of stages that do not say.
    """
    return sum(_stage_work(stage, size, len(data.train), len(data.val), batch_size) for stage in stages)


def _stage_work(stage: Stage, size: tuple[int, int], num_train: int, num_val: int, batch_size: int) -> float:
    if stage.optimizer == "lbfgs":
        return image_work(stage, size) * (num_train + num_val)
    length = length_of(stage, num_train, stage.batch_size or batch_size)
    passes = length.epochs + num_candidates(stage, length.epochs)
    num_images = length.steps / length.steps_per_epoch * num_train + passes * num_val
    return image_work(stage, size) * num_images


def work_done(progress: Progress, plan: Plan, size: tuple[int, int], data: DataSet, batch_size: int) -> float:
    """Return the work of the stages, and of the epochs of the present one, that a resumed run has behind it."""
    stage = plan.stages[progress.stage]
    if progress.stage_ended:
        return stages_work(plan.stages[: progress.stage + 1], size, data, batch_size)
    before = stages_work(plan.stages[: progress.stage], size, data, batch_size)
    if stage.optimizer == "lbfgs":
        return before
    num_images = progress.epoch * (len(data.train) + len(data.val)) + progress.num_images
    return before + image_work(stage, size) * num_images
