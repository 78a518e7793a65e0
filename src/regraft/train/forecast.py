"""What a run will take, before it begins: each stage is tried on one small batch of noise, and multiplied up.

Nothing is written, and the model is not changed: stages are tried on a copy of it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from regraft.data import augment as augmentation
from regraft.data.decode import PixelProgram, decode_or_reason, read_file
from regraft.data.preprocess import Preprocessing
from regraft.models.info import info_of
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Numerics
from regraft.models.program import InferenceProgram, SplitProgram, split_program
from regraft.plan.freeze import freeze
from regraft.plan.length import Length, length_of
from regraft.plan.make import Plan
from regraft.plan.stages import Stage
from regraft.train.engine import Engine
from regraft.train.optim import build_optimizer

Value = TypeVar("Value")
__all__ = ["Forecast", "StageForecast", "forecast"]

_SECONDS = 6.0  # for all stages together, about
_MOST_IMAGES = 16
_NUM_FILES = 8
_RUNS, _RUN_SECONDS = 3, 0.5


@dataclass(frozen=True)
class StageForecast:
    """What one stage will take, if nothing ends it early.

    Attributes:
        name: The stage's name.
        size: Height and width of its images.
        batch_size: Images at a time.
        length: Its steps and epochs; None for a head that is solved.
        seconds: About how long.
        num_bytes: About how much memory at most: weights, gradients, the optimizer's state, and what a batch leaves
            for its backward pass.
        num_images: Images in the batch that was tried.
    """

    name: str
    size: tuple[int, int]
    batch_size: int
    length: Length | None
    seconds: float
    num_bytes: int
    num_images: int


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        stages: Its stages.
        decoding: Seconds for decoding all images once.
        pixel_bytes: Bytes of all images once they are decoded.
        numerics: What was computed with.
    """

    stages: tuple[StageForecast, ...]
    decoding: float
    pixel_bytes: int
    numerics: Numerics

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.decoding + sum(stage.seconds for stage in self.stages)

    @property
    def num_bytes(self) -> int:
        """The most memory of any stage, without pixels."""
        return max(stage.num_bytes for stage in self.stages)


@dataclass(frozen=True)
class _Costs:
    """Seconds for one image, and bytes: of the weights and what belongs to them, and of one image."""

    prefix: float
    train: float
    validate: float
    fixed: int
    per_image: int
    num_images: int


def forecast(
    model: nn.Module,
    plan: Plan,
    *,
    num_train: int,
    num_val: int,
    batch_size: int,
    numerics: Numerics,
    paths: Sequence[str] = (),
) -> Forecast:
    """Try each stage of a plan on a small batch, for a few seconds in all.

    Args:
        model: The adapted model; its weights do not matter.
        plan: The stages.
        num_train: Images to train on.
        num_val: Images to validate on.
        batch_size: Of stages that do not say.
        numerics: What to compute with.
        paths: Some image files, to time decoding with; none leaves it out.
    """
    trial = copy.deepcopy(model)
    pixels = Preprocessing.from_dict(info_of(model).preprocessing or {}).pixels
    trained: set[str] = set()
    stages = []
    for stage in plan:
        costs = _try(trial, stage, pixels.size, batch_size, numerics, trained, _SECONDS / len(plan))
        stages.append(_stage(stage, costs, num_train, num_val, batch_size, pixels.size))
    num_images = num_train + num_val
    decoding = _decoding(paths[:_NUM_FILES], pixels) / numerics.threads * num_images
    return Forecast(
        tuple(stages), decoding, num_images * pixels.num_channels * pixels.size[0] * pixels.size[1], numerics
    )


def _stage(
    stage: Stage, costs: _Costs, num_train: int, num_val: int, batch_size: int, size: tuple[int, int]
) -> StageForecast:
    batch_size = stage.batch_size or batch_size
    size = stage.size or size
    if stage.optimizer == "lbfgs":
        seconds = (num_train + num_val) * costs.prefix
        return StageForecast(stage.name, size, batch_size, None, seconds, costs.fixed, costs.num_images)
    length = length_of(stage, num_train, batch_size)
    shown = length.steps / length.steps_per_epoch * num_train
    varies = (stage.augment is not None and not stage.augment.is_identity) or stage.mixes
    seconds = (shown if varies else num_train) * costs.prefix + shown * costs.train
    seconds += num_val * (costs.prefix + length.epochs * costs.validate)
    num_bytes = costs.fixed + min(batch_size, num_train) * costs.per_image
    return StageForecast(stage.name, size, batch_size, length, seconds, num_bytes, costs.num_images)


