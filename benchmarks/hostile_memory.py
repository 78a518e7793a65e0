"""Measures how much memory it takes to open large hostile weights files, each kind in a process of its own.

    uv run python benchmarks/hostile_memory.py

Every file is made to ask for as much memory as its format allows, and is padded to 200 MB. It has to be read or
refused within four times its size and 256 MB, the pages of the file that are mapped counted in. Prints one line for
each kind and ends with 1 when one takes more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from hostile_containers import Beside, containers

SIZE = 200 * 10**6
ALLOWED = 4 * SIZE + 256 * 2**20
CHILD = """
import resource, sys
from pathlib import Path
from regraft.errors import WeightsError
from regraft.weights.file import read_weights
try:
    said = f"read, {len(read_weights(Path(sys.argv[1])))} tensors"
except WeightsError as error:
    said = "refused: " + error.what.replace(repr(sys.argv[1]), "it")[:120]
own = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(max(own, child), said)
"""

# --- pickles ------------------------------------------------------------------------------------------------------

STEPS = 7_900_000
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}tR"
)
LONG_SHAPE = b"(" + b"K\x01" * 32 + b"t"


def keyed(values: Iterator[bytes]) -> bytes:
    return b"}(" + b"".join(b"J" + struct.pack("<i", place) + value for place, value in enumerate(values)) + b"u"


def pickles() -> dict[str, Callable[[], bytes]]:
    third, half = STEPS // 3, STEPS // 2
    return {
        "empty lists": lambda: b"]" * STEPS,
        "empty dicts": lambda: b"}" * STEPS,
        "short texts": lambda: b"\x8c\x04\xf0\x9f\x98\x80" * STEPS,
        "numbers of 20 bytes": lambda: (b"\x8a\x14" + b"\x7f" * 20) * STEPS,
        "different names": lambda: b"".join(b"c%d\nb\n" % place for place in range(STEPS)),
        "lists as keys": lambda: b"}(" + b"]N" * half + b"u",
        "all remembered": lambda: b"]\x94" * half,
        "dates": lambda: b"cdatetime\ndate\nq\x000" + b"h\x00)R" * third,
        "sets by call": lambda: b"c__builtin__\nset\nq\x000" + b"h\x00)R" * third,
        "objects": lambda: b"ca\nb\nq\x000" + b"h\x00)\x81" * third,
        "frozen sets": lambda: b"(K\x01\x91" * third,
        "pairs": lambda: b"NN\x86" * third,
        "dicts in a dict": lambda: b"}(" + b"X\x01\x00\x00\x00w" + TENSOR + b"X\x01\x00\x00\x00x"
        + keyed(iter([b"}"] * 1_900_000)) + b"u",
        "tensors": lambda: b"ctorch._utils\n_rebuild_tensor_v2\nq\x000((X\x07\x00\x00\x00storagectorch\n"
        b"FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00" + LONG_SHAPE + LONG_SHAPE + b"\x89}tq\x010"
        + keyed(iter([b"h\x00h\x01R"] * 1_900_000)),
    }  # fmt: skip


def torch_zip(program: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + program + b".")
        archive.writestr("x/data/0", np.zeros(4, "f4").tobytes())
        archive.writestr("x/data/1", bytes(max(0, SIZE - len(program))))
    return stream.getvalue()


def torch_legacy(program: bytes) -> bytes:
    start = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    return start + b"\x80\x02" + program + b"."


def npy(program: bytes) -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"\x80\x02" + program + b"."


NUMPY_PICKLES = {
    "arrays": lambda: (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x000cnumpy\nndarray\n\x85q\x010" + b"h\x00h\x01R" * (STEPS // 3)
    ),
    "dtypes": lambda: b"cnumpy\ndtype\nq\x000X\x03\x00\x00\x00<S9\x85q\x010" + b"h\x00h\x01R" * (STEPS // 3),
}

# --- other formats ------------------------------------------------------------------------------------------------


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def entry(place: int) -> bytes:
    return b'"%x":{"dtype":"U8","shape":[],"data_offsets":[%d,%d]}' % (place, place, place + 1)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx(graph: bytes) -> bytes:
    return b"\x08\x07" + field(7, graph) + field(6, bytes(max(0, SIZE - len(graph))))


def caffe(layers: bytes) -> bytes:
    return field(1, b"n") + layers + field(6, bytes(max(0, SIZE - len(layers))))


def table(blocks: list[tuple[bytes, int]]) -> bytes:
    """A table of TensorFlow with these blocks (content, kind of compression)."""
    out, index = bytearray(), bytearray()
    for place, (block, kind) in enumerate(blocks):
        handle = varint(len(out)) + varint(len(block))
        key = b"%08d" % place
        index += b"\0" + varint(len(key)) + varint(len(handle)) + key + handle
        out += trailed(block, kind)
    index += struct.pack("<II", 0, 1)
    out += bytes(max(0, SIZE - len(out)))
    index_place = len(out)
    out += trailed(bytes(index), 0)
    footer = varint(0) + varint(0) + varint(index_place) + varint(len(index))
    return bytes(out) + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def trailed(block: bytes, kind: int) -> bytes:
    from regraft.machine.crc32c import crc32c, masked

    whole = block + bytes([kind])
    return whole + struct.pack("<I", masked(crc32c(whole)) if len(block) <= 2**20 else 0)


def table_entries(keys: Iterator[bytes]) -> bytes:
    return b"".join(b"\0" + varint(len(key)) + b"\0" + key for key in keys) + struct.pack("<II", 0, 1)


def snappy_bomb() -> bytes:
    """Zeros: one literal, then copies of 64 bytes each."""
    copies = 7_000_000
    return varint(64 * copies + 64) + b"\xf0\x3f" + bytes(64) + b"\xfe\x40\x00" * copies


def hdf5(objects: Callable[[int], bytes]) -> bytes:
    """A classic file whose root header, and all behind it, come from `objects(where it starts)`."""
    start = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    start += struct.pack("<4Q", 0, 2**64 - 1, SIZE, 2**64 - 1) + struct.pack("<QQII16x", 0, 96, 0, 0)
    return start + objects(96)


def header(messages: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(struct.pack("<HHB3x", kind, len(content), 0) + content for kind, content in messages)
    return struct.pack("<BBHII4x", 1, 0, len(messages), 1, len(body)) + body


def many_members(at: int) -> bytes:
    count, each = 4_000_000, 60_000
    names = b"".join(b"%06x\0\0" % place for place in range(count))
    heap = at + 40
    names_at = heap + 32
    tree = names_at + len(names)
    nodes_at = tree + 24 + 16 * (count // each + 2)
    nodes, children = bytearray(), bytearray()
    for first in range(0, count, each):
        children += struct.pack("<QQ", 0, nodes_at + len(nodes))
        places = range(first, min(first + each, count))
        nodes += b"SNOD" + struct.pack("<BBH", 1, 0, len(places))
        nodes += b"".join(struct.pack("<QQI20x", 8 * place, 2**40 + place, 0) for place in places)
    root = header([(0x11, struct.pack("<QQ", tree, heap))])
    found = root + b"HEAP" + bytes(4) + struct.pack("<QQQ", len(names), 2**64 - 1, names_at) + names
    found += b"TREE" + struct.pack("<BBHQQ", 0, 0, len(children) // 16, 2**64 - 1, 2**64 - 1) + bytes(children)
    return found.ljust(nodes_at - at, b"\0") + bytes(nodes)


def many_messages(at: int) -> bytes:
    """A root of 120 members, each with a header of 65,000 messages."""
    count, each = 120, 65_000
    names = b"".join(b"%06x\0\0" % place for place in range(count))
    heap = at + 40
    names_at = heap + 32
    tree = names_at + len(names)
    node = tree + 24 + 16 + 8
    first = node + 8 + 40 * count
    one = header([(0x55, b"")] * each)
    root = header([(0x11, struct.pack("<QQ", tree, heap))])
    found = root + b"HEAP" + bytes(4) + struct.pack("<QQQ", len(names), 2**64 - 1, names_at) + names
    found += b"TREE" + struct.pack("<BBHQQQQQ", 0, 0, 1, 2**64 - 1, 2**64 - 1, 0, node, 0)
    found += b"SNOD" + struct.pack("<BBH", 1, 0, count)
    found += b"".join(struct.pack("<QQI20x", 8 * place, first + len(one) * place, 0) for place in range(count))
    return found + one * count


def many_pieces(at: int) -> bytes:
    """A root of one dataset of 30 axes, whose tree names one node of pieces over and over."""
    rank, each, times = 31, 5_000, 400
    heap = at + 40
    names_at = heap + 32
    tree = names_at + 16
    node = tree + 48
    dataset = node + 48
    layout = struct.pack("<BBBQ", 3, 2, rank, 0)
    space = struct.pack("<BBB5x", 1, rank - 1, 0) + struct.pack("<Q", 1) * (rank - 1)
    kind = struct.pack("<BBBxIHHBBBBI", 0x11, 0x20, 31, 4, 0, 32, 23, 8, 0, 23, 127)

    def described(pieces: int) -> bytes:
        content = layout[:3] + struct.pack("<Q", pieces) + struct.pack("<I", 1) * rank
        return header([(1, space), (3, kind), (8, content)])

    top = dataset + len(described(0))
    key = 8 + 8 * rank
    leaf = top + 24 + times * (key + 8)
    found = header([(0x11, struct.pack("<QQ", tree, heap))])
    found += b"HEAP" + bytes(4) + struct.pack("<QQQ", 16, 2**64 - 1, names_at) + b"w".ljust(16, b"\0")
    found += b"TREE" + struct.pack("<BBHQQQQQ", 0, 0, 1, 2**64 - 1, 2**64 - 1, 0, node, 0)[:44]
    found = found.ljust(node - at, b"\0") + b"SNOD" + struct.pack("<BBH", 1, 0, 1)
    found += struct.pack("<QQI20x", 0, dataset, 0) + described(top)
    found += b"TREE" + struct.pack("<BBHQQ", 1, 1, times, 0, 0) + (bytes(key) + struct.pack("<Q", leaf)) * times
    found += b"TREE" + struct.pack("<BBHQQ", 1, 0, each, 0, 0)
    return found + (struct.pack("<II", 4, 0) + struct.pack("<Q", 2**40) * rank + struct.pack("<Q", 0)) * each


def keras_h5(config: bytes) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w", track_order=False) as file:
        file.attrs["layer_names"] = [b"a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = [b"k"]
        group.create_dataset("k", data=np.zeros(4, "f4"))
        text = file.create_dataset("text", data=np.zeros(4, "f4"))
        text.attrs["x"] = "y"
        file.attrs.create("model_config", config[:60_000].decode())
    return stream.getvalue()


def newer_hdf5(chunk: int, size: int) -> bytes:
    """A file of `libver="latest"` with one dataset that unfolds to `size` bytes."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, size // 90, dtype=np.uint8)
    values = np.concatenate([noise, np.zeros(size - noise.size, np.uint8)])
    with h5py.File(stream, "w", libver="latest") as file:
        group = file.create_group("layers/a/vars")
        group.create_dataset("0", data=values, chunks=(chunk,), compression="gzip", compression_opts=1)
        group.create_dataset("1", data=np.zeros(max(0, SIZE - len(stream.getvalue()) - size // 80), np.uint8))
    return stream.getvalue()


def keras_archive(size: int) -> bytes:
    """A .keras whose weights unfold to `size` bytes of zeros behind a little noise."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    noise = np.random.default_rng(0).integers(0, 256, size // 90, dtype=np.uint8).tobytes()
    content = noise + bytes(size - len(noise))
    packed = packer.compress(content) + packer.flush()
    return deflated("model.weights.h5", packed, zlib.crc32(content), size)


def packed_names() -> bytes:
    """An .npz of class names that unfolds to 900 MB."""
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    count = 225_000_000
    head += b"%-117s\n" % (b"{'descr': '<U1', 'fortran_order': False, 'shape': (%d,), }" % count)
    noise = np.random.default_rng(0).integers(97, 120, 10_000_000, dtype=np.uint8).tobytes()
    content = head + noise + bytes(4 * count - len(noise))
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    return deflated("classes.npy", packed, zlib.crc32(content), len(content))


def deflated(name: str, packed: bytes, crc: int, size: int) -> bytes:
    """A zip of one deflated member, and one that fills the rest."""
    body, directory = bytearray(), bytearray()
    padding = bytes(max(1, SIZE - len(packed)))
    members = [(name, packed, crc, size, 8), ("rest", padding, zlib.crc32(padding), len(padding), 0)]
    for member, content, checksum, length, method in members:
        fields = struct.pack("<HHHHHLLLHH", 20, 0, method, 0, 0, checksum, len(content), length, len(member), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHLL", 0, 0, 0, 0, len(body))
        directory += member.encode()
        body += b"PK\x03\x04" + fields + member.encode() + content
    end = struct.pack("<HHHHLLH", 0, 0, 2, 2, len(directory), len(body), 0)
    return bytes(body + directory) + b"PK\x05\x06" + end


def config_archive(config: bytes) -> bytes:
    stream = io.BytesIO()
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("layers/a/vars").create_dataset("0", data=np.zeros(4, "f4"))
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", weights.getvalue())
        archive.writestr("rest", bytes(max(0, SIZE - len(config))))
    return stream.getvalue()


def files() -> dict[str, Callable[[], bytes | Beside]]:
    lists = b'{"a":[' + b"[]," * 1_490_000 + b"[]]}"
    dicts = b"{" + b",".join(b'"%x":{}' % place for place in range(1_490_000)) + b"}"
    numbers = b"{" + b",".join(b'"%x":999' % place for place in range(2_990_000)) + b"}"
    initialiser = field(5, field(1, varint(2**27)) + b"\x10\x06" + field(8, b"w")
                        + field(5, bytes([1]) * 2**26) + field(5, bytes([1]) * 2**26))  # fmt: skip
    floats = field(100, field(100, field(5, np.ones(60_000, "<f4").tobytes())))
    found: dict[str, Callable[[], bytes | Beside]] = {}
    for kind, program in pickles().items():
        found[f"x.pth {kind}"] = lambda program=program: torch_zip(program())  # type: ignore[misc]
    for kind in ("empty lists", "all remembered", "lists as keys"):
        found[f"x.bin {kind}"] = lambda kind=kind: torch_legacy(pickles()[kind]())  # type: ignore[misc]
        found[f"x.npy {kind}"] = lambda kind=kind: npy(pickles()[kind]())  # type: ignore[misc]
    for kind, program in NUMPY_PICKLES.items():
        found[f"x.npy {kind}"] = lambda program=program: npy(program())  # type: ignore[misc]
    found |= containers(SIZE, pickles() | NUMPY_PICKLES, torch_zip, lists)
    return found | {
        "x.safetensors entries": lambda: safetensors(b"{" + b",".join(map(entry, range(420_000))) + b"}"),
        "x.safetensors lists": lambda: safetensors(lists),
        "x.safetensors dicts": lambda: safetensors(dicts),
        "x.safetensors numbers": lambda: safetensors(numbers),
        "x.onnx varints in two pieces": lambda: onnx(initialiser),
        "x.onnx empty nodes": lambda: onnx(b"\x0a\x00" * 1_900_000),
        "x.onnx fields": lambda: onnx(
            field(1, b"".join(varint((100 + place) << 3) + b"\x00" for place in range(1_900_000)))
        ),
        "x.onnx constants": lambda: onnx(
            field(1, field(4, b"Constant") + field(5, field(1, b"value") + field(5, b""))) * 250_000
        ),
        "x.onnx one name": lambda: onnx(field(5, field(8, b"\xf0\x9f\x98\x80" + b"x" * 150_000_000))),
        "x.caffemodel blobs": lambda: caffe(field(100, field(1, b"n") + field(2, b"t") + b"\x3a\x00" * 1_800_000)),
        "x.caffemodel layers": lambda: caffe(field(100, field(1, b"n") + field(2, b"t")) * 600_000),
        "x.caffemodel floats": lambda: caffe(field(100, field(1, b"n") + field(2, b"t")) + floats * 800),
        "x.ckpt entries": lambda: table([(b"\0\0\x07" + field(1, field(1, field(1, b"n")))
                                          + table_entries(b"%07d" % place for place in range(1_000_000)), 0)]),
        "x.ckpt snappy": lambda: table([(snappy_bomb(), 1)]),
        "x.index entries": lambda: table([(table_entries(b"%07d" % place for place in range(900_000)), 0)]),
        "x.h5 members": lambda: hdf5(many_members),
        "x.h5 messages": lambda: hdf5(many_messages),
        "x.h5 pieces": lambda: hdf5(many_pieces),
        "x.h5 newer, small pieces": lambda: newer_hdf5(2**20, 900 * 10**6),
        "x.h5 newer, one piece": lambda: newer_hdf5(380 * 10**6, 380 * 10**6),
        "x.keras inflated": lambda: keras_archive(900 * 10**6),
        "x.keras config lists": lambda: config_archive(lists),
        "x.keras config numbers": lambda: config_archive(numbers),
        "x.npz class names": packed_names,
    }  # fmt: skip


def peak(path: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        return 0, f"ended with {done.returncode}: {done.stderr[-300:]}"
    number, _, said = done.stdout.strip().partition(" ")
    return int(number), said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="kinds whose name holds one of these (commas between)")
    options = parser.parse_args()
    over = 0
    for kind, build in files().items():
        if not any(part in kind for part in options.only.split(",")):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / kind.split()[0]
            made = build()
            content, beside = (made, {}) if isinstance(made, bytes) else made
            path.write_bytes(content)
            for name, other in beside.items():
                (Path(folder) / name).write_bytes(other)
            if path.stat().st_size < SIZE:
                os.truncate(path, SIZE)
            most, said = peak(path)
        bad = not 0 < most <= ALLOWED
        over += bad
        print(json.dumps({"kind": kind, "MB": round(most / 1e6), "over": bad, "said": said}), flush=True)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
