"""ONNX models without the onnx package: initialisers and constants, with the nodes as the graph.

Tensors come in the order in which the nodes use them. An exporter may have folded batch norms into the convolutions and
kept the names (torch's default does): `graph["batch_norm"]` and a note say so.
Schema: onnx.proto of the ONNX project.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import load_json
from regraft.weights.readers.byte_range import open_source
from regraft.weights.readers.onnx.onnx_graph import Node, Use, read_node, uses
from regraft.weights.readers.onnx.onnx_quantised import dequantised
from regraft.weights.readers.onnx.onnx_tensor import OnnxTensor, TensorReader
from regraft.weights.readers.protobuf import BYTES, VARINT, Message, ProtobufError, fields
from regraft.weights.readers.spelling import refuse_key, split_word

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "onnx"

_GRAPH = 7
# The fields of ModelProto and their wire types.
_MODEL = {
    1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, _GRAPH: BYTES, 8: BYTES, 14: BYTES, 20: BYTES,
    25: BYTES, 26: BYTES,
}  # fmt: skip
_GRAPH_FIELDS = {1, 2, 5, 10, 11, 12, 13, 14, 15, 16}
_TEXTS = (2, 3, 4, 6)
_MAX_CLASSES = 1 << 20
_INDEX = re.compile("[0-9]{1,7}")
_ITEM = re.compile(
    r"""\s*(?:(?P<key>\d{1,6})\s*:\s*)?(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)")\s*(?:,\s*|$)"""
)


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the first bytes read as an ONNX model: its version first, then legal fields only, and a graph."""
    if not path.is_file() or len(head) < 4 or head[0] != 0x08 or not 1 <= head[1] <= 127:
        return False
    view = memoryview(head)
    try:
        for number, kind, start, end in fields(view, cut=True):
            if _MODEL.get(number) != kind or (number in _TEXTS and not _is_text(view[start:end])):
                return False
            if number == _GRAPH:
                return all(found in _GRAPH_FIELDS for found, _, _, _ in fields(view[start:end], cut=True))
    except ProtobufError:
        return False
    return False


def _is_text(text: memoryview) -> bool:
    return bytes(text[:256]).decode("utf-8", "replace").replace("\n", "").replace("\t", "").isprintable()


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read an ONNX model.

    Raises:
        WeightsError: Damage, external data that is missing or lies where none may lie, or no weights in it.
    """
    refuse_key(path, key)
    source = open_source(path)
    try:
        with source.mapped() as view:
            model = Message(view)
            graph = model.message(_GRAPH)
            if graph is None:
                raise ProtobufError("it has no graph")
            return _weight_file(path, model, graph, TensorReader(source))
    except ProtobufError as error:
        raise WeightsError(
            f"{str(path)!r} is damaged, or not an ONNX model ({error}).",
            "a whole ONNX file",
            "download or copy it again",
        ) from error


def _weight_file(path: Path, model: Message, graph: Message, reader: TensorReader) -> WeightFile:
    notes: list[str] = []
    nodes = [read_node(message) for message in graph.messages(1)]
    initialisers = _initialisers(graph, reader)
    real = dequantised(nodes, _readable(initialisers | _constants(nodes, initialisers, reader), notes))
    nodes, found = real.nodes, real.tensors
    used = uses(nodes, {name: tensor.shape for name, tensor in found.items()})
    first: dict[str, Use] = {}
    for use in (use for group in used for use in group):
        first.setdefault(use.tensor, use)
    if not any(_is_weight(tensor) for tensor in found.values()):
        raise WeightsError(
            f"{str(path)!r} holds no weights ({len(nodes)} nodes, no numeric initializer).",
            "a model with its weights",
            "export it with its parameters",
        )
    if real.count:
        notes.append(f"{real.count} tensors of integers dequantised with their scales: rounded, not the originals.")
    if real.left:
        notes.append(
            f"The model is quantized: {real.left} tensors of integers are left so, for their scales do not fit."
        )
    order = [*first, *(name for name in found if name in initialisers and name not in first)]
    if len(order) < len(found):
        notes.append(f"{len(found) - len(order)} constants or copies that no layer uses as weights were skipped.")
    batch_norm = _batch_norm(nodes, used, notes)
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=" ".join(filter(None, (model.text(2), model.text(3)))) or "onnx",
        tensors={name: _source_tensor(found[name], first.get(name)) for name in order},
        ordered=True,
        graph=_graph(model, graph, nodes, used, batch_norm),
        class_names=_class_names(model),
        notes=tuple(notes),
    )


