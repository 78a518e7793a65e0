"""Writers of small files as Flax, MXNet, Darknet and TensorFlow Lite write them, for tests of their readers.

None of the frameworks is needed. The bytes of the first two were compared with files of Flax 0.12.8 and MXNet 1.9.1;
Darknet's follow its source (`save_weights_upto`), and TensorFlow Lite's its schema (the reader was compared with files
of TensorFlow 2.21: float, half floats, integers of weights and of whole networks).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# --- MessagePack --------------------------------------------------------------------------------------------------


def packed(value: Any) -> bytes:
    """A value in MessagePack; arrays in Flax's extension, bytes as they are."""
    if isinstance(value, np.ndarray):
        return extension(1, array(value))
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        return b"\xcd" + struct.pack(">H", value) if value < 1 << 16 else b"\xce" + struct.pack(">I", value)
    if isinstance(value, str):
        text = value.encode()
        return (bytes([0xA0 | len(text)]) if len(text) < 32 else b"\xd9" + bytes([len(text)])) + text
    if isinstance(value, bytes):
        return _sized(b"\xc4\xc5\xc6", len(value)) + value
    if isinstance(value, tuple):
        return bytes([0x90 | len(value)]) + b"".join(map(packed, value))
    content = b"".join(packed(name) + packed(inner) for name, inner in value.items())
    return (bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))) + content


def array(value: np.ndarray, dtype: str = "", shape: tuple[int, ...] | None = None) -> bytes:
    """What Flax's extension of an array holds."""
    return packed((value.shape if shape is None else shape, dtype or value.dtype.name, value.tobytes()))


def extension(kind: int, content: bytes) -> bytes:
    codes = {1: b"\xd4", 2: b"\xd5", 4: b"\xd6", 8: b"\xd7", 16: b"\xd8"}
    return (codes.get(len(content)) or _sized(b"\xc7\xc8\xc9", len(content))) + bytes([kind]) + content


def _sized(codes: bytes, size: int) -> bytes:
    place = 0 if size < 1 << 8 else 1 if size < 1 << 16 else 2
    return codes[place : place + 1] + struct.pack((">B", ">H", ">I")[place], size)


# --- MXNet --------------------------------------------------------------------------------------------------------

MXNET_TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def mxnet(arrays: Mapping[str, np.ndarray], version: int = 2) -> bytes:
    """A list of named arrays; `version` 0 is that of MXNet before 0.12, 3 that of its NumPy arrays."""
    content = struct.pack("<3Q", 0x112, 0, len(arrays)) + b"".join(mxnet_array(one, version) for one in arrays.values())
    names = [name.encode() for name in arrays]
    return content + struct.pack("<Q", len(names)) + b"".join(struct.pack("<Q", len(name)) + name for name in names)


def mxnet_array(value: np.ndarray, version: int = 2) -> bytes:
    if version == 0:
        head = struct.pack(f"<I{value.ndim}I", value.ndim, *value.shape)
    else:
        kind = b"" if version == 1 else struct.pack("<i", 0)
        head = (
            struct.pack("<I", 0xF993FAC7 + version) + kind + struct.pack(f"<i{value.ndim}q", value.ndim, *value.shape)
        )
    return head + struct.pack("<3i", 1, 0, MXNET_TYPES[value.dtype.name]) + value.tobytes()


# --- Darknet ------------------------------------------------------------------------------------------------------


def darknet(arrays: Iterable[np.ndarray], version: tuple[int, int, int] = (0, 2, 5)) -> bytes:
    """Numbers in a row behind the header; `seen` has 8 bytes since version 0.2."""
    seen = struct.pack("<q" if version[0] * 10 + version[1] >= 2 else "<i", 32013312)
    return struct.pack("<3i", *version) + seen + b"".join(one.astype("<f4").tobytes() for one in arrays)


# --- TensorFlow Lite ----------------------------------------------------------------------------------------------

TFLITE_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int8": 9}
Fields = dict[int, Any]  # of a table, by number: an integer with its form, bytes, a text, a list, an array or a table


