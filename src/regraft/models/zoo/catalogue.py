"""Which networks can be built, and where pretrained weights of each are: without building any, or asking the hub."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from regraft.errors import SettingsError, did_you_mean
from regraft.models.networks.builtin_models import OWN
from regraft.models.networks.names import list_models
from regraft.models.zoo.families import WEIGHTS_PACKAGES, installed_weights
from regraft.models.zoo.pretrained import hub_file, in_local_cache
from regraft.models.zoo.recommended import GROUPS, recommended
from regraft.summary import Summary

__all__ = [
    "ModelRow",
    "describe_models",
    "is_pattern",
    "matching_models",
    "models_with_weights",
    "num_parameters",
    "table_of_models",
]

Where = Literal["installed", "cached", "hub", "none"]
_FEW = 30  # names whose parameters are counted: each takes about a tenth of a second
_PLACES = {
    "installed": "installed package",
    "cached": "local hub cache",
    "hub": "hub",
    "none": "none",
}


@dataclass(frozen=True, repr=False)
class ModelRow(Summary):
    """A network that can be built, and where pretrained weights of it are.

    Attributes:
        name: What `build_model` takes.
        weights: `installed` (a weights package), `cached` (the hub's local cache), `hub`, or `none`.
        source: The package, or the repository on the hub; empty where there is none.
        megabytes: Of the weights file, where it is on this machine.
        parameters: Their number, where it was counted: for a few networks of timm at a time.
        recommended: `fast`, `balanced` or `best` where it is worth trying first; else empty.
        reason: Why it is.
    """

    name: str
    weights: Where
    source: str = ""
    megabytes: float | None = None
    parameters: int | None = None
    recommended: str = ""
    reason: str = ""

    def facts(self) -> dict[str, object]:
        """Return its name and where its weights are."""
        return {"name": self.name, "weights": self.weights, **({"source": self.source} if self.source else {})}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe_models(pattern: str = "*") -> list[ModelRow]:
    """Return the networks that fit a pattern, and where pretrained weights of each are.

    Args:
        pattern: A name, a shell pattern (with a dot in it for names with tags, `resnet50.*`), or `fast`, `balanced` or
            `best` for a short list of those worth trying first.

    Raises:
        SettingsError: No name fits.
    """
    names = matching_models(pattern)
    return [_row(name, counts=len(names) <= _FEW) for name in names]


def matching_models(pattern: str) -> list[str]:
    """Return the names that a pattern stands for: as for `describe_models`.

    Raises:
        SettingsError: No name fits.
    """
    if pattern in GROUPS:
        return [entry.name for entry in GROUPS[pattern]]
    names = list_models(pattern)
    if "." in pattern:
        names += [name for name in sorted(timm.list_pretrained()) if fnmatch.fnmatch(name, pattern)]
    if not names:
        raise SettingsError(
            f"No model name matches {pattern!r}{did_you_mean(pattern.strip('*?[]'), list_models())}",
            "a pattern of model names, or fast, balanced or best",
            "`regraft models 'resnet*'`",
        )
    return names


def is_pattern(name: str) -> bool:
    """Return whether a text is a pattern of names, or a group of them, and no name itself."""
    return name in GROUPS or any(sign in name for sign in "*?[")


def models_with_weights() -> list[str]:
    """Return the names whose pretrained weights are on this machine: of installed packages, then of the hub's cache."""
    installed = [name for name in WEIGHTS_PACKAGES if installed_weights(name) is not None]
    held = _repositories_held()
    cached = [name for name in sorted(timm.list_pretrained()) if _is_cached(name, held)]
    packaged = {f"{name}.in1k" for name in installed}
    return [*installed, *(name for name in cached if name not in packaged)]


def table_of_models(rows: Sequence[ModelRow]) -> str:
    """Return networks as lines with aligned columns."""
    counted = any(row.parameters is not None for row in rows)
    header = ["name", *(["parameters"] if counted else []), "weights", "from"]
    lines = [header] + [_cells(row, counted=counted) for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: ModelRow, *, counted: bool) -> list[str]:
    number = ["–" if row.parameters is None else f"{row.parameters:,}".rjust(len("parameters"))] if counted else []
    size = "" if row.megabytes is None else f", {row.megabytes:.0f} MB"
    why = f"  {row.recommended}: {row.reason}" if row.recommended else ""
    return [row.name, *number, _PLACES[row.weights], f"{row.source}{size}{why}"]


def _row(name: str, *, counts: bool) -> ModelRow:
    where, source, path = _weights_of(name)
    group, entry = recommended(name) or ("", None)
    return ModelRow(
        name,
        where,
        source,
        None if path is None else path.stat().st_size / 1e6,
        num_parameters(name) if counts else None,
        group,
        "" if entry is None else entry.reason,
    )


def _weights_of(name: str) -> tuple[Where, str, Path | None]:
    """Return where the weights of a network are, from whom, and the file where it is on this machine."""
    file = installed_weights(name)
    if file is not None:
        return "installed", WEIGHTS_PACKAGES[name.removesuffix(".in1k")].distribution, file
    place = None if name in OWN else hub_file(name)
    if place is None:
        return "none", "", None
    file = in_local_cache(place)
    return ("hub" if file is None else "cached"), place.repository, file


def _repositories_held() -> set[str]:
    """Return the repositories of which the hub's local cache has anything: one look at the disk for all names."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    names = [path.name for path in folder.glob("models--*")] if folder.is_dir() else []
    return {name.removeprefix("models--").replace("--", "/") for name in names}


def _is_cached(name: str, held: set[str]) -> bool:
    place = hub_file(name)
    return place is not None and place.repository in held and in_local_cache(place) is not None


def num_parameters(name: str) -> int | None:
    """Return the number of a network's parameters, counted without making them; None where that cannot be done."""
    if name in OWN:
        return None
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name)
    except Exception:  # whatever an architecture raises on tensors without values
        return None
    return sum(parameter.numel() for parameter in model.parameters())
