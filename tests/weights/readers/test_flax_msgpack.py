"""Flax's `.msgpack`, written byte for byte as Flax 0.12.8 writes it (`other_files`)."""

from __future__ import annotations

import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from other_files import array, extension, packed
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import read_weights
from regraft.weights.readers.flax import flax_msgpack


class Net(nn.Module):
    """Layers that lie otherwise in Flax than in torch; some kernels fit both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 3, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.depthwise = nn.Conv2d(3, 3, 3, groups=3)
        self.up = nn.ConvTranspose2d(3, 4, 2)
        self.norm = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.norm(self.up(self.depthwise(self.bn(self.stem(x)).relu())).mean((2, 3))))
        return out


def net(seed: int) -> Net:
    torch.manual_seed(seed)
    network = Net().eval()
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.uniform_(0.1, 1)
    return network


NAMES = {"up": "ConvTranspose_0"}
LEAVES = {"running_mean": "mean", "running_var": "var"}


def tree(network: Net) -> dict[str, Any]:
    """The network's tensors as Flax keeps them."""
    params: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    for name, tensor in network.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        values = np.array(tensor.numpy())
        if leaf in LEAVES:
            statistics.setdefault(layer, {})[LEAVES[leaf]] = values
        elif leaf in ("weight", "bias"):
            if leaf == "weight" and layer == "up":
                values = values.transpose(2, 3, 0, 1)[::-1, ::-1]
            elif leaf == "weight" and values.ndim > 1:
                values = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
            word = leaf if leaf == "bias" else "kernel" if values.ndim > 1 else "scale"
            params.setdefault(NAMES.get(layer, layer), {})[word] = np.ascontiguousarray(values)
    return {"params": params, "batch_stats": statistics}


def written(path: Path, content: Any) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else packed(content))
    return path


def test_a_flax_network_computes_the_same_in_torch(tmp_path: Path) -> None:
    made, filled = net(1), net(2)
    weights = read_weights(written(tmp_path / "w.msgpack", tree(made)))
    assert (weights.format, weights.producer, weights.ordered) == ("flax_msgpack", "flax", False)
    report = match_weights(weights, filled, map={"up": "ConvTranspose_0"})
    graft(filled, report.require("all"))
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(filled(x), made(x))


def test_a_transposed_convolution_that_the_file_does_not_tell_is_no_silent_match(tmp_path: Path) -> None:
    content = {"params": {"up": {"kernel": np.ones((2, 2, 4, 4), "f4"), "bias": np.ones(4, "f4")}}}
    weights = read_weights(written(tmp_path / "w.msgpack", content))
    report = match_weights(weights, nn.Sequential(OrderedDict(up=nn.ConvTranspose2d(4, 4, 2))))
    with pytest.raises(WeightsError, match="belongs to a transposed convolution"):
        report.require("any")


def test_says_that_the_padding_of_strided_convolutions_is_not_told(tmp_path: Path) -> None:
    content = {"params": {"stem": {"kernel": np.ones((3, 3, 3, 4), "f4"), "bias": np.ones(4, "f4")}}}
    weights = read_weights(written(tmp_path / "w.msgpack", content))
    for stride, count in ((1, 0), (2, 1)):
        report = match_weights(weights, nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 3, stride, 1))))
        assert sum("Flax's default, 'SAME'" in finding.text for finding in report.findings) == count


