"""What lies beside a weights file: the `config.json` of a hub folder, which names the network that it was made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from regraft.models.describe.info import ModelInfo
from regraft.models.describe.trace import plain
from regraft.weights.limits import is_own_file
from regraft.weights.report import Finding

__all__ = ["differences_from_config"]

_MAX_BYTES = 1 << 20
_NOTHING = ("Identity", "Dropout", "Dropout2d", "DropPath")  # do nothing when the network predicts
_COMPARED = ("stride", "padding", "eps", "kernel_size", "groups", "dilation")
_MOST_NAMED = 4


def differences_from_config(path: Path, model: nn.Module, info: ModelInfo) -> list[Finding]:
    """Compare a model with the network that the `config.json` beside its weights names, where timm knows it.

    Equal tensors may belong to other strides, paddings, epsilons, activations or poolings; what layers of one name do
    is compared, the head apart.
    """
    named = _architecture(path.parent / "config.json") if path.suffix in (".safetensors", ".bin", ".pth") else None
    if named is None or named == info.architecture.partition(".")[0] or not timm.is_model(named):
        return []
    with torch.device("meta"):
        theirs = dict(timm.create_model(named).named_modules())
    differ = [
        name
        for name, module in plain(model).named_modules()
        if name in theirs and name and not info.is_head(name) and _acts(module) != _acts(theirs[name])
    ]
    if not differ:
        return []
    shown = ", ".join(differ[:_MOST_NAMED]) + (f" and {len(differ) - _MOST_NAMED} more" * (len(differ) > _MOST_NAMED))
    text = (
        f"config.json next to the file names {named!r}, the model is {info.architecture!r}: {shown} compute something "
        f"else there (--model {named})"
    )
    return [Finding("attribute of the network", "", text, serious=True)]


def _architecture(config: Path) -> str | None:
    """Return the `architecture` of timm's config.json, without its tag; None where there is none."""
    try:
        if not is_own_file(config) or config.stat().st_size > _MAX_BYTES:
            return None
        stored = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    name = stored.get("architecture") if isinstance(stored, dict) else None
    return name.partition(".")[0] if isinstance(name, str) else None


def _acts(module: nn.Module) -> tuple[Any, ...]:
    """Return the class of a module and its compared settings, which decide what it computes; empty for containers."""
    if next(module.children(), None) is not None:
        return ()
    kind = type(module).__name__
    values = (getattr(module, name, None) for name in _COMPARED)
    return ("nothing",) if kind in _NOTHING else (kind, *map(str, values))