def _try(
    model: nn.Module,
    stage: Stage,
    size: tuple[int, int],
    batch_size: int,
    numerics: Numerics,
    trained: set[str],
    budget: float,
) -> _Costs:
    """Costs of a stage, from as many images as fit into the budget of seconds."""
    frozen = freeze(model, stage.selectors, bn=stage.bn, trained=trained)
    trained |= set(frozen.layers)
    engine = Engine(replace(numerics, precision=stage.precision or numerics.precision))
    engine.place(model)
    trial = _Trial(model, stage, stage.size or size, engine)
    num_images, most = 2, min(_MOST_IMAGES, max(2, stage.batch_size or batch_size))
    began = time.perf_counter()
    costs = trial.costs(num_images)
    while num_images < most:
        spent = time.perf_counter() - began
        grown = min(most, num_images * 4)
        if spent + spent * grown / num_images > budget:
            break
        num_images = grown
        costs = trial.costs(num_images)
    return costs


class _Trial:
    """A stage on a copy of the model, with everything that a step needs."""

    def __init__(self, model: nn.Module, stage: Stage, size: tuple[int, int], engine: Engine) -> None:
        self.model, self.stage, self.size, self.engine = model, stage, size, engine
        self.program: SplitProgram = split_program(model)
        self.optimizer = build_optimizer(model, stage)
        self.preprocessing = Preprocessing.from_dict(info_of(model).preprocessing or {})

    def costs(self, num_images: int) -> _Costs:
        engine, program = self.engine, self.program
        inputs = self._inputs(num_images)
        prefix = None
        if program.prefix is not None:
            prefix = InferenceProgram(copy.deepcopy(program.prefix), engine.numerics, num_images)
        features, prefix_seconds = self._timed(lambda: (inputs(),) if prefix is None else prefix(inputs()))
        prefix_bytes = _num_bytes(prefix.module.state_dict().values()) if prefix is not None else 0
        if self.stage.optimizer == "lbfgs":
            fixed = _num_bytes(self.model.state_dict().values()) + prefix_bytes
            return _Costs(prefix_seconds / num_images, 0.0, 0.0, fixed, 0, num_images)
        per_image = self._saved_bytes(features) // num_images
        self.model.train()
        _, train_seconds = self._timed(lambda: self._step(features))
        self.model.eval()
        _, eval_seconds = self._timed(lambda: self._forward(features))
        return _Costs(
            prefix_seconds / num_images,
            train_seconds / num_images,
            eval_seconds / num_images,
            prefix_bytes + self._held_bytes(),
            per_image,
            num_images,
        )

    def _inputs(self, num_images: int) -> Callable[[], Tensor]:
        """What makes a batch of network inputs out of pixels, as training does."""
        normaliser = Normaliser(self.preprocessing, self.engine.device)
        shape = (num_images, *self.size, self.preprocessing.pixels.num_channels)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        ids = np.arange(num_images)

        def make() -> Tensor:
            pixels = normaliser.pixels(noise)
            if self.stage.augment is not None and not self.stage.augment.is_identity:
                pixels = augmentation.apply(pixels, self.stage.augment, seed=0, epoch=0, sample_ids=ids)
            return normaliser(pixels)

        return make

    def _step(self, features: tuple[Tensor, ...]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self.engine.autocast():
            logits = self.program(features, training=True)
        logits.float().square().mean().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.no_grad()
    def _forward(self, features: tuple[Tensor, ...]) -> None:
        with self.engine.autocast():
            self.program(features, training=False)

    def _saved_bytes(self, features: tuple[Tensor, ...]) -> int:
        """Bytes that a forward pass keeps for the backward pass, beside the weights."""
        weights = {parameter.untyped_storage().data_ptr() for parameter in self.model.parameters()}
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.model.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), self.engine.autocast():
            self.program(features, training=True)
        return sum(saved.values())

    def _held_bytes(self) -> int:
        """Bytes of weights, gradients, the optimizer's state and the average of the weights."""
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        moments = _num_bytes(value for value in states if isinstance(value, Tensor))
        copies = 1 if self.stage.ema is None else 2
        return _num_bytes(self.model.state_dict().values()) + copies * _num_bytes(trainable) + moments

    def _timed(self, work: Callable[[], Value]) -> tuple[Value, float]:
        """What the work gives, and its seconds: the least of a few runs after one that is not counted."""
        result, least, began = work(), math.inf, time.perf_counter()
        for _ in range(_RUNS):
            _wait(self.engine.device)
            start = time.perf_counter()
            work()
            _wait(self.engine.device)
            least = min(least, time.perf_counter() - start)
            if time.perf_counter() - began > _RUN_SECONDS:
                break
        return result, least


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _decoding(paths: Sequence[str], pixels: PixelProgram) -> float:
    """Seconds that one file takes on one thread."""
    began = time.perf_counter()
    for path in paths:
        data = read_file(path)
        if isinstance(data, bytes):
            decode_or_reason(data, pixels)
    return (time.perf_counter() - began) / max(len(paths), 1)


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
