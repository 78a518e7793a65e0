"""Which backbones are compared: by name, by pattern, by group, each with its weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from regraft.errors import SettingsError, require_type
from regraft.models.networks.builtin_models import SEGMENTERS
from regraft.models.zoo.catalogue import describe_models, is_pattern, matching_models, models_with_weights
from regraft.models.zoo.pretrained import is_hub_reachable
from regraft.models.zoo.recommended import GROUPS, recommended_for

__all__ = ["Candidate", "candidates_of", "default_candidates"]

_log = logging.getLogger("regraft")


class Candidate(NamedTuple):
    """A backbone to try.

    Attributes:
        name: What `build_model` takes.
        weights: A weights file, `pretrained` or `none`, as `model.weights` of a recipe.
    """

    name: str
    weights: str = "pretrained"

    @property
    def label(self) -> str:
        """How it is named in tables, and typed."""
        return self.name if self.weights == "pretrained" else f"{self.name}@{self.weights}"


def candidates_of(models: Sequence[str]) -> list[Candidate]:
    """Return the candidates that texts stand for, each once, in order.

    Args:
        models: A name, a pattern (`resnet*`: of the names with pretrained weights), or a group (`fast`, `balanced`,
            `best`); behind an `@` its weights: a file, or `none` for random ones.

    Raises:
        SettingsError: None is named, or no name fits.
    """
    if not any(models):
        raise SettingsError(
            "No network was named to rank.",
            "names, patterns or groups",
            "`--models resnet18,fast`, or leave it out to rank what has weights on this machine",
        )
    found: list[Candidate] = []
    for text in models:
        require_type(text, str, "models", "give names of networks, such as `resnet18` or `resnet18@none`")
        name, _, weights = text.partition("@")
        weights = weights or "pretrained"
        found += [Candidate(known, weights) for known in _names(name, weights)]
    return list(dict.fromkeys(found))


def default_candidates(seconds: float | None) -> list[Candidate]:
    """Return all that has weights on this machine, and, where the hub can be asked, the groups that fit the time."""
    here = models_with_weights()
    if not is_hub_reachable():
        _log.info("the hub cannot be reached: ranking what has weights on this machine: %s", ", ".join(here) or "none")
        return [Candidate(name) for name in here]
    groups = recommended_for(seconds)
    _log.info("ranking what has weights on this machine, and the groups %s", ", ".join(groups))
    names = [*here, *(entry.name for group in groups for entry in GROUPS[group])]
    return [Candidate(name) for name in dict.fromkeys(names)]


def _names(name: str, weights: str) -> list[str]:
    """Return the names of a text; of a pattern, those that can be candidates with these weights."""
    if not is_pattern(name):
        return [name]
    names = [known for known in matching_models(name) if known not in SEGMENTERS]
    if weights == "pretrained" and name not in GROUPS:
        names = [row.name for row in describe_models(name) if row.weights != "none" and row.name not in SEGMENTERS]
    if not names:
        raise SettingsError(
            f"No model that matches {name!r} has pretrained weights.",
            "a pattern of models with weights",
            f"`regraft models {name!r}`, or `{name}@none` for random weights",
        )
    return names
