"""The learning-rate range test: a rate that rises over a few steps, on a copy that is thrown away.

Leslie N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2015, arXiv:1506.01186, section 3.3.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regraft.data.cache import PixelCache
from regraft.data.dataset import DataSet
from regraft.data.labels import Labels
from regraft.data.masks import MaskProgram
from regraft.data.mix import Mix
from regraft.data.pairs import class_pixels, paired
from regraft.data.preprocess import Preprocessing
from regraft.data.random import permutation
from regraft.errors import DivergedError, SettingsError
from regraft.models.info import info_of
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Numerics, choose_numerics
from regraft.models.outputs import output_of
from regraft.models.program import split_program
from regraft.plan.freeze import freeze
from regraft.plan.losses import loss_terms
from regraft.plan.stages import Stage
from regraft.train.balance import class_weights, pixel_weights
from regraft.train.engine import Engine
from regraft.train.features import FeatureSource
from regraft.train.losses import build_loss, build_weigh
from regraft.train.optim import build_optimizer
from regraft.train.step import seed_step, training_step

__all__ = ["RangeTest", "find_lr"]

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
        """The curve and the suggestion for people, as plain text."""
        low, high = min(self.smoothed), max(self.smoothed)
        lines = [f"stage {self.stage}: {len(self.rates)} steps", "      rate    loss"]
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
        data: The photos; as many of the training images as the steps need are read.
        start: The first rate.
        end: The last one; the test ends earlier when the loss blows up.
        steps: How many steps at most.
        batch_size: Images a step, where the stage does not say.
        seed: Of order, augmentation and dropout.
        numerics: What to compute with; None chooses for this machine.

    Raises:
        SettingsError: A stage that is solved and has no rate, rates that do not rise, or no step with a finite loss.
        DataError: No image can be read.
    """
    _check(stage, start, end, steps)
    with _random_numbers_kept():
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
            "Expected a model whose loss is finite at the lowest rate.",
            "Check the weights (`regraft inspect`), or type a lower `--start`.",
        )
    return _found(stage.name, rates, losses)


def _check(stage: Stage, start: float, end: float, steps: int) -> None:
    if stage.optimizer in ("auto", "lbfgs"):
        raise SettingsError(
            f"The stage {stage.name!r} has the optimizer {stage.optimizer!r}, which needs no learning rate.",
            "Expected a stage with an optimizer that takes steps.",
            "Choose another with `--stage`, or set `optimizer: adamw`.",
        )
    if not 0 < start < end or steps < 10:
        raise SettingsError(
            f"The rates go from {start:g} to {end:g} in {steps} steps.",
            "Expected a start above 0, an end above it, and at least 10 steps.",
            "Leave them out for 1e-7 to 1 in 100 steps.",
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
    """The rates that were tried and the loss before each step."""
    engine = Engine(numerics)
    freeze(model, stage.selectors, bn=stage.bn)
    engine.place(model)
    optimizer = build_optimizer(model, stage)
    program = split_program(model)
    per_step = batch_size * stage.accumulate
    pixels, labels = _pixels(model, stage, data, len(rates) * per_step, seed)
    source, num_rows = _source(model, stage, data, pixels, labels, seed, engine, program), len(pixels)
    weights, output = _weights(stage, data, pixels), output_of(model)
    loss = build_loss(
        output, terms=loss_terms(stage.loss), label_smoothing=stage.label_smoothing, class_weights=weights
    )
    passes = -(-len(rates) * per_step // num_rows)
    order = np.concatenate([permutation(seed, epoch, num_rows) for epoch in range(passes)])[: len(rates) * per_step]
    batches = source.training(order, epoch=0, batch_size=batch_size, accumulate=stage.accumulate)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    losses: list[float] = []
    lowest = mean = math.inf
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] / stage.learning_rate * rate
        seed_step(seed, step)
        try:
            value = training_step(
                engine,
                program,
                islice(batches, stage.accumulate),
                loss=loss,
                parameters=parameters,
                clip_norm=stage.clip_norm,
                optimizer=optimizer,
                where=lambda: "the range test",
                weigh=build_weigh(output, weights, num_parts=stage.accumulate * engine.num_processes),
            )
        except DivergedError:
            break
        losses.append(value)
        mean = value if step == 0 else _SMOOTHING * mean + (1 - _SMOOTHING) * value
        lowest = min(lowest, mean)
        if mean > _BLOWN_UP * lowest:
            break
    return list(rates[: len(losses)]), losses


def _pixels(model: nn.Module, stage: Stage, data: DataSet, wanted: int, seed: int) -> tuple[PixelCache, Labels]:
    """As many training images as the test needs, each read once, with their masks or labels."""
    pixels = Preprocessing.from_dict(info_of(model).preprocessing or {}).pixels
    rows = np.sort(permutation(seed, 0, len(data.train))[:wanted])
    few = replace(data, splits={"train": data.train.take(rows)})
    cache = PixelCache(few.train.paths, pixels, split="train")
    if data.class_table is None:
        labels = few.train.labels[cache.good]
    else:
        masks = PixelCache(few.train.masks, MaskProgram(pixels, data.class_table), split="train")
        labels = paired(few, {"train": cache}, {"train": masks}, threads=1).train.labels
    return cache.sized(stage.size or pixels.size), labels


def _weights(stage: Stage, data: DataSet, pixels: PixelCache) -> Tensor | None:
    masks = pixels.masks
    if masks is None:
        return class_weights(stage.class_weights, data.class_names, data.train.labels)
    return pixel_weights(stage.class_weights, data.class_names, lambda: class_pixels(masks, len(data.class_names)))


def _source(
    model: nn.Module,
    stage: Stage,
    data: DataSet,
    pixels: PixelCache,
    labels: Labels,
    seed: int,
    engine: Engine,
    program: Any,
) -> FeatureSource:
    preprocessing = Preprocessing.from_dict(info_of(model).preprocessing or {})
    return FeatureSource(
        model,
        program,
        {"train": pixels},
        {"train": labels},
        Normaliser(preprocessing, engine.device),
        engine.numerics,
        augment=stage.augment,
        mix=Mix(stage.mixup, stage.cutmix, len(data.class_names)) if stage.mixes else None,
        seed=seed,
        engine=engine,
        mode="off",  # each image passes once
    )


def _found(stage: str, rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    """The curve's figures. The running mean starts at the first loss, so it needs no correction."""
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
    """Python's, numpy's and torch's generators afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_num_threads(threads)
