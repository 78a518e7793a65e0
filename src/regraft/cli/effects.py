"""What a verb says of its options on stderr: those that do nothing, and what a precision below fp32 does."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from regraft.compute.numerics import Numerics

__all__ = ["say_unused", "tell_rounding"]


def say_unused(options: Mapping[str, object], why: str) -> None:
    """Warn of each given option that has no effect.

    Args:
        options: Values by the option's name; None, False and empty lists were not given.
        why: The reason, as the end of a sentence.
    """
    for name, value in options.items():
        if value is not None and value is not False and value != []:
            print(f"warning: {name} has no effect: {why}", file=sys.stderr)


def tell_rounding(run: Path, model: nn.Module, numerics: Numerics, checkpoint: str | None) -> None:
    """Say on stderr how many classes differ from fp32, where a model is about to predict in less."""
    from regraft.evaluation.rounding import rounding_note

    note = rounding_note(run, model, numerics, checkpoint=checkpoint)
    if note:
        print(note, file=sys.stderr)
