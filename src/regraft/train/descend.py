"""A stage by gradient descent: epochs of steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import nn

from regraft.errors import DivergedError
from regraft.train.balance import epoch_order
from regraft.train.memory import BatchTooLargeError, is_out_of_memory
from regraft.train.stage_run import StageRun
from regraft.train.step import seed_step, training_step

__all__ = ["descend"]

Indices = npt.NDArray[np.int64]
_NUM_NAMED = 8
_EPOCHS_PER_STAGE = 1_000_000  # keeps the counters of different stages apart


def descend(run: StageRun) -> None:
    """Train the stage's remaining epochs, each validated, recorded and saved."""
    while run.progress.epoch < run.length.epochs and not run.progress.stage_done:
        train_loss, facts = _train_epoch(run)
        values = {"train_loss": train_loss, **run.validate()}
        progress = run.progress
        progress.epoch, progress.batch, progress.loss_sum, progress.num_images = progress.epoch + 1, 0, 0.0, 0
        run.record(values, **facts)
        run.advance(len(run.session.labels["val"]), f"{progress.epoch}/{run.length.epochs}")
        run.watch(values)
        run.save()


def _train_epoch(run: StageRun) -> tuple[float, dict[str, object]]:
    """The steps that are left of an epoch; returns its mean loss and what else to record."""
    progress, seed, started, first = run.progress, run.session.seed, time.monotonic(), run.progress.num_images
    epoch = progress.stage * _EPOCHS_PER_STAGE + progress.epoch
    num_steps = run.num_steps
    accumulate, images_per_step = run.stage.accumulate, run.batch_size * run.stage.accumulate
    order = epoch_order(run.stage.sampling, seed, epoch, run.session.labels["train"])[: num_steps * images_per_step]
    batches = run.source.training(
        order,
        epoch=progress.stage * _EPOCHS_PER_STAGE + run.source.view(progress.epoch),
        batch_size=run.batch_size,
        accumulate=accumulate,
        start_batch=progress.batch * accumulate,
    )
    parameters = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    run.model.train()
    run.source.waited = 0.0
    while progress.batch < num_steps:
        progress.rates = run.set_rates()
        seed_step(seed, progress.step, run.engine.rank)
        rows = order[progress.batch * images_per_step : (progress.batch + 1) * images_per_step]
        with _step_errors(run, rows):
            loss = training_step(
                run.engine,
                run.program,
                islice(batches, accumulate),
                loss=run.loss,
                parameters=parameters,
                clip_norm=run.stage.clip_norm,
                optimizer=run.optimizer,
                where=run.where,
                weigh=run.weigh,
            )
            run.require_steps_taken()
        if run.average is not None:
            run.average.update(run.step)
        progress.step += 1
        progress.batch += 1
        progress.num_images += len(rows)
        progress.loss_sum += loss * len(rows)
        if progress.batch == num_steps:
            progress.gradient_norms = _gradient_norms(run.model)
        run.advance(len(rows), f"{progress.epoch + 1}/{run.length.epochs}", loss)
        run.session.callbacks.tell("on_step_end", run, loss)
        run.save_between_steps()
    seconds = max(time.monotonic() - started, 1e-9)
    facts = {
        "lr": progress.rates,
        "images_per_second": (progress.num_images - first) / seconds,
        "data_wait": round(min(run.source.waited / seconds, 1.0), 4),
    }
    return progress.loss_sum / max(progress.num_images, 1), facts


@contextmanager
def _step_errors(run: StageRun, rows: Indices) -> Iterator[None]:
    """Say more about a step that could not be taken: that memory was short, or which images led to no finite number."""
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
