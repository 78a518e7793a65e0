"""The learning-rate range test: a rate that rises over a few steps, on a copy that is thrown away.

Leslie N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2015, arXiv:1506.01186, section 3.3.
"""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.compute.program import split_program
from regraft.data.cache.cache import PixelCache
from regraft.data.cache.loader import batch_bounds
from regraft.data.dataset import DataSet
from regraft.data.masks.masks import MaskProgram
from regraft.data.masks.pairs import paired
from regraft.data.random import permutation
from regraft.errors import DivergedError, SettingsError
from regraft.models.describe.info import preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import output_of
from regraft.plan.freezing.freeze import freeze
from regraft.plan.make import make_plan
from regraft.plan.optimizers import learning_rate
from regraft.settings.stage import Stage
from regraft.training.engine import Engine
from regraft.training.features.feature_pass import Keeping
from regraft.training.features.features import FeatureSource
from regraft.training.features.variation import Variation
from regraft.training.images import Images
from regraft.training.limits.lone_image import require_company
from regraft.training.loop.step import Update, seed_step, training_step
from regraft.training.objective.objective import build_objective, loss_weights
from regraft.training.objective.optim import build_optimizer
from regraft.training.preflight.compatibility import check_filled
from regraft.wording import quantity

__all__ = ["RangeTest", "find_lr"]

