"""Caffe networks (`.caffemodel`) without Caffe: today's `layer` and the older `layers`, with the graph as plain data.

A BatchNorm's blobs are divided by their moving-average factor, and the Scale behind it joins its layer as gamma and
beta.
Schema: `caffe.proto` of BVLC Caffe.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.readers.byte_range import SourceFile, open_source
from regraft.weights.readers.caffe.caffe_layers import CaffeLayer, read_layer, read_v1_layer
from regraft.weights.readers.protobuf import BYTES, VARINT, Message, ProtobufError, fields, numbers
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "caffemodel"

_LAYER, _V1_LAYER = 100, 2
# The fields of NetParameter and the wire types that they may have.
_NET = {
    1: (BYTES,), _V1_LAYER: (BYTES,), 3: (BYTES,), 4: (VARINT, BYTES), 5: (VARINT,), 6: (BYTES,), 7: (VARINT,),
    8: (BYTES,), _LAYER: (BYTES,),
}  # fmt: skip
_NORM_ROLES = ("gamma", "beta", "mean", "variance")


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the first bytes read as a Caffe network: legal fields, plain names, a layer's beginning."""
    if not path.is_file() or not head:
        return False
    view = memoryview(head)
    try:
        for number, kind, start, end in fields(view, cut=True):
            if kind not in _NET.get(number, ()):
                return False
            if number in (_LAYER, _V1_LAYER):
                return _starts_a_layer(view[start:end], number)
            if number in (1, 3) and not _is_plain(view[start:end]):
                return False
    except ProtobufError:
        return False
    return False


def _starts_a_layer(layer: memoryview, number: int) -> bool:
    """Return whether a layer's first fields are a name, a type or the name of a blob."""
    texts, plain = ((1, 2, 3, 4), True) if number == _LAYER else ((2, 3, 4), False)
    try:
        for found, kind, start, end in fields(layer, cut=True):
            if kind == BYTES and found in texts:
                if not _is_plain(layer[start:end]):
                    return False
                if found == (2 if plain else 4):
                    return True
            elif plain or (found, kind) != (5, VARINT):
                return False
    except ProtobufError:
        return False
    return False


