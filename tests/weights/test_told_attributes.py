"""What a file tells of its network beside its tensors (paddings, dilations, its own input), against the model."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from tests.weights.readers.protobuf_writer import (
    blob,
    number,
    onnx_ints,
    onnx_model,
    onnx_node,
    onnx_tensor,
)
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import SourceTensor, WeightFile, read_weights
from regraft.weights.report import MatchReport

_KERNEL = np.random.default_rng(0).random((8, 3, 3, 3), np.float32)
_DENSE = np.random.default_rng(1).random((5, 8), np.float32)


def _text(name: str, value: str) -> bytes:
    return blob(5, blob(1, name) + blob(4, value) + number(20, 3))


def _onnx(path: Path, convolution: bytes, *, padded: list[int] | str | None = None) -> WeightFile:
    """A convolution and a classifier; `padded` by a node of its own, or by one whose numbers are computed."""
    tensors = [onnx_tensor("conv.weight", _KERNEL), onnx_tensor("fc.weight", _DENSE)]
    nodes = []
    if padded is not None:
        if isinstance(padded, list):
            tensors.append(onnx_tensor("pads", np.array(padded, np.int64)))
        else:
            nodes.append(onnx_node("Shape", ["x"], ["pads"]))
        nodes.append(onnx_node("Pad", ["x", "pads"], ["p"]))
    nodes += [
        onnx_node("Conv", ["p" if padded else "x", "conv.weight"], ["h"], name="/conv/Conv", attributes=convolution),
        onnx_node("GlobalAveragePool", ["h"], ["g"]),
        onnx_node("Flatten", ["g"], ["f"]),
        onnx_node("Gemm", ["f", "fc.weight"], ["y"], name="/fc/Gemm", attributes=_number("transB", 1)),
    ]
    path.write_bytes(onnx_model(nodes, tensors))
    return read_weights(path)


def _number(name: str, value: int) -> bytes:
    return blob(5, blob(1, name) + number(3, value) + number(20, 2))


def _model(convolution: nn.Module) -> nn.Module:
    layers = {"conv": convolution, "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return nn.Sequential(OrderedDict(layers | {"fc": nn.Linear(8, 5, bias=False)}))


def _conv(**options: Any) -> nn.Module:
    return nn.Conv2d(3, 8, 3, **{"stride": 2, "padding": 1, "bias": False, **options})


def _same() -> nn.Module:
    return timm.layers.Conv2dSame(3, 8, 3, stride=2, bias=False)


def _behind_a_pad(pads: tuple[int, int, int, int]) -> nn.Module:
    class Padded(nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.pad(images, pads))

    return Padded(3, 8, 3, stride=2, bias=False)


def _refused(report: MatchReport, why: str) -> str:
    with pytest.raises(WeightsError, match=why) as refused:
        report.require()
    return str(refused.value)


_TWO = onnx_ints("strides", [2, 2])
_ALIKE = _TWO + onnx_ints("pads", [1, 1, 1, 1])
_BEHIND = _TWO + onnx_ints("pads", [0, 0, 1, 1])
_AUTO = _TWO + _text("auto_pad", "SAME_UPPER")


@pytest.mark.parametrize(
    ("convolution", "padded", "build", "why"),
    [
        (_ALIKE, None, _same, "the file's network pads both sides alike"),
        (_BEHIND, None, _conv, "pads as TensorFlow's SAME does"),
        (_AUTO, None, _conv, "pads as TensorFlow's SAME does"),
        (_TWO, [0, 0, 0, 0, 0, 0, 1, 1], _conv, "pads as TensorFlow's SAME does"),
        (_TWO, None, _conv, "the file's network pads 0, 0, 0, 0"),
        (_ALIKE, None, lambda: _conv(padding=0), "the file's network pads 1, 1, 1, 1"),
        (_TWO, "computed", _conv, "by an amount that it does not tell"),
        (_ALIKE + onnx_ints("dilations", [2, 2]), None, _conv, "dilation"),
        (onnx_ints("pads", [1, 1, 1, 1]), None, _conv, "stride"),
    ],
    ids=["alike", "behind", "auto", "a node", "none", "too much", "computed", "dilation", "default stride"],
)
def test_what_onnx_nodes_say_is_compared(convolution: bytes, padded: Any, build: Any, why: str, tmp_path: Path) -> None:
    report = match_weights(_onnx(tmp_path / "x.onnx", convolution, padded=padded), _model(build()))
    assert report.coverage["all"] == 1.0
    told = _refused(report, why)
    assert "100%" not in told


@pytest.mark.parametrize(
    ("convolution", "padded", "build"),
    [
        (_ALIKE, None, _conv),
        (_BEHIND, None, _same),
        (_AUTO, None, _same),
        (_TWO, [0, 0, 1, 1, 0, 0, 1, 1], _conv),
        (_BEHIND, None, lambda: _behind_a_pad((0, 1, 0, 1))),
        (_TWO, "computed", _same),
        (onnx_ints("pads", [1, 1, 1, 1]), None, lambda: _conv(stride=1, padding="same")),
    ],
    ids=["alike", "behind", "auto", "a node", "padded before", "computed", "string"],
)
def test_paddings_that_are_the_same_are_no_alarm(convolution: bytes, padded: Any, build: Any, tmp_path: Path) -> None:
    file, model = _onnx(tmp_path / "x.onnx", convolution, padded=padded), _model(build())
    graft(model, match_weights(file, model).require("all"))
    assert np.array_equal(model.state_dict()["conv.weight"].numpy(), _KERNEL)


@pytest.mark.parametrize(("padding", "is_right"), [("same", False), ("valid", True)])
def test_what_a_keras_description_says_of_paddings_is_compared(padding: str, is_right: bool) -> None:
    layers = [
        ("ZeroPadding2D", {"name": "pad", "padding": [[1, 1], [1, 1]]}),
        ("Conv2D", {"name": "conv", "padding": padding, "strides": [2, 2]}),
        ("Dense", {"name": "fc"}),
    ]
    listed = [{"class_name": kind, "config": config} for kind, config in layers[padding == "same" :]]
    tensors = {
        name: SourceTensor(name, values.shape, "float32", name.split("/")[0], values.copy, "kernel", axes)
        for name, values, axes in (
            ("conv/kernel", _KERNEL.transpose(2, 3, 1, 0), "HWIO"),
            ("fc/kernel", _DENSE.T, "IO"),
        )
    }
    graph = {"class_name": "Sequential", "config": {"name": "net", "layers": listed}}
    report = match_weights(WeightFile(Path("x.keras"), "keras_v3", "keras 3", tensors, graph=graph), _model(_conv()))
    if is_right:
        report.require("all")
    else:
        _refused(report, "pads as TensorFlow's SAME does")


@pytest.mark.parametrize("names", [("mean", "variance", "count"), ("vars/0", "vars/1", "vars/2")])
def test_the_numbers_of_the_file_s_own_normalization_are_told(names: tuple[str, ...]) -> None:
    arrays: list[Any] = [np.float32([1, 2, 3]), np.float32([4, 9, 16]), np.zeros((), np.int32)]
    tensors = {"fc/kernel": SourceTensor("fc/kernel", (8, 5), "float32", "fc", _DENSE.T.copy, "kernel", "IO")}
    for name, array in zip(names, arrays, strict=True):
        path = f"normalization/{name}"
        tensors[path] = SourceTensor(path, array.shape, str(array.dtype), "normalization", array.copy)
    model = nn.Sequential(OrderedDict(fc=nn.Linear(8, 5, bias=False)))
    report = match_weights(WeightFile(Path("x.h5"), "keras_v3", "keras 3", tensors), model).require("all")
    told = [finding.text for finding in report.findings if finding.kind == "input"]
    assert len(told) == 1
    assert "mean 1, 2, 3, standard deviation 2, 3, 4" in told[0]


def test_the_rescaling_of_a_keras_description_is_told() -> None:
    layers = [("Rescaling", {"name": "r", "scale": 0.25, "offset": -1.0}), ("Dense", {"name": "fc"})]
    listed = [{"class_name": kind, "config": config} for kind, config in layers]
    tensors = {"fc/kernel": SourceTensor("fc/kernel", (8, 5), "float32", "fc", _DENSE.T.copy, "kernel", "IO")}
    graph = {"class_name": "Sequential", "config": {"name": "net", "layers": listed}}
    model = nn.Sequential(OrderedDict(fc=nn.Linear(8, 5, bias=False)))
    report = match_weights(WeightFile(Path("x.keras"), "keras_v3", "keras 3", tensors, graph=graph), model)
    assert any("x times 0.25, plus -1.0" in finding.text for finding in report.require("all").findings)


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize(
    ("source", "target"), [("mobilenet_v3_small", "mobilenetv3_small_100"), ("efficientnet_b0", "tf_efficientnet_b0")]
)
def test_torchvision_s_backbones_without_features_are_known(
    source: str, target: str, prefix: str, tmp_path: Path
) -> None:
    """As DeepLab's files hold them: `backbone.0.0.weight`."""
    network = getattr(torchvision.models, source)(num_classes=4).features
    with torch.device("meta"):
        model = timm.create_model(target, num_classes=4)
    torch.save({prefix + name: tensor for name, tensor in network.state_dict().items()}, tmp_path / "x.pth")
    report = match_weights(read_weights(tmp_path / "x.pth"), model)
    assert report.coverage["backbone"] > 0.95
    _refused(report, "the file was made with 0.001|the file's network pads both sides alike")


