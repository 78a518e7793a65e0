"""Hostile files of `hostile_memory`, of the formats that need no framework: torch.export, pickles of arrays,
PaddlePaddle, Flax, MXNet, Darknet, TensorFlow Lite.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

__all__ = ["Beside", "containers"]

Beside = tuple[bytes, Mapping[str, bytes]]  # a file, and what lies beside it
_MANY = 1_900_000


def containers(
    size: int, programs: Mapping[str, Callable[[], bytes]], saved: Callable[[bytes], bytes], table: bytes
) -> dict[str, Callable[[], bytes | Beside]]:
    """Return builders of hostile files by kind.

    Args:
        size: Bytes of each file.
        programs: Programs of pickles by kind.
        saved: Makes a file of torch.save of such a program.
        table: JSON that is large in memory.
    """
    found: dict[str, Callable[[], bytes | Beside]] = {}
    for kind in ("empty lists", "all remembered", "lists as keys", "arrays", "dtypes"):
        for suffix in ("pkl", "pdparams"):
            found[f"x.{suffix} {kind}"] = lambda program=programs[kind]: _pickle(program(), size)  # type: ignore[misc]
    return found | {
        "x.pt2 saved": lambda: _zip({"w/data/weights/model.pt": saved(programs["empty dicts"]())}, 0),
        "x.pt2 table": lambda: _zip({"w/data/weights/model_weights_config.json": table}, size),
        "x.msgpack maps": lambda: _message(b"".join(b"\xa7%07x\x80" % place for place in range(_MANY)), _MANY, size),
        "x.msgpack lists": lambda: _message(b"\xa1a\xdd" + struct.pack(">I", 7_000_000) + b"\x90" * 7_000_000, 1, size),
        "x.msgpack arrays": lambda: _message(
            b"".join(b"\xa7%07x\xc7\x0b\x01\x93\x90\xa5uint8\xc4\x01\0" % place for place in range(_MANY)), _MANY, size
        ),
        "x.params empty arrays": lambda: _mxnet(struct.pack("<I", 0) * (size // 8), size // 8),
        "x.params arrays": lambda: _mxnet(struct.pack("<IiiqiiiB", 0xF993FAC9, 0, 1, 1, 1, 0, 3, 0) * _MANY, _MANY),
        "x.weights sections": lambda: _darknet(size),
        "x.tflite tables": lambda: _tflite(size, operators=250_000, numbers=1),
        "x.tflite numbers": lambda: _tflite(size, operators=200_000, numbers=1 << 20),
    }


def _pickle(program: bytes, size: int) -> bytes:
    """A pickle that is as long as asked for: it begins with bytes that it drops again."""
    room = size - len(program) - 9
    return b"\x80\x03B" + struct.pack("<I", room) + bytes(room) + b"0" + program + b"."


def _zip(members: Mapping[str, bytes], size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("rest", bytes(max(0, size - sum(map(len, members.values())))))
    return stream.getvalue()


def _message(entries: bytes, count: int, size: int) -> bytes:
    """A map of these entries, and one of bytes that fill the rest."""
    rest = size - len(entries) - 14
    return b"\xdf" + struct.pack(">I", count + 1) + entries + b"\xa4rest\xc6" + struct.pack(">I", rest) + bytes(rest)


def _mxnet(arrays: bytes, count: int) -> bytes:
    names = b"".join(struct.pack("<Q", 7) + b"%07x" % place for place in range(count))
    return struct.pack("<3Q", 0x112, 0, count) + arrays + struct.pack("<Q", count) + names


def _darknet(size: int) -> Beside:
    """As many layers as a description of 1 MB has, each with five tensors."""
    section = b"[conv]\nfilters=1\nsize=1\nbatch_normalize=1\n"
    cfg = b"[net]\nchannels=1\nheight=8\nwidth=8\n" + section * 9_999
    return struct.pack("<3iQ", 0, 2, 0, 0) + bytes(size - 20), {"x.cfg": cfg}


def _tflite(size: int, *, operators: int, numbers: int) -> bytes:
    """Vectors whose entries all lead to the same table: kinds, buffers, tensors and operators of one graph."""
    many, content = 250_000, bytearray(size)
    kinds = 1024
    graphs = kinds + 4 + 4 * many
    graph = graphs + 128
    tensors = graph + 64
    nodes = tensors + 4 + 4 * many
    buffers = nodes + 4 + 4 * operators
    node = size - 4 * numbers - 4096
    empty, inputs = node + 512, node + 1024

    def vector(at: int, count: int, target: int) -> None:
        places = at + 4 + 4 * np.arange(count, dtype=np.int64)
        struct.pack_into("<I", content, at, count)
        content[at + 4 : at + 4 + 4 * count] = (target - places).astype("<u4").tobytes()

    def table(at: int, fields: Mapping[int, int]) -> None:
        """Write a table whose fields lead to these places; the list of its fields lies 64 bytes before it."""
        count = max(fields, default=-1) + 1
        offsets = [4 + 4 * number if number in fields else 0 for number in range(count)]
        struct.pack_into(f"<HH{count}H", content, at - 64, 4 + 2 * count, 4 + 4 * count, *offsets)
        struct.pack_into("<i", content, at, 64)
        for number, target in fields.items():
            struct.pack_into("<I", content, at + 4 + 4 * number, target - (at + 4 + 4 * number))

    struct.pack_into("<I4s", content, 0, 128, b"TFL3")
    table(128, {0: 132, 1: kinds, 2: graphs, 4: buffers})
    struct.pack_into("<I", content, 132, 3)  # the version
    table(graph, {0: tensors, 3: nodes})
    table(node, {1: inputs})
    table(empty, {})
    vector(kinds, many, empty)
    vector(graphs, 1, graph)
    vector(tensors, many, empty)
    vector(nodes, operators, node)
    vector(buffers, many, empty)
    struct.pack_into("<I", content, inputs, numbers)
    return bytes(content)
