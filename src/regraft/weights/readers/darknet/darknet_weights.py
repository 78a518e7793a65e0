"""Darknet's `.weights`: numbers in a row, which the `.cfg` beside it cuts into layers.

Tensors are called by the number of their layer (`0.conv.weight`, `0.bn.running_mean`). A file that ends behind a whole
layer is read up to there, as Darknet does with the trunks that it trains from (`darknet53.conv.74`).
Source: `load_weights_upto` of Darknet's src/parser.c.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import is_own_file
from regraft.weights.readers.byte_range import ByteRange, open_source
from regraft.weights.readers.darknet.darknet_cfg import DarknetLayer, parse_cfg
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "darknet"
_HEADER = struct.Struct("<3i")
_TRUNK = re.compile(r"(?P<stem>.+)\.conv\.\d{1,4}")
_MAX_CFG = 1 << 20


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it begins with a version of Darknet, and is called like its files or lies beside a `.cfg`."""
    if not path.is_file() or len(head) < 16 or path.stat().st_size % 4:
        return False
    major, minor, revision = _HEADER.unpack_from(head)
    if not (0 <= major <= 2 and 0 <= minor <= 9 and 0 <= revision <= 99) or (major, minor) == (0, 0):
        return False
    return path.suffix == ".weights" or _TRUNK.fullmatch(path.name) is not None or path.with_suffix(".cfg").is_file()


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the tensors that the description beside a file of weights cuts it into.

    Raises:
        WeightsError: No description, one that does not fit, or a damaged file.
    """
    refuse_key(path, key)
    source = open_source(path)
    cfg = _cfg_of(path)
    description = open_source(cfg)
    if description.size > _MAX_CFG:
        raise _damaged(path, f"its description {cfg.name!r} has {description.size:,} bytes")
    try:
        layers = parse_cfg(bytes(description.read(0, description.size).data).decode("utf-8", "replace"))
    except ValueError as error:
        raise _damaged(path, f"its description {cfg.name!r} cannot be followed: {error}") from error
    if source.size < _HEADER.size:
        raise _damaged(path, "it is truncated")
    major, minor, _ = _HEADER.unpack(bytes(source.read(0, _HEADER.size).data))
    at = _HEADER.size + (8 if major * 10 + minor >= 2 else 4)
    tensors: dict[str, SourceTensor] = {}
    read_layers: list[DarknetLayer] = []
    for layer in layers:
        size = sum(4 * math.prod(shape) for _, _, shape in layer.tensors)
        if size and at == source.size:
            break
        if at + size > source.size:
            raise _damaged(path, f"it ends inside layer {layer.number} ({layer.kind}) of {cfg.name!r}")
        for suffix, role, shape in layer.tensors:
            name, num_bytes = f"{layer.number}.{suffix}", 4 * math.prod(shape)
            span = ByteRange(source, at, num_bytes)
            tensors[name] = SourceTensor(
                name, shape, "float32", name.rpartition(".")[0], _Floats(span, shape), role, _AXES.get(role)
            )
            at += num_bytes
        read_layers.append(layer)
    if at != source.size:
        raise _damaged(path, f"{source.size - at} bytes follow the last layer of {cfg.name!r}: it is another network's")
    if not tensors:
        raise _damaged(path, "it holds no weights")
    notes = [f"cut into layers by {cfg.name!r}"]
    if len(read_layers) < len(layers):
        notes.append(f"the file ends behind layer {len(read_layers) - 1} of {len(layers)}: the others are not in it")
    graph = {"source": "darknet", "wired": True, "nodes": _nodes(read_layers)}
    return WeightFile(path, FORMAT, "darknet", tensors, graph=graph, notes=tuple(notes))


_AXES = {"transpose_kernel": "IOHW"}


class _Floats:
    """Loads one tensor."""

    def __init__(self, span: ByteRange, shape: tuple[int, ...]) -> None:
        self.span, self.shape = span, shape

    def __call__(self) -> Any:
        return self.span.array(np.dtype("<f4"), self.shape)


def _cfg_of(path: Path) -> Path:
    """Return the description beside a file of weights: of its name, or the only one in the folder."""
    trunk = _TRUNK.fullmatch(path.name)
    names = [path.with_suffix(".cfg").name, *([f"{trunk['stem']}.cfg"] if trunk else [])]
    found = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not found:
        found = [one for one in islice(path.parent.iterdir(), 10_000) if one.suffix == ".cfg"]
        found = found if len(found) == 1 else []
    if not found or not is_own_file(found[0]):
        raise WeightsError(
            f"The Darknet file {str(path)!r} holds numbers only; the network's description is not next to it.",
            f"the network's .cfg as {str(path.with_name(names[0]))!r}",
            "download the .cfg of the same network, and put it there",
        )
    return found[0]


def _nodes(layers: Sequence[DarknetLayer]) -> list[dict[str, Any]]:
    """Return the layers as the nodes of a graph; a normalisation is a node of its own behind its convolution."""
    nodes = []
    for layer in layers:
        weights = {role: f"{layer.number}.{suffix}" for suffix, role, _ in layer.tensors}
        own = {role: name for role, name in weights.items() if ".bn." not in name}
        norm = {role: name for role, name in weights.items() if ".bn." in name}
        inputs = [f"layer {number}" if number >= 0 else "image" for number in layer.inputs]
        last = f"layer {layer.number}"
        first = f"{last} before its normalisation" if norm else last
        nodes.append({"name": f"{layer.number}", "type": layer.kind, "inputs": inputs, "outputs": [first],
                      "attributes": dict(layer.attributes), "weights": own})  # fmt: skip
        if norm:
            nodes.append({"name": f"{layer.number}.bn", "type": "BatchNormalization", "inputs": [first],
                          "outputs": [last], "attributes": {}, "weights": norm})  # fmt: skip
    return nodes


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"The Darknet file {str(path)!r} cannot be read: {why}.",
        "a whole .weights file, and the .cfg that it was trained with",
        "download both files again, and see that they belong to the same network",
    )
