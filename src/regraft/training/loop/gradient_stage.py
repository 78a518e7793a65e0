"""A stage by gradient descent: epochs of steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import nn

from regraft.data.cache.loader import batch_bounds
from regraft.errors import DivergedError
from regraft.plan.optimizers import learning_rate
from regraft.training.checkpoint.state import Best
from regraft.training.limits.memory import BatchTooLargeError, is_out_of_memory
from regraft.training.loop.stage_run import StageRun
from regraft.training.loop.step import Batch, Update, seed_step, training_step
from regraft.training.objective.balance import epoch_order
from regraft.training.objective.optim import set_rates
from regraft.training.objective.schedule import EarlyStoppingState, PlateauState
from regraft.wording import quantity

__all__ = ["descend", "watch"]

Indices = npt.NDArray[np.int64]
_NUM_NAMED = 8
_MOST_SKIPPED = 20
_EPOCHS_PER_STAGE = 1_000_000  # keeps the counters of different stages apart


def descend(run: StageRun) -> None:
    """Train the stage's remaining epochs, each validated, recorded and saved."""
    progress, skipped = run.progress, _SkippedSteps()
    run.sinks.mark()
    while progress.epoch < run.length.epochs and not progress.stage_done:
        train_loss, facts = _train_epoch(run, skipped)
        values = {"train_loss": train_loss, **run.validate()}
        progress.epoch, progress.batch, progress.loss_sum, progress.num_images = progress.epoch + 1, 0, 0.0, 0
        done = f"{progress.epoch}/{run.length.epochs}"
        run.session.advance(run.stage, "validate", len(run.session.labels["val"]), done)
        run.record(values, **facts)
        watch(run, values)
        run.saver.save()


def _train_epoch(run: StageRun, skipped: _SkippedSteps) -> tuple[float, dict[str, object]]:
    """Train the remaining steps of an epoch; returns its mean loss and other values to record."""
    progress, started, first = run.progress, time.monotonic(), run.progress.num_images
    batches = _batches(run)
    update = Update.of(run.model, run.optimizer, run.stage.clip_norm)
    run.model.train()
    run.source.waited = 0.0
    num_steps = run.num_steps
    while progress.batch < num_steps:
        step = progress.epoch * run.length.steps_per_epoch + progress.batch  # of the stage, from 0
        progress.rates = _set_rates(run, step)
        seed_step(run.session.seed, progress.step, run.engine.rank)
        rows, some = next(batches)
        with _step_errors(run, rows):
            loss = training_step(run.engine, run.program, some, run.objective, update, run.where)
            skipped.note(run)
        if run.state.average is not None:
            run.state.average.update(step)
        progress.step += 1
        progress.batch += 1
        progress.num_images += len(rows)
        progress.loss_sum += loss * len(rows)
        if progress.batch == num_steps:
            progress.gradient_norms = _gradient_norms(run.model)
        run.session.advance(run.stage, "train", len(rows), f"{progress.epoch + 1}/{run.length.epochs}", loss)
        run.session.callbacks.tell("on_step_end", run, loss)
        run.saver.save_between_steps()
    seconds = max(time.monotonic() - started, 1e-9)
    facts = {
        "lr": progress.rates,
        "images_per_second": (progress.num_images - first) / seconds,
        "data_wait": round(min(run.source.waited / seconds, 1.0), 4),
    }
    return progress.loss_sum / max(progress.num_images, 1), facts