def _initialisers(graph: Message, reader: TensorReader) -> dict[str, OnnxTensor]:
    found: dict[str, OnnxTensor] = {}
    for message in graph.messages(5):
        tensor = reader.read(message)
        if tensor.name in found:
            raise ProtobufError(f"two initializers are named {tensor.name!r}")
        found[tensor.name] = tensor
    return found


def _constants(
    nodes: list[Node], initialisers: Mapping[str, OnnxTensor], reader: TensorReader
) -> dict[str, OnnxTensor]:
    """Return constants of floating numbers with axes, and `Identity` copies of any tensor, by name."""
    found = dict(initialisers)
    for node in nodes:
        if node.op == "Constant" and len(node.outputs) == 1:
            value = node.tensors.get("value")
            constant = reader.read(value, node.outputs[0]) if value is not None else _listed(node)
            if constant is not None and constant.shape and constant.dtype.startswith(("float", "bfloat")):
                found.setdefault(constant.name, constant)
        elif node.op == "Identity" and len(node.inputs) == len(node.outputs) == 1 and node.inputs[0] in found:
            same = found[node.inputs[0]]
            found.setdefault(node.outputs[0], replace(same, name=node.outputs[0]))
    return {name: tensor for name, tensor in found.items() if name not in initialisers}


def _listed(node: Node) -> OnnxTensor | None:
    values = node.attributes.get("value_floats")
    if not values:
        return None
    array: NDArray[Any] = np.asarray(values, dtype=np.float32)
    return OnnxTensor(node.outputs[0], array.shape, "float32", array.copy)


def _readable(found: dict[str, OnnxTensor], notes: list[str]) -> dict[str, OnnxTensor]:
    """Return tensors of plain numbers; the others go to the notes."""
    others = [tensor for tensor in found.values() if tensor.load is None]
    if others:
        names = ", ".join(f"{tensor.name} ({tensor.dtype})" for tensor in others[:3])
        more = ", ..." if others[3:] else ""
        notes.append(f"{len(others)} tensors of unsupported types were skipped: {names}{more}.")
    return {name: tensor for name, tensor in found.items() if tensor.load is not None}


def _is_weight(tensor: OnnxTensor) -> bool:
    return bool(tensor.shape) and tensor.dtype in ("float16", "bfloat16", "float32", "float64", "int8", "uint8")


def _source_tensor(tensor: OnnxTensor, use: Use | None) -> SourceTensor:
    layer, _ = split_word(tensor.name)
    load: Callable[[], NDArray[Any]] = tensor.load  # type: ignore[assignment]  # `_readable` kept these
    role, axes = (use.role, use.axes) if use else (None, None)
    return SourceTensor(tensor.name, tensor.shape, tensor.dtype, use.layer if use else layer, load, role, axes)


