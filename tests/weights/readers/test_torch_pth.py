"""PyTorch files of every nesting, read without running any of them."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import regraft as rg
from regraft.errors import WeightsError
from regraft.weights.file import WeightFile, read_weights


class Net(nn.Module):
    """A convolution, a normalisation and a dense layer: enough for every kind of tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.bn(self.conv(x)).mean((2, 3)))
        return out


@pytest.fixture
def net() -> Net:
    torch.manual_seed(1)
    return Net().eval()


def _save(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def _assert_same(weights: WeightFile, state: dict[str, torch.Tensor]) -> None:
    assert set(weights.tensors) == set(state)
    for name, tensor in state.items():
        loaded = weights.tensors[name].load()
        assert loaded.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(loaded, tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"momentum": state}},
        lambda state: {"model": {"module." + k: v for k, v in state.items()}, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"net": {"_orig_mod.module." + k: v for k, v in state.items()}},
        lambda state: OrderedDict(state),
    ],
)
def test_reads_every_nesting(net: Net, tmp_path: Path, wrap: Any, legacy: bool) -> None:
    path = _save(tmp_path / "x.pth", wrap(net.state_dict()), _use_new_zipfile_serialization=not legacy)
    weights = read_weights(path)
    assert weights.format == "torch_pth"
    _assert_same(weights, net.state_dict())


def test_reads_a_whole_module_as_data(net: Net, tmp_path: Path) -> None:
    _assert_same(read_weights(_save(tmp_path / "x.pth", net)), net.state_dict())


def test_reads_torchscript(net: Net, tmp_path: Path) -> None:
    torch.jit.trace(net, torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "x.pt"))
    weights = read_weights(tmp_path / "x.pt")
    assert weights.producer == "torch.jit"
    assert {name: weights.tensors[name].load().tolist() for name in net.state_dict()} == {
        name: tensor.tolist() for name, tensor in net.state_dict().items()
    }


def test_takes_the_raw_set_and_says_so(net: Net, tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    path = _save(tmp_path / "x.pth", {"state_dict_ema": averaged, "state_dict": net.state_dict()})
    weights = read_weights(path)
    _assert_same(weights, net.state_dict())
    assert any("state_dict_ema" in note for note in weights.notes)
    _assert_same(read_weights(path, key="state_dict_ema"), averaged)
    with pytest.raises(WeightsError, match="state_dict_ema"):
        read_weights(path, key="teacher")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool])
def test_reads_dtypes_views_and_shared_storages(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.arange(12).to(dtype)
    state = {"whole": base, "turned": base.reshape(3, 4).t(), "part": base[3:7], "empty": torch.zeros(0, 3).to(dtype)}
    for legacy in (False, True):
        path = _save(tmp_path / f"{legacy}.pth", state, _use_new_zipfile_serialization=not legacy)
        _assert_same(read_weights(path), state)


class _Payload:
    def __init__(self, call: Any, *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("call", [os.system, eval, print, getattr, __import__, pickle.loads])
def test_calls_nothing(tmp_path: Path, call: Any, legacy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    payload = _Payload(call, "touch PWNED") if call is os.system else _Payload(call, "open('PWNED', 'w')")
    path = _save(tmp_path / "x.pth", {"w": torch.zeros(3), "p": payload}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="calls"):
        read_weights(path)
    assert not (tmp_path / "PWNED").exists()


def test_refuses_compressed_members(net: Net, tmp_path: Path) -> None:
    path = _save(tmp_path / "x.pth", net.state_dict())
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(WeightsError, match="compressed"):
        read_weights(bomb)


def test_refuses_tensors_larger_than_their_storage(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.pth", {"w": torch.zeros(1).expand(2**40)})
    with pytest.raises(WeightsError, match="storage holds 4"):
        read_weights(path)


def test_refuses_a_pickle_that_is_no_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": [1, 2]}))
    with pytest.raises(WeightsError, match=r"plain pickle, not a file of torch\.save"):
        read_weights(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_survives_cuts_and_flips(net: Net, tmp_path: Path, legacy: bool) -> None:
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer, _use_new_zipfile_serialization=not legacy)
    whole, path, numbers = buffer.getvalue(), tmp_path / "x.pth", random.Random(7)
    state = net.state_dict()
    for turn in range(400):
        place = numbers.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ (1 << numbers.randrange(8))]) + whole[place + 1 :]
        path.write_bytes(flipped if turn % 2 else whole[:place])
        try:
            weights = read_weights(path)
            loaded = {tensor.name: tensor.load() for tensor in weights}
        except WeightsError:
            continue
        assert turn % 2, "a file that was cut was read"
        assert all(array.nbytes <= len(whole) for array in loaded.values())
        assert len(loaded) <= len(state)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc/self/fd, which Linux has")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_tensors_of_one_file_share_a_file_descriptor(tmp_path: Path, suffix: str) -> None:
    """A process may have a few thousand; networks have more tensors."""
    state = {f"layer{number}.weight": torch.full((4,), float(number)) for number in range(64)}
    path = tmp_path / f"x.{suffix}"
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    weights = read_weights(path)
    before = len(os.listdir("/proc/self/fd"))
    arrays = [tensor.load() for tensor in weights.tensors.values()]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert [float(array[0]) for array in arrays] == [float(name[5:-7]) for name in weights.tensors]


@pytest.mark.parametrize("as_folder", [False, True])
def test_shards_are_read_by_their_index(as_folder: bool, tmp_path: Path) -> None:
    shards = {"a.bin": {"x.weight": torch.ones(2)}, "b.bin": {"y.weight": torch.zeros(3)}}
    for name, state in shards.items():
        torch.save(state, tmp_path / name)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"x.weight": "a.bin", "y.weight": "b.bin"}}))
    weights = read_weights(tmp_path if as_folder else index)
    assert {name: tensor.shape for name, tensor in weights.tensors.items()} == {"x.weight": (2,), "y.weight": (3,)}
    assert not weights.ordered
    (tmp_path / "b.bin").unlink()
    with pytest.raises(WeightsError, match=r"The shard 'b\.bin' .* is missing"):
        read_weights(index)
    index.write_text(json.dumps({"weight_map": {"x.weight": "../a.bin"}}))
    with pytest.raises(WeightsError, match="is not a regular file next to it"):
        read_weights(index)


def test_an_index_names_all_shards_that_are_missing(tmp_path: Path) -> None:
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.bin", "y": "b.bin"}}))
    with pytest.raises(WeightsError, match=r"The 2 shards 'a\.bin', 'b\.bin' of .*index\.json' are missing"):
        read_weights(index)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_a_match_of_one_shard_alone_names_the_index_and_the_missing_shards(tmp_path: Path, suffix: str) -> None:
    stem = "pytorch_model" if suffix == "bin" else "model"
    names = [f"{stem}-{number:05d}-of-00003.{suffix}" for number in (1, 2, 3)]
    network, path = timm.create_model("test_resnet"), tmp_path / names[0]
    state = dict(list(network.state_dict().items())[:20])
    torch.save(state, path) if suffix == "bin" else save_file(state, path)
    report = rg.match_weights(read_weights(path), network)
    with pytest.raises(WeightsError, match="This is shard 1 of 3") as caught:
        report.require("all")
    assert all(name in str(caught.value) for name in (f"{stem}.{suffix}.index.json", *names[1:]))
    (tmp_path / f"{stem}.{suffix}.index.json").write_text("{}")
    torch.save(state, tmp_path / names[1])
    with pytest.raises(WeightsError, match=r"index\.json' is here and 1 other shard is missing"):
        report.require("all")