# --- letters are numbers -----------------------------------------------------------------------------------------


def _lettered(*names: str) -> nn.Sequential:
    layers: dict[str, nn.Module] = {"stem": nn.Conv2d(3, 8, 3)}
    layers |= {name: nn.Conv2d(8, 8, 3, padding=1) for name in names}
    return nn.Sequential(OrderedDict(layers))


@pytest.mark.parametrize("spelling", ["conv_{}", "unit2{}", "conv-{}"])
def test_a_letter_more_is_a_deeper_network(spelling: str, tmp_path: Path) -> None:
    names = [spelling.format(letter) for letter in "abc"]
    save_file(dict(_lettered(*names).state_dict()), tmp_path / "x.safetensors")
    report = match_weights(read_weights(tmp_path / "x.safetensors"), _lettered(*names[:2]))
    _refused(report, "inside the part that was matched")


def test_shifted_letters_are_paired_in_order(tmp_path: Path) -> None:
    source, target = _lettered("conv_b", "conv_c", "conv_d"), _lettered("conv_a", "conv_b", "conv_c")
    save_file(dict(source.state_dict()), tmp_path / "x.safetensors")
    graft(target, match_weights(read_weights(tmp_path / "x.safetensors"), target).require("all"))
    for here, there in (("conv_a", "conv_b"), ("conv_b", "conv_c"), ("conv_c", "conv_d")):
        assert torch.equal(target.get_submodule(here).weight, source.get_submodule(there).weight)


