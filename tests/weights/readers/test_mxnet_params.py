"""MXNet's `.params`, written byte for byte as MXNet 1.9.1 writes them (`other_files`)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from other_files import mxnet, mxnet_array
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import read_weights
from regraft.weights.readers.mxnet import mxnet_params


class Net(nn.Module):
    """The network of `SYMBOL`."""

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, stride, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(4, eps=1e-3)
        self.fc0 = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc0(self.bn0(self.conv0(x)).relu().mean((2, 3)))
        return out


def node(op: str, name: str, inputs: list[int], **attributes: str) -> dict[str, Any]:
    return {"op": op, "name": name, "attrs": attributes, "inputs": [[one, 0, 0] for one in inputs]}


def symbol(fix_gamma: str) -> str:
    variables = ["data", "conv0_weight", "bn0_gamma", "bn0_beta", "bn0_moving_mean", "bn0_moving_var", "fc0_weight"]
    nodes = [node("null", name, []) for name in [*variables, "fc0_bias"]]
    nodes += [
        node("Convolution", "conv0", [0, 1], kernel="(3, 3)", stride="(2, 2)", pad="(1, 1)", num_filter="4"),
        node("BatchNorm", "bn0", [8, 2, 3, 4, 5], eps="0.001", fix_gamma=fix_gamma),
        node("Activation", "relu0", [9], act_type="relu"),
        node("Pooling", "pool0", [10], pool_type="avg", global_pool="True"),
        node("FullyConnected", "fc0", [11, 6, 7], num_hidden="4"),
    ]
    return json.dumps({"nodes": nodes, "heads": [[12, 0, 0]]})


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    words = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    found = {}
    for name, tensor in network.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            kind = "aux" if leaf.startswith("running") else "arg"
            found[f"{kind}:{layer}_{words[leaf] if layer == 'bn0' else leaf}"] = tensor.numpy()
    return found


def net(seed: int, **options: int) -> Net:
    torch.manual_seed(seed)
    network = Net(**options).eval()
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.uniform_(0.1, 1)
    return network


@pytest.mark.parametrize("fix_gamma", ["True", "False"])
def test_an_mxnet_network_computes_the_same_in_torch(tmp_path: Path, fix_gamma: str) -> None:
    made, filled = net(1), net(2)
    path = tmp_path / "net-0003.params"
    path.write_bytes(mxnet(arrays(made)))
    (tmp_path / "net-symbol.json").write_text(symbol(fix_gamma))
    weights = read_weights(path)
    assert (weights.format, weights.producer, weights.ordered) == ("mxnet_params", "mxnet", True)
    if fix_gamma == "True":
        assert "1 gammas are 1" in weights.notes[0]
        nn.init.ones_(made.bn0.weight)
    graft(filled, match_weights(weights, filled).require("all"))
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(filled(x), made(x))
    findings = match_weights(weights, net(2, stride=1)).findings
    assert any(finding.attribute == "stride" for finding in findings)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"nodes": [{"op": "x"}]}', '{"nodes": [[]]}', '{"nodes": [{"op": "a", "name": "b", "inputs": [[9]]}]}'],
)
def test_a_symbol_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net-0000.params"
    path.write_bytes(mxnet(arrays(net(1))))
    (tmp_path / "net-symbol.json").write_text(text)
    weights = read_weights(path)
    assert weights.graph is None
    assert "fix_gamma" in weights.notes[0]


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int8"])
def test_reads_every_version_and_type(tmp_path: Path, version: int, dtype: str) -> None:
    found = {"features.0.weight": np.arange(24).reshape(2, 3, 2, 2).astype(dtype), "s": np.ones(3, dtype)}
    (tmp_path / "w.params").write_bytes(mxnet(found, version))
    weights = read_weights(tmp_path / "w.params")
    for name, values in found.items():
        np.testing.assert_array_equal(weights.tensors[name].load(), values)
    assert (weights.tensors["features.0.weight"].layer, weights.tensors["features.0.weight"].role) == (
        "features.0",
        "kernel",
    )


ONE = np.ones(3, "f4")
WHOLE = mxnet({"a": ONE})
HEAD = struct.pack("<2Q", 0x112, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WHOLE[:-1], "declares 1 items|truncated"),
        (WHOLE + b"x", "1 bytes follow its names"),
        (HEAD + struct.pack("<Q", 2**60), "declares 1152921504606846976 items"),
        (HEAD + struct.pack("<Q", 1) + mxnet_array(ONE) + struct.pack("<Q", 0), "holds 1 arrays and 0 names"),
        (mxnet({"arg:a": ONE, "aux:a": ONE}), "two arrays are named 'a'"),
        (WHOLE.replace(struct.pack("<iq", 1, 3), struct.pack("<iq", 1, 2**50)), r"needs \d+ bytes"),
        (WHOLE.replace(struct.pack("<iq", 1, 3), struct.pack("<iq", 1, -3)), "axis of length -3"),
        (WHOLE.replace(struct.pack("<iq", 1, 3), struct.pack("<iq", 33, 3)), "array of 33 axes"),
        (WHOLE[:36] + WHOLE[36:].replace(struct.pack("<3i", 1, 0, 0), struct.pack("<3i", 1, 0, 99)), "unknown type 99"),
        (WHOLE.replace(struct.pack("<Ii", 0xF993FAC9, 0), struct.pack("<Ii", 0xF993FAC9, 1)), "sparse"),
        (WHOLE[:-1] + b"\xff", "not UTF-8"),
        (HEAD + struct.pack("<2Q", 0, 0), "no array with a name"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and "\n" not in value else "",
)
def test_refuses_what_lies(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "w.params").write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(tmp_path / "w.params")
    hostile.assert_in_words(caught.value)


def test_survives_cuts_and_flips(tmp_path: Path) -> None:
    path = tmp_path / "w.params"
    path.write_bytes(mxnet(arrays(net(1))))
    num_cut, num_flipped = hostile.fuzz(mxnet_params, path)
    assert num_cut == 0
    assert num_flipped > 10
