"""Quantised ONNX models as the float models that they stand for: integers with scales become real numbers.

Three spellings are read: `DequantizeLinear` before plain nodes (QDQ), nodes that work on integers and carry their
scales (`QLinearConv`, `QGemm`, ...), and `ConvInteger` or `MatMulInteger` with a product of scales behind (dynamic
quantisation). A real number is (q - zero point) * scale, with one scale or one for each place of an axis. What ONNX
Runtime calls a `FusedConv` is a `Conv` here.
Source: ONNX's operator schemas, and ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.weights.readers.onnx.onnx_graph import Node
from regraft.weights.readers.onnx.onnx_tensor import OnnxTensor

__all__ = ["Dequantised", "dequantised"]

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32")
_SUFFIXES = ("_quantized", "_Transposed")
# Operators on integers: the plain one, the places of the kernel, its scale and zero point, the input's scale, the bias.
_LINEAR = {
    "QLinearConv": ("Conv", 3, 4, 5, 1, 8),
    "QLinearMatMul": ("MatMul", 3, 4, 5, 1, None),
    "QGemm": ("Gemm", 3, 4, 5, 1, 6),
}
_DYNAMIC = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}


@dataclass
class Dequantised:
    """A model of real numbers: its nodes, its tensors by name, how many were integers, and how many still are."""

    nodes: list[Node]
    tensors: dict[str, OnnxTensor]
    count: int = 0
    left: int = 0


@dataclass
class _Work:
    """What is known on the way."""

    found: dict[str, OnnxTensor]
    made: dict[str, OnnxTensor] = field(default_factory=dict)  # real tensors by their new names
    name_of: dict[str, str] = field(default_factory=dict)  # a value of the graph -> the real tensor that it is
    settings: set[str] = field(default_factory=set)  # scales, zero points and integers that were used up
    left: int = 0


def dequantised(nodes: list[Node], found: dict[str, OnnxTensor]) -> Dequantised:
    """Return the model with its integers as real numbers, as far as their scales are in the file.

    Args:
        nodes: In the order in which they run.
        found: The tensors with values, by name.
    """
    nodes = [replace(node, op=_FUSED.get(node.op, node.op)) for node in nodes]
    if not any(node.op in (*_LINEAR, *_DYNAMIC, "DequantizeLinear") or node.op.startswith("QLinear") for node in nodes):
        return Dequantised(nodes, found)
    work = _Work(found)
    plain = _without_products([_plain(node, work) for node in nodes], work)
    real = [
        replace(node, inputs=tuple(work.name_of.get(name, name) for name in node.inputs if name not in work.settings))
        for node in plain
    ]
    tensors = {name: tensor for name, tensor in found.items() if name not in work.settings} | work.made
    return Dequantised(real, tensors, len(work.made), work.left)


def _plain(node: Node, work: _Work) -> Node:
    """Return a node that works on real numbers in the place of one on integers."""
    inputs = node.inputs
    if node.op in ("DequantizeLinear", "QuantizeLinear"):
        work.settings.update(name for name in inputs[1:3] if name in work.found)
        if node.op == "DequantizeLinear" and inputs and inputs[0] in work.found and node.outputs:
            axis = node.attributes.get("axis", 1)
            name = _real(work, inputs[0], _at(inputs, 1), _at(inputs, 2), axis if isinstance(axis, int) else 1)
            if name:
                work.name_of[node.outputs[0]] = name
        return replace(node, inputs=inputs[:1])
    if node.op in _LINEAR:
        return _from_linear(node, work)
    if node.op.startswith("QLinear"):
        work.settings.update(
            name for name in inputs if name in work.found and int(np.prod(work.found[name].shape)) == 1
        )
        return replace(node, op=node.op.removeprefix("QLinear").replace("GlobalAveragePool", "AveragePool"))
    return node


def _from_linear(node: Node, work: _Work) -> Node:
    op, at, scale_at, zero_at, input_scale_at, bias_at = _LINEAR[node.op]
    inputs = node.inputs
    axis = 0 if op == "Conv" or (op == "Gemm" and node.attributes.get("transB")) else -1
    scale = _at(inputs, scale_at)
    kernel = _real(work, _at(inputs, at), scale, _at(inputs, zero_at), axis)
    used = [inputs[0] if inputs else "", kernel or _at(inputs, at)]
    bias = _at(inputs, bias_at) if bias_at is not None else ""
    if bias:
        used.append(_real(work, bias, scale, "", 0, times=_at(inputs, input_scale_at)) or bias)
    others = [name for place, name in enumerate(inputs) if place not in (0, at, bias_at) and name in work.found]
    work.settings.update(others)
    return replace(node, op=op, inputs=tuple(used))


def _without_products(nodes: list[Node], work: _Work) -> list[Node]:
    """Return the nodes without what multiplies integers by their scales behind `ConvInteger` and `MatMulInteger`."""
    if not any(node.op in _DYNAMIC for node in nodes):
        return nodes
    graph = _Graph(nodes)
    dropped: set[int] = set()
    changed: dict[int, Node] = {}
    for place, node in enumerate(nodes):
        if node.op not in _DYNAMIC:
            continue
        chain = _scaled(node, graph, work)
        if chain is None:
            work.left += _at(node.inputs, 1) in work.found
            continue
        kernel, outputs, used = chain
        inputs = [_at(node.inputs, 0), kernel]
        added = graph.only_user(_at(outputs, 0), "Add") if node.op == "ConvInteger" else None
        bias = _spread_bias(nodes[added], outputs[0], graph, work) if added is not None else ""
        if added is not None and bias:
            inputs, outputs, used = [*inputs, bias], nodes[added].outputs, {*used, added}
        dropped |= used
        changed[place] = replace(node, op=_DYNAMIC[node.op], inputs=tuple(inputs), outputs=outputs)
    return [changed.get(place, node) for place, node in enumerate(nodes) if place not in dropped]


class _Graph:
    """Which node makes each value, and which nodes use it."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.makers = {name: node for node in nodes for name in node.outputs}
        self._users: dict[str, list[int]] = {}
        for place, node in enumerate(nodes):
            for name in node.inputs:
                self._users.setdefault(name, []).append(place)

    def only_user(self, name: str, op: str) -> int | None:
        """Return the place of the only node that uses a value, where it is of this kind."""
        places = self._users.get(name, [])
        return places[0] if len(places) == 1 and self.nodes[places[0]].op == op else None


