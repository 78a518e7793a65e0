"""One optimizer step, and one pass over a split without any."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.data.random import bits
from regraft.errors import DivergedError
from regraft.models.program import SplitProgram
from regraft.plan.stages import Stage
from regraft.train.engine import Engine

__all__ = ["Evaluation", "evaluate", "seed_step", "training_step"]

_DROPOUT_STREAM = 0xD20


@dataclass(frozen=True)
class Evaluation:
    """The result of a pass over a split: mean cross-entropy, share of right answers."""

    loss: float
    top1: float


def seed_step(seed: int, step: int) -> None:
    """Make everything random inside the network (dropout, drop-path) a function of seed and step."""
    torch.manual_seed(int(bits(seed, _DROPOUT_STREAM, step, num=1)[0, 0] >> 1))


def training_step(
    engine: Engine,
    program: SplitProgram,
    features: tuple[Tensor, ...],
    labels: Tensor,
    stage: Stage,
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    where: Callable[[], str],
) -> float:
    """Forward, backward, clip, step; returns the mean loss of the batch.

    Raises:
        DivergedError: The loss or the gradient is not finite; the optimizer has not stepped.
    """
    with engine.autocast():
        logits = program(features, training=True)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=stage.label_smoothing)
    value = float(loss.detach())
    _require_finite(value, "loss", where)
    optimizer.zero_grad(set_to_none=True)
    engine.backward(loss)
    norm = float(engine.gradient_norm(parameters, stage.clip_norm))
    if engine.numerics.precision != "fp16":  # there, loss scaling skips the step and goes on
        _require_finite(norm, "gradient", where)
    optimizer.step()
    return value


@torch.no_grad()
def evaluate(
    engine: Engine,
    program: SplitProgram,
    batches: Iterable[tuple[tuple[Tensor, ...], Tensor]],
    check: Callable[[], None],
) -> Evaluation:
    """Mean cross-entropy and accuracy over a split; metrics are taken in fp32, counts are whole numbers."""
    loss_sum, num_right, num_images = 0.0, 0, 0
    for features, labels in batches:
        with engine.autocast():
            logits = program(features, training=False)
        logits = logits.float()
        loss_sum += float(F.cross_entropy(logits, labels, reduction="sum"))
        num_right += int((logits.argmax(1) == labels).sum())
        num_images += len(labels)
        check()
    return Evaluation(loss_sum / max(num_images, 1), num_right / max(num_images, 1))


def _require_finite(value: float, what: str, where: Callable[[], str]) -> None:
    if value == value and abs(value) != float("inf"):
        return
    raise DivergedError(
        f"The {what} became {value} at {where()}; the optimizer has not taken this step.",
        "Expected finite numbers.",
        "Lower the learning rate (`--set stages.0.lr=1e-4`), set `clip_norm: 1.0`, or type `--precision fp32`; "
        "the state before is in checkpoints/.",
    )