_log = logging.getLogger("regraft")
_SMOOTHING = 0.9  # of the running mean of the loss
_BLOWN_UP = 4.0  # times the lowest smoothed loss: from there on the rate is too high


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        stage: The stage that was tried.
        rates: The learning rate of each step, rising by the same factor.
        losses: The mean loss of each step's images, before the step.
        smoothed: The same as a running mean.
        steepest: The rate where the smoothed loss falls fastest; None where it never falls.
        lowest: A tenth of the rate where the smoothed loss is lowest.
    """

    stage: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float | None
    lowest: float

    @property
    def suggestion(self) -> float:
        """The lower of the two: where the loss falls fastest, and a tenth of where it is lowest."""
        return self.lowest if self.steepest is None else min(self.steepest, self.lowest)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "suggestion": self.suggestion}

    def render(self) -> str:
        """Return the curve and the suggestion for people, as plain text."""
        low, high = min(self.smoothed), max(self.smoothed)
        lines = [f"stage {self.stage}: {quantity(len(self.rates), 'step')}", "      rate    loss"]
        for place in _spread(len(self.rates), 20):
            share = (self.smoothed[place] - low) / max(high - low, 1e-12)
            lines.append(f"  {self.rates[place]:8.1e}  {self.smoothed[place]:6.3f}  {'#' * round(40 * share)}")
        steepest = "nowhere" if self.steepest is None else f"{self.steepest:.1e}"
        lines += [
            f"the loss falls fastest at {steepest}; a tenth of where it is lowest is {self.lowest:.1e}",
            f"suggested lr: {self.suggestion:.1e}",
        ]
        return "\n".join(lines)


def find_lr(
    model: nn.Module,
    stage: Stage,
    data: DataSet,
    *,
    start: float = 1e-7,
    end: float = 1.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    numerics: Numerics | None = None,
) -> RangeTest:
    """Take a few steps of a stage with a rising learning rate, and suggest one. Leaves no trace.

    A copy of the model is trained; the model, random numbers and the disk stay as they were. Groups keep the ratio of
    their rates; the rates given and found are those of `Stage.lr`.

    Args:
        model: An adapted model (`rg.adapt`).
        stage: What trains, with which optimizer, on how augmented images.
        data: The images; as many of the training images as the steps need are read.
        start: The first rate.
        end: The last one; the test ends earlier when the loss blows up.
        steps: How many steps at most.
        batch_size: Images a step, where the stage does not say.
        seed: Of order, augmentation and dropout.
        numerics: What to compute with; None chooses for this machine.

    Raises:
        SettingsError: A stage that is solved and has no rate, rates that do not rise, or no step with a finite loss.
        WeightsError: Layers stay frozen that weights were meant to fill and did not.
        DataError: No image can be read.
    """
    _check(stage, start, end, steps)
    require_company(model, [stage], steps * (stage.batch_size or batch_size), batch_size)
    with _random_numbers_kept():
        for warning in check_filled(model, make_plan(model, [stage])):
            _log.warning("%s", warning)
        rates, losses = _climb(
            copy.deepcopy(model),
            stage,
            data,
            [start * (end / start) ** (step / (steps - 1)) for step in range(steps)],
            stage.batch_size or batch_size,
            seed,
            numerics or choose_numerics(),
        )
    if len(losses) < 2:
        raise SettingsError(
            f"The loss of stage {stage.name!r} is not finite at a rate of {start:g}.",
            "a model whose loss is finite at the lowest rate",
            "check the weights (`regraft inspect`), or type a lower `--start`",
        )
    return _found(stage.name, rates, losses)


def _check(stage: Stage, start: float, end: float, steps: int) -> None:
    if stage.optimizer in ("auto", "lbfgs"):
        raise SettingsError(
            f"The stage {stage.name!r} has the optimizer {stage.optimizer!r}, which needs no learning rate.",
            "a stage with an optimizer that takes steps",
            "choose another with `--stage`, or set `optimizer: adamw`",
        )
    if not 0 < start < end or steps < 10:
        raise SettingsError(
            f"The rates go from {start:g} to {end:g} in {steps} steps.",
            "a start above 0, an end above it, and at least 10 steps",
            "leave them out for 1e-7 to 1 in 100 steps",
        )


def _climb(
    model: nn.Module,
    stage: Stage,
    data: DataSet,
    rates: Sequence[float],
    batch_size: int,
    seed: int,
    numerics: Numerics,
) -> tuple[list[float], list[float]]:
    """Return the rates that were tried and the loss before each step."""
    engine = Engine(numerics)
    freeze(model, stage.selectors, bn=stage.bn)
    engine.place(model)
    optimizer = build_optimizer(model, stage)
    program = split_program(model)
    per_step = batch_size * stage.accumulate
    images, num_rows = _images(model, stage, data, len(rates) * per_step, seed, engine.device)
    variation = Variation.of(stage, seed, len(data.class_names))
    source = FeatureSource(model, program, images, engine, variation, Keeping(mode="off"))  # each image passes once
    weights = loss_weights(stage, data.class_names, data.train.labels, images.pixels["train"].masks)
    objective = build_objective(stage, output_of(model), weights, num_processes=engine.num_processes)
    passes = -(-len(rates) * per_step // num_rows)
    order = np.concatenate([permutation(seed, epoch, num_rows) for epoch in range(passes)])[: len(rates) * per_step]
    bounds = batch_bounds(len(order), batch_size)
    batches = source.training(order, bounds, epoch=0, accumulate=stage.accumulate)
    update = Update.of(model, optimizer, stage.clip_norm)
    model.train()

    def loss_at(step: int, rate: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] / learning_rate(stage) * rate
        seed_step(seed, step)
        some = islice(batches, stage.accumulate)
        return training_step(engine, program, some, objective, update, lambda: "the range test")

    losses = _until_it_blows_up(loss_at, rates)
    return list(rates[: len(losses)]), losses


def _until_it_blows_up(loss_at: Callable[[int, float], float], rates: Sequence[float]) -> list[float]:
    """Return the loss of each step, up to one whose running mean is far above the lowest, or that is not finite."""
    losses: list[float] = []
    lowest = mean = math.inf
    for step, rate in enumerate(rates):
        try:
            value = loss_at(step, rate)
        except DivergedError:
            break
        losses.append(value)
        mean = value if step == 0 else _SMOOTHING * mean + (1 - _SMOOTHING) * value
        lowest = min(lowest, mean)
        if mean > _BLOWN_UP * lowest:
            break
    return losses


def _images(
    model: nn.Module, stage: Stage, data: DataSet, wanted: int, seed: int, device: torch.device
) -> tuple[Images, int]:
    """Read as many training images as the test needs, each read once, with their masks or labels; and how many they
    are.
    """
    preprocessing = preprocessing_of(model)
    pixels = preprocessing.pixels if stage.train_size is None else preprocessing.pixels.sized(stage.train_size)
    rows = np.sort(permutation(seed, 0, len(data.train))[:wanted])
    few = replace(data, splits={"train": data.train.take(rows)})
    cache = PixelCache(few.train.paths, pixels, split="train")
    if data.class_table is None:
        labels = few.train.labels[cache.good]
    else:
        masks = PixelCache(few.train.masks, MaskProgram(pixels, data.class_table), split="train")
        labels = paired(few, {"train": cache}, {"train": masks}, threads=1).train.labels
    normaliser = Normaliser(preprocessing, device)
    images = Images({"train": cache}, {"train": labels}, data.class_names, normaliser)
    return images, len(images.pixels["train"])


def _found(stage: str, rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """Return the curve's figures. The running mean starts at the first loss, so it needs no correction."""
    smoothed = [losses[0]]
    for value in losses[1:]:
        smoothed.append(_SMOOTHING * smoothed[-1] + (1 - _SMOOTHING) * value)
    bottom = int(np.argmin(smoothed))
    slopes = np.gradient(np.array(smoothed), np.log(np.array(rates)))[: bottom + 1]
    steepest = int(slopes.argmin())
    return RangeTest(
        stage,
        tuple(rates),
        tuple(losses),
        tuple(smoothed),
        float(rates[steepest]) if slopes[steepest] < 0 else None,
        float(rates[bottom]) / 10,
    )


def _spread(num: int, most: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, num - 1, min(num, most))})


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Leave Python's, numpy's and torch's generators as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_num_threads(threads)
