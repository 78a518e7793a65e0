"""Files that ask for more than any network: refused in words, soon, in little memory, whatever the format.

Each builder makes the smallest file of its kind; the limits are in `regraft.weights.limits`.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from protobuf_writer import blob, caffe_layer

from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.inspection import describe, render
from regraft.weights.limits import Budget, LimitError, check_name, check_shape, shown

END = b"."
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89}tR"


def pth(path: Path, program: bytes) -> Path:
    """A zip of torch.save with this pickle, and one storage of four floats."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + program)
        archive.writestr("x/data/0", np.zeros(4, "f4").tobytes())
        archive.writestr("x/version", "3")
    return path


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def dag(inner: bytes, times: int, wrap: Callable[[int], bytes]) -> bytes:
    """Something, `times` wrapped in a container that holds the one before twice."""
    program = inner + b"r" + struct.pack("<I", 0) + b"0"
    for turn in range(times):
        program += wrap(turn) + b"r" + struct.pack("<I", turn + 1) + b"0"
    return program + b"j" + struct.pack("<I", times)


def get(turn: int) -> bytes:
    return b"j" + struct.pack("<I", turn)


def dict_of_two(turn: int) -> bytes:
    return b"}(" + text("a") + get(turn) + text("b") + get(turn) + b"u"


def tuple_of_two(turn: int) -> bytes:
    return get(turn) + get(turn) + b"\x86"


def stub_of_two(turn: int) -> bytes:
    return b"cmy\nClass\n)\x81}(" + text("_modules") + dict_of_two(turn) + b"ub"


def weights(value: bytes) -> bytes:
    """A state dict with one tensor and one more entry."""
    return b"}(" + text("w") + TENSOR + text("x") + value + b"u."


DEEP = b")" + b"\x85" * 200_000
PICKLES = {
    "a shared graph of dicts": dag(b"}" + text("w") + TENSOR + b"s", 64, dict_of_two) + END,
    "a shared graph of stubs": dag(b"}" + text("_parameters") + b"}" + text("w") + TENSOR + b"ss", 64, stub_of_two)
    + END,
    "a shared graph as a persistent id": dag(b"N", 64, tuple_of_two) + b"Q.",
    "a shared graph as the name of a class": dag(b"N", 64, tuple_of_two) + b"N\x93.",
    "a shared graph as a size": b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00" + dag(
        b"N", 64, tuple_of_two
    ) + b"K\x01\x85\x89}tR.",
    "a tensor of 70 axes": b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00(" + b"K\x01" * 70 + b"t("
    + b"K\x01" * 70 + b"t\x89}tR.",
    "millions of empty sets": b"\x8f" * 1_500_000 + END,
    "millions of instructions": b"N0" * 2_200_000 + b"N.",
    "one text encoded over and over": text("x" * 1_000_000) + b"q\x010" + b"c_codecs\nencode\nh\x01\x85R0" * 600
    + b"N.",
    "one list copied over and over": b"(" + b"N" * 500_000 + b"lq\x010" + b"c__builtin__\nlist\nh\x01\x85R0" * 600
    + b"N.",
    "a number of 5,000 digits": b"L" + b"7" * 5000 + b"L\n.",
    "a number of 5,000 bytes": b"\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000 + b".",
}  # fmt: skip
READ = {
    "a tuple nested very deep as a key": weights(b"}" + DEEP + b"Ns"),
    "a tuple nested very deep in a set": weights(b"c__builtin__\nset\n(]" + DEEP + b"atR"),
    "a shared graph as a key": weights(b"}" + dag(b"N", 64, tuple_of_two) + b"Ns"),
    "lists nested very deep": weights(b"]" * 200_000 + b"a" * 199_999),
}


def _read_all(path: Path) -> None:
    for tensor in read_weights(path):
        tensor.load()


def refused(path: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError) as caught:
        _read_all(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 1000, "over 1 GB"
    said = str(caught.value)
    assert caught.value.expected
    assert caught.value.next_step
    assert len(said) < 2000
    return said


@pytest.mark.parametrize("kind", PICKLES)
def test_pickles_that_ask_for_too_much(tmp_path: Path, kind: str) -> None:
    refused(pth(tmp_path / "x.pth", PICKLES[kind]))


@pytest.mark.parametrize("kind", READ)
def test_depth_beside_the_weights_is_never_walked(tmp_path: Path, kind: str) -> None:
    read = read_weights(pth(tmp_path / "x.pth", READ[kind]))
    assert [tensor.shape for tensor in read] == [(4,)]


def test_weights_nested_too_deep_are_not_dropped_in_silence(tmp_path: Path) -> None:
    program = TENSOR
    for _ in range(80):
        program = b"}" + text("a") + program + b"s"
    assert "nested" in refused(pth(tmp_path / "x.pth", program + END))


def test_weights_that_hold_themselves(tmp_path: Path) -> None:
    program = b"}q\x01(" + text("w") + TENSOR + text("x") + b"h\x01u."
    assert "contain themselves" in refused(pth(tmp_path / "x.pth", program))


def test_tensors_that_share_their_bytes_over_and_over(tmp_path: Path) -> None:
    big = STORAGE.replace(b"K\x04tQ", b"J\x00\x00\x00\x01tQ")
    one = b"ctorch._utils\n_rebuild_tensor_v2\n(" + big + b"K\x00J\x00\x00\x00\x01\x85K\x01\x85\x89}tR"
    program = b"}(" + b"".join(text(f"w{place}") + one for place in range(40)) + b"u."
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + program)
        archive.writestr("x/data/0", bytes(4 << 24))
    assert "share" in refused(path)


def safetensors(path: Path, header: Any, num_bytes: int = 0) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + bytes(num_bytes))
    return path