def _batches(run: StageRun) -> Iterator[tuple[Indices, Iterator[Batch]]]:
    """Yield for each step that is left of the epoch the rows of all processes, and this process's batches."""
    progress, accumulate = run.progress, run.stage.accumulate
    counter = progress.stage * _EPOCHS_PER_STAGE
    most = run.num_steps * run.batch_size * accumulate
    labels, epoch = run.session.labels["train"], counter + progress.epoch
    order = epoch_order(run.stage.sampling, run.session.seed, epoch, labels)[:most]
    bounds = batch_bounds(len(order), run.batch_size, fewest=run.fewest)
    given = run.source.training(
        order,
        bounds,
        epoch=counter + run.source.kept.view(progress.epoch),
        accumulate=accumulate,
        start_batch=progress.batch * accumulate,
    )
    last = len(bounds) - 1
    for first in range(progress.batch * accumulate, last, accumulate):
        yield order[bounds[first] : bounds[min(first + accumulate, last)]], islice(given, accumulate)


def _set_rates(run: StageRun, step: int) -> dict[str, float]:
    """Set the learning rates of the stage's step, and return them by group."""
    scale = run.progress.plateau["scale"] if run.progress.plateau else 1.0
    return set_rates(run.optimizer, run.stage, step, run.length, scale=scale)


def watch(run: StageRun, values: Mapping[str, float]) -> None:
    """Apply early stopping and the plateau rule, each with its own metric, and a callback's request to stop."""
    progress, stage, is_last = run.progress, run.stage, run.progress.epoch >= run.length.epochs
    if stage.plateau is not None:
        plateau = PlateauState(**progress.plateau) if progress.plateau else PlateauState()
        if plateau.update(stage.plateau, values[stage.plateau.monitor], learning_rate(stage)):
            monitor, factor = stage.plateau.monitor, stage.plateau.factor
            run.sinks.line(f"{stage.name}: {monitor} plateaued; learning rate × {factor}")
        progress.plateau = asdict(plateau)
    if stage.early_stopping is not None:
        rule = stage.early_stopping
        state = EarlyStoppingState(**(progress.early_stopping or {}))
        progress.stage_done = state.should_stop(rule, values[rule.monitor])
        progress.early_stopping = asdict(state)
        if rule.restore_best and state.improved:
            progress.stage_best = Best(progress.step, stage.name, progress.epoch, values[rule.monitor])
        if progress.stage_done and not is_last:
            waited = quantity(rule.patience, "epoch")
            run.sinks.line(f"{stage.name}: early stopping, {rule.monitor} has not improved for {waited}")
    if run.stop_requested():
        progress.stage_done = True
        if not is_last:
            run.sinks.line(f"{stage.name}: stage stopped by a callback")


class _SkippedSteps:
    """Counts the steps in a row that loss scaling (fp16) did not let the optimizer take."""

    def __init__(self) -> None:
        self._num = 0

    def note(self, run: StageRun) -> None:
        """Count the skipped steps in a row (fp16), up to an error.

        Raises:
            DivergedError: There were too many.
        """
        self._num = self._num + 1 if run.engine.skipped(run.optimizer) else 0
        if self._num >= _MOST_SKIPPED:
            raise DivergedError(
                f"The gradient was not finite in {self._num} steps in a row, up to {run.where()}.",
                "in fp16 a step is skipped now and then, until the loss scale is low enough",
                "lower the learning rate, set `clip_norm: 1.0`, or compute in bf16 or fp32",
            )


@contextmanager
def _step_errors(run: StageRun, rows: Indices) -> Iterator[None]:
    """Turn a step's error into one that lists its images (diverged), or BatchTooLargeError (out of memory)."""
    try:
        yield
    except DivergedError as error:
        paths = run.session.pixels["train"].paths
        names = [paths[row] for row in rows[:_NUM_NAMED].tolist()]
        more = [f"and {len(rows) - _NUM_NAMED} more"] if len(rows) > _NUM_NAMED else []
        details = ["the images of this step:", *names, *more]
        raise DivergedError(error.what, error.expected, error.next_step, details=details) from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise BatchTooLargeError from error
        raise


def _gradient_norms(model: nn.Module) -> dict[str, float]:
    return {
        name: float(parameter.grad.norm()) for name, parameter in model.named_parameters() if parameter.grad is not None
    }
