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


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "link.safetensors"])
def test_shards_stay_in_their_folder(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "secret.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match="plain file beside it"):
        read_weights(index)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": _entry(0, 8, [2]), "b": _entry(4, 12, [2])}, b"\0" * 12),  # overlap
        ({"a": _entry(0, 8, [2]), "b": _entry(12, 20, [2])}, b"\0" * 20),  # gap
        ({"a": _entry(0, 8, [2])}, b"\0" * 9),  # trailing bytes
        ({"a": _entry(0, 8, [3])}, b"\0" * 8),  # shape and size differ
        ({"a": _entry(0, 8, [2**40])}, b"\0" * 8),  # shape bomb
        ({"a": _entry(0, -8, [-2])}, b""),
        ({"a": _entry(0, 8, [2.0])}, b"\0" * 8),  # type: ignore[list-item]
        ({"a": _entry(0, 8, [2], "F31")}, b"\0" * 8),
        (b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": {"dtype":"F32","shape":[1],'
         b'"data_offsets":[4,8]}}', b"\0" * 8),
        (b'{"\xff": 1}', b""),
        (b"{" + b'"a":{' * 5000, b""),
        ({}, b""),
    ],
)  # fmt: skip
def test_refuses_what_no_library_writes(tmp_path: Path, header: Any, data: bytes) -> None:
    with pytest.raises(WeightsError):
        read_weights(_write(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("length", [2**63, 2**62, 10**6, 0])
def test_refuses_a_header_that_is_not_there(tmp_path: Path, length: int) -> None:
    with pytest.raises(WeightsError):
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
