"""One stage of a run, begun: what it trains, on what, and what is asked of it epoch by epoch."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from regraft.compute.program import SplitProgram, tail_program
from regraft.evaluation.metrics.measure import Measure, measure_for
from regraft.plan.freezing.freeze import Freeze
from regraft.plan.length import length_of
from regraft.settings.monitor import DEFAULT_MONITOR
from regraft.settings.stage import Stage
from regraft.training.checkpoint.late import with_late
from regraft.training.checkpoint.state import Best, packed
from regraft.training.features.features import FeatureSource
from regraft.training.limits.lone_image import fewest_images
from regraft.training.loop.checkpoints import StageSaver, StageState
from regraft.training.loop.choice import take_in
from regraft.training.loop.session import Session
from regraft.training.loop.step import evaluate
from regraft.training.objective.objective import Objective

__all__ = ["StageRun"]


class StageRun:
    """One stage, from wherever the saved progress says; `begin_stage` makes it.

    Args:
        session: The run.
        stage: What to do.
        state: What the stage changes and what it holds still.
        objective: What is minimised.
        program: The model, cut where its frozen part ends.
        source: Batches, as features at the end of the frozen part.

    Attributes:
        model: The model.
        optimizer: Over exactly what trains.
        frozen: The names of what trains and of what is frozen.
        measure: What the last validation took, once there was one.
        length: How many steps and epochs it takes at most.
        fewest: Images that each batch has at least, as far as there are enough.
        saver: What saves its state.
    """

    def __init__(
        self,
        session: Session,
        stage: Stage,
        state: StageState,
        objective: Objective,
        program: SplitProgram,
        source: FeatureSource,
    ) -> None:
        self.session, self.stage, self.state = session, stage, state
        self.objective, self.program, self.source = objective, program, source
        self.model, self.engine, self.progress, self.sinks = (
            session.model,
            session.engine,
            session.progress,
            session.sinks,
        )
        self.optimizer: Optimizer = state.optimizer
        self.frozen: Freeze = state.frozen
        self.batch_size = stage.batch_size or session.options.batch_size
        self.num_images = len(session.labels["train"])
        self.length = length_of(stage, self.num_images, self.batch_size)
        self.fewest = fewest_images(self.model)
        self.measure: Measure | None = None
        self.saver = StageSaver(session.checkpoints, self.model, state, self.progress, self.engine)
        self._epoch_began = time.monotonic()

    @property
    def is_solved(self) -> bool:
        """Whether the stage is solved by L-BFGS instead of descended."""
        return self.stage.optimizer == "lbfgs"

    @property
    def num_steps(self) -> int:
        """Steps in the epoch that is going on: where a stage is so many steps long, its last epoch may be shorter."""
        done = self.progress.epoch * self.length.steps_per_epoch
        return min(self.length.steps_per_epoch, self.length.steps - done)

    def where(self) -> str:
        """Return the place of the next step, for error messages."""
        return f"stage {self.stage.name!r}, epoch {self.progress.epoch + 1}, step {self.progress.step + 1}"

    def request_stop(self) -> None:
        """Let the stage end with the epoch that is going on (called between epochs: with the next one).

        The wish is part of the saved state: a run that is killed after it and resumed ends the stage at the same step.
        """
        self.progress.stop_requested = True

    def stop_requested(self) -> bool:
        """Return whether a callback has asked for the end of the stage; all processes ask at the same place."""
        self.progress.stop_requested = self.engine.any(self.progress.stop_requested)
        return self.progress.stop_requested

    def validate(self, *, saves: bool = True) -> dict[str, float]:
        """Return the metrics of the validation split, with the prefix `val_`.

        Args:
            saves: Whether a signal that comes meanwhile saves the model as it is.
        """
        saves = saves and not self.is_solved
        self.model.eval()
        measure = self.measure = measure_for(self.objective.output, self.session.class_names, self.objective.adjustment)
        average = self.state.average
        with average.applied() if average is not None else nullcontext():
            tail = tail_program(self.program, self.engine.numerics.for_inference, self.source.part.batch_size)
            try:
                batches = self.source.evaluation("val")
                stop = functools.partial(self.saver.stop_in_validation, saves=saves)
                values = evaluate(self.engine, tail, batches, measure, stop)
            finally:
                tail.release()
        return {f"val_{name}": value for name, value in values.items()}

    def record(self, values: Mapping[str, float], **facts: Any) -> None:
        """Record an epoch's metrics: the best so far, the line in metrics.jsonl.

        Args:
            values: `train_loss` and the measures of the validation split.
            facts: What else stands in the line.
        """
        progress, stage = self.progress, self.stage
        epoch = Best(progress.step, stage.name, progress.epoch, values[self.session.monitor])
        interpolated = self.session.plan.interpolated
        evidence = self.evidence()
        is_best = take_in(
            progress, epoch, self.session.mode, is_solved=self.is_solved, interpolated=interpolated, **evidence
        )
        if stage.soup:
            progress.late = with_late(progress.late, replace(epoch, **evidence))
        rule = stage.early_stopping
        if is_best and (rule is None or not rule.restore_best or self.is_solved):
            progress.stage_best = epoch
        record = {
            "stage": stage.name,
            "stage_index": progress.stage,
            "epoch": progress.epoch,
            "epochs": None if self.is_solved else self.length.epochs,
            "step": progress.step,
            **values,
            **facts,
            "seconds": round(time.monotonic() - self._epoch_began, 3),
        }
        progress.metrics_bytes = self.sinks.epoch(record)
        self.session.callbacks.tell("on_epoch_end", self, record)
        self._epoch_began = time.monotonic()

    def evidence(self) -> dict[str, Any]:
        """Return the thresholds of the last validation, and the losses of its images to compare epochs by."""
        if self.measure is None:
            return {}
        compared = (self.session.monitor, self.session.mode) == (DEFAULT_MONITOR, "min")
        losses = packed(self.measure.losses()) if compared else ""
        return {"thresholds": self.measure.thresholds(), "losses": losses}
