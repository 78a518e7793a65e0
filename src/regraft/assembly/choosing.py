"""Which network a recipe gets that names none: by `model.name: auto` the one that suits the images, among those whose
weights are on this machine; by a budget the larger default, where there is time for it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from regraft.assembly.network import network_for
from regraft.assembly.options import numerics_for
from regraft.assembly.planning import Clock, epochs_within, tried_in_budget
from regraft.data.cache.cache import CacheMode
from regraft.data.dataset import DataSet
from regraft.errors import SettingsError
from regraft.machine.processes import num_processes
from regraft.models.zoo.catalogue import models_with_weights
from regraft.models.zoo.families import installed_weights
from regraft.plan.make import make_plan
from regraft.ranking.candidates import Candidate
from regraft.ranking.comparison import Search
from regraft.ranking.rank import rank_candidates
from regraft.ranking.ranking import RankedModel, Ranking
from regraft.ranking.sample import pooled
from regraft.recipe.recipe import Recipe
from regraft.settings.duration import seconds_of
from regraft.settings.model import AUTO_MODEL, DEFAULT_MODEL, LARGER_MODEL
from regraft.training.preflight.forecast import Tried
from regraft.training.preflight.time_budget import open_places
from regraft.wording import duration, percent, quantity

__all__ = ["Choice", "is_open", "with_network"]

_log = logging.getLogger("regraft")
_SHARE = 0.08  # of a budget
_WITHOUT_BUDGET = 60.0  # seconds
_LEAST = 4.0  # seconds for each network: what building and trying it takes
_EPOCHS = 2.0  # of the larger network, that are better than twice as many of the smaller one: docs/backbones.md


class Choice(NamedTuple):
    """A recipe with a network.

    Attributes:
        recipe: The recipe.
        reasons: How the network was chosen, a line each.
        tried: What its stages cost, where that was found out.
    """

    recipe: Recipe
    reasons: tuple[str, ...] = ()
    tried: Tried | None = None


def is_open(recipe: Recipe) -> bool:
    """Return whether a recipe leaves the choice of its network to `with_network`."""
    return recipe.model.name == AUTO_MODEL or _is_by_budget(recipe)


def with_network(
    recipe: Recipe, data: DataSet, *, cache: CacheMode | None = None, runs: int = 1, started: float | None = None
) -> Choice:
    """Return the recipe with a network's name instead of `auto`: of those with weights here, the one that ranks first.

    Comparing them takes a small share of the budget; where that is too little for all, the first one is taken. A recipe
    with a budget and no name gets the larger of two networks, where its weights are installed and there is time for it.

    Args:
        recipe: Checked settings; one that names a network is returned as it is.
        data: The images; a test split is not looked at.
        cache: Where decoded pixels are kept; None: as the recipe says.
        runs: How many runs share the budget.
        started: When the program did: a budget counts from there; None takes this call.

    Raises:
        SettingsError: The images are not of one class each, settings that belong to one network, several processes, or
            no network that can be ranked.
    """
    if _is_by_budget(recipe):
        return _by_budget(recipe, data, seconds_of(recipe.budget or "") / runs, started or time.perf_counter())
    if recipe.model.name != AUTO_MODEL:
        return Choice(recipe)
    _check(recipe)
    pooled(data)
    names = models_with_weights()
    seconds = _WITHOUT_BUDGET if recipe.budget is None else _SHARE * seconds_of(recipe.budget)
    if len(names) == 1:
        return _chosen(recipe, names[0], "the only network with weights on this machine; `regraft models` lists others")
    if not names:
        raise SettingsError("No network has pretrained weights on this machine.", "", "name one with `--model`")
    if seconds < _LEAST * len(names):
        short = f"{duration(seconds)} are too short to compare {quantity(len(names), 'network')}"
        return _chosen(recipe, names[0], short)
    ranking = _ranked(recipe, data, names, seconds, cache)
    return _chosen(recipe, ranking.best.name, *_reasons(ranking))


def _is_by_budget(recipe: Recipe) -> bool:
    return recipe.budget is not None and "name" not in recipe.model.model_fields_set


def _by_budget(recipe: Recipe, data: DataSet, seconds: float, started: float) -> Choice:
    """Return the default network or the larger one, by the epochs that the budget gives to each.

    Two epochs of the larger one are better than twice as many of the smaller one, any of these are better than a head
    alone, and the head of the larger one is the better head.
    """
    model = recipe.model
    is_plain = model.weights == "pretrained" and not (model.skip or model.match or model.args)
    if not is_plain or installed_weights(LARGER_MODEL) is None or num_processes() > 1:
        return Choice(_named(recipe, DEFAULT_MODEL))
    larger = _tried(recipe, LARGER_MODEL, data, seconds, started)
    if larger is None:  # no stage leaves its length to the budget
        return Choice(_named(recipe, DEFAULT_MODEL))
    if larger.epochs is not None and larger.epochs >= _EPOCHS:
        return larger.choice(f"model: {LARGER_MODEL}, as the budget gives it {larger.epochs:.1f} epochs")
    smaller = _tried(recipe, DEFAULT_MODEL, data, seconds, started)
    if smaller is not None and (larger.epochs is None or smaller.epochs):
        return smaller.choice(
            f"model: {DEFAULT_MODEL}, as the budget gives {LARGER_MODEL} {larger.epochs or 0:.1f} epochs"
        )
    return larger.choice(f"model: {LARGER_MODEL}, as the budget is enough for its head, and for no more of any")


class _OfBudget(NamedTuple):
    recipe: Recipe
    tried: Tried
    epochs: float | None

    def choice(self, reason: str) -> Choice:
        return Choice(self.recipe, (reason,), self.tried)


def _tried(recipe: Recipe, name: str, data: DataSet, seconds: float, started: float) -> _OfBudget | None:
    """Try the stages of a recipe on a network; None where none of them leaves its length open."""
    named, began = _named(recipe, name), time.perf_counter()
    network = network_for(named, data, weights="none")
    clock = Clock(started, time.perf_counter() - began)
    if not open_places(named.stages, make_plan(network, named.stages).stages):
        return None
    tried = tried_in_budget(named, network, data, numerics_for(named), clock)
    tried = replace(tried, starting=time.perf_counter() - started)
    return _OfBudget(named, tried, epochs_within(named, network, tried, seconds))


def _check(recipe: Recipe) -> None:
    model = recipe.model
    own = {"weights": model.weights != "pretrained", "skip": model.skip, "match": model.match, "args": model.args}
    given = [f"model.{name}" for name, is_given in own.items() if is_given]
    if given:
        raise SettingsError(
            f"model.name is auto, and {', '.join(given)} belongs to one network.",
            "auto with pretrained weights, or the name of a network",
            f"leave {given[0]} out, or name the network (`--model`)",
        )
    if num_processes() > 1:
        raise SettingsError(
            "model.name is auto, and several processes share this run.",
            "one process, which compares networks",
            "`regraft rank` before, and name the network (`--model`)",
        )


def _ranked(recipe: Recipe, data: DataSet, names: list[str], seconds: float, cache: CacheMode | None) -> Ranking:
    def build(candidate: Candidate) -> nn.Module:
        return network_for(_named(recipe, candidate.name), data)

    kept = recipe.data.cache if cache is None else cache
    search = Search(seconds, recipe.seed, numerics_for(recipe), time.perf_counter(), kept)
    return rank_candidates(data, [Candidate(name) for name in names], build, search)


def _chosen(recipe: Recipe, name: str, *reasons: str) -> Choice:
    first, *more = reasons
    return Choice(_named(recipe, name), (f"model auto: {name}, {first}", *more))


def _named(recipe: Recipe, name: str) -> Recipe:
    model = recipe.model.model_copy(update={"name": name})
    return recipe.model_copy(update={"model": model})


def _reasons(ranking: Ranking) -> list[str]:
    """Return why the first network was chosen, and what became of the others."""
    images = quantity(ranking.num_images, "image")
    first = f"first of {len(ranking.rows)} by a linear probe on {images} ({percent(ranking.best.accuracy)})"
    return [first, *(f"model auto: {_of_other(row)}" for row in ranking.rows[1:])]


def _of_other(row: RankedModel) -> str:
    if row.reason:
        return f"{row.label} could not be compared: {row.reason}"
    noise = ", within noise" if row.is_within_noise else ""
    return f"{row.label} reaches {percent(row.accuracy)}{noise}"
