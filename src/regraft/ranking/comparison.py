"""Candidates on the same images and folds, one after the other; one that fails is a row with its reason."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from torch import nn

from regraft.compute.numerics import Numerics
from regraft.data.cache.cache import CacheMode, PixelCache
from regraft.data.dataset import DataSet
from regraft.data.groups.units import fold_units
from regraft.data.split import folds
from regraft.errors import DataError, RegraftError, SettingsError, StoppedError
from regraft.machine.budget import memory_budget
from regraft.models.describe.info import preprocessing_of
from regraft.models.zoo.catalogue import num_parameters
from regraft.ranking.candidates import Candidate
from regraft.ranking.cost import Cost, affordable, probe_seconds
from regraft.ranking.features import Backbone
from regraft.ranking.probe import NUM_FOLDS, Probe, probe
from regraft.ranking.ranking import RankedModel
from regraft.ranking.sample import Sample, pooled
from regraft.ranking.scores import h_score, log_me, rotated
from regraft.training.engine import Engine
from regraft.training.limits.memory import is_out_of_memory
from regraft.wording import duration, percent, quantity, wilson_interval

__all__ = ["Build", "Comparison", "Search", "Tried"]

Build = Callable[[Candidate], nn.Module]
Value = TypeVar("Value")

_log = logging.getLogger("regraft")
_MOST_IMAGES = 2000  # they tell accuracies apart that differ by a point or two; more hardly change the order
_FEWEST_IMAGES = 50
_TRIAL_IMAGES = 32
_NUM_HELD = 8  # networks that are kept between their trial and the comparison
_BYTES_PER_PARAMETER = 12  # of the network, the file that fills it, and the frozen part as it is run


class Search(NamedTuple):
    """How candidates are compared.

    Attributes:
        seconds: For all of it; None takes as long as it takes.
        seed: Of the folds, and of which images are taken.
        numerics: What to compute with.
        started: When the seconds began, as `time.perf_counter` tells it.
        cache: Where decoded pixels are kept.
    """

    seconds: float | None
    seed: int
    numerics: Numerics
    started: float
    cache: CacheMode = "auto"


class Tried(NamedTuple):
    """A candidate's row, and what its probe says of each image of the sample; None where it failed."""

    row: RankedModel
    probe: Probe | None = None


