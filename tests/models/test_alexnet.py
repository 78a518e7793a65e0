"""AlexNet against the frameworks that ran the same weights, and its arguments against what they must change."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.models.networks.alexnet import SameConv2d, alexnet
from regraft.models.surgery.surgery import adapt
from regraft.weights.file import read_weights

THIN: dict[str, Any] = {"widths": (12, 32, 48, 48, 32), "hidden": 64, "num_classes": 10}


def case(name: str) -> Path:
    shared = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (shared / "weights" / name).is_dir():
        pytest.skip(f"the shared weight files are not here ({name}; set REGRAFT_SHARED)")
    return shared / "weights" / name


def error(got: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(got.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("alexnet_tf1_ckpt_v1", "model.ckpt"),
        ("alexnet_tf1_ckpt_v2", "model.ckpt.index"),
        ("caffemodel_alexnet", "alexnet.caffemodel"),
        ("alexnet_list_npy_py2", "bvlc_alexnet.npy"),
    ],
)
def test_equals_the_framework_with_the_same_weights(name: str, file: str) -> None:
    """TensorFlow 1.15 (radius 2, alpha 2e-5) and Caffe's schema run by OpenCV, to 1e-5."""
    folder = case(name)
    model = alexnet(**THIN).eval()
    report = match_weights(read_weights(folder / file), model)
    report.require("all")
    graft(model, report)
    expected = np.load(folder / "expected.npz")
    with torch.no_grad():
        images = torch.from_numpy(expected["x_nchw"])
        assert error(model.forward_features(images), expected["features"]) <= 1e-5
        assert error(model(images), expected["logits"]) <= 1e-5


def logits(**arguments: Any) -> torch.Tensor:
    """Logits for images with byte-sized values, where the normalisation counts."""
    torch.manual_seed(0)
    model = alexnet(**THIN, **arguments).eval()
    images = torch.randn(1, 3, 227, 227, generator=torch.Generator().manual_seed(1)) * 60
    return model(images).detach()


@pytest.mark.parametrize(
    "arguments",
    [
        {"conv1_padding": "same"},
        {"conv1_padding": 2},
        {"norm_order": "relu-pool-lrn"},
        {"lrn_alpha": 2e-5},
        {"lrn_k": 2.0},
    ],
)
def test_each_argument_changes_what_is_computed(arguments: dict[str, Any]) -> None:
    assert not torch.allclose(logits(), logits(**arguments), rtol=1e-3)


def test_normalisation_is_the_formula_of_the_paper() -> None:
    """b = a / (k + alpha/n * sum over the n channels around of a^2)^0.75, with alpha divided by n = 5."""
    norm = alexnet(**THIN, lrn_alpha=0.05, lrn_k=2.0).norm1
    values = torch.randn(1, 12, 3, 3)
    squares = torch.nn.functional.pad(values.square(), (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    assert torch.allclose(norm(values), values / (2.0 + 0.05 / 5 * squares) ** 0.75, rtol=1e-5)


@pytest.mark.parametrize(("padding", "side"), [("valid", 55), ("same", 57), (2, 56)])
def test_size_behind_conv1(padding: Any, side: int) -> None:
    model = alexnet(**THIN, conv1_padding=padding)
    assert model.conv1(torch.zeros(1, 3, 227, 227)).shape[-2:] == (side, side)
    assert model.forward_features(torch.zeros(1, 3, 227, 227)).shape[1:] == (32, 6, 6)


def test_same_padding_puts_the_odd_row_at_the_end() -> None:
    """224 pixels, kernel 11, stride 4: 7 rows are missing, 3 go before and 4 behind."""
    convolution = SameConv2d(1, 1, 11, stride=4, bias=False)
    images = torch.randn(1, 1, 224, 220)
    padded = torch.nn.functional.pad(images, (3, 4, 3, 4))
    expected = torch.nn.functional.conv2d(padded, convolution.weight, stride=4)
    assert torch.equal(convolution(images), expected)


def test_paper_size() -> None:
    model = alexnet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 60_965_224  # Caffe's own count
    assert [model.conv2.groups, model.conv4.groups, model.conv5.groups] == [2, 2, 2]


def test_describes_itself() -> None:
    info = info_of(alexnet(**THIN))
    assert info.architecture == "alexnet"
    assert info.head == ("fc6", "fc7", "fc8")
    assert info.preprocessing is not None
    assert info.preprocessing.channels == "BGR"


def test_takes_a_new_head() -> None:
    model = alexnet(**THIN)
    before = copy.deepcopy(model.state_dict())
    adapted = adapt(model, classes=["cat", "dog"])
    assert adapted(torch.zeros(2, 3, 227, 227)).shape == (2, 2)
    assert info_of(adapted).new_layers == ("fc8",)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "arguments", [{"conv1_padding": "full"}, {"conv1_padding": -1}, {"norm_order": "lrn"}, {"widths": (96, 256, 384)}]
)
def test_impossible_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(arguments))):
        alexnet(**arguments)