def _scaled(node: Node, graph: _Graph, work: _Work) -> tuple[str, tuple[str, ...], set[int]] | None:
    """Return the real kernel of a node on integers, its output once it is scaled, and the nodes that do so."""
    cast = graph.only_user(_at(node.outputs, 0), "Cast")
    value = _at(graph.nodes[cast].outputs, 0) if cast is not None else ""
    product = graph.only_user(value, "Mul")
    if cast is None or product is None:
        return None
    scale = _scale_of(graph.nodes[product], value, graph, work)
    axis = 0 if node.op == "ConvInteger" else -1
    kernel = _real(work, _at(node.inputs, 1), scale, _at(node.inputs, 3), axis) if scale else ""
    return (kernel, graph.nodes[product].outputs, {cast, product}) if kernel else None


def _scale_of(product: Node, value: str, graph: _Graph, work: _Work) -> str:
    """Return the scale of a kernel from what its integers are multiplied by: it, or it times the input's."""
    other = next((name for name in product.inputs if name != value), "")
    if other in work.found:
        return other
    maker = graph.makers.get(other)
    if maker is None or maker.op != "Mul":
        return ""
    known = [name for name in maker.inputs if name in work.found]
    return known[0] if len(known) == 1 else ""


def _spread_bias(added: Node, value: str, graph: _Graph, work: _Work) -> str:
    """Return the bias that an `Add` takes, through the `Reshape` that spreads it over an image."""
    other = next((name for name in added.inputs if name != value), "")
    maker = graph.makers.get(other)
    is_spread = maker is not None and maker.op == "Reshape"
    name = _at(maker.inputs, 0) if maker is not None and is_spread else other
    if name not in work.found or len(work.found[name].shape) != 1:
        return ""
    if maker is not None and is_spread:
        work.settings.update(maker.inputs[1:2])
    return name


def _real(work: _Work, name: str, scale: str, zero_point: str, axis: int, *, times: str = "") -> str:
    """Make the real tensor that integers stand for; returns its name, or an empty one where that is not possible."""
    stored, factor = work.found.get(name), work.found.get(scale)
    if stored is None or stored.load is None or stored.dtype not in _INTEGERS:
        return ""
    zero, more = work.found.get(zero_point), work.found.get(times)
    place = axis + len(stored.shape) if axis < 0 else axis
    fits = factor is not None and _spreads(factor, stored, place) and (zero is None or _spreads(zero, stored, place))
    if not fits or factor is None or factor.load is None or (times and (more is None or more.load is None)):
        work.left += 1
        return ""
    label = name
    for suffix in _SUFFIXES:
        label = label.removesuffix(suffix)
    if label in work.found or label in work.made:
        label = name
    loads = (stored.load, factor.load, zero.load if zero is not None else None, more.load if more is not None else None)
    work.made.setdefault(label, OnnxTensor(label, stored.shape, "float32", _loader(loads, place)))
    work.settings.update(filter(None, (scale, zero_point, name if label != name else "")))
    return label


def _at(names: Sequence[str], place: int) -> str:
    """Return an input of a node; an empty name where it has none there."""
    return names[place] if place < len(names) else ""


def _spreads(numbers: OnnxTensor, over: OnnxTensor, axis: int) -> bool:
    """Return whether there is one number, or one for each place of the axis."""
    if numbers.load is None:
        return False
    if numbers.shape in ((), (1,)):
        return True
    return len(numbers.shape) == 1 and 0 <= axis < len(over.shape) and over.shape[axis] == numbers.shape[0]


def _loader(loads: Sequence[Callable[[], NDArray[Any]] | None], axis: int) -> Callable[[], NDArray[Any]]:
    stored, scale, zero, more = loads

    def load() -> NDArray[Any]:
        values = stored().astype(np.float64)  # type: ignore[misc]  # the first two are there
        shape = [1] * values.ndim
        if values.ndim:
            shape[axis] = -1
        for numbers, combine in ((zero, np.subtract), (scale, np.multiply), (more, np.multiply)):
            if numbers is not None:
                given = numbers().astype(np.float64)
                values = combine(values, given.reshape(shape) if given.size > 1 else given.reshape(()))
        real: NDArray[np.float32] = values.astype(np.float32)
        return real

    return load
