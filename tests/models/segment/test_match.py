"""Weights of classification networks in the encoder: what goes in, what is left out, and that both are reported."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from tests.conftest import Cli
from tests.models.segment.networks import SMALL, narrow, vgg_segnet, vgg_unet
from tests.weights.readers.keras_files import legacy, random
from torch import nn

import regraft as rg
from regraft.errors import WeightsError
from regraft.models.describe.info import info_of
from regraft.models.zoo.build import load_pretrained
from regraft.plan.freezing.freeze import freeze
from regraft.weights.file import WeightFile

CONVS = ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2", "block3_conv1", "block3_conv2", "block3_conv3",
         "block4_conv1", "block4_conv2", "block4_conv3", "block5_conv1", "block5_conv2", "block5_conv3")  # fmt: skip
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def write_vgg(path: Path, narrow_by: int) -> Path:
    """A VGG16 with its top, as Keras writes it: kernels HWIO, dense (in, out)."""
    widths = [3, *(width // narrow_by for width in (64, 64, 128, 128, *(256,) * 3, *(512,) * 6))]
    layers = {name: (3, 3, *pair) for name, pair in zip(CONVS, pairwise(widths), strict=True)}
    layers |= {"fc1": (7 * 7 * widths[-1], 16), "fc2": (16, 16), "predictions": (16, 10)}
    tensors = [
        (name, [(f"{name}/kernel:0", random(*shape, seed=place)), (f"{name}/bias:0", random(shape[-1], seed=place))])
        for place, (name, shape) in enumerate(layers.items())
    ]
    return legacy(path, tensors)


@pytest.fixture
def vgg_h5(tmp_path: Path) -> Path:
    """A sixteenth of VGG16's width."""
    return write_vgg(tmp_path / "vgg16.h5", 16)


def assert_encoder_is_the_file_s(model: nn.Module, weights: WeightFile, convs: int = 13) -> None:
    """Byte for byte, but for the order of the axes."""
    for name, place in list(zip(CONVS, PLACES, strict=True))[:convs]:
        kernel, bias = (weights.tensors[f"{name}/{name}/{part}:0"].load() for part in ("kernel", "bias"))
        layer = model.encoder.features[place]
        assert layer.weight.detach().numpy().tobytes() == kernel.transpose(3, 2, 0, 1).tobytes()
        assert layer.bias.detach().numpy().tobytes() == bias.tobytes()