def entry(shape: Any, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize(
    ("name", "says"),
    [("a" + ".b" * 60_000, "parts"), ("layer." + "7" * 5000, "name"), ("x" * 100_000, "characters")],
)
def test_names_that_no_network_has(tmp_path: Path, name: str, says: str) -> None:
    assert says in refused(safetensors(tmp_path / "x.safetensors", {name: entry([1], 4)}, 4))


@pytest.mark.parametrize(
    "header",
    [
        {"w": entry([0, 2**62], 0)},
        {"w": entry([2**62], 4)},
        {"w": entry([1] * 70, 4)},
        b'{"w":{"dtype":"F32","shape":[' + b"1" * 4000 + b',0],"data_offsets":[0,0]}}',
        b'{"w":{"dtype":"F32","shape":[' + b",".join([b"9" * 18] * 100_000) + b'],"data_offsets":[0,0]}}',
        b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"w":[' + b"[]," * 3_500_000 + b"[]]}",
        b'{"w":"' + b"x" * 30_000_000 + b'"}',
    ],
)
def test_headers_that_no_library_writes(tmp_path: Path, header: Any) -> None:
    refused(
        safetensors(tmp_path / "x.safetensors", header, 4 if isinstance(header, dict) and "4]" in str(header) else 0)
    )


def test_class_names_are_names(tmp_path: Path) -> None:
    header = {"__metadata__": {"class_names": json.dumps(["x" * 9000, "cat"])}, "w": entry([1], 4)}
    read = read_weights(safetensors(tmp_path / "x.safetensors", header, 4))
    assert read.class_names is None
    assert "class names" in read.notes[-1]


def test_many_shared_digits_are_still_read(tmp_path: Path) -> None:
    name = "backbone.features.1234567890123456789012345678901234567890.conv.weight"
    read = read_weights(safetensors(tmp_path / "x.safetensors", {name: entry([1], 4)}, 4))
    assert read.tensors[name].shape == (1,)
    assert "123456789" in render(describe(read))


def test_a_zip_that_unfolds_to_gigabytes(tmp_path: Path) -> None:
    """Just below every ratio: 12 members of 150 MB, each 99 times smaller than it says."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    header = (
        b"\x93NUMPY\x01\x00"
        + struct.pack("<H", 118)
        + b"%-117s\n" % (b"{'descr': '|u1', 'fortran_order': False, 'shape': (157286400,), }")
    )
    noise = np.random.default_rng(0).integers(0, 256, 1_600_000, dtype=np.uint8).tobytes()
    content = header + noise + bytes(150 * 2**20 - len(noise))
    packed = packer.compress(content) + packer.flush()
    path = tmp_path / "x.npz"
    _write_packed(path, [f"w{place}.npy" for place in range(12)], packed, zlib.crc32(content), len(content))
    assert "bomb" in refused(path)


def _write_packed(path: Path, names: list[str], packed: bytes, crc: int, size: int) -> None:
    """A zip whose deflated members are written as they are."""
    body, directory = bytearray(), bytearray()
    for name in names:
        fields = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 0, crc, len(packed), size, len(name), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHLL", 0, 0, 0, 0, len(body))
        directory += name.encode()
        body += b"PK\x03\x04" + fields + name.encode() + packed
    end = struct.pack("<HHHHLLH", 0, 0, len(names), len(names), len(directory), len(body), 0)
    path.write_bytes(bytes(body + directory) + b"PK\x05\x06" + end)


def test_class_names_of_signs_that_no_text_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.zeros(3, "f4"), classes=np.array(["cat", "dog"]))
    whole = (tmp_path / "x.npz").read_bytes()
    wrong = whole.replace("cat".encode("utf-32-le"), b"\xff\xff\xff\x7f" * 3)
    old, new = (zlib.crc32(content[content.rindex(b"\x93NUMPY") :][: 128 + 24]) for content in (whole, wrong))
    (tmp_path / "x.npz").write_bytes(wrong.replace(struct.pack("<L", old), struct.pack("<L", new)))
    assert read_weights(tmp_path / "x.npz").class_names is None


def test_packed_shapes_of_millions_of_lengths(tmp_path: Path) -> None:
    for layer in (
        caffe_layer("c", "Convolution", ["x"], ["c"], [], extra=blob(7, blob(7, blob(1, b"\x01" * 3_000_000)))),
    ):
        (tmp_path / "x.caffemodel").write_bytes(blob(1, "n") + layer)
        refused(tmp_path / "x.caffemodel")


def test_sparse_files_are_not_walked(tmp_path: Path) -> None:
    for name, head in (("x.npy", b"\x93NUMPY"), ("x.pth", b"PK\x03\x04"), ("x.h5", b"\x89HDF\r\n\x1a\n"), ("x", b"?")):
        path = tmp_path / name
        path.write_bytes(head + bytes(4096))
        os.truncate(path, 2**40)
        if os.stat(path).st_blocks * 512 > 2**30:
            pytest.skip("needs sparse files: this file system would store the terabyte of zeros")
        refused(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "no weights file" in refused(tmp_path / "absent.pth")
    (tmp_path / "empty.pth").touch()
    assert "empty" in refused(tmp_path / "empty.pth")
    (tmp_path / "w.safetensors.index.json").symlink_to("/dev/zero")
    refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "not a regular file" in refused(tmp_path / "pipe.pth")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "w.pth").touch()
    assert "w.pth" in refused(tmp_path / "folder")


def test_a_run_and_a_model_folder_are_their_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "recipe.yaml").write_text("model: {name: vgg16}")
    assert "no model yet" in refused(run)
    safetensors(run / "model" / "model.safetensors", {"w": entry([1], 4)}, 4)
    (run / "model" / "config.json").write_text("{}")
    for folder in (run, run / "model"):
        assert list(read_weights(folder).tensors) == ["w"]
    (run / "model" / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (run / "model" / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    assert "link" in refused(run)


def test_a_pickle_of_numpy_goes_through_the_same_machine(tmp_path: Path) -> None:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head
    for kind in ("a shared graph as the name of a class", "a number of 5,000 digits", "a shared graph of dicts"):
        program = PICKLES[kind]
        (tmp_path / "x.npy").write_bytes(start + b"\x80\x02" + program)
        refused(tmp_path / "x.npy")
    with (tmp_path / "x.npy").open("wb") as stream:
        np.save(stream, np.array({"a": np.ones(3, "f4")}, dtype=object), allow_pickle=True)
    assert read_weights(tmp_path / "x.npy").tensors["a"].load().tolist() == [1, 1, 1]


def test_the_budget_grows_with_the_file() -> None:
    small, large = Budget(), Budget()
    large.opened("file", 10**9)
    large.values(5 * 10**9)
    large.hold(10**9)
    for spend, said in (
        (lambda: small.values(5 * 10**9), "tensors declare more than 512 MB"),
        (lambda: small.hold(10**9), "more than 256 MB of memory"),
        (lambda: small.step(10**7), "more elements"),
    ):
        with pytest.raises(LimitError, match=said):
            spend()


def test_shapes_and_names() -> None:
    assert check_shape([3, 0, 5]) == (3, 0, 5)
    assert check_name("backbone.layer1.0.conv1.weight") == 5
    for shape, said in (
        ([1] * 33, "more than 32 axes"),
        ([-1], "length -1"),
        ([2**57], f"length {2**57}"),
        ([True], "length True"),
        (["3"], "length '3'"),
        (7, "shape is 7, not a list of lengths"),
        ([2**30, 2**30], "does not fit in memory"),
    ):
        with pytest.raises(LimitError, match=said):
            check_shape(shape)
    assert shown(10**5000) == "a number of 16610 bits"
    assert shown([[[]]]) == "a list"
