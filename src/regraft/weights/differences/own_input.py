"""What the file's network does to its own input, where the model does not: images must then be prepared with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.naming.layers import Layer
from regraft.weights.report import Finding
from regraft.weights.words import some

__all__ = ["own_input"]

_MAX_DEPTH = 32
_CHANNELS = (1, 3, 4)
_KERAS_LAYER = re.compile(r"normalization(_\d+)?")


def own_input(weights: WeightFile, unexpected: Sequence[SourceTensor], sources: Mapping[str, Layer]) -> list[Finding]:
    """Return the normalizations of image channels that go nowhere, and the rescalings that a Keras description has.

    Args:
        weights: The file.
        unexpected: Its tensors that go nowhere.
        sources: Its layers.
    """
    gone = {tensor.name for tensor in unexpected}
    findings = []
    for layer in sources.values():
        tensors = [tensor for tensor in layer.tensors.values() if tensor.name in gone]
        if pair := _mean_and_variance(layer, tensors):
            findings.append(_finding(*pair))
    scales = list(dict.fromkeys(_rescalings(weights.graph, 0))) if findings or not _has_normalization(sources) else []
    if scales:
        text = f"the file's network rescaled its own input ({some(scales)}): its images must be prepared with this"
        findings.append(Finding("input", "", text))
    return findings


def _mean_and_variance(layer: Layer, tensors: Sequence[SourceTensor]) -> tuple[SourceTensor, SourceTensor, bool] | None:
    """Return the mean of the channels, their spread, and whether that is a variance; by names, or in Keras's order."""
    vectors = [tensor for tensor in tensors if not tensor.dtype.startswith(("int", "uint"))]
    if "kernel" in layer.tensors or not vectors or any(tensor.num_values not in _CHANNELS for tensor in vectors):
        return None
    leaves = {re.split(r"[./]", tensor.name.partition(":")[0])[-1]: tensor for tensor in tensors}
    if "mean" in leaves:
        for name in ("variance", "var", "std"):
            if name in leaves:
                return leaves["mean"], leaves[name], name != "std"
    if {"0", "1"} <= leaves.keys() and _KERAS_LAYER.fullmatch(re.split(r"[./]", layer.name)[-1]):
        return leaves["0"], leaves["1"], True
    return None


def _finding(mean: SourceTensor, spread: SourceTensor, is_variance: bool) -> Finding:
    values = np.asarray(spread.load(), np.float64).ravel()
    deviation = np.sqrt(np.maximum(values, 0.0)) if is_variance else values
    text = (
        f"the file's network normalized its own input (mean {_numbers(mean.load())}, standard deviation "
        f"{_numbers(deviation)} of each channel; {mean.name}, {spread.name}); the model does not: its images must be "
        "prepared with these numbers"
    )
    return Finding("input", "", text)


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in np.asarray(values, np.float64).ravel())


def _has_normalization(sources: Mapping[str, Layer]) -> bool:
    return any(_KERAS_LAYER.fullmatch(re.split(r"[./]", name)[-1]) for name in sources)


def _rescalings(entry: Any, depth: int) -> Iterator[str]:
    """Yield what each `Rescaling` of a Keras description does."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(entry, Mapping):
        config = entry.get("config")
        if entry.get("class_name") == "Rescaling" and isinstance(config, Mapping):
            offset = config.get("offset", 0)
            yield f"x times {config.get('scale')}" + (f", plus {offset}" if offset not in (0, 0.0, None) else "")
        elif "nodes" not in entry:
            for value in entry.values():
                yield from _rescalings(value, depth + 1)
    elif isinstance(entry, list):
        for value in entry:
            yield from _rescalings(value, depth + 1)