@pytest.mark.parametrize("make", [vgg_unet, vgg_segnet])
def test_the_classifier_and_the_dense_layers_are_left_out_and_reported(make: type, vgg_h5: Path) -> None:
    model, weights = make(), rg.read_weights(vgg_h5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = rg.match_weights(weights, model).require("backbone")
    num_new = sum(not name.startswith("encoder.") for name in before)
    assert report.counts == {
        "matched": 26, "missing": num_new, "unexpected": 0, "wrong_shape": 0, "ambiguous": 0, "dropped": 6
    }  # fmt: skip
    assert report.dropped_targets == ()
    assert report.coverage == {"backbone": 1.0, "all": 26 / len(before)}
    with pytest.raises(WeightsError, match=r"missing: decoder\."):
        report.require("all")
    assert {name.split("/")[0] for name in report.dropped} == {"fc1", "fc2", "predictions"}
    assert "dropped on request:" in report.render()
    assert report.totals["model"]["total"] == len(before)
    assert report.totals["file"]["total"] == len(weights.tensors)
    rg.graft(model, report)
    assert_encoder_is_the_file_s(model, weights)
    rest = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    assert all(torch.equal(tensor, before[name]) for name, tensor in rest.items())
    assert info_of(model).new_layers == ("decoder", "classifier")


@pytest.mark.slow
def test_a_shallow_encoder_leaves_the_coarse_blocks_out(tmp_path: Path) -> None:
    model, weights = rg.build_model("unet", depth=3), rg.read_weights(write_vgg(tmp_path / "vgg16.h5", 1))
    report = rg.match_weights(weights, model).require("backbone")
    assert report.counts["matched"] == 14
    assert {name.split("/")[0] for name in report.dropped} == {*CONVS[7:], "fc1", "fc2", "predictions"}
    assert_encoder_is_the_file_s(rg.graft(model, report), weights, convs=7)


def test_skip_names_the_encoder_the_file_or_the_new_layers(vgg_h5: Path) -> None:
    model, weights = vgg_unet(), rg.read_weights(vgg_h5)
    report = rg.match_weights(weights, model, skip=["fc*", "predictions", "encoder.features.28", "decoder.*"])
    assert (report.counts["dropped"], report.unexpected) == (
        6, ("block5_conv3/block5_conv3/kernel:0", "block5_conv3/block5_conv3/bias:0"),
    )  # fmt: skip
    assert {"encoder.features.28.weight", "decoder.stage1.convs.conv1.weight"} <= set(report.dropped_targets)
    assert report.missing == ("classifier.weight", "classifier.bias")
    assert report.require("backbone").coverage["backbone"] == 1.0
    with pytest.raises(WeightsError, match="nonsense"):
        rg.match_weights(weights, model, skip=["nonsense"])


def test_a_pair_by_hand_may_name_the_encoder(vgg_h5: Path) -> None:
    model, weights = vgg_unet(), rg.read_weights(vgg_h5)
    report = rg.match_weights(weights, model, map={"encoder.features.28": "block5_conv1"})
    rules = {match.target: (match.rule, match.sources[0].name) for match in report.matched if match.sources}
    assert rules["encoder.features.28.weight"] == ("map", "block5_conv1/block5_conv1/kernel:0")


def test_too_little_is_an_error_that_names_the_layers(vgg_h5: Path) -> None:
    with h5py.File(vgg_h5, "r+") as file:
        for number in range(1, 4):
            del file[f"block5_conv{number}"]
        file.attrs["layer_names"] = [name for name in file.attrs["layer_names"] if "block5" not in str(name)]
    with pytest.raises(WeightsError, match=r"(?s)missing.*encoder\.features\.24.*encoder\.features\.28"):
        rg.match_weights(rg.read_weights(vgg_h5), vgg_unet()).require("backbone")


def test_norms_may_start_fresh_and_then_train(vgg_h5: Path) -> None:
    """The weights of VGG16 in an encoder with batch normalisation: the norms are left out by their type."""
    model, weights = rg.build_model("segnet", encoder="vgg16_bn", classes=3), rg.read_weights(vgg_h5)
    narrow(model)
    for layer in model.encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            layer.reset_running_stats()
    with pytest.raises(WeightsError, match="missing"):
        rg.match_weights(weights, model).require("backbone")
    rg.graft(model, rg.match_weights(weights, model, skip=["type:BatchNorm2d"]).require("backbone"))
    assert {"encoder.features.1", "encoder.features.41"} <= set(info_of(model).new_layers)
    policies = freeze(model, "all").bn
    assert set(policies.values()) == {"train"}


@pytest.mark.parametrize("name", [SMALL, "test_efficientnet", "test_convnext"])
def test_a_timm_network_s_own_file(name: str, tmp_path: Path) -> None:
    whole = timm.create_model(name, num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    model = rg.build_model("unet", encoder=name, classes=3, weights=tmp_path / "weights.pth")
    state = whole.state_dict()
    inner = model.encoder.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in inner.items())
    report = info_of(model).origin.match
    assert report["counts"]["unexpected"] == 0
    assert set(report["dropped"]) == set(state) - set(inner)


def test_a_file_of_the_whole_network_fills_the_whole_network(tmp_path: Path) -> None:
    source = rg.build_model("unet", encoder=SMALL, classes=3, seed=1)
    torch.save(source.state_dict(), tmp_path / "unet.pth")
    model = rg.build_model("unet", encoder=SMALL, classes=3, seed=2)
    report = rg.match_weights(rg.read_weights(tmp_path / "unet.pth"), model).require("all")
    assert report.counts["matched"] == len(model.state_dict())
    rg.graft(model, report)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in source.state_dict().items())
    assert info_of(model).new_layers == ()
    encoder = rg.match_weights(rg.read_weights(tmp_path / "unet.pth"), model, part="encoder")
    assert {match.target.split(".")[0] for match in encoder.matched} == {"encoder"}


def test_pretrained_means_the_encoder_s(tmp_path: Path) -> None:
    model = load_pretrained(rg.build_model("unet", encoder="tf_efficientnet_lite0", classes=3), "pretrained")
    assert "efficientnet" in info_of(model).origin.match["file"]
    assert info_of(model).origin.match["coverage"]["backbone"] == 1.0


CASES = ["vgg16_full_224_h5", "vgg16_nested_block5_full_h5", "vgg16_npz_frossard", "vgg16_list_npy"]


@pytest.mark.parametrize("case", CASES)
def test_real_files(case: str, shared: Path) -> None:
    """Files of the real frameworks, a thirty-second of VGG16's width, with the features that these computed."""
    folder = shared / "weights" / case
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    facts = json.loads((folder / "case.json").read_text())
    model = narrow(rg.build_model("unet", classes=3), facts["target"]["narrow"])
    report = rg.match_weights(rg.read_weights(folder / facts["files"][0]), model).require("backbone")
    assert report.counts["matched"] == 26
    assert not report.unexpected
    rg.graft(model, report)
    with np.load(folder / "expected.npz") as arrays:
        images, features = (torch.from_numpy(arrays[name]) for name in ("x_nchw", "features"))
    with torch.no_grad():
        given = nn.functional.max_pool2d(model.encoder.features(images), 2)
    assert float((given - features).abs().max() / features.abs().max()) <= facts["tolerance"]


def test_the_command_line_says_the_same(vgg_h5: Path, cli: Cli) -> None:
    weights = rg.read_weights(vgg_h5)
    result = cli("match", vgg_h5, "--model", "unet", "--arg", "depth=2", "--skip", "type:BatchNorm2d", "--json")
    report = json.loads(result.out)
    assert report["model"] == "unet (vgg16)"
    assert set(report["options"]["skip"]) == {"type:BatchNorm2d"}
    assert sum(report["totals"]["file"].values()) == 2 * len(weights.tensors)  # the parts and their total
    assert cli("match", vgg_h5, "--model", "unet", "--arg", "depth").code == 2
