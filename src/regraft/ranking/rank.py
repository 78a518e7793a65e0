"""`rank`: backbones compared on one's own images, by linear classifiers on their features."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.data.dataset import DataSet
from regraft.data.open import open_data
from regraft.errors import SettingsError
from regraft.models.networks.names import closest_name
from regraft.models.surgery.surgery import adapt
from regraft.models.zoo.build import build_model
from regraft.ranking.candidates import Candidate, candidates_of, default_candidates
from regraft.ranking.comparison import Build, Comparison, Search, Tried
from regraft.ranking.ranking import RankedModel, Ranking
from regraft.ranking.sample import pooled
from regraft.settings.duration import seconds_of
from regraft.training.loop.choice import Lead

__all__ = ["rank", "rank_candidates"]


def rank(
    data: DataSet | str | os.PathLike[str],
    models: Sequence[str] | None = None,
    *,
    budget: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    numerics: Numerics | None = None,
) -> Ranking:
    """Compare backbones on one's own images without training them: each one's features are computed once.

    A linear classifier on these is cross-validated, its penalty chosen inside each fold; the order is that of its
    log loss, with networks without weights behind the others. A test split is not looked at. Up to 2,000 images are
    taken, as many of each class as its share is.
    Figures are deterministic, but for seconds.

    Args:
        data: The images, opened, or as `open_data` takes them; one class each.
        models: Names, patterns (`resnet*`) or groups (`fast`, `balanced`, `best`), with `@FILE` or `@none` behind them
            for other weights than the pretrained ones. None takes what has weights on this machine and, where the hub
            can be reached, the groups that suit the budget.
        budget: Time for all of it, such as `60s`; fewer images are taken where all would take longer.
        image_size: Side, or (height, width), in pixels; None is each network's own.
        seed: Of the folds, and of which images are taken.
        numerics: What to compute with; None chooses for this machine.

    Raises:
        SettingsError: No such model or budget, images without one class each, or no network that can be ranked.
        DataError: Images that cannot be read, or too few.
    """
    started = time.perf_counter()
    seconds = None if budget is None else _seconds_of(budget)
    data = data if isinstance(data, DataSet) else open_data(data, seed=seed)
    pooled(data)  # what cannot be compared on is told before weights are looked for
    candidates = default_candidates(seconds) if models is None else candidates_of(models)
    classes = data.class_names

    def build(candidate: Candidate) -> nn.Module:
        model = build_model(candidate.name, weights=candidate.weights, seed=seed)
        return adapt(model, classes=classes, image_size=image_size, seed=seed)

    return rank_candidates(data, candidates, build, Search(seconds, seed, numerics or choose_numerics(), started))


def rank_candidates(data: DataSet, candidates: Sequence[Candidate], build: Build, search: Search) -> Ranking:
    """Compare candidates on the images of a data set, or on as many as there is time for.

    Args:
        data: The images; a test split is not looked at.
        candidates: The backbones.
        build: Makes a candidate's network, adapted to the data's classes.
        search: How they are compared.

    Raises:
        SettingsError: None of them could be ranked.
        DataError: Images that cannot be read, or too few.
    """
    comparison = Comparison(data, build, search)
    tried = comparison.of(candidates)
    failed = [item.row for item in tried if item.probe is None]
    ranked = sorted((item for item in tried if item.probe is not None), key=_order)
    if not ranked:
        raise SettingsError(
            "No network could be ranked.",
            "at least one whose weights are on this machine or can be had from the hub",
            _next_step(candidates),
            details=[f"{row.label}: {row.reason}" for row in failed],
        )
    rows = [ranked[0].row, *(_behind(item, ranked[0]) for item in ranked[1:])]
    return Ranking(
        (*rows, *failed),
        data=data.name,
        num_images=len(comparison.sample),
        num_available=comparison.num_available,
        num_folds=int(comparison.fold.max()) + 1,
        seconds=time.perf_counter() - search.started,
    )


def _next_step(candidates: Sequence[Candidate]) -> str:
    """Return what to type where nothing could be ranked: the names that were meant, if any was misspelt."""
    close = [candidate._replace(name=name).label for candidate in candidates if (name := closest_name(candidate.name))]
    if close:
        return f"`--models {shlex.quote(','.join(close))}`"
    return "`regraft models` shows where weights are; the extra `backbones` has two more"


def _order(item: Tried) -> tuple[bool, float, str]:
    """Return what a candidate is sorted by: whether it has weights, its log loss, its name.

    The loss of an image says more than whether it is right, and so tells more networks apart. Random features may
    separate simple images well; what fine-tuning starts from is nothing.
    """
    row = item.row
    return row.weights == "none", row.log_loss or 0.0, row.label


def _behind(item: Tried, first: Tried) -> RankedModel:
    """Return a row with how far it is behind the first, in accuracy, and how sure that is."""
    if item.probe is None or first.probe is None:
        return item.row
    leads = first.probe.is_right - item.probe.is_right
    lead = Lead.over(leads[np.isfinite(leads)])
    return replace(item.row, behind=(lead.mean, lead.low, lead.high))


def _seconds_of(budget: str) -> float:
    try:
        return seconds_of(budget)
    except ValueError as error:
        raise SettingsError(f"The budget {budget!r} {error}.") from None
