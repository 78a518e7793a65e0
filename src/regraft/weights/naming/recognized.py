"""Whose names a file has: the family and the dialect that know most of its layers, whatever the model is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from regraft.weights.file import WeightFile
from regraft.weights.naming.layers import source_layers
from regraft.weights.naming.rules import addresses, families, shared_prefixes, speaks

__all__ = ["Recognized", "recognized"]

_LEAST_NAMES = 4
_AUTOMATIC = re.compile(r"(.*/)?(conv2d|dense|batch_normalization|separable_conv2d|depthwise_conv2d)(_\d+)?(#.*)?")


@dataclass(frozen=True)
class Recognized:
    """The family and dialect that the names of a file's layers belong to, and how many of them do."""

    family: str
    dialect: str
    num_layers: int
    of: int


def recognized(weights: WeightFile) -> Recognized | None:
    """Return whose names a file's layers have; None where no dialect knows half of them."""
    layers = {name: layer for name, layer in source_layers(weights).items() if not _AUTOMATIC.fullmatch(name)}
    prefixes = shared_prefixes(list(layers))
    spoken = [
        (len(addresses(layers, dialect, whole=False, prefix=prefix)), family.name, dialect.name)
        for family in families()
        for dialect in family.dialects
        for prefix in prefixes
        if speaks(layers, dialect, prefix=prefix)
    ]
    num_layers, family_name, dialect_name = max(spoken, key=lambda item: item[0], default=(0, "", ""))
    if 2 * num_layers < len(layers) or num_layers < _LEAST_NAMES:
        return None
    return Recognized(family_name, dialect_name, num_layers, len(layers))
