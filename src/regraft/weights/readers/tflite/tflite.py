"""TensorFlow Lite models (`.tflite`) without TensorFlow: the tensors that layers use as weights, and the graph.

Integers with scales come back as the real numbers that they stand for; a note says so. The converter folds batch
normalisations into the convolutions. Kernels lie as OHWI (convolution), 1HWC (depthwise) and OI (dense).
Source: schema.fbs of TensorFlow Lite.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import budget, check_name
from regraft.weights.readers.byte_range import SourceFile, open_source
from regraft.weights.readers.spelling import refuse_key
from regraft.weights.readers.tflite.flatbuffer import FlatBufferError, Table, root
from regraft.weights.readers.tflite.tflite_tensor import TfliteTensor, read_tensor
from regraft.wording import quantity

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "tflite"
_IDENTIFIER = b"TFL3"
_VERSION = 3
_NODE_BYTES = 1500
_NUMBER_BYTES = 48
_OPERATORS = {
    0: "Add", 1: "AveragePool", 2: "Concat", 3: "Conv", 4: "Depthwise", 6: "Dequantize", 9: "Dense", 17: "MaxPool",
    22: "Reshape", 25: "Softmax", 34: "Pad", 40: "Mean", 54: "PRelu", 60: "PadV2", 67: "ConvTranspose", 83: "Pack",
    114: "Quantize",
}  # fmt: skip
# For each operator with weights: which of its inputs they are, their roles, and the axes of the kernel.
_WEIGHTS: dict[str, tuple[dict[int, str], str | None]] = {
    "Conv": ({1: "kernel", 2: "bias"}, "OHWI"),
    "Depthwise": ({1: "depthwise_kernel", 2: "bias"}, "IHWO"),
    "Dense": ({1: "kernel", 2: "bias"}, "OI"),
    "ConvTranspose": ({1: "transpose_kernel", 3: "bias"}, "OHWI"),
    "PRelu": ({1: "alpha"}, None),
}


@dataclass(frozen=True)
class _Node:
    """One operator, with the numbers of its tensors."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the bytes behind the first offset are TensorFlow Lite's identifier."""
    return path.is_file() and head[4:8] == _IDENTIFIER


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the weights of the main subgraph.

    Raises:
        WeightsError: A damaged or hostile file, or no weights in it.
    """
    refuse_key(path, key)
    source = open_source(path)
    try:
        with source.mapped() as view:
            model = root(view)
            tensors, nodes, inputs = _main(model, source, view)
            description = model.text(3)
    except (ValueError, struct.error) as error:
        raise _damaged(path, str(error)) from error
    notes: list[str] = []
    found, graph = _layers(tensors, nodes, inputs, notes)
    if not found:
        raise _damaged(path, "it holds no weights that a layer uses")
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=" ".join(filter(None, ("tflite", description[:80]))),
        tensors=found,
        graph=graph,
        notes=tuple(notes),
    )


def _main(model: Table, source: SourceFile, view: memoryview) -> tuple[list[TfliteTensor], list[_Node], list[int]]:
    """Return tensors, operators and inputs of the first subgraph."""
    if model.integer(0, "I") != _VERSION:
        raise FlatBufferError(f"its version is {model.integer(0, 'I')}")
    codes = [max(code.integer(0, "b"), code.integer(3, "i")) for code in model.tables(1)]
    graph = next(model.tables(2), None)
    if graph is None:
        raise FlatBufferError("it has no graph")
    buffers = [_buffer(table, len(view)) for table in model.tables(4)]
    tensors = [read_tensor(table, buffers, source) for table in graph.tables(0)]
    nodes = [_node(table, codes, len(tensors)) for table in graph.tables(3)]
    return tensors, nodes, _numbers(graph, 1)


def _buffer(table: Table, size: int) -> tuple[int, int]:
    """Return where a buffer begins and how long it is: inside the table, or behind it in files above 2 GB."""
    start, count = table.span(0, 1)
    offset, length = table.integer(1, "Q"), table.integer(2, "Q")
    if offset <= 1:  # 1 stands for an empty buffer
        return start, count
    if offset + length > size:
        raise FlatBufferError(f"a buffer at {offset}..{offset + length}, and the file has {size} bytes")
    return offset, length


def _node(table: Table, codes: Sequence[int], count: int) -> _Node:
    budget().hold(_NODE_BYTES)
    number = table.integer(0, "I")
    if number >= len(codes):
        raise FlatBufferError(f"an operator of kind {number}, and there are {len(codes)}")
    kind = _OPERATORS.get(codes[number], f"operator {codes[number]}")
    inputs, outputs = (_numbers(table, field) for field in (1, 2))
    if any(one >= count for one in (*inputs, *outputs)):
        raise FlatBufferError(f"an operator uses tensor {max(*inputs, *outputs, 0)}, and there are {count}")
    return _Node(kind, inputs, outputs, _settings(kind, table.table(4)))


def _numbers(table: Table, field: int) -> list[int]:
    found = table.numbers(field, "i")
    budget().hold(_NUMBER_BYTES * found.size)
    return [int(number) for number in found]


def _settings(kind: str, options: Table | None) -> dict[str, Any]:
    """Return stride, dilation and padding of a convolution, as ONNX spells them."""
    if options is None or kind not in ("Conv", "Depthwise"):
        return {}
    dilation = (4, 5) if kind == "Conv" else (5, 6)
    width, height = (options.integer(field) for field in (1, 2))
    across, down = (options.integer(field, "i", 1) for field in dilation)
    padding = {0: "SAME_UPPER", 1: "VALID"}.get(options.integer(0, "b"), "UNKNOWN")
    return {"strides": [height, width], "dilations": [down, across], "auto_pad": padding}


def _layers(
    tensors: list[TfliteTensor], nodes: list[_Node], inputs: Sequence[int], notes: list[str]
) -> tuple[dict[str, SourceTensor], dict[str, Any]]:
    """Return the weights by name, in the order in which layers use them, and the graph."""
    stands_for = _constants(tensors, nodes)
    names = _unique_names(tensors)
    found: dict[str, SourceTensor] = {}
    plain: list[dict[str, Any]] = []
    for number, node in enumerate(nodes):
        roles, axes = _WEIGHTS.get(node.kind, ({}, None))
        weights: dict[str, str] = {}
        layer = ""
        for place, role in roles.items():
            given = stands_for.get(node.inputs[place]) if place < len(node.inputs) else None
            if given is None:
                continue
            layer = layer or names[given].partition(";")[0] or f"operator_{number}"
            tensor = tensors[given]
            name = names[given] if names[given] not in found else f"{names[given]} of operator {number}"
            check_name(name)
            found[name] = _source_tensor(name, tensor, layer, role, axes)
            weights[role] = name
        values = [one for one in node.inputs if one >= 0 and one not in stands_for]
        kind, attributes = ("Conv" if node.kind == "Depthwise" else node.kind), dict(node.attributes)
        if node.kind in ("Pad", "PadV2"):
            kind, attributes = "Pad", _pads(tensors, node)
        plain.append({"name": layer, "type": kind, "inputs": [f"%{one}" for one in values],
                      "outputs": [f"%{one}" for one in node.outputs], "attributes": attributes,
                      "weights": weights})  # fmt: skip
    _tell(tensors, stands_for, found, notes)
    graph = {"source": "tflite", "wired": True, "nodes": plain, "inputs": [tensors[one].name for one in inputs
             if 0 <= one < len(tensors)]}  # fmt: skip
    return found, graph


def _source_tensor(name: str, tensor: TfliteTensor, layer: str, role: str, axes: str | None) -> SourceTensor:
    exact = axes if role.endswith("kernel") and axes and len(axes) == len(tensor.shape) else None
    shape, load = tensor.shape, tensor.load
    if role == "transpose_kernel" and exact:  # as TensorFlow has it
        exact, shape, load = (
            "HWOI",
            (shape[1], shape[2], shape[0], shape[3]),
            lambda: tensor.load().transpose(1, 2, 0, 3),
        )
    return SourceTensor(name, shape, "float32" if tensor.is_quantised else tensor.dtype, layer, load, role, exact)


def _constants(tensors: list[TfliteTensor], nodes: list[_Node]) -> dict[int, int]:
    """Return the tensors with values by number, also those that an operator widens first (half floats, integers)."""
    found = {number: number for number, tensor in enumerate(tensors) if tensor.span is not None}
    for node in nodes:
        if node.kind == "Dequantize" and len(node.inputs) == len(node.outputs) == 1 and node.inputs[0] in found:
            found[node.outputs[0]] = found[node.inputs[0]]
    return found


def _unique_names(tensors: list[TfliteTensor]) -> list[str]:
    taken: set[str] = set()
    names = []
    for number, tensor in enumerate(tensors):
        name = tensor.name if tensor.name and tensor.name not in taken else f"{tensor.name}#{number}"
        taken.add(name)
        names.append(name)
    return names


def _pads(tensors: list[TfliteTensor], node: _Node) -> dict[str, Any]:
    """Return the amounts of a padding of NHWC features as ONNX has them; none where they are not known."""
    number = node.inputs[1] if len(node.inputs) > 1 else -1
    amounts = tensors[number] if number >= 0 else None
    if amounts is None or amounts.span is None or amounts.shape != (4, 2) or amounts.is_quantised:
        return {"pads": None}
    (_, _), (above, below), (left, right), (_, _) = amounts.load().tolist()
    return {"pads": [0, 0, above, left, 0, 0, below, right]}


def _tell(
    tensors: list[TfliteTensor], stands_for: Mapping[int, int], found: Mapping[str, SourceTensor], notes: list[str]
) -> None:
    quantised = [tensor for tensor in tensors if tensor.is_quantised and tensor.span is not None]
    if quantised:
        dtypes = ", ".join(sorted({tensor.dtype for tensor in quantised}))
        word = quantity(len(quantised), "tensor", "tensors")
        notes.append(
            f"{word} of quantised integers ({dtypes}) dequantised with their scales: rounded, not the originals"
        )
    sparse = sum(tensor.is_sparse for tensor in tensors)
    if sparse:
        notes.append(f"{quantity(sparse, 'sparse tensor was', 'sparse tensors were')} skipped")
    left = len(set(stands_for.values())) - len(found)
    if left > 0:
        notes.append(f"{quantity(left, 'constant', 'constants')} that no layer uses as weights skipped")


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"The TensorFlow Lite model {str(path)!r} cannot be read: {why}.",
        "a whole .tflite file with its weights",
        "copy or download the file again, and compare its size or checksum with the original",
    )
