"""The losses of a stage and the factors of their sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["loss_terms"]


def loss_terms(loss: str | Mapping[Any, float]) -> dict[str, float]:
    """Return the losses that are added up, each with its factor."""
    return {loss: 1.0} if isinstance(loss, str) else {name: float(factor) for name, factor in loss.items()}