def _is_plain(text: memoryview) -> bool:
    try:
        return str(text, "utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read a Caffe network.

    Raises:
        WeightsError: Damage, a schema that only Caffe can upgrade, or no weights in it.
    """
    refuse_key(path, key)
    source = open_source(path)
    try:
        with source.mapped() as view:
            net = Message(view)
            layers = [read_layer(message) for message in net.messages(_LAYER)]
            layers += [read_v1_layer(message) for message in net.messages(_V1_LAYER)]
            return _weight_file(path, source, net, layers)
    except ProtobufError as error:
        raise WeightsError(
            f"{str(path)!r} is damaged, or not a Caffe network ({error}).",
            "a whole .caffemodel file",
            "download or copy it again",
        ) from error


@dataclass(frozen=True)
class _Blob:
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], NDArray[Any]]


def _weight_file(path: Path, source: SourceFile, net: Message, layers: list[CaffeLayer]) -> WeightFile:
    notes: list[str] = []
    names = _unique_names(layers, notes)
    merged, by_place = _merge_scales(layers, net)
    tensors: dict[str, SourceTensor] = {}
    for place, layer in enumerate(layers):
        blobs = [_blob(blob, source, f"{names[place]}/{number}") for number, blob in enumerate(layer.blobs)]
        for tensor in _tensors(layer, names[place], names[merged.get(place, place)], blobs, notes):
            tensors[tensor.name] = tensor
    if not tensors:
        raise WeightsError(
            f"{str(path)!r} holds no weights ({len(layers)} layers, none with blobs).",
            "a trained Caffe network",
            "a .prototxt describes the network; the weights are in the .caffemodel",
        )
    _note(merged, by_place, names, notes)
    return WeightFile(
        path=path,
        format=FORMAT,
        producer="caffe",
        tensors=tensors,
        ordered=True,
        graph=_graph(net, layers, names, merged, tensors),
        notes=tuple(dict.fromkeys(notes)),
    )


def _unique_names(layers: list[CaffeLayer], notes: list[str]) -> list[str]:
    """Return layer names; one that occurs twice with blobs gets the number of its layer."""
    counts = Counter(layer.name for layer in layers if layer.blobs)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        notes.append(f"{len(repeated)} layer names occur more than once and were numbered: {', '.join(repeated[:3])}.")
    return [
        f"{layer.name}#{place}" if (layer.blobs and counts[layer.name] > 1) or not layer.name else layer.name
        for place, layer in enumerate(layers)
    ]


def _blob(blob: Message, source: SourceFile, name: str) -> _Blob:
    shape = _blob_shape(blob)
    number, dtype = (8, "<f8") if 8 in blob and 5 not in blob else (5, "<f4")
    kind = np.dtype(dtype)
    count = math.prod(shape)
    stored = blob.kinds(number)
    num_bytes = sum(size for _, size in blob.places(number)) if BYTES in stored else len(stored) * kind.itemsize
    if num_bytes != count * kind.itemsize:
        raise ProtobufError(f"{name!r} has {num_bytes} bytes of values for the shape {shape}")
    values = numbers(blob, number, kind, source.read)
    return _Blob(shape, kind.name, lambda: values().reshape(shape))


def _blob_shape(blob: Message) -> tuple[int, ...]:
    shape = blob.message(7)
    dims = tuple(shape.integers(1)) if shape is not None else tuple(blob.integer(number, 1) for number in (1, 2, 3, 4))
    if len(dims) > 8 or any(dim < 0 for dim in dims) or math.prod(dim or 1 for dim in dims) > 1 << 40:
        raise ProtobufError(f"a shape of {len(dims)} axes: {dims[:8]}")
    return dims


def _tensors(layer: CaffeLayer, name: str, home: str, blobs: Sequence[_Blob], notes: list[str]) -> list[SourceTensor]:
    if layer.type == "BatchNorm" and len(blobs) >= 3:
        blobs = _divided(blobs, name, notes)
    found = []
    for number, blob in enumerate(blobs):
        role, axes, shape = _meaning(layer, number, blob.shape, len(blobs))
        if shape != blob.shape:
            notes.append("Blobs with four axes, as Caffe wrote them until 2014, were squeezed.")
        load = partial(_reshaped, blob, shape)
        found.append(SourceTensor(f"{name}/{number}", shape, blob.dtype, home, load, role, axes))
    return found


def _reshaped(blob: _Blob, shape: tuple[int, ...]) -> NDArray[Any]:
    return blob.load().reshape(shape)


def _divided(blobs: Sequence[_Blob], name: str, notes: list[str]) -> list[_Blob]:
    """Return mean and variance of a BatchNorm, which Caffe stores multiplied by a factor (its third blob)."""
    mean, variance, factor = blobs[:3]
    if math.prod(factor.shape) != 1:
        raise ProtobufError(f"the moving-average factor of {name!r} has the shape {factor.shape}")
    value = float(factor.load().reshape(-1)[0])
    if value == 0:
        notes.append(f"The moving-average factor of {name!r} is 0 (never trained): Caffe uses 0 for its statistics.")
    notes.append("BatchNorm blobs were divided by their moving-average factor.")
    return [_Blob(blob.shape, blob.dtype, partial(_quotient, blob, value)) for blob in (mean, variance)]


def _quotient(blob: _Blob, factor: float) -> NDArray[Any]:
    values = blob.load()
    return values / np.asarray(factor, dtype=values.dtype) if factor else np.zeros_like(values)


def _meaning(
    layer: CaffeLayer, number: int, shape: tuple[int, ...], num_blobs: int
) -> tuple[str | None, str | None, tuple[int, ...]]:
    """Return role, axes and squeezed shape of one blob."""
    flat = _flat(shape)
    match layer.type:
        case "InnerProduct" if number == 0:
            matrix = shape[-2:] if len(shape) >= 2 and math.prod(shape[:-2]) == 1 else shape
            return "kernel", "IO" if layer.attributes.get("transpose") else "OI", matrix
        case "Deconvolution" if number == 0 and len(shape) == 4:
            return "transpose_kernel", "IOHW", shape
        case "BatchNorm":
            return ("mean", "variance")[number] if number < 2 else None, "C", flat
        case "Scale":
            return ("gamma", "beta")[number] if number < 2 else None, "C", flat
        case "BN" if num_blobs in (2, 4):  # of the SegNet and PSPNet forks
            return _NORM_ROLES[number], "C", flat
        case "PReLU":
            return "alpha", "C", flat
        case "Bias":
            return "bias", "C", flat
    if len(shape) == 4 and number == 0:
        group = layer.attributes.get("group", 1)
        depthwise = shape[1] == 1 and (group > 1 or "epthwise" in layer.type) and shape[0] % max(group, 1) == 0
        return "depthwise_kernel" if depthwise else "kernel", "OIHW", shape
    if number == 1 and num_blobs == 2:
        return "bias", "C", flat
    return None, None, shape


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a vector that is written with more axes."""
    return (math.prod(shape),) if sum(dim != 1 for dim in shape) <= 1 and shape else shape


def _merge_scales(layers: list[CaffeLayer], net: Message) -> tuple[dict[int, int], set[int]]:
    """Return the BatchNorm of each Scale, by place, and the Scales that were paired by position alone.

    The wiring decides: the Scale reads the BatchNorm's output, nothing else does, and they have as many channels. Where
    the file's wiring leads nowhere (a blob that no layer makes), a Scale right behind a BatchNorm is its.
    """
    producer: dict[str, int | None] = dict.fromkeys(net.texts(3))
    read_from: list[list[int | None]] = []
    unwired: set[int] = set()
    consumers: Counter[int] = Counter()
    for place, layer in enumerate(layers):
        sources = [producer.get(name) for name in layer.inputs]
        if any(name not in producer for name in layer.inputs) or not layer.inputs:
            unwired.add(place)
        consumers.update(source for source in sources if source is not None)
        read_from.append(sources)
        producer |= dict.fromkeys(layer.outputs, place)
    merged: dict[int, int] = {}
    by_place: set[int] = set()
    for place, layer in enumerate(layers):
        if layer.type != "Scale" or not layer.blobs or layer.attributes.get("axis", 1) != 1:
            continue
        before = read_from[place][0] if len(read_from[place]) == 1 else None
        if place in unwired and place and place - 1 in unwired:
            before = place - 1
            by_place.add(place)
        if before is not None and _fits(layers[before], layer) and consumers[before] <= 1:
            merged[place] = before
    return merged, by_place & merged.keys()


def _fits(norm: CaffeLayer, scale: CaffeLayer) -> bool:
    if norm.type != "BatchNorm" or not norm.blobs:
        return False
    return math.prod(_blob_shape(norm.blobs[0])) == math.prod(_blob_shape(scale.blobs[0]))


def _note(merged: Mapping[int, int], by_place: set[int], names: list[str], notes: list[str]) -> None:
    if not merged:
        return
    scale, norm = next(iter(merged.items()))
    how = "by the wiring"
    if by_place:
        how = "by the wiring or, where the file's wiring leads nowhere, by their position"
    notes.append(
        f"{len(merged)} Scale layers were joined with their BatchNorm {how}: "
        f"the gamma and beta of {names[norm]!r} are the blobs of {names[scale]!r}."
    )


def _graph(
    net: Message,
    layers: list[CaffeLayer],
    names: list[str],
    merged: Mapping[int, int],
    tensors: Mapping[str, SourceTensor],
) -> dict[str, Any]:
    """Return the network as plain data, in the order in which it runs."""
    homes: dict[str, dict[str, str]] = {}
    for tensor in tensors.values():
        homes.setdefault(tensor.name.rpartition("/")[0], {})[tensor.role or tensor.name] = tensor.name
    nodes = [
        {
            "name": names[place],
            "type": layer.type,
            "inputs": list(layer.inputs),
            "outputs": list(layer.outputs),
            "attributes": layer.attributes,
            "weights": homes.get(names[place], {}),
            **({"joined": names[merged[place]]} if place in merged else {}),
        }
        for place, layer in enumerate(layers)
    ]
    made = {name for layer in layers for name in layer.outputs} | set(net.texts(3))
    wired = all(name in made for layer in layers for name in layer.inputs)
    return {"source": "caffe", "name": net.text(1), "inputs": net.texts(3), "wired": wired, "nodes": nodes}
