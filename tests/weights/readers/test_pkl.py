"""Pickles of NumPy arrays: `.pkl` of Detectron and detectron2, arrays that torch saved, PaddlePaddle's `.pdparams`.

PaddlePaddle is not installed here: what stands for its files is written by these tests, as `paddle.save` of 3.x pickles
state dicts. No file that PaddlePaddle itself has written is opened.
"""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import WeightFile, read_weights
from regraft.weights.readers.numpy import pkl
from regraft.weights.readers.paddle import pdparams


def arrays() -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(0)
    return {
        "stem.conv1.weight": numbers.normal(size=(8, 3, 7, 7)).astype("f4"),
        "stem.conv1.norm.running_mean": numbers.normal(size=8).astype("f4"),
        "fc.weight": numbers.normal(size=(5, 8)).astype("f4"),
        "fc.bias": np.zeros(5, "f4"),
    }


def pickled(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def assert_same(weights: WeightFile, expected: dict[str, np.ndarray]) -> None:
    assert set(weights.tensors) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(weights.tensors[name].load(), array)


@pytest.mark.parametrize("protocol", range(6))
def test_reads_a_dict_of_arrays_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    weights = read_weights(pickled(tmp_path / "w.pkl", arrays(), protocol))
    assert (weights.format, weights.ordered) == ("pkl", protocol > 2)
    assert_same(weights, arrays())
    assert weights.tensors["fc.weight"].layer == "fc"


@pytest.mark.parametrize("key", ["model", "blobs"])
def test_reads_detectrons_files(tmp_path: Path, key: str) -> None:
    extras = {"__author__": "Caffe2", "matching_heuristics": True, "cfg": "MODEL: {}", "optimizer": arrays()}
    weights = read_weights(pickled(tmp_path / "w.pkl", {key: arrays(), **extras}))
    assert_same(weights, arrays())
    assert weights.notes[0].startswith(f"using the set {key!r}")


def test_reads_arrays_beside_objects_of_other_classes(tmp_path: Path) -> None:
    content = {"args": collections.UserDict(a=1), "best": np.float64(0.5), "state_dict": arrays()}
    assert_same(read_weights(pickled(tmp_path / "w.pkl", content)), arrays())
    nested = {"conv": [arrays()["fc.weight"], arrays()["fc.bias"]], "optimizer": arrays()}
    assert list(read_weights(pickled(tmp_path / "w.pkl", nested)).tensors) == ["conv/0", "conv/1"]


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_arrays_that_torch_saved(tmp_path: Path, legacy: bool) -> None:
    content = {"state_dict": {f"module.{name}": array for name, array in arrays().items()}, "epoch": np.int64(3)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    weights = read_weights(tmp_path / "w.pth")
    assert weights.format == "torch_pth"
    assert_same(weights, arrays())


def test_arrays_beside_tensors_are_no_weights(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2), "mean": np.zeros(3)}, tmp_path / "w.pth")
    assert list(read_weights(tmp_path / "w.pth").tensors) == ["a.weight"]


class _Call:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made",)


@pytest.mark.parametrize("suffix", ["pkl", "pdparams"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"w": np.ones(3), "x": _Call()}, "calls 'posix.mkdir'"),
        ({"a": [1, 2]}, "holds no array of numbers"),
        ({"w": np.array([{"a": 1}], dtype=object)}, "holds no array of numbers"),
        ({"w": np.zeros(2, [("a", "f4")])}, "holds no array of numbers"),
    ],
)
def test_refuses_what_is_no_array(
    tmp_path: Path, content: Any, words: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(pickled(tmp_path / f"w.{suffix}", content))
    hostile.assert_in_words(caught.value)
    assert not (tmp_path / "made").exists()


def test_refuses_containers_that_hold_themselves_and_what_follows(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"w": np.ones(2)}
    loop["self"] = loop
    with pytest.raises(WeightsError, match="contain themselves"):
        read_weights(pickled(tmp_path / "w.pkl", loop))
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays()) + b"more")
    with pytest.raises(WeightsError, match="4 bytes follow its pickle"):
        read_weights(tmp_path / "w.pkl")
    whole = pickle.dumps({"w": np.zeros(600, "f4")}, 2)
    (tmp_path / "w.pkl").write_bytes(whole.replace(b"M\x58\x02\x85", b"M\x58\x03\x85"))
    with pytest.raises(WeightsError, match="holds no array"):
        read_weights(tmp_path / "w.pkl")


