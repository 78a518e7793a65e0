"""Kernels that torch keeps as lengths and directions (weight normalisation), put together as the network does.

`weight_g` and `weight_v` of `torch.nn.utils.weight_norm`, `parametrizations.weight.original0` and `original1` of its
successor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from regraft.weights.axes import Lengthen, convert
from regraft.weights.file import SourceTensor
from regraft.weights.naming.layers import Layer

__all__ = ["with_whole_kernels"]

_PARAMETRIZED = re.compile(r"(?:(.*)[./])?parametrizations[./]weight")
_LEAVES = (("weight_g", "weight_v"), ("original0", "original1"))


def with_whole_kernels(sources: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the file's layers, each length and direction as the one kernel that they make."""
    made = {name: pair for name, layer in sources.items() if (pair := _lengths_and_directions(layer)) is not None}
    if not made:
        return dict(sources)
    found = {name: layer for name, layer in sources.items() if name not in made}
    for name, pair in made.items():
        inside = _PARAMETRIZED.fullmatch(name)
        owner = (inside[1] or "") if inside else name
        others = sources[name].tensors if not inside else found[owner].tensors if owner in found else {}
        found[owner] = _with_kernel(replace(sources[name], name=owner), others, *pair)
    order = {name: layer.order for name, layer in found.items()}
    return {name: found[name] for name in sorted(found, key=order.__getitem__)}


def _lengths_and_directions(layer: Layer) -> tuple[SourceTensor, SourceTensor] | None:
    """Return the two tensors that make a layer's kernel: one length for each place of one axis, or one of all."""
    leaves = {re.split(r"[./]", tensor.name)[-1]: tensor for tensor in layer.tensors.values()}
    for first, second in _LEAVES:
        lengths, directions = leaves.get(first), leaves.get(second)
        if lengths is None or directions is None or len(directions.shape) < 2:
            continue
        long = [axis for axis, length in enumerate(lengths.shape) if length > 1]
        same = len(lengths.shape) == len(directions.shape) and all(
            lengths.shape[axis] == directions.shape[axis] for axis in long
        )
        is_known = first == "weight_g" or _PARAMETRIZED.fullmatch(layer.name) is not None
        if is_known and len(long) <= 1 and (same or lengths.num_values == 1):
            return lengths, directions
    return None


def _with_kernel(
    layer: Layer, others: Mapping[str, SourceTensor], lengths: SourceTensor, directions: SourceTensor
) -> Layer:
    steps = (Lengthen(),)
    kernel = replace(
        lengths,
        shape=directions.shape,
        layer=layer.name,
        role="kernel",
        load=lambda: convert([lengths.load(), directions.load()], steps),
        parts=(lengths, directions),
        made=steps,
    )
    rest = {role: tensor for role, tensor in others.items() if tensor is not lengths and tensor is not directions}
    rest = {"bias" if role == "beta" else role: tensor for role, tensor in rest.items()}
    kind = "dense" if len(kernel.shape) == 2 else "conv"
    return replace(layer, kind=kind, shape=kernel.shape, tensors={"kernel": kernel, **rest})