class Comparison:
    """The images and folds that candidates share.

    Args:
        data: The data set; its test split is not looked at.
        build: Makes a candidate's network, adapted to the data's classes.
        search: How candidates are compared.

    Attributes:
        num_available: How many images there are.
        sample: Those that are looked at.
        fold: Of each of these.

    Raises:
        SettingsError: The images have masks, or any number of labels.
        DataError: They are too few.
    """

    def __init__(self, data: DataSet, build: Build, search: Search) -> None:
        self._data, self._build, self._search = data, build, search
        self._images = pooled(data)
        self._engine = Engine(search.numerics)
        self._held: dict[Candidate, Backbone] = {}
        self.num_available = len(self._images)
        self._choose(_MOST_IMAGES)

    def of(self, candidates: Sequence[Candidate]) -> list[Tried]:
        """Return what was found of each candidate, in order."""
        failed = {} if self._search.seconds is None else self._fit_into(self._search.seconds, candidates)
        if len(self.sample) < self.num_available:
            taken = f"{len(self.sample):,} of {quantity(self.num_available, 'image')}, as many of each class"
            _log.info("ranking on %s", taken)
        return [failed.get(candidate) or self._tried(candidate) for candidate in candidates]

    def _choose(self, num: int) -> None:
        self.sample = Sample(self._data, self._images, num, self._search.seed, self._search.cache, _log.debug)
        labels, groups = self.sample.images.labels, self.sample.images.groups
        counts = np.bincount(labels)
        if groups is None:
            self.fold = folds(labels, min(NUM_FOLDS, int(counts[counts > 1].sum())), self._search.seed)
            return
        self.fold = fold_units(groups, labels, NUM_FOLDS, seed=self._search.seed)
        if self.fold.max() < 0:
            raise DataError(
                f"The images of {self._data.source or self._data.name!r} are of too few groups to rank backbones on.",
                "classes with at least two groups each, without the test split",
                "leave `--group` out, or name the network yourself (`--model`)",
            )

    def _fit_into(self, seconds: float, candidates: Sequence[Candidate]) -> dict[Candidate, Tried]:
        """Take as many images as there is time for, after a trial of each candidate; return those that failed."""
        costs, failed = [], {}
        for candidate in candidates:
            found = self._guarded(candidate, self._cost)
            if isinstance(found, RankedModel):
                failed[candidate] = Tried(found)
            else:
                costs.append(found)
        left = seconds - (time.perf_counter() - self._search.started)
        num = affordable(costs, len(self.sample), left, fewest=_FEWEST_IMAGES)
        if num < len(self.sample):
            self._choose(num)
            how = "allow" if num > _FEWEST_IMAGES else "are short, so that as few as can be compared are taken:"
            each = f"{quantity(num, 'image')} for each of {quantity(len(costs), 'network')}"
            _log.info("%s %s %s", duration(seconds), how, each)
        return failed

    def _cost(self, candidate: Candidate) -> Cost:
        """Return what a candidate takes, from a few images; its network is kept for the comparison."""
        backbone = self._backbone(candidate)
        if len(self._held) < _NUM_HELD:
            self._held[candidate] = backbone
        program = preprocessing_of(backbone.model).pixels
        rows = np.unique(np.linspace(0, len(self.sample) - 1, _TRIAL_IMAGES).astype(np.int64))
        began = time.perf_counter()
        pixels = PixelCache(self.sample.images.take(rows).paths, program)
        decoded = time.perf_counter()
        if not len(pixels):
            raise DataError("None of the first images can be read.", "", "`regraft inspect DATA` says what is wrong")
        found = backbone.features(pixels, self.sample.images.labels[rows][pixels.good])
        fixed = max(time.perf_counter() - decoded - found.each * len(pixels), 0.0)
        width = found.features.shape[1]
        objective = probe_seconds(width, len(self._data.class_names))
        return Cost(str(program), (decoded - began) / len(rows), found.each, fixed, width, objective)

    def _tried(self, candidate: Candidate) -> Tried:
        found = self._guarded(candidate, self._measured)
        gc.collect()  # graphs are rings of objects, and large
        if isinstance(found, RankedModel):
            _log.info("%s: not ranked: %s", found.label, found.reason)
            return Tried(found)
        _log.info("%s: accuracy %s of a linear probe", found.row.label, percent(found.row.accuracy))
        return found

    def _measured(self, candidate: Candidate) -> Tried:
        backbone = self._held.pop(candidate, None) or self._backbone(candidate)
        size = preprocessing_of(backbone.model).pixels.size
        pixels, rows = self.sample.pixels(preprocessing_of(backbone.model).pixels)
        labels = self.sample.images.labels[rows].astype(np.int64)
        features, each = backbone.features(pixels, labels)
        groups, num_classes = self.sample.images.groups, len(self._data.class_names)
        groups = None if groups is None else groups[rows]
        found = probe(
            rotated(features), labels, self.fold[rows], num_classes, seed=self._search.seed, groups=groups
        ).on(rows, len(self.sample))
        row = RankedModel(
            candidate.name,
            candidate.weights,
            accuracy=found.accuracy,
            interval=wilson_interval(found.accuracy, found.num_images),
            log_loss=found.log_loss,
            logme=log_me(features, labels),
            h_score=h_score(features, labels),
            seconds_per_1000=1000 * each,
            megabytes=backbone.megabytes,
            image_size=size,
        )
        return Tried(row, found)

    def _backbone(self, candidate: Candidate) -> Backbone:
        num = num_parameters(candidate.name)
        if num is not None and num * _BYTES_PER_PARAMETER > memory_budget():
            raise SettingsError(f"Its {num:,} parameters need more memory than there is.")
        return Backbone(self._build(candidate), self._engine)

    def _guarded(self, candidate: Candidate, work: Callable[[Candidate], Value]) -> Value | RankedModel:
        """Return the result of the work; where a candidate fails, a row with the reason."""
        try:
            return work(candidate)
        except (StoppedError, DataError):
            raise
        except RegraftError as error:
            reason = error.what
        except (RuntimeError, MemoryError) as error:  # what architectures raise, of a size that they do not take
            lacks = is_out_of_memory(error)
            reason = "It needs more memory than there is." if lacks else f"{type(error).__name__}: {error}"
        return RankedModel(candidate.name, candidate.weights, reason=reason.partition("\n")[0])
