"""How much work a run is, in images of the run's size, by what they go through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from regraft.data.dataset import DataSet
from regraft.plan.length import image_work, length_of
from regraft.plan.make import Plan
from regraft.settings.stage import Stage
from regraft.training.checkpoint.state import Progress
from regraft.training.loop.merging import num_candidates
from regraft.training.progress.phases import Costs, Phase, Work

__all__ = ["RunWork"]


@dataclass(frozen=True)
class RunWork:
    """What the work of a run's stages depends on.

    Attributes:
        size: Height and width of images in stages that do not say.
        data: The images to train on and to validate on.
        batch_size: Of stages that do not say.
        feature_cache: As for `train`.
    """

    size: tuple[int, int]
    data: DataSet
    batch_size: int
    feature_cache: str | int = "auto"

    def of(self, stages: Iterable[Stage]) -> dict[Phase, Work]:
        """Return the work of some stages by phase."""
        return {phase: work for stage in stages for phase, work in self._stage(stage).items()}

    def done(self, progress: Progress, plan: Plan) -> dict[Phase, float]:
        """Return the units that a resumed run has behind it: of whole stages, and of the present one's epochs."""
        stage, num_behind = plan.stages[progress.stage], progress.stage + progress.stage_ended
        done = {phase: work.units for phase, work in self.of(plan.stages[:num_behind]).items()}
        if progress.stage_ended or stage.optimizer == "lbfgs":
            return done
        each = image_work(stage, self.size)
        trained = each * (progress.epoch * len(self.data.train) + progress.num_images)
        validated = each * progress.epoch * len(self.data.val)
        return {**done, Phase(stage.name, "train"): trained, Phase(stage.name, "validate"): validated}

    def _stage(self, stage: Stage) -> dict[Phase, Work]:
        each, num_train, num_val = image_work(stage, self.size), len(self.data.train), len(self.data.val)
        features = Phase(stage.name, "features")
        if stage.optimizer == "lbfgs":
            return {features: Work(each * (num_train + num_val), 1.0)}
        length = length_of(stage, num_train, stage.batch_size or self.batch_size)
        costs = Costs.of(stage, length, self.feature_cache)
        epochs, passes = length.steps / length.steps_per_epoch, length.epochs + num_candidates(stage, length.epochs)
        work = {
            Phase(stage.name, "train"): Work(each * epochs * num_train, costs.train),
            Phase(stage.name, "validate"): Work(each * passes * num_val, costs.validate),
        }
        if costs.features:
            work[features] = Work(each * (num_val + num_train * costs.keeps_train), costs.features)
        return work