@pytest.mark.parametrize("protocol", [2, *(pytest.param(one, marks=pytest.mark.slow) for one in (0, 4))])
def test_survives_cuts_and_flips(tmp_path: Path, protocol: int) -> None:
    path = pickled(tmp_path / "w.pkl", arrays(), protocol)
    num_cut, num_flipped = hostile.fuzz(pkl, path)
    assert num_cut == 0
    assert num_flipped > 10


# --- PaddlePaddle -------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Every kind of layer that lies otherwise in PaddlePaddle than in torch; the dense kernel is square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.up = nn.ConvTranspose2d(6, 4, 2)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.up(self.depthwise(self.bn(self.conv(x)).relu())).mean((2, 3)))
        return out


KINDS = {
    "conv": "conv2d_0",
    "bn": "batch_norm2d_0",
    "depthwise": "conv2d_1",
    "up": "conv2d_transpose_0",
    "fc": "linear_0",
}


def net(seed: int) -> Net:
    torch.manual_seed(seed)
    network = Net().eval()
    network.bn.running_mean.normal_()  # type: ignore[operator,union-attr]
    network.bn.running_var.uniform_(0.5, 2)  # type: ignore[operator,union-attr]
    return network


def paddle_state(network: nn.Module, names: bool = True) -> dict[str, Any]:
    """The state dict as PaddlePaddle's own layers would have it."""
    state: dict[str, Any] = {}
    table = {}
    for name, tensor in network.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        stored = f"{layer}.{ {'running_mean': '_mean', 'running_var': '_variance'}.get(leaf, leaf) }"
        state[stored] = tensor.numpy().T.copy() if layer == "fc" and leaf == "weight" else tensor.numpy()
        table[stored] = f"{KINDS[layer]}.{'b_0' if leaf == 'bias' else 'w_0'}"
    if names:
        state["StructuredToParameterName@@"] = table
        return state
    return {"model": {name: (table[name], array) for name, array in state.items()}, "epoch": 3}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("in_table", [True, False])
def test_a_paddle_network_computes_the_same_in_torch(tmp_path: Path, in_table: bool, protocol: int) -> None:
    made, filled = net(1), net(2)
    # Nested in a checkpoint, the file has no table: its suffix says whose it is.
    name = "w.bin" if in_table else "w.pdparams"
    weights = read_weights(pickled(tmp_path / name, paddle_state(made, in_table), protocol))
    assert (weights.format, weights.producer) == ("pdparams", "paddlepaddle")
    graft(filled, match_weights(weights, filled).require("all"))
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(filled(x), made(x))


def test_bfloat16_comes_as_uint16(tmp_path: Path) -> None:
    values = torch.randn(4, 3)
    stored = values.bfloat16().view(torch.uint16).numpy()
    weights = read_weights(pickled(tmp_path / "w.pdparams", {"embed.weight": stored}))
    assert weights.tensors["embed.weight"].dtype == "bfloat16"
    np.testing.assert_array_equal(weights.tensors["embed.weight"].load(), values.bfloat16().float().numpy())


def test_parts_of_large_arrays_are_refused(tmp_path: Path) -> None:
    content = {"w@@.0": np.ones(2, "f4"), "UnpackBigParamInfor@@": {"w": {"OriginShape": (2,), "slices": ["w@@.0"]}}}
    with pytest.raises(WeightsError, match="split into parts"):
        read_weights(pickled(tmp_path / "w.pdparams", content, 2))


@pytest.mark.slow
def test_pdparams_survive_cuts_and_flips(tmp_path: Path) -> None:
    path = pickled(tmp_path / "w.pdparams", paddle_state(net(1)))
    num_cut, num_flipped = hostile.fuzz(pdparams, path)
    assert num_cut == 0
    assert num_flipped > 10
