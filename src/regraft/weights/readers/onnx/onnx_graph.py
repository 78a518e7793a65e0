"""The nodes of an ONNX graph as plain data, and which tensors they use as what.

Exporters hide weights in several ways, and these are looked through: a dense kernel behind a `Transpose`, and a bias
that is an `Add` of its own. (Constants and `Identity` copies are tensors like any other: module `onnx`.)
Schema: `NodeProto` and `AttributeProto` of onnx.proto.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.readers.protobuf import Message
from regraft.weights.readers.spelling import split_word

__all__ = ["Node", "Use", "read_node", "uses"]

_KERNEL_AXES = {3: "OIW", 4: "OIHW", 5: "OIDHW"}
_TRANSPOSED_AXES = {3: "IOW", 4: "IOHW", 5: "IODHW"}
_INPUT_ROLES = {
    "BatchNormalization": ("gamma", "beta", "mean", "variance"),
    "InstanceNormalization": ("gamma", "beta"),
    "LayerNormalization": ("gamma", "beta"),
    "GroupNormalization": ("gamma", "beta"),
    "PRelu": ("alpha",),
}
_MAX_LIST = 64
_QUOTED = re.compile(r"'([^'\\]*)'")
_INT, _FLOAT, _STRING = 3, 2, 4


@dataclass(frozen=True, slots=True)  # a hostile file has millions of them
class Node:
    """One node; `tensors` are the attributes that are tensors (of `Constant`)."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    tensors: dict[str, Message]
    module: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """What one node uses one tensor as."""

    tensor: str
    role: str
    axes: str | None
    layer: str


@dataclass
class _Flow:
    """What is known about the values between nodes."""

    shapes: Mapping[str, tuple[int, ...]]
    turned: dict[str, str] = field(default_factory=dict)  # a transposed tensor -> the tensor
    products: dict[str, str] = field(default_factory=dict)  # the output of a dense kernel -> its layer


def read_node(message: Message) -> Node:
    """Return one NodeProto; attributes that are graphs, or long lists, are left out."""
    attributes: dict[str, Any] = {}
    tensors: dict[str, Message] = {}
    for attribute in message.messages(5):
        name = attribute.text(1)
        tensor = attribute.message(5)
        if tensor is not None:
            tensors[name] = tensor.kept()
        else:
            value = _attribute(attribute)
            if value is not None:
                attributes[name] = value
    return Node(
        op=message.text(4),
        name=message.text(3),
        inputs=tuple(message.texts(1)),
        outputs=tuple(message.texts(2)),
        attributes=attributes,
        tensors=tensors,
        module=_module(message),
    )


def _attribute(attribute: Message) -> Any:
    """Return the plain value of an attribute, or None."""
    kind = attribute.integer(20)
    if kind == 1 or (not kind and _FLOAT in attribute):
        return attribute.number(_FLOAT, 0.0)
    if kind == 2 or (not kind and _INT in attribute):
        return attribute.integer(_INT)
    if kind == 3:
        raw = attribute.raw(_STRING)
        return str(bytes(raw[-1][:256]), "utf-8", "replace") if raw else ""
    if kind == 6 and attribute.num_bytes(7) <= 4 * _MAX_LIST:
        return attribute.floats(7)
    return attribute.integers(8) if kind == 7 and attribute.count(8) <= _MAX_LIST else None


def _module(message: Message) -> str:
    """Return the torch module that a node comes from, from the exporter's notes or from the node's name."""
    for entry in message.messages(9):
        if entry.text(1) == "pkg.torch.onnx.name_scopes":
            return _scope(entry.text(2))
    parts = message.text(3).split("/")
    if len(parts) < 3 or parts[0]:
        return ""
    path: list[str] = []
    for part in parts[1:-1]:  # /layer1/layer1.0/conv1/Conv
        if path and part.startswith(path[-1] + "."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


def _scope(text: str) -> str:
    """Turn `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']` into `layer1.0.conv1`."""
    scopes = _QUOTED.findall(text[:4096])
    return scopes[-2] if len(scopes) > 1 else ""


def uses(nodes: Iterable[Node], shapes: Mapping[str, tuple[int, ...]]) -> list[list[Use]]:
    """Return the tensors that each node uses, with their roles, in the order of the nodes.

    Args:
        nodes: In the order in which they run.
        shapes: The shapes of all tensors, by name.
    """
    flow = _Flow(shapes)
    return [_node_uses(node, flow) for node in nodes]


def _node_uses(node: Node, flow: _Flow) -> list[Use]:
    if node.op == "Transpose" and node.inputs and node.attributes.get("perm") == [1, 0]:
        if node.inputs[0] in flow.shapes:
            flow.turned[node.outputs[0] if node.outputs else ""] = node.inputs[0]
        return []
    if node.op in ("Conv", "ConvTranspose"):
        return _convolution(node, flow)
    if node.op in ("Gemm", "MatMul"):
        return _dense(node, flow)
    if node.op == "Add":
        return _added_bias(node, flow)
    roles = _INPUT_ROLES.get(node.op, ())
    names = [(name, role) for name, role in zip(node.inputs[1:], roles, strict=False) if name in flow.shapes]
    layer = _layer(node, [name for name, _ in names])
    return [Use(name, role, "C" if len(flow.shapes[name]) == 1 else None, layer) for name, role in names]


def _convolution(node: Node, flow: _Flow) -> list[Use]:
    names = [name for name in node.inputs[1:3] if name in flow.shapes]
    if not names or names[0] != node.inputs[1]:
        return []
    shape, layer = flow.shapes[names[0]], _layer(node, names)
    group = node.attributes.get("group", 1)
    if node.op == "ConvTranspose":
        kernel = Use(names[0], "transpose_kernel", _TRANSPOSED_AXES.get(len(shape)), layer)
    else:
        depthwise = group != 1 and len(shape) > 2 and shape[1] == 1
        kernel = Use(names[0], "depthwise_kernel" if depthwise else "kernel", _KERNEL_AXES.get(len(shape)), layer)
    return [kernel, *(Use(name, "bias", "C", layer) for name in names[1:])]


def _dense(node: Node, flow: _Flow) -> list[Use]:
    name = node.inputs[1] if len(node.inputs) > 1 else ""
    turned = flow.turned.get(name)
    tensor = turned or name
    if len(flow.shapes.get(tensor, ())) != 2:
        return []
    swapped = bool(node.attributes.get("transB")) != (turned is not None)
    biases = [name for name in node.inputs[2:3] if name in flow.shapes]
    layer = _layer(node, [tensor, *biases])
    if node.outputs:
        flow.products[node.outputs[0]] = layer
    return [
        Use(tensor, "kernel", "OI" if swapped else "IO", layer),
        *(Use(name, "bias", "C", layer) for name in biases),
    ]


def _added_bias(node: Node, flow: _Flow) -> list[Use]:
    for value, other in (node.inputs, node.inputs[::-1]) if len(node.inputs) == 2 else ():
        if value in flow.products and len(flow.shapes.get(other, ())) == 1:
            return [Use(other, "bias", "C", flow.products[value])]
    return []


def _layer(node: Node, names: list[str]) -> str:
    """Return the layer of a node: as its tensors are called, else the module that it comes from, else its own name."""
    for name in names:
        layer, role = split_word(name)
        if role is not None:
            return layer
    return node.module or node.name or (node.outputs[0] if node.outputs else node.op)