# --- refused though plain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["{}_bn", "bn_{}", "{}_batchnorm"])
@pytest.mark.parametrize("leaf", ["weight", "kernel", "k", "filter", "filters", "weights"])
def test_norms_that_are_named_after_their_convolutions(spelling: str, leaf: str, tmp_path: Path) -> None:
    def build(norm: str) -> nn.Sequential:
        layers: dict[str, nn.Module] = {}
        for at in (1, 2, 3):
            layers[f"conv{at}"] = nn.Conv2d(3 if at == 1 else 8, 8, 3)
            layers[norm.format(f"conv{at}")] = nn.BatchNorm2d(8)
        return nn.Sequential(OrderedDict(layers))

    source, target = build(spelling), build("{}norm")
    state = {
        name.removesuffix("weight") + leaf if name.endswith("weight") and tensor.ndim == 4 else name: tensor
        for name, tensor in source.state_dict().items()
    }
    for value, name in enumerate(state):
        if name.endswith("running_mean"):
            state[name] = torch.full((8,), float(value))
    save_file(state, tmp_path / "x.safetensors")
    graft(target, match_weights(read_weights(tmp_path / "x.safetensors"), target).require("all"))
    for at in (1, 2, 3):
        expected = state[spelling.format(f"conv{at}") + ".running_mean"]
        assert torch.equal(target.get_submodule(f"conv{at}norm").running_mean, expected)


def test_two_networks_are_told_before_that_nothing_fits(tmp_path: Path) -> None:
    source = _lettered("conv_a", "conv_b").state_dict()
    save_file(
        {f"{side}.{name}": t.clone() for side in ("l", "r") for name, t in source.items()}, tmp_path / "x.safetensors"
    )
    told = _refused(match_weights(read_weights(tmp_path / "x.safetensors"), _lettered("conv_a", "conv_b")), "--from l")
    assert "nothing in the file fits" not in told