def _batch_norm(nodes: list[Node], used: list[list[Use]], notes: list[str]) -> str:
    """Return the state of the batch norms: `kept`, `folded`, `perhaps folded`, or `none`."""
    norms = sum(node.op == "BatchNormalization" for node in nodes)
    biases = [
        (group[0].tensor, group[1].tensor)
        for node, group in zip(nodes, used, strict=True)
        if node.op == "Conv" and len(group) == 2
    ]
    convolutions = sum(node.op == "Conv" for node in nodes)
    if norms or not biases:
        return "kept" if norms else "none"
    # torch's exporters name a bias that they made by folding after the kernel, or with a number.
    renamed = sum(bias == kernel + "_bias" or bias.startswith("onnx::") for kernel, bias in biases)
    sure = renamed * 2 > len(biases)
    notes.append(
        f"{len(biases)} of {convolutions} Conv nodes have a bias and there is no BatchNormalization node: "
        + ("the batch norms were folded into the convolutions" if sure else "batch norms may have been folded in")
        + ", so kernels of the same name are not those of a model that still has its norms."
    )
    return "folded" if sure else "perhaps folded"


def _graph(model: Message, graph: Message, nodes: list[Node], used: list[list[Use]], batch_norm: str) -> dict[str, Any]:
    """Return the network as plain data, nodes in the order in which they run."""
    return {
        "source": "onnx",
        "name": graph.text(2),
        "opset": {entry.text(1) or "ai.onnx": entry.integer(2) for entry in model.messages(8)},
        "inputs": [_value(value) for value in graph.messages(11)],
        "outputs": [_value(value) for value in graph.messages(12)],
        "wired": True,
        "batch_norm": batch_norm,
        "nodes": [
            {
                "name": node.name,
                "type": node.op,
                "inputs": list(node.inputs),
                "outputs": list(node.outputs),
                "attributes": node.attributes,
                "weights": {use.role: use.tensor for use in group},
            }
            for node, group in zip(nodes, used, strict=True)
        ],
    }


def _value(value: Message) -> dict[str, Any]:
    """Return name and shape of an input or output; a size that is not fixed is None."""
    kind = value.message(2)
    tensor = kind.message(1) if kind is not None else None
    shape = tensor.message(2) if tensor is not None else None
    dims = [dim.integer(1) if 1 in dim else None for dim in shape.messages(1)] if shape is not None else None
    return {"name": value.text(1), "shape": dims}


def _class_names(model: Message) -> tuple[str, ...] | None:
    """Return class names in the model's metadata, where exporters put them under `names`, `classes` or `labels`."""
    metadata = {entry.text(1): entry.text(2) for entry in model.messages(14)}
    for word in ("names", "classes", "class_names", "labels"):
        if word in metadata and len(metadata[word]) <= _MAX_CLASSES:
            names = _names(metadata[word])
            if names:
                return names
    return None


def _names(text: str) -> tuple[str, ...] | None:
    """Return names from JSON, or from a dict or list as Python prints it (`{0: 'cat', 1: 'dog'}`), in the order of
    numbers.
    """
    parsed: Any = None
    try:
        parsed = load_json(text, "its list of class names")
    except ValueError:
        parsed = _printed(text.strip())
    if isinstance(parsed, Mapping):
        numbered = {int(key): value for key, value in parsed.items() if _INDEX.fullmatch(key)}
        if sorted(numbered) != list(range(len(parsed))):
            return None
        parsed = [numbered[number] for number in range(len(numbered))]
    if isinstance(parsed, list) and parsed and all(isinstance(name, str) for name in parsed):
        return tuple(parsed)
    return None


def _printed(text: str) -> dict[str, str] | list[str] | None:
    """Return a flat dict or list of texts in Python's spelling; read by a pattern, for Python's own parser can be
    crashed.
    """
    if len(text) < 2 or text[0] + text[-1] not in ("{}", "[]", "()"):
        return None
    body, position = text[1:-1].strip(), 0
    keys, names = [], []
    while position < len(body):
        item = _ITEM.match(body, position)
        if not item:
            return None
        keys.append(item["key"])
        names.append(re.sub(r"\\(.)", r"\1", item["single"] if item["single"] is not None else item["double"]))
        position = item.end()
    if text[0] == "{":
        return None if None in keys else dict(zip(keys, names, strict=True))
    return names
