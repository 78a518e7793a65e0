"""safetensors files: what the library writes is read, what it would never write is refused."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from regraft.errors import WeightsError
from regraft.weights.file import read_weights


def _write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def _entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    state = {
        "layer.weight": torch.randn(3, 4),
        "half": torch.randn(5).half(),
        "brain": torch.randn(7).bfloat16(),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 2),
    }
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    weights = read_weights(tmp_path / "x.safetensors")
    assert (weights.format, weights.producer, weights.ordered) == ("safetensors", "pt", False)
    assert set(weights.tensors) == set(state)
    for name, tensor in state.items():
        expected = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        np.testing.assert_array_equal(weights.tensors[name].load(), expected)
    assert weights.tensors["layer.weight"].layer == "layer"


def test_reads_shards_and_misses_a_lost_one(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m-1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "m-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    assert set(read_weights(index).tensors) == {"a", "b"}
    assert set(read_weights(tmp_path).tensors) == {"a", "b"}
    (tmp_path / "m-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"m-2\.safetensors"):
        read_weights(index)


def test_reads_shards_that_the_hub_cache_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save_file({"a": torch.ones(2)}, blobs / "aa")
    save_file({"b": torch.ones(3)}, blobs / "bb")
    weight_map = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
    (blobs / "cc").write_text(json.dumps({"weight_map": weight_map}))
    for name, blob in {"m-1.safetensors": "aa", "m-2.safetensors": "bb", "model.safetensors.index.json": "cc"}.items():
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / blob)
    shapes = {name: tensor.shape for name, tensor in read_weights(snapshot).tensors.items()}
    assert shapes == {"a": (2,), "b": (3,)}


def test_one_shard_alone_says_what_is_missing(tmp_path: Path) -> None:
    names = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    save_file({"a": torch.ones(2)}, tmp_path / names[0])
    (note,) = read_weights(tmp_path / names[0]).notes
    assert "shard 1 of 3" in note
    assert all(name in note for name in (*names[1:], "model.safetensors.index.json"))
    save_file({"b": torch.ones(2)}, tmp_path / names[1])
    save_file({"c": torch.ones(2)}, tmp_path / names[2])
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("abc", names, strict=True))})
    )
    assert "to read all of them" in read_weights(tmp_path / names[0]).notes[0]
    assert not any("shard 1" in note for note in read_weights(tmp_path).notes)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "link.safetensors"])
def test_shards_stay_in_their_folder(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "secret.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match="regular file next to it"):
        read_weights(index)


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": _entry(0, 8, [2]), "b": _entry(4, 12, [2])}, b"\0" * 12, "'b' overlaps another one, or leaves a gap"),
        ({"a": _entry(0, 8, [2]), "b": _entry(12, 20, [2])}, b"\0" * 20, "'b' overlaps another one, or leaves a gap"),
        ({"a": _entry(0, 8, [2])}, b"\0" * 9, "1 bytes after the last tensor"),
        ({"a": _entry(0, 8, [3])}, b"\0" * 8, r"shape \[3\] .* cannot lie at bytes 0 to 8"),
        ({"a": _entry(0, 8, [2**40])}, b"\0" * 8, rf"shape \[{2**40}\] .* cannot lie"),
        ({"a": _entry(0, -8, [-2])}, b"", "an axis of length -2"),
        ({"a": _entry(0, 8, [2.0])}, b"\0" * 8, r"an axis of length 2\.0"),  # type: ignore[list-item]
        ({"a": _entry(0, 8, [2], "F31")}, b"\0" * 8, "F31"),
        (b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": {"dtype":"F32","shape":[1],'
         b'"data_offsets":[4,8]}}', b"\0" * 8, "duplicate name in the header"),
        (b'{"\xff": 1}', b"", "can't decode byte 0xff"),
        (b"{" + b'"a":{' * 5000, b"", "nested too deeply"),
        ({}, b"", "it holds no tensor"),
    ],
)  # fmt: skip
def test_refuses_what_no_library_writes(tmp_path: Path, header: Any, data: bytes, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        read_weights(_write(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (2**63, "unknown weight format"),
        (2**62, f"header claims {2**62} bytes"),
        (10**6, "header claims 1000000 bytes"),
        (0, "unknown weight format"),
    ],
)
def test_refuses_a_header_that_is_not_there(tmp_path: Path, length: int, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        read_weights(_write(tmp_path / "x.safetensors", {"a": _entry(0, 4, [1])}, b"\0" * 4, length=length))


def test_survives_cuts_and_flips(tmp_path: Path) -> None:
    path, numbers = tmp_path / "x.safetensors", random.Random(3)
    save_file({"a": torch.randn(4, 5), "b": torch.randn(3)}, path)
    whole = path.read_bytes()
    for turn in range(300):
        place = numbers.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ (1 << numbers.randrange(8))]) + whole[place + 1 :]
        path.write_bytes(flipped if turn % 2 else whole[:place])
        try:
            loaded = [tensor.load() for tensor in read_weights(path)]
        except WeightsError:
            continue
        assert turn % 2, "a file that was cut was read"
        assert sum(array.nbytes for array in loaded) <= 4 * len(whole)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["cat", "dog"]', ("cat", "dog")),
        ("[]", None),
        ("cat, dog", None),
        ('{"cat": 0}', None),
        ('["cat", 3]', None),
        ("[" * 100_000, None),
    ],
)
def test_class_names_in_the_metadata(text: str, names: tuple[str, ...] | None, tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors", metadata={"class_names": text})
    assert read_weights(tmp_path / "w.safetensors").class_names == names
