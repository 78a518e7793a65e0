"""What a run will take, before it begins: each stage is tried on a few batches of noise, and multiplied up.

Nothing is written, and the model is not changed: stages are tried on a copy of it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from regraft.compute.numerics import Numerics
from regraft.data.decode.decode import PixelProgram, decode_or_reason
from regraft.data.decode.image_file import read_file
from regraft.models.describe.info import preprocessing_of
from regraft.models.describe.outputs import output_of
from regraft.plan.freezing.freeze import freeze
from regraft.plan.length import Length, length_of
from regraft.plan.make import Plan
from regraft.settings.stage import Stage
from regraft.training.engine import Engine
from regraft.training.features.feature_pass import FeatureCache
from regraft.training.features.frozen_part import evaluation_batch
from regraft.training.loop.merging import num_candidates
from regraft.training.preflight.trial import Costs, Trial
from regraft.training.progress.phases import passes_of
from regraft.training.trust.kept import num_looked_at, num_looked_at_with_masks

__all__ = ["SECONDS", "Forecast", "RunSize", "StageForecast", "Tried", "forecast", "try_stages"]

SECONDS = 4.0  # for all stages together: with the start of the program, less than ten
_SOLVED = 0.5  # of the trial of another stage: a solved head is little but its frozen part
_NUM_FILES = 16
_DECODING_SECONDS = 0.5


@dataclass(frozen=True)
class StageForecast:
    """What one stage will take, if nothing ends it early.

    Attributes:
        name: The stage's name.
        size: Height and width of its training images.
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
        starting: Seconds until the first stage begins: the program, the images, the network.
        decoding: Seconds for decoding all images once.
        measuring: Seconds for saving the trained network at the end, calibrating and measuring it.
        pixel_bytes: Bytes of all images once they are decoded.
        numerics: What was computed with.
    """

    stages: tuple[StageForecast, ...]
    starting: float
    decoding: float
    measuring: float
    pixel_bytes: int
    numerics: Numerics

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.starting + self.decoding + self.measuring + sum(stage.seconds for stage in self.stages)

    @property
    def num_bytes(self) -> int:
        """The most memory of any stage, without pixels."""
        return max(stage.num_bytes for stage in self.stages)


@dataclass(frozen=True)
class RunSize:
    """How many images a run has, and how they are read.

    Attributes:
        train: To train on.
        val: To validate on.
        batch_size: Of stages that do not say.
        feature_cache: As for `train`.
        test: That the run is measured on at its end; 0 takes those of validation, as the run does.
    """

    train: int
    val: int
    batch_size: int
    feature_cache: FeatureCache = "auto"
    test: int = 0


@dataclass(frozen=True)
class Tried:
    """What the stages of a plan cost, whatever their lengths.

    Attributes:
        costs: Of each stage.
        size: Height and width of images in stages that do not say.
        images: How many images the run has, and how they are read.
        numerics: What was computed with.
        starting: Seconds until the first stage begins, without building the network.
        building: Seconds of building it.
        decoding: Seconds of decoding one image.
        pixel_bytes: Bytes of all images once they are decoded.
        knows_itself: Whether the network that is delivered keeps what images say of it as one of labels does, for which
            they pass it once more; of masks some validation images do.
    """

    costs: tuple[Costs, ...]
    size: tuple[int, int]
    images: RunSize
    numerics: Numerics
    starting: float
    building: float
    decoding: float
    pixel_bytes: int
    knows_itself: bool = True

    def forecast(self, stages: Sequence[Stage]) -> Forecast:
        """Return the forecast of a run with these stages: those that were tried, or the first of them, any length."""
        images, costs = self.images, self.costs[: len(stages)]
        expected = [_stage(stage, cost, images, self.size) for stage, cost in zip(stages, costs, strict=True)]
        measured = images.test or images.val
        is_kept = stages[-1].optimizer == "lbfgs"  # of whose features nothing is computed anew
        again = num_looked_at_with_masks(images.val)
        if self.knows_itself:
            again = 0 if is_kept else num_looked_at(images.train, images.val)
        passes = measured + again
        at_end = costs[-1].setup + passes * (costs[-1].exact_prefix + costs[-1].evaluate.each)
        at_end += 2 * self.building + self.decoding * measured
        decoding = self.decoding * (images.train + images.val)
        start = self.starting + self.building
        return Forecast(tuple(expected), start, decoding, at_end, self.pixel_bytes, self.numerics)


def forecast(
    model: nn.Module,
    plan: Plan,
    images: RunSize,
    numerics: Numerics,
    *,
    paths: Sequence[str] = (),
    starting: float = 0.0,
    building: float = 0.0,
) -> Forecast:
    """Return the forecast of a plan's run: its time and memory; the arguments are those of `try_stages`."""
    tried = try_stages(model, plan, images, numerics, paths=paths, starting=starting, building=building)
    return tried.forecast(plan.stages)


