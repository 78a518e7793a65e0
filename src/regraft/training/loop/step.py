"""One optimizer step, and one pass over a split without any."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from regraft.compute.program import InferenceProgram, SplitProgram
from regraft.data.random import bits
from regraft.errors import DivergedError
from regraft.evaluation.metrics.measure import Measure
from regraft.training.engine import Engine
from regraft.training.objective.objective import Objective

__all__ = ["Batch", "Update", "evaluate", "seed_step", "training_step"]

Batch = tuple[tuple[Tensor, ...], Tensor, float]  # features, targets, factor on their mean loss
_DROPOUT_STREAM = 0xD20


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Make all that is random in the network (dropout, drop-path, own draws) a function of seed, step and process."""
    number = int(bits(seed, _DROPOUT_STREAM, step, num=1)[0, 0] >> 1) + rank
    torch.manual_seed(number)  # of every device
    random.seed(number)
    np.random.seed(number % 2**32)


@dataclass(frozen=True)
class Update:
    """What an optimizer step changes.

    Attributes:
        optimizer: The optimizer.
        parameters: What trains.
        clip_norm: Largest norm of the gradient; None does not clip.
    """

    optimizer: torch.optim.Optimizer
    parameters: Sequence[nn.Parameter]
    clip_norm: float | None = None

    @classmethod
    def of(cls, model: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> Update:
        """Return the update of everything that trains in a model."""
        return cls(optimizer, [p for p in model.parameters() if p.requires_grad], clip_norm)


def training_step(
    engine: Engine,
    program: SplitProgram,
    batches: Iterable[Batch],
    objective: Objective,
    update: Update,
    where: Callable[[], str],
) -> float:
    """Forward and backward over the step's batches, clip, step; returns the mean loss of the images of all processes.

    Processes exchange gradients with the last batch alone, and numbers once at the end.

    Args:
        engine: What computes, and which processes share the work.
        program: The model, cut where its frozen part ends.
        batches: Features, targets, and the factor on their mean loss with which the gradients of all batches of all
            processes add up to that of one batch of all images (see `Engine.shard`). Where only the targets say how
            much a batch counts (`objective.weigh`: pixels that are ignored count in no mean), what all of them count
            is known at the step's end, and divides the gradients then.
        objective: What is minimised.
        update: What changes, and how.
        where: Names the step, for errors.

    Raises:
        DivergedError: The loss or the gradient is not finite; the optimizer has not stepped.
    """
    weigh, parameters = objective.weigh, update.parameters
    update.optimizer.zero_grad(set_to_none=True)
    value = counted = 0.0
    for (features, targets, factor), is_last in _ended(batches):
        if weigh is not None:
            factor = weigh(targets) if factor else 0.0
            counted += factor
        with nullcontext() if is_last else engine.accumulating(program):
            with engine.autocast():
                logits = program(features, training=True)
            part = objective.loss(logits.float(), targets) * factor
            value += float(part.detach())
            if engine.num_processes == 1:  # the others would wait for one that ends here
                _require_finite(value, "loss", where)
            engine.backward(part)
    value, counted = engine.sum(value, counted)
    value /= engine.num_processes
    _require_finite(value, "loss", where)
    if weigh is not None:
        share = engine.num_processes / counted if counted else 0.0  # of a sum over batches that is a mean of processes
        value *= share
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], share)
    norm = float(engine.gradient_norm(parameters, update.clip_norm))
    if engine.numerics.precision != "fp16":  # there, loss scaling skips the step and goes on
        _require_finite(norm, "gradient", where)
    update.optimizer.step()
    return value


@torch.no_grad()
def evaluate(
    engine: Engine,
    tail: InferenceProgram,
    batches: Iterable[tuple[tuple[Tensor, ...], Tensor] | None],
    measure: Measure,
    check: Callable[[], None],
) -> dict[str, float]:
    """Return the metrics of a pass over a split; they are computed in fp32, by every process over the batches of all.

    Args:
        engine: Which processes share the work.
        tail: Features -> (logits,).
        batches: Features and labels of this process's batches; None where it has none left.
        measure: What takes in logits and labels.
        check: Called after each batch; may raise to stop.
    """
    for batch in batches:
        own = None
        if batch is not None:
            features, labels = batch
            (logits,) = tail(*features)
            own = (logits.float(), labels)
        for part in engine.gather(own):
            if part is not None:
                measure.update(*part)
        check()
    return measure.compute()


def _ended(batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Yield each batch with whether it is the last one."""
    coming = iter(batches)
    for batch in coming:
        following = next(coming, None)
        while following is not None:
            yield batch, False
            batch, following = following, next(coming, None)
        yield batch, True


def _require_finite(value: float, what: str, where: Callable[[], str]) -> None:
    if value == value and abs(value) != float("inf"):
        return
    raise DivergedError(
        f"The {what} became {value} at {where()}; the optimizer has not taken this step.",
        "finite numbers",
        "lower the learning rate, set `clip_norm: 1.0`, or compute in fp32",
    )