@dataclass
class Shared:
    """A list that names one table many times."""

    count: int
    item: Fields


def flatbuffer(fields: Fields, identifier: bytes = b"TFL3") -> bytes:
    out = bytearray(struct.pack("<I", 0) + identifier)
    struct.pack_into("<I", out, 0, _put_table(out, fields))
    return bytes(out)


def _put_table(out: bytearray, fields: Fields) -> int:
    """A table with eight bytes for each field; what does not fit in them follows it."""
    count = max(fields, default=-1) + 1
    out += bytes(-len(out) % 8)
    listed = len(out)
    slots = {field: 8 * (place + 1) for place, field in enumerate(fields)}
    out += struct.pack(
        f"<{count + 2}H", 4 + 2 * count, 8 * len(fields) + 8, *(slots.get(one, 0) for one in range(count))
    )
    out += bytes(-len(out) % 8)
    at = len(out)
    out += struct.pack("<i", at - listed) + bytes(8 * len(fields) + 4)
    for field, value in fields.items():
        slot = at + slots[field]
        if isinstance(value, tuple):
            struct.pack_into(f"<{value[0]}", out, slot, value[1])
        else:
            place = _put(out, value)
            struct.pack_into("<I", out, slot, place - slot)
    return at


def _put(out: bytearray, value: Any) -> int:
    if isinstance(value, dict):
        return _put_table(out, value)
    out += bytes(-len(out) % 8)
    at = len(out)
    if isinstance(value, list):
        out += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for place, item in enumerate(value):
            slot = at + 4 * (place + 1)
            struct.pack_into("<I", out, slot, _put_table(out, item) - slot)
    elif isinstance(value, Shared):
        out += struct.pack("<I", value.count) + bytes(4 * value.count)
        end = _put_table(out, value.item)
        slots = at + 4 * np.arange(1, value.count + 1)
        out[at + 4 : at + 4 + 4 * value.count] = (end - slots).astype("<u4").tobytes()
    elif isinstance(value, np.ndarray):
        out += struct.pack("<I", value.size) + value.tobytes()
    else:
        content = value.encode() if isinstance(value, str) else value
        out += struct.pack("<I", len(content)) + content + b"\0"
    return at


class TfliteModel:
    """Tensors, buffers and operators, as they are added."""

    def __init__(self) -> None:
        self.tensors: list[Fields] = []
        self.buffers: list[Fields] = [{}]
        self.operators: list[Fields] = []
        self.codes: list[int] = []

    def tensor(self, name: str, values: np.ndarray | None = None, quantised: Fields | None = None) -> int:
        """A tensor; without values one that is computed."""
        buffer = 0
        if values is not None:
            buffer = len(self.buffers)
            self.buffers.append({0: np.frombuffer(values.tobytes(), "u1")})
        shape = np.array(values.shape if values is not None else (), "i4")
        kind = TFLITE_TYPES[values.dtype.name] if values is not None else 0
        more = {} if quantised is None else {4: quantised}
        self.tensors.append({0: shape, 1: ("b", kind), 2: ("I", buffer), 3: name, **more})
        return len(self.tensors) - 1

    def operator(self, code: int, inputs: list[int], options: Fields | None = None) -> int:
        """An operator of a kind by its number in the schema; returns its output."""
        if code not in self.codes:
            self.codes.append(code)
        output = self.tensor(f"out{len(self.operators)}")
        more = {} if options is None else {4: options}
        numbers = {1: np.array(inputs, "i4"), 2: np.array([output], "i4")}
        self.operators.append({0: ("I", self.codes.index(code)), **numbers, **more})
        return output

    def fields(self) -> Fields:
        codes = [{0: ("b", min(code, 127)), 3: ("i", code)} for code in self.codes]
        graph = {0: self.tensors, 1: np.array([0], "i4"), 3: self.operators}
        return {0: ("I", 3), 1: codes, 2: [graph], 3: "test", 4: self.buffers}

    def content(self) -> bytes:
        return flatbuffer(self.fields())