def try_stages(
    model: nn.Module,
    plan: Plan,
    images: RunSize,
    numerics: Numerics,
    *,
    paths: Sequence[str] = (),
    starting: float = 0.0,
    building: float = 0.0,
    seconds: float = SECONDS,
) -> Tried:
    """Try each stage of a plan on a few batches, for a few seconds in all.

    Args:
        model: The adapted model; its weights do not matter.
        plan: The stages.
        images: How many images the run has, and how they are read.
        numerics: What to compute with.
        paths: Image files, some of which decoding is timed with; none leaves it out.
        starting: Seconds that passed before, as they will in the run.
        building: Those of them that building the network took. Filling it from a file, saving it, and loading it to
            be measured take about as long each.
        seconds: How long to try, about.
    """
    trial = copy.deepcopy(model)
    pixels = preprocessing_of(model).pixels
    trained: set[str] = set()
    costs: list[Costs] = []
    ends = time.perf_counter() + seconds
    for place, stage in enumerate(plan):
        rest = [_SOLVED if later.optimizer == "lbfgs" else 1.0 for later in plan.stages[place:]]
        left = max(ends - time.perf_counter(), 0.0) * rest[0] / sum(rest)
        costs.append(_try(trial, stage, pixels.size, images, numerics, trained, left))
    num_images = images.train + images.val
    each = _decoding(paths[:: max(len(paths) // _NUM_FILES, 1)], pixels) / numerics.threads
    num_bytes = num_images * pixels.num_channels * pixels.size[0] * pixels.size[1]
    knows = output_of(model) != "segmentation"
    return Tried(tuple(costs), pixels.size, images, numerics, starting, building, each, num_bytes, knows)


def _stage(stage: Stage, costs: Costs, images: RunSize, size: tuple[int, int]) -> StageForecast:
    batch_size = stage.batch_size or images.batch_size
    size = stage.train_size or size
    once = _padded(images.train, costs) * (costs.inputs + costs.prefix)
    validated_once = _padded(images.val, costs) * (costs.inputs + costs.exact_prefix)
    if stage.optimizer == "lbfgs":
        seconds = costs.setup + once + validated_once + images.train * costs.objective
        return StageForecast(stage.name, size, batch_size, None, seconds, costs.fixed, costs.num_images)
    length = length_of(stage, images.train, batch_size)
    epochs = length.steps / length.steps_per_epoch
    batches = math.ceil(images.train / batch_size)
    cached = passes_of(stage, length, images.feature_cache)
    per_pass = batches * _padded(min(batch_size, images.train), costs) * costs.prefix + images.train * costs.inputs
    seconds = costs.setup + (once if cached == 1 else min(cached, epochs) * per_pass)
    seconds += epochs * costs.step.of(batches, images.train)
    seconds += validated_once * (length.epochs if images.feature_cache == "off" else 1)
    passes = length.epochs + num_candidates(stage, length.epochs)
    seconds += passes * costs.evaluate.of(math.ceil(images.val / evaluation_batch(has_masks=False)), images.val)
    num_bytes = costs.fixed + min(batch_size, images.train) * costs.per_image
    return StageForecast(stage.name, size, batch_size, length, seconds, num_bytes, costs.num_images)


def _padded(num_images: int, costs: Costs) -> int:
    """Return the number of images that the frozen part computes for so many: its last batch is padded."""
    return math.ceil(num_images / costs.program_batch) * costs.program_batch


def _try(
    model: nn.Module,
    stage: Stage,
    size: tuple[int, int],
    images: RunSize,
    numerics: Numerics,
    trained: set[str],
    seconds: float,
) -> Costs:
    """Return the costs of a stage, from batches as large as fit into this many seconds."""
    ends = time.perf_counter() + seconds
    frozen = freeze(model, stage.selectors, bn=stage.bn, trained=trained)
    trained |= set(frozen.layers)
    engine = Engine(replace(numerics, precision=stage.precision or numerics.precision))
    engine.place(model)
    batch_size = min(stage.batch_size or images.batch_size, images.train)
    trained_on, validated_on = stage.train_size or size, stage.size or size
    trial = Trial(model, stage, trained_on, engine, batch_size)
    costs = trial.costs(max(ends - time.perf_counter(), 0.0))
    return costs.validated_at(math.prod(validated_on) / math.prod(trained_on))


def _decoding(paths: Sequence[str], pixels: PixelProgram) -> float:
    """Return seconds that one of these files takes on one thread."""
    began, taken = time.perf_counter(), 0.0
    for done, path in enumerate(paths, start=1):
        data = read_file(path)
        if isinstance(data, bytes):
            decode_or_reason(data, pixels)
        taken = (time.perf_counter() - began) / done
        if taken * done > _DECODING_SECONDS:
            break
    return taken
