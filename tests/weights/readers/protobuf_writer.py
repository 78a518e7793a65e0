"""Small writers of the formats under test: protobuf, TensorFlow tables and checkpoints, ONNX and Caffe files."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

MAGIC = bytes.fromhex("57fb808b247547db")


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def blob(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def real(field: int, value: float) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<f", value)


def packed(field: int, values: Sequence[int]) -> bytes:
    return blob(field, b"".join(varint(value) for value in values))


# TensorFlow


def shape_proto(shape: Sequence[int]) -> bytes:
    return b"".join(blob(2, number(1, dim)) for dim in shape)


def table(entries: Mapping[bytes, bytes], *, per_block: int = 3, compress: bool = False) -> bytes:
    """A table whose blocks hold `per_block` entries each, prefixes shared within a block."""
    out, index = bytearray(), []
    keys = sorted(entries)
    for start in range(0, len(keys), per_block):
        chunk = keys[start : start + per_block]
        handle = _append(out, _block([(key, entries[key]) for key in chunk]), compress=compress)
        index.append((chunk[-1], handle))
    meta = _append(out, _block([]), compress=False)
    footer = meta + _append(out, _block(index), compress=False)
    return bytes(out) + footer.ljust(40, b"\0") + MAGIC


def _append(out: bytearray, block: bytes, *, compress: bool) -> bytes:
    stored = snappy_literals(block) if compress else block
    handle = varint(len(out)) + varint(len(stored))
    out += stored + bytes([compress]) + checksum(stored + bytes([compress]))
    return handle


def checksum(data: bytes) -> bytes:
    """CRC-32C, bit by bit and masked, as both a table and a V2 entry store it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _block(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    out, last = bytearray(), b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + struct.pack("<II", 0, 1)


def snappy_literals(data: bytes) -> bytes:
    """Valid Snappy: literals, and runs of one byte as an overlapping copy."""
    out, position = bytearray(varint(len(data))), 0
    while position < len(data):
        run = position
        while run < len(data) and data[run] == data[position] and run - position < 64:
            run += 1
        if run - position > 8:
            size = run - position - 1
            out += bytes([0, data[position], (size - 1) << 2 | 2]) + struct.pack("<H", 1)
            position = run
        else:
            piece = data[position : position + 40]
            out += bytes([(len(piece) - 1) << 2]) + piece
            position += len(piece)
    return bytes(out)


TF_TYPES = {"float32": 1, "float64": 2, "int32": 3, "int8": 6, "int64": 9, "bool": 10, "bfloat16": 14, "float16": 19}


def write_v2(
    prefix: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    compress: bool = False,
    extra: Mapping[bytes, bytes] | None = None,
) -> None:
    data, entries = bytearray(), dict(extra or {})
    for name, array in arrays.items():
        stored = array.tobytes()
        place = entry(str(array.dtype), array.shape, len(data), len(stored))
        entries[name.encode()] = place + varint(6 << 3 | 5) + checksum(stored)
        data += stored
    entries[b""] = number(1, 1) + blob(3, number(1, 1))
    prefix.with_name(prefix.name + ".index").write_bytes(table(entries, compress=compress))
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(bytes(data))


def entry(dtype: str, shape: Sequence[int], offset: int, size: int) -> bytes:
    return number(1, TF_TYPES[dtype]) + blob(2, shape_proto(shape)) + number(4, offset) + number(5, size)


V1_FIELDS = {"float32": 5, "float64": 6, "int32": 7, "int8": 7, "int64": 10, "bool": 11, "float16": 13}


def write_v1(path: Path, arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> None:
    meta, entries = b"", {}
    for place, (name, array) in enumerate(arrays.items()):
        kind, extents = TF_TYPES[str(array.dtype)], b"".join(blob(1, b"") for _ in array.shape)
        head = blob(1, name) + blob(2, shape_proto(array.shape)) + number(3, kind)
        meta += blob(1, head + blob(4, extents))
        tensor = number(1, kind) + blob(2, shape_proto(array.shape)) + values_proto(array)
        entries[b"\0" + place.to_bytes(2, "big")] = blob(2, blob(1, name) + blob(2, extents) + blob(3, tensor))
    entries[b""] = blob(1, meta)
    path.write_bytes(table(entries, compress=compress))


def values_proto(array: np.ndarray) -> bytes:
    field = V1_FIELDS[str(array.dtype)]
    if field in (5, 6):
        return blob(field, array.tobytes())
    flat = array.view(np.uint16) if array.dtype == np.float16 else array
    return packed(field, [int(value) for value in flat.ravel()])


# ONNX

ONNX_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


def onnx_tensor(name: str, array: np.ndarray) -> bytes:
    head = b"".join(number(1, dim) for dim in array.shape) + number(2, ONNX_TYPES[str(array.dtype)])
    return head + blob(8, name) + blob(9, array.tobytes())


def onnx_external(name: str, shape: Sequence[int], **entries: object) -> bytes:
    head = b"".join(number(1, dim) for dim in shape) + number(2, 1) + blob(8, name)
    return (
        head + b"".join(blob(13, blob(1, key) + blob(2, str(value))) for key, value in entries.items()) + number(14, 1)
    )


def onnx_node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], *, name: str = "", attributes: bytes = b""
) -> bytes:
    wires = b"".join(blob(1, wire) for wire in inputs) + b"".join(blob(2, wire) for wire in outputs)
    return wires + blob(3, name) + blob(4, op) + attributes


def onnx_ints(name: str, values: Sequence[int]) -> bytes:
    return blob(5, blob(1, name) + b"".join(number(8, value) for value in values) + number(20, 7))


def onnx_int(name: str, value: int) -> bytes:
    return blob(5, blob(1, name) + number(3, value) + number(20, 2))


def onnx_model(nodes: Sequence[bytes], tensors: Sequence[bytes], *, metadata: Mapping[str, str] | None = None) -> bytes:
    graph = b"".join(blob(1, node) for node in nodes) + blob(2, "net") + b"".join(blob(5, tensor) for tensor in tensors)
    extra = b"".join(blob(14, blob(1, key) + blob(2, value)) for key, value in (metadata or {}).items())
    return number(1, 8) + blob(2, "writer") + blob(3, "1") + blob(7, graph) + blob(8, number(2, 17)) + extra


# Caffe


def caffe_blob(array: np.ndarray, *, legacy: bool = False) -> bytes:
    array = np.asarray(array, dtype=np.float32)
    if legacy:
        dims = (1,) * (4 - array.ndim) + array.shape
        return b"".join(number(field, dim) for field, dim in enumerate(dims, 1)) + blob(5, array.tobytes())
    return blob(5, array.tobytes()) + blob(7, packed(1, array.shape))


def caffe_layer(
    name: str,
    kind: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    blobs: Sequence[np.ndarray] = (),
    extra: bytes = b"",
) -> bytes:
    wires = b"".join(blob(3, wire) for wire in inputs) + b"".join(blob(4, wire) for wire in outputs)
    return blob(100, blob(1, name) + blob(2, kind) + wires + b"".join(blob(7, caffe_blob(b)) for b in blobs) + extra)


def caffe_v1_layer(
    name: str, kind: int, inputs: Sequence[str], outputs: Sequence[str], blobs: Sequence[np.ndarray]
) -> bytes:
    wires = b"".join(blob(2, wire) for wire in inputs) + b"".join(blob(3, wire) for wire in outputs)
    stored = b"".join(blob(6, caffe_blob(array, legacy=True)) for array in blobs)
    return blob(2, wires + blob(4, name) + number(5, kind) + stored)
