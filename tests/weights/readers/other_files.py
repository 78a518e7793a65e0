"""Writers of small files as Flax, MXNet and Darknet write them, for tests of their readers.

None of the frameworks is needed. The bytes of the first two were compared with files of Flax 0.12.8 and MXNet 1.9.1;
Darknet's follow its source (`save_weights_upto`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
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
