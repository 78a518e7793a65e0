"""What a weights file holds, as plain facts and as lines for people. Values are read one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from regraft.visible import visible
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.likely import likely_architectures
from regraft.weights.naming.recognized import recognized
from regraft.weights.words import some
from regraft.wording import quantity

__all__ = ["describe", "render"]

_LEAST_LIKELY = 0.5  # below this share of common kernels a name would be a guess


def describe(weights: WeightFile) -> dict[str, Any]:
    """Return all facts of a file as plain data.

    `layers` come in the order of the file (whether that order means anything is `ordered`), each with its tensors:
    name, role, shape as stored, axes, dtype, number of values, and how many of them are NaN or infinite.

    Raises:
        WeightsError: Values that cannot be read.
    """
    layers: list[dict[str, Any]] = [
        {"layer": name, "tensors": [_tensor(tensor) for tensor in tensors]} for name, tensors in weights.layers.items()
    ]
    tensors = [tensor for layer in layers for tensor in layer["tensors"]]
    return {
        "file": str(weights.path),
        "format": weights.format,
        "producer": weights.producer,
        "num_layers": len(layers),
        "num_tensors": len(tensors),
        "num_parameters": weights.num_parameters,
        "dtypes": sorted({tensor["dtype"] for tensor in tensors}),
        "num_not_finite": sum(tensor["num_not_finite"] for tensor in tensors),
        "ordered": weights.ordered,
        "graph": weights.graph is not None,
        "class_names": None if weights.class_names is None else list(weights.class_names),
        "preprocessing": None if weights.preprocessing is None else dict(weights.preprocessing),
        "likely": [{"name": name, "score": round(score, 4)} for name, score in likely_architectures(weights)],
        "names": _names_like(weights),
        "notes": list(weights.notes),
        "layers": layers,
    }


def _names_like(weights: WeightFile) -> dict[str, Any] | None:
    """Return the family and dialect that the layers' names belong to, and how many of them do; None below half of
    them.
    """
    found = recognized(weights)
    return None if found is None else asdict(found)


def _tensor(tensor: SourceTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "role": tensor.role,
        "shape": list(tensor.shape),
        "axes": tensor.axes,
        "dtype": tensor.dtype,
        "num_values": tensor.num_values,
        "num_not_finite": _num_not_finite(tensor),
    }


def _num_not_finite(tensor: SourceTensor) -> int:
    values = tensor.load()
    if values.dtype.kind not in "fc" or not values.size:
        return 0
    with np.errstate(all="ignore"):
        total = complex(np.add.reduce(values, axis=None))
    if math.isfinite(total.real) and math.isfinite(total.imag):  # one bad value makes the sum bad
        return 0
    return values.size - int(np.isfinite(values).sum())


def render(facts: Mapping[str, Any]) -> str:
    """Return the facts of `describe` for people: what the file is, then one line for each layer."""
    lines = [
        f"file: {facts['file']}",
        f"format: {facts['format']}{', ' + facts['producer'] if facts['producer'] else ''}",
        f"holds: {quantity(facts['num_layers'], 'layer')}, {quantity(facts['num_tensors'], 'tensor')}, "
        f"{quantity(facts['num_parameters'], 'parameter')}"
        f" ({', '.join(facts['dtypes'])})",
        f"NaN or infinite: {facts['num_not_finite'] or 'none'}",
        f"likely: {_likely(facts['likely'])}",
        *_names(facts["names"]),
        "order of layers: " + ("the file's" if facts["ordered"] else "none (alphabetical or arbitrary)"),
        "graph: " + ("in the file (strides, padding, epsilon are known)" if facts["graph"] else "none"),
    ]
    if facts["class_names"]:
        lines.append(f"classes: {len(facts['class_names'])} ({some(facts['class_names'], 12)})")
    if facts["preprocessing"]:
        lines.append(f"preprocessing: {facts['preprocessing']}")
    lines += [f"note: {note}" for note in facts["notes"]]
    rows = [_row(layer) for layer in facts["layers"]]
    width = min(48, max((len(name) for name, _, _ in rows), default=0))
    lines += [f"  {name:<{width}}  {count:>11,}  {shapes}" for name, shapes, count in rows]
    return "\n".join(visible(line) for line in lines)


def _likely(candidates: Sequence[Mapping[str, Any]]) -> str:
    named = [f"{one['name']} ({one['score']:.0%} of the kernels)" for one in candidates if one["score"] > _LEAST_LIKELY]
    return ", ".join(named) or "no known network matches these shapes"


def _names(like: Mapping[str, Any] | None) -> list[str]:
    if like is None:
        return []
    return [f"names: {like['num_layers']} of {like['of']} layers as {like['dialect']} names them in {like['family']}"]


def _row(layer: Mapping[str, Any]) -> tuple[str, str, int]:
    tensors = layer["tensors"]
    shown = [
        f"{tensor['role'] or _leaf(tensor['name'], layer['layer'])} {_shape(tensor)}"
        + (f" ({tensor['num_not_finite']} NaN or infinite)" if tensor["num_not_finite"] else "")
        for tensor in tensors
    ]
    return layer["layer"], ", ".join(shown), sum(tensor["num_values"] for tensor in tensors)


def _shape(tensor: Mapping[str, Any]) -> str:
    size = "x".join(map(str, tensor["shape"])) or "1"
    axes = f" {tensor['axes']}" if tensor["axes"] and len(tensor["axes"]) > 1 else ""
    return f"{size}{axes}" + ("" if tensor["dtype"] == "float32" else f" {tensor['dtype']}")


def _leaf(name: str, layer: str) -> str:
    return name.removeprefix(layer).lstrip("/.") or name
