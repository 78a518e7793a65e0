"""Archives of torch.export in all their layouts, and frozen TorchScript modules.

The layouts of torch before 2.9 are written as those versions did: a file of torch.save inside the archive.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import WeightsError
from regraft.weights.file import WeightFile, read_weights
from regraft.weights.readers.pytorch import torch_export

TABLE = "data/weights/model_weights_config.json"


class Net(nn.Module):
    """A convolution, a normalisation, a depthwise convolution, a dense layer, and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("scratch", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.depthwise(self.bn(self.conv(x)).relu()).mean((2, 3))) + self.scratch
        return out


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(1)
    network = Net().eval()
    network.bn.running_mean.normal_()  # type: ignore[operator,union-attr]
    return network


@pytest.fixture(scope="module")
def exported(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "w.pt2"
    torch.export.save(torch.export.export(net, (torch.ones(1, 3, 8, 8),)), path)
    return path


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def old(net: Net) -> dict[str, bytes]:
    """Before 2.8: files at the top."""
    state = net.state_dict()
    return {
        "version": b"1.1",
        "serialized_exported_program.json": b"{}",
        "serialized_state_dict.pt": saved(state),
        "serialized_constants.pt": saved({"scratch": net.scratch}),
    }


def middle(net: Net) -> dict[str, bytes]:
    """2.8: files of torch.save below data/."""
    return {
        "w/archive_format": b"pt2",
        "w/models/model.json": b"{}",
        "w/data/weights/model.pt": saved(net.state_dict()),
        "w/data/constants/model.pt": saved({"scratch": net.scratch}),
    }


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def changed(exported: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The archive with its table of weights changed."""
    with zipfile.ZipFile(exported) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith(TABLE))
    table = json.loads(members[name])
    change(table["config"])
    members[name] = json.dumps(table).encode()
    return zipped(path, members)


def assert_same(weights: WeightFile, net: Net) -> None:
    assert (weights.format, weights.producer) == ("pt2", "torch.export")
    assert set(weights.tensors) == set(net.state_dict())
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(weights.tensors[name].load(), tensor)


def test_reads_the_layout_of_this_torch(net: Net, exported: Path) -> None:
    weights = read_weights(exported)
    assert_same(weights, net)
    assert any("constants" in note for note in weights.notes)
    assert "scratch" in read_weights(exported, key="constants").tensors


@pytest.mark.parametrize("layout", [old, middle])
def test_reads_older_layouts(net: Net, tmp_path: Path, layout: Callable[[Net], dict[str, bytes]]) -> None:
    path = zipped(tmp_path / "w.pt2", layout(net))
    assert_same(read_weights(path), net)
    assert list(read_weights(path, key="constants").tensors) == ["scratch"]
    with pytest.raises(WeightsError, match="holds no model 'other'"):
        read_weights(path, key="other")


def test_reads_a_tensor_that_was_pickled(net: Net, exported: Path, tmp_path: Path) -> None:
    def pickle_one(config: dict[str, Any]) -> None:
        config["conv.weight"] |= {"path_name": "weight_99", "use_pickle": True}

    path = changed(exported, tmp_path / "w.pt2", pickle_one)
    folder = next(name for name in zipfile.ZipFile(path).namelist() if name.endswith(TABLE)).rpartition("/")[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{folder}/weight_99", saved(net.conv.weight.detach()))
    assert_same(read_weights(path), net)


def test_chooses_among_several_models(net: Net, tmp_path: Path) -> None:
    other = {"w/data/weights/other.pt": saved({"x": torch.ones(3)})}
    path = zipped(tmp_path / "w.pt2", {**other, **middle(net)})
    assert_same(read_weights(path), net)
    assert "contains model, other" in read_weights(path).notes[0]
    assert list(read_weights(path, key="other").tensors) == ["x"]


def _entry(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["conv.weight"].update(changes)


def _meta(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["conv.weight"]["tensor_meta"].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_entry(path_name="../../w"), "not in the archive"),
        (_entry(path_name="weight_99"), "not in the archive"),
        (_entry(path_name=7), "not in the archive"),
        (_entry(use_pickle=True), "cannot be read"),
        (_meta(dtype=99), "has the dtype 99"),
        (_meta(sizes=[{"as_int": 2**40}]), r"its storage holds|with strides"),
        (_meta(sizes=[{"as_int": 2**40}], strides=[{"as_int": 0}]), "its storage holds 432"),
        (_meta(sizes=[{"as_int": -1}] * 4), "a size is -1"),
        (_meta(sizes=[{"as_expr": "s0"}] * 4), "a size is None"),
        (_meta(sizes=[{"as_int": 1}] * 40, strides=[{"as_int": 1}] * 40), "more than 32 axes"),
        (_meta(storage_offset={"as_int": 10**9}), "its storage holds 432"),
        (_meta(storage_offset=None), "a size is None"),
        (_meta(sizes=None), "a shape is None"),
        (lambda config: config["conv.weight"]["tensor_meta"].clear(), "has the dtype None"),
        (lambda config: config["conv.weight"]["tensor_meta"].pop("strides"), "a shape is None"),
    ],
)
def test_refuses_tables_that_lie(
    exported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(changed(exported, tmp_path / "w.pt2", change))
    hostile.assert_in_words(caught.value)


def test_refuses_compressed_members_and_calls(net: Net, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="compressed"):
        read_weights(zipped(tmp_path / "w.pt2", middle(net), zipfile.ZIP_DEFLATED))
    members = {**middle(net), "w/data/weights/model.pt": saved({"w": torch.ones(2), "x": _Call()})}
    with pytest.raises(WeightsError, match=r"calls 'builtins\.print'"):
        read_weights(zipped(tmp_path / "w.pt2", members))


class _Call:
    def __reduce__(self) -> Any:
        return print, ("called",)


@pytest.mark.parametrize("layout", ["this", pytest.param("middle", marks=pytest.mark.slow)])
def test_survives_cuts_and_flips(net: Net, exported: Path, tmp_path: Path, layout: str) -> None:
    path = tmp_path / "w.pt2"
    path.write_bytes(exported.read_bytes()) if layout == "this" else zipped(path, middle(net))
    num_cut, num_flipped = hostile.fuzz(torch_export, path)
    assert num_cut == 0
    assert num_flipped > 10


# --- frozen TorchScript -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("how", ["trace", "script"])
def test_a_frozen_module_has_its_constants_by_layer(net: Net, tmp_path: Path, how: str) -> None:
    module = torch.jit.trace(net, torch.ones(1, 3, 8, 8)) if how == "trace" else torch.jit.script(net)
    torch.jit.freeze(module, optimize_numerics=False).save(str(tmp_path / "w.pt"))
    weights = read_weights(tmp_path / "w.pt")
    assert (weights.format, weights.producer, weights.ordered) == ("torch_pth", "torch.jit", True)
    assert "frozen" in weights.notes[0]
    layers = [{tensor.role: tensor for tensor in layer} for layer in weights.layers.values()]
    state = net.state_dict()
    expected: list[tuple[str, dict[str | None, str]]] = [
        ("conv", {"kernel": "weight"}),
        ("bn", {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}),
        ("depthwise", {"depthwise_kernel": "weight", "bias": "bias"}),
        ("fc", {"kernel": "weight", "bias": "bias"}),
    ]
    for (name, leaves), layer in zip(expected, layers, strict=False):
        assert set(layer) == set(leaves)
        for role, leaf in leaves.items():
            np.testing.assert_array_equal(layer[role].load(), state[f"{name}.{leaf}"])


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_frozen_code_of_any_kind_is_only_searched(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.jit.freeze(torch.jit.script(net)).save(str(path))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code = next(name for name in members if name.endswith(".py"))
    for text in (
        "",
        "torch.conv2d(" * 50_000,
        "torch.linear(x, CONSTANTS.c9999999, CONSTANTS.c0)",
        "torch.linear(" + "[" * 9000,
    ):
        members[code] = text.encode()
        weights = read_weights(zipped(path, members))
        assert all(tensor.load().shape == tensor.shape for tensor in weights)
