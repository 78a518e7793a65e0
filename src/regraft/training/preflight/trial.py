"""A stage tried on a few batches of noise: what a batch costs at all, and what each image in it adds.

The trial computes as the run does: the frozen part through its inference program in batches of that program's size,
what trains in batches of two sizes, of which the larger is the stage's own where there is time for it.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.compute.program import InferenceProgram, split_program, tail_program
from regraft.data.augment import augment as augmentation
from regraft.models.describe.info import preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import output_of
from regraft.plan.losses import loss_terms
from regraft.settings.stage import Stage
from regraft.training.engine import Engine
from regraft.training.features.feature_store import as_stored
from regraft.training.features.frozen_part import program_batch
from regraft.training.objective.losses import build_loss
from regraft.training.objective.optim import build_optimizer

__all__ = ["Costs", "Line", "Trial"]

Value = TypeVar("Value")
_SMALL = 4
_RUNS = 3
_SOLVER_ROWS = 1024
_OBJECTIVES = 150  # that the solver of a head evaluates at all strengths together, about


@dataclass(frozen=True)
class Line:
    """Seconds that a batch takes.

    Attributes:
        base: Of any batch.
        each: Of an image in it.
    """

    base: float
    each: float

    @classmethod
    def through(cls, seconds: Mapping[int, float]) -> Line:
        """Return the line through what batches of one or two sizes took; it meets the larger one."""
        small, large = min(seconds), max(seconds)
        rise = seconds[large] - seconds[small]
        each = max(rise, 0.0) / (large - small) if large > small else seconds[large] / large
        base = seconds[large] - each * large
        return cls(base, each) if base >= 0 else cls(0.0, seconds[large] / large)

    def of(self, num_batches: float, num_images: float) -> float:
        """Return the seconds of this many batches with this many images in all."""
        return num_batches * self.base + num_images * self.each


@dataclass(frozen=True)
class Costs:
    """What a stage costs.

    Attributes:
        setup: Seconds to cut the network where its frozen part ends.
        inputs: Seconds of an image until it goes in.
        prefix: Seconds of a training image through the frozen part.
        exact_prefix: Seconds of an image through it in the precision of inference.
        program_batch: Images that the frozen part takes at a time; fewer take as long.
        step: A training step's batches.
        evaluate: Batches of validation.
        objective: Seconds of the solver, of an image.
        fixed: Bytes of the weights and what belongs to them.
        per_image: Bytes that an image of a batch adds.
        num_images: Images in the largest batch that was tried.
    """

    setup: float
    inputs: float
    prefix: float
    exact_prefix: float
    program_batch: int
    step: Line
    evaluate: Line
    objective: float
    fixed: int
    per_image: int
    num_images: int

    def validated_at(self, pixels: float) -> Costs:
        """Return the same with images to validate on that have so many times the pixels of training images."""
        evaluate = Line(self.evaluate.base, self.evaluate.each * pixels)
        return replace(self, exact_prefix=self.exact_prefix * pixels, evaluate=evaluate)


class Trial:
    """A stage on a copy of the model, with everything that a step needs.

    Args:
        model: The copy, frozen as the stage says; its weights are changed.
        stage: The stage.
        size: Height and width of its training images.
        engine: What to compute with.
        batch_size: Images in a batch of its own.
    """

    def __init__(self, model: nn.Module, stage: Stage, size: tuple[int, int], engine: Engine, batch_size: int) -> None:
        self.model, self.stage, self.size, self.engine = model, stage, size, engine
        self.batch_size = max(2, batch_size)
        began = time.perf_counter()
        self.program = split_program(model)
        self.setup = time.perf_counter() - began
        self.optimizer = build_optimizer(model, stage)
        self.preprocessing = preprocessing_of(model)
        self.loss = build_loss(output_of(model), terms=loss_terms(stage.loss), label_smoothing=stage.label_smoothing)

    def costs(self, seconds: float) -> Costs:
        """Measure the costs for about this many seconds, and longer only where one batch of four takes longer."""
        ends = time.perf_counter() + seconds
        small = min(_SMALL, self.batch_size)
        make = self._inputs(small)
        images, inputs_seconds = _timed(make, 0.1 * seconds, self.engine.device)
        features, prefix_seconds, program_size, prefix_bytes = self._through_prefix(images, 0.4 * seconds)
        held = _num_bytes(self.model.state_dict().values()) + prefix_bytes
        common = (self.setup, inputs_seconds / small, *prefix_seconds, program_size)
        if self.stage.optimizer == "lbfgs":
            line, objective = Line(0.0, 0.0), self._objective_seconds(features[0])
            return Costs(*common, line, line, objective, held, 0, program_size if prefix_bytes else small)
        per_image = self._saved_bytes(_rows(features, small)) // small
        steps: dict[int, float] = {}
        passes: dict[int, float] = {}
        for size in (small, *self._larger()):
            if size > small and not _affords(size, small, steps[small] + passes[small], ends):
                continue
            some = _rows(features, size)
            rest = max(ends - time.perf_counter(), 0.0)
            self.model.train()
            steps[size] = _timed(lambda some=some: self._step(some), 0.6 * rest, self.engine.device)[1]  # type: ignore[misc]
            self.model.eval()
            tail = tail_program(self.program, self.engine.numerics.for_inference, size)
            passes[size] = _timed(lambda some=some, tail=tail: tail(*some), 0.2 * rest, self.engine.device)[1]  # type: ignore[misc]
            if size > small:
                break
        step, evaluate = Line.through(steps), Line.through(passes)
        return Costs(
            *common,
            step,
            evaluate,
            0.0,
            prefix_bytes + _held_bytes(self.model, self.optimizer, averages=self.stage.ema is not None),
            per_image,
            max(steps),
        )

    def _larger(self) -> list[int]:
        """Return sizes of a second batch, the best first."""
        return [size for part in (1, 2, 4) if (size := self.batch_size // part) > _SMALL]

    def _through_prefix(
        self, images: Tensor, seconds: float
    ) -> tuple[tuple[Tensor, ...], tuple[float, float], int, int]:
        """Return features of some images, seconds of one through the frozen part (in training, in inference), its batch
        size, and its bytes.
        """
        if self.program.prefix is None:
            return (images,), (0.0, 0.0), 1, 0
        some, has_masks = _rows((images,), 2)[0], output_of(self.model) == "segmentation"
        size = program_batch(self.engine.numerics, has_masks=has_masks)
        with torch.no_grad():
            began = time.perf_counter()
            self.program.prefix(some)
            _wait(self.engine.device)
            each = (time.perf_counter() - began) / len(some)  # the first time, and not fused: rather too long
        tried = next((n for n in (size, size // 2, size // 4) if n > 2 and n * each < seconds), 2)
        numerics, batch = self.engine.numerics, _rows((images,), tried)[0]
        prefix = InferenceProgram(copy.deepcopy(self.program.prefix), numerics, tried)
        features, took = _timed(lambda: prefix(batch), seconds / 2, self.engine.device)
        times = (took / tried, took / tried)
        if numerics.for_inference != numerics:
            exact = InferenceProgram(self.program.prefix, numerics.for_inference, tried)
            times = (took / tried, _timed(lambda: exact(batch), seconds / 4, self.engine.device)[1] / tried)
        return as_stored(features), times, size, _num_bytes(prefix.module.state_dict().values())

    def _objective_seconds(self, features: Tensor) -> float:
        """Return seconds that the solver takes for an image: of the loss and its gradient, as often as it looks at
        them.
        """
        head = self.program.is_linear
        if head is None:
            return 0.0
        matrix = torch.zeros(_SOLVER_ROWS, features.flatten(1).shape[1], dtype=torch.float64, device=self.engine.device)
        weight = matrix.new_zeros(head.out_features, matrix.shape[1]).requires_grad_()
        targets = self._targets(matrix.new_zeros(_SOLVER_ROWS, head.out_features))

        def objective() -> None:
            self.loss(F.linear(matrix, weight), targets).backward()  # type: ignore[no-untyped-call]

        return _OBJECTIVES * _timed(objective, 0.2, self.engine.device)[1] / _SOLVER_ROWS

    def _inputs(self, num_images: int) -> Callable[[], Tensor]:
        """Return a function that makes a batch of network inputs from pixels of noise, as training does."""
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

    def _targets(self, logits: Tensor) -> Tensor:
        """Return targets that fit: the first class everywhere."""
        output = output_of(self.model)
        if output == "segmentation":
            return torch.zeros(len(logits), *logits.shape[2:], dtype=torch.uint8, device=logits.device)
        shape = logits.shape if output == "multilabel" else logits.shape[:1]
        return torch.zeros(shape, dtype=torch.int64, device=logits.device)

    def _step(self, features: tuple[Tensor, ...]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self.engine.autocast():
            logits = self.program(features, training=True).float()
        self.loss(logits, self._targets(logits)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _saved_bytes(self, features: tuple[Tensor, ...]) -> int:
        """Return the bytes that a forward pass keeps for the backward pass, beside the weights."""
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


def _held_bytes(model: nn.Module, optimizer: torch.optim.Optimizer, *, averages: bool) -> int:
    """Return the bytes of weights, gradients, optimizer state and weight average."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    states = [value for state in optimizer.state.values() for value in state.values()]
    moments = _num_bytes([value for value in states if isinstance(value, Tensor)])
    copies = 2 if averages else 1
    return _num_bytes(model.state_dict().values()) + copies * _num_bytes(trainable) + moments


def _affords(size: int, small: int, seconds: float, ends: float) -> bool:
    """Return whether a batch can be warmed up and timed once, where each image takes what it takes in a small batch."""
    return 2 * seconds * size / small < ends - time.perf_counter()


def _timed(work: Callable[[], Value], seconds: float, device: torch.device) -> tuple[Value, float]:
    """Return the result of the work, and its time in seconds: the median of a few runs.

    The first run warms up, and is not counted unless there is no time for another one.
    """
    began = time.perf_counter()
    result = work()
    _wait(device)
    took = [time.perf_counter() - began]
    if took[0] > seconds:
        return result, took[0]
    took.clear()
    for _ in range(_RUNS):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        took.append(time.perf_counter() - start)
        if time.perf_counter() - began + took[-1] > seconds:
            break
    return result, statistics.median(took)


def _rows(parts: tuple[Tensor, ...], num: int) -> tuple[Tensor, ...]:
    """Draw so many rows of each part, which come again where there are fewer."""
    return as_stored(tuple(torch.cat([part] * -(-num // len(part)))[:num].clone() for part in parts))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