def test_reads_chunks_bfloat16_and_checkpoints(tmp_path: Path) -> None:
    values = np.arange(12, dtype="f4").reshape(3, 4)
    chunks = {"0": values.ravel()[:5], "1": values.ravel()[5:]}
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 3, "1": 4}, "chunks": chunks}
    halves = torch.arange(6.0).bfloat16().view(torch.uint16).numpy()
    params = {"params": {"fc": {"kernel": chunked, "bias": b"?"}}}
    content = packed(params).replace(packed(b"?"), extension(1, array(halves, "bfloat16")))
    weights = read_weights(written(tmp_path / "w.msgpack", content))
    np.testing.assert_array_equal(weights.tensors["fc/kernel"].load(), values)
    assert weights.tensors["fc/kernel"].axes == "IO"
    assert weights.tensors["fc/bias"].dtype == "bfloat16"
    np.testing.assert_array_equal(weights.tensors["fc/bias"].load(), np.arange(6))
    state = {"step": 3, "params": {"a": {"kernel": values}}, "opt_state": {"0": {"mu": {"a": {"kernel": values}}}}}
    weights = read_weights(written(tmp_path / "w.msgpack", {**state, "ema": {"b": {"kernel": values}}}))
    assert list(weights.tensors) == ["a/kernel"]
    assert "opt_state, ema" in weights.notes[0]
    assert list(read_weights(tmp_path / "w.msgpack", key="ema").tensors) == ["b/kernel"]
    old = {"optimizer": {"target": {"params": {"a": {"kernel": values}}}, "state": {"step": 1}}}
    assert list(read_weights(written(tmp_path / "w.msgpack", old)).tensors) == ["a/kernel"]
    plain = {"a": {"kernel": values}, "logit_scale": np.zeros((), "f4"), "codes": np.zeros(3, "bool")}
    assert list(read_weights(written(tmp_path / "w.msgpack", plain)).tensors) == ["a/kernel", "logit_scale"]


ONE = np.zeros(3, "f4")
DEEP = b"\x81\xa1a" * 100 + packed(ONE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (packed({"a": ONE}) + b"\xc0", "1 bytes follow"),
        (packed({"a": ONE})[:-1], "truncated"),
        (b"\x82\xa1a\x00\xa1a\x00", "duplicate key 'a'"),
        (b"\x82\xa1a\x00\x01\x00", "key that is not a string"),
        (b"\xdf\xff\xff\xff\xff\xa1a\x00", "declares 4294967295 items"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "declares 4294967295 items"),
        (b"\x81\xa1a\xdb\xff\xff\xff\xff", "a text of 4294967295 bytes"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "truncated"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "truncated"),
        (b"\x81\xa1a\x81\xa1\xff\x00", "not UTF-8"),
        (DEEP, "nested too deeply"),
        (packed({"a": 1, "b": {}}), "holds no array"),
        (b"\x81\xa1a" + extension(1, packed((1, 2))), "without shape, dtype and bytes"),
        (b"\x81\xa1a" + extension(1, array(ONE, shape=(2**31,))), "has 12 bytes"),
        (b"\x81\xa1a" + extension(1, array(ONE, shape=(1,) * 15))[:-1], "truncated"),
        (b"\x81\xa1a" + extension(1, packed(((3, "x"), "float32", ONE.tobytes()))), "an axis of length 'x'"),
        (
            packed({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 2**15}, "chunks": {"0": ONE}}}),
            "other numbers",
        ),
        (packed({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"1": ONE}}}), "do not fit"),
        (packed({"a": {"__msgpack_chunked_array__": True, "shape": 3, "chunks": {}}}), "without a shape"),
        (
            packed({"params": {"a": {"mean": ONE}}, "batch_stats": {"a": {"mean": ONE}}}),
            "two arrays are named 'a/mean'",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and "\n" not in value else "",
)
def test_refuses_what_lies(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(written(tmp_path / "w.msgpack", content), format="flax_msgpack")
    hostile.assert_in_words(caught.value)


def test_many_references_to_the_same_bytes_are_no_bomb(tmp_path: Path) -> None:
    """MessagePack has no references: what a file declares lies in it."""
    content = b"\xde" + struct.pack(">H", 60_000) + b"".join(b"\xa5%05d\xc0" % number for number in range(60_000))
    with pytest.raises(WeightsError, match="holds no array"):
        read_weights(written(tmp_path / "w.msgpack", content))


def test_survives_cuts_and_flips(tmp_path: Path) -> None:
    num_cut, num_flipped = hostile.fuzz(flax_msgpack, written(tmp_path / "w.msgpack", tree(net(1))))
    assert num_cut == 0
    assert num_flipped > 10
