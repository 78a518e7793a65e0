"""The forms of keras.applications: Keras's counts, listings and preprocessing; files of real Kerases, made thin."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.models.keras_forms.forms import FORMS
from regraft.models.keras_forms.graph import KerasGraph
from regraft.models.keras_forms.mobile import Normalization
from regraft.models.layers.layers import list_layers
from regraft.models.networks.alexnet import torchvision_alexnet
from regraft.models.networks.names import list_models
from regraft.models.store.folder import load_model, write_model
from regraft.models.surgery.surgery import adapt
from regraft.models.zoo.build import build_model, load_pretrained
from regraft.plan.freezing.freeze import freeze
from regraft.plan.freezing.select import select
from regraft.weights.file import read_weights

# Of keras.applications in Keras 3.15: `count_params()` with the top, `len(layers)` without.
FIGURES = {
    "keras_vgg16": (138_357_544, 19),
    "keras_vgg19": (143_667_240, 22),
    "keras_resnet50": (25_636_712, 175),
    "keras_resnet101": (44_707_176, 345),
    "keras_resnet50v2": (25_613_800, 190),
    "keras_inception_v3": (23_851_784, 311),
    "keras_xception": (22_910_480, 132),
    "keras_mobilenet": (4_253_864, 86),
    "keras_mobilenetv2": (3_538_984, 154),
    "keras_densenet121": (8_062_504, 427),
    "keras_efficientnetb0": (5_330_571, 237),
}
SHARED = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[2].parent / "shared")) / "weights"
COLOUR = np.array([[[[10, 100, 200]]]], np.uint8)  # red, green, blue


@cache
def shapes_only(name: str, **arguments: Any) -> nn.Module:
    """Shared between tests, which only look at it."""
    with torch.device("meta"):
        return build_model(name, **arguments)


@pytest.mark.parametrize("name", FORMS)
def test_counts_and_rows_are_keras_s(name: str) -> None:
    model = shapes_only(name)
    layers = list_layers(model)
    num_parameters, num_rows = FIGURES[name]
    assert sum(layer.num_parameters for layer in layers) == num_parameters
    rows = [layer for layer in layers if layer.part == "backbone"]
    assert len(rows) == num_rows
    assert [layer.index for layer in rows] == list(range(num_rows))
    assert all(layer.alias for layer in layers), "each row, and each layer of the head, has its name in Keras"
    owned = [module for layer in layers for module in layer.modules]
    assert len(set(owned)) == len(owned)
    assert set(owned) == {tensor.rpartition(".")[0] for tensor in model.state_dict()}
    assert name in list_models("keras_*")


def test_published_counts_of_resnet50() -> None:
    layers = {layer.alias: layer for layer in list_layers(shapes_only("keras_resnet50", keras_version="3"))}
    assert layers["conv1_conv"].num_parameters == 9_472
    assert layers["predictions"].num_parameters == 2_049_000
    two = list_layers(shapes_only("keras_resnet50", num_classes=2))
    assert [layer.num_parameters for layer in two if layer.part == "head"] == [4_098]


def test_the_last_26_layers_of_resnet50_with_a_head_for_80_classes() -> None:
    model = adapt(build_model("keras_resnet50"), classes=[f"class {number}" for number in range(80)])
    freeze(model, ["last:26", "head"])
    layers = list_layers(model)
    total, trainable = sum(row.num_parameters for row in layers), sum(row.num_trainable for row in layers)
    assert (total, trainable, total - trainable) == (23_751_632, 11_202_640, 12_548_992)


@pytest.mark.parametrize(("version", "eps", "last"), [("2", 1e-3, "avg_pool"), ("3", 1.001e-5, "conv5_block3_out")])
def test_versions_of_resnet50(version: str, eps: float, last: str) -> None:
    model = shapes_only("keras_resnet50", keras_version=version)
    assert {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {eps}
    assert [layer.alias for layer in list_layers(model) if layer.part == "backbone"][-1] == last
    assert info_of(model).args["keras_version"] == version


def test_version_2_is_the_default_of_resnet50_alone() -> None:
    assert info_of(shapes_only("keras_resnet50")).origin.keras_rows[-1][0] == "avg_pool"
    assert info_of(shapes_only("keras_resnet101")).origin.keras_rows[-1][0] == "conv5_block3_out"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("keras_resnet50", {"keras_version": "4"}, "keras_version is '4'"),
        ("keras_vgg16", {"rescaling": True}, "does not normalise"),
        ("keras_resnet5", {}, "keras_resnet50"),
    ],
)
def test_what_cannot_be_built_is_told(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        shapes_only(name, **arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("keras_vgg16", (96.061, -16.779, -113.68)),  # blue, green, red
        ("keras_resnet50v2", (-0.92157, -0.21569, 0.56863)),
        ("keras_densenet121", (-1.9467, -0.2850, 1.6814)),
        ("keras_efficientnetb0", (10, 100, 200)),
    ],
)
def test_preprocessing_is_keras_s_preprocess_input(name: str, expected: tuple[float, ...]) -> None:
    stored = info_of(shapes_only(name)).preprocessing
    assert stored is not None
    normalise = Normaliser(stored)
    assert normalise(normalise.pixels(COLOUR)).flatten().tolist() == pytest.approx(expected, abs=1e-3)


def test_images_of_other_channels_have_no_preprocessing() -> None:
    model = shapes_only("keras_efficientnetb0", in_channels=1)
    assert info_of(model).preprocessing is None
    assert model(torch.zeros(1, 1, 64, 64, device="meta")).shape == (1, 1000)


def test_normalization_computes_what_keras_documents() -> None:
    layer = Normalization(3)
    layer.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
    layer.running_var.copy_(torch.tensor([0.25, 0.0, 4.0]))
    pixels = torch.tensor([51.0, 51.0, 255.0]).reshape(1, 3, 1, 1)
    assert layer(pixels).flatten().tolist() == pytest.approx([0.2, 0.0, 0.35], abs=1e-5)
    layer.rescaling = True
    assert layer(pixels)[0, 2].item() == pytest.approx(0.35 / 0.225**0.5)


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("keras_resnet50v2", 150, (2048, 5, 5)),
        ("keras_mobilenet", 150, (1024, 4, 4)),
        ("keras_xception", 150, (2048, 5, 5)),
        ("keras_resnet50", (128, 224), (2048, 4, 7)),
    ],
)
def test_feature_maps_have_keras_s_size(name: str, size: int | tuple[int, int], shape: tuple[int, ...]) -> None:
    sides = (size, size) if isinstance(size, int) else size
    features = shapes_only(name).forward_features(torch.zeros(1, 3, *sides, device="meta"))
    assert tuple(features.shape[1:]) == shape


def test_stages_of_resnet50v2_end_where_keras_halves() -> None:
    model = shapes_only("keras_resnet50v2")
    shapes = {name: call.output_shape for name, call in ((layer.name, layer) for layer in list_layers(model))}
    assert shapes["stages.0.blocks.1.conv3"] == (256, 56, 56)
    assert shapes["stages.0.blocks.2.conv3"] == (256, 28, 28)
    assert "stages.0.blocks.2.conv1" in select(model, "stage:2")


def test_resnet50v2_pools_over_zeros_around_a_map_of_negative_values() -> None:
    """timm pads with minus infinity there, which costs 0.14 of the features on smooth images."""
    stem = build_model("keras_resnet50v2", num_classes=2).get_submodule("stem")
    pooled = stem.get_submodule("pool")(stem.get_submodule("pad")(-torch.ones(1, 64, 6, 6)))
    assert pooled[0, 0].tolist() == [[0, 0, 0], [0, -1, -1], [0, -1, -1]]


def test_inception_averages_without_the_padding_and_has_no_scale() -> None:
    model = build_model("keras_inception_v3").eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.weight is None and norm.bias is not None for norm in norms)
    seen: list[Tensor] = []
    block = model.get_submodule("Mixed_5b")
    block.get_submodule("branch_pool").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block(torch.ones(1, 192, 5, 5))
    assert torch.equal(seen[0], torch.ones(1, 192, 5, 5))


@pytest.mark.parametrize("name", ["keras_inception_v3", "keras_resnet50v2", "keras_efficientnetb0"])
def test_changed_networks_can_be_copied_trained_and_kept(name: str, tmp_path: Path) -> None:
    model = adapt(build_model(name), classes=["cat", "dog"], image_size=96)
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        logits = model.eval()(images)
        assert torch.equal(copy.deepcopy(model)(images), logits)
        assert torch.equal(pickle.loads(pickle.dumps(model))(images), logits)
    config = write_model(tmp_path / "model", model, probes={"images": images, "logits": logits})
    assert config["architecture"] == f"regraft/{name}"
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model")(images), logits)
    plan = freeze(model, "all")
    model.train()(images).square().sum().backward()
    assert all(model.get_parameter(parameter).grad is not None for parameter in plan.trainable)


def test_imagenet_s_normalisation_without_its_rescaling_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build_model("keras_efficientnetb0", num_classes=2)
    model.get_submodule("normalization").running_var.copy_(torch.tensor([0.229, 0.224, 0.225]))  # type: ignore[operator]
    torch.save(model.state_dict(), tmp_path / "effnet.pth")
    for rescaling, num_warnings in ((True, 0), (False, 1)):
        with caplog.at_level(logging.WARNING, logger="regraft"):
            load_pretrained(
                build_model("keras_efficientnetb0", num_classes=2, rescaling=rescaling), tmp_path / "effnet.pth"
            )
        assert len([record for record in caplog.records if "rescaling=True" in record.message]) == num_warnings


def test_keras_lists_by_depth_not_by_creation() -> None:
    graph = KerasGraph()
    start = graph.add(None, "InputLayer")
    short = graph.add("short", "Conv2D", start)
    long = graph.chain(start, ("long1", "Conv2D", None), ("long2", "Conv2D", None), (None, "Activation", None))
    end = graph.add(None, "Add", short, long)
    graph.add("unused", "Conv2D", start)
    names = [name for name, _, _ in graph.listing(end)]
    assert names == ["input_layer", "long1", "long2", "short", "activation", "add"]


def test_torchvision_alexnet_is_another_network() -> None:
    with torch.device("meta"):
        model = torchvision_alexnet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_100_840  # torchvision's num_params
    assert model(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    stored = info_of(model).preprocessing
    assert stored is not None
    assert stored.channels == "RGB"


# --- files of real Kerases ----------------------------------------------------------------------------------------

THIN_CASES = {
    "rn50_flat_old_names_py2": ("keras_resnet50", "2"),
    "rn50_nested_weights_h5_k3": ("keras_resnet50", "3"),
    "incv3_flat_offset_names": ("keras_inception_v3", "3"),
    "xception_flat_keras": ("keras_xception", "3"),
    "mbv1_h5_k212": ("keras_mobilenet", "3"),
}


@pytest.mark.parametrize("case_name", THIN_CASES)
def test_files_of_real_kerases_give_keras_s_numbers(case_name: str) -> None:
    """The files were written by Keras 2.2.4 to 3.15 for networks of a fraction of the width."""
    folder = SHARED / case_name
    if not folder.is_dir():
        pytest.skip(f"the frameworks' files are not here ({case_name}; set REGRAFT_SHARED)")
    case = json.loads((folder / "case.json").read_text())
    spec = importlib.util.spec_from_file_location("shared_targets", SHARED / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    targets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(targets)
    name, version = THIN_CASES[case_name]
    wanted = case["target"]
    model = build_model(name, keras_version=version, num_classes=wanted["kwargs"].get("num_classes", 1000))
    if wanted.get("narrow"):
        targets.narrow(model, wanted["narrow"], keep=tuple(wanted.get("keep", ())))
    report = match_weights(read_weights(folder / case["files"][0]), model.eval())
    graft(model, report.require("backbone"))
    expected = np.load(folder / "expected.npz")
    with torch.no_grad():
        features = model.forward_features(torch.from_numpy(expected["x_nchw"])).numpy()
    assert np.abs(features - expected["features"]).max() <= 1e-4 * np.abs(expected["features"]).max()
