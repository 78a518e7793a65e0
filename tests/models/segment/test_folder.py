"""Surgery and the model folder: classes that keep their rows, other channels, what is loaded is what was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from tests.conftest import Cli
from tests.models.segment.networks import SMALL
from torch import Tensor, nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.evaluation.probes import make_probes
from regraft.models.describe.info import info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import output_of
from regraft.models.describe.provenance import Rows
from regraft.models.store.folder import CONFIG, load_probes, write_model
from regraft.models.surgery.surgery import default_preprocessing

CLASSES = ["sky", "road", "car"]


def build(**arguments: object) -> nn.Module:
    return rg.build_model("unet", **{"encoder": SMALL, "filters": [8, 8, 8, 8], **arguments})  # type: ignore[arg-type]


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(images)


def test_rows_follow_the_class_names() -> None:
    model = build(classes=CLASSES)
    images = torch.randn(2, 3, 40, 33)
    before = logits(model, images)
    changed = rg.adapt(model, classes=["car", "tree", "sky"])
    after = logits(changed, images)
    assert torch.allclose(after[:, [0, 2]], before[:, [2, 0]], atol=1e-6)
    assert info_of(changed).class_names == ("car", "tree", "sky")
    assert info_of(changed).origin.rows == Rows(kept=("car", "sky"), added=("tree",), dropped=("road",))
    assert info_of(changed).new_layers == ("decoder", "classifier")
    assert torch.equal(logits(model, images), before)
    assert output_of(changed) == "segmentation"


def test_a_grey_image_and_a_fourth_band_keep_the_stem() -> None:
    model = build(classes=CLASSES)
    weight = model.encoder.state_dict()[_stem(model)]
    grey = rg.adapt(model, in_channels=1)
    assert torch.allclose(grey.encoder.state_dict()[_stem(model)], weight.sum(1, keepdim=True))
    assert logits(grey, torch.randn(1, 1, 37, 40)).shape == (1, 3, 37, 40)
    bands = rg.adapt(model, bands=["R", "G", "B", "NIR"])
    assert torch.equal(bands.encoder.state_dict()[_stem(model)][:, :3], weight)


def _stem(model: nn.Module) -> str:
    return model.pretrained_cfg["first_conv"].removeprefix("encoder.") + ".weight"  # type: ignore[index,union-attr]


def test_any_image_size_and_dropout_before_the_classifier() -> None:
    model = rg.adapt(build(), classes=CLASSES, image_size=(45, 61), head=rg.Head(dropout=0.3))
    assert model.head_drop.p == 0.3
    assert info_of(model).preprocessing.pixels.size == (45, 61)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (rg.Head(pool="avg"), "one convolution"),
        (rg.Head(hidden=[8]), "one convolution"),
        (rg.Head(output="multilabel"), "one convolution"),
    ],
)
def test_heads_that_name_no_pixels_are_refused(head: rg.Head, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rg.adapt(build(), classes=CLASSES, head=head)


def test_a_classifier_of_images_is_no_segmentation() -> None:
    with pytest.raises(SettingsError, match="not of its pixels"):
        rg.adapt(rg.build_model(SMALL), classes=CLASSES, head=rg.Head(output="segmentation"))


def test_the_plan_tells_what_it_costs() -> None:
    told = rg.surgery_plan(build(), classes=CLASSES).render()
    assert "decoder" in told
    assert "softmax over the classes of each pixel" in told
    assert "pooling" not in told


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unet", {"encoder": SMALL, "filters": [8, 8, 8, 8], "dropout": 0.2}),
        ("unet", {"encoder": "test_efficientnet", "depth": 3, "filters": [8, 4], "up": "transposed", "in_channels": 1}),
        ("segnet", {"encoder": "vgg11_bn", "depth": 2, "dropout": 0.5}),
    ],
)
def test_what_is_loaded_is_what_was_written(name: str, arguments: dict[str, object], tmp_path: Path) -> None:
    model = rg.build_model(name, seed=3, **arguments)  # type: ignore[arg-type]
    model = rg.adapt(model, classes=CLASSES, image_size=(40, 52))
    preprocessing = default_preprocessing(model)
    images = np.random.default_rng(0).integers(0, 256, (4, 40, 52, 3), dtype=np.uint8)
    config = write_model(tmp_path / "model", model, probes=make_probes(model, images, Normaliser(preprocessing)))
    assert config["architecture"] == f"regraft/{name}"
    assert config["regraft"]["output"] == "segmentation"
    assert "image-segmentation" in (tmp_path / "model" / "README.md").read_text()
    loaded = rg.load_model(tmp_path / "model")
    probes = load_probes(tmp_path / "model")
    assert torch.equal(logits(loaded, probes["images"]), probes["logits"])
    assert info_of(loaded).class_names == tuple(CLASSES)
    assert output_of(loaded) == "segmentation"
    assert info_of(loaded).new_layers == ()
    with pytest.raises(RuntimeError, match="regraft"):
        timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)


def test_probes_of_large_images_stay_small(tmp_path: Path) -> None:
    model = rg.adapt(build(), classes=CLASSES, image_size=(400, 500))
    images = np.zeros((8, 400, 500, 3), np.uint8)
    probes = make_probes(model, images, Normaliser(default_preprocessing(model)))
    assert sum(tensor.numel() for tensor in probes.values()) < 500_000


class Fcn(nn.Module):
    """A user's own network for segmentation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 21, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.conv(images).relu())


def test_a_module_of_one_s_own(tmp_path: Path) -> None:
    """As of segmentation-models-pytorch: its maps say what it is, its last convolution becomes the classifier."""
    adapted = rg.adapt(Fcn(), classes=CLASSES, image_size=24)
    assert output_of(adapted) == "segmentation"
    assert logits(adapted, torch.randn(1, 3, 24, 30)).shape == (1, 3, 24, 30)
    images = np.zeros((2, 24, 24, 3), np.uint8)
    write_model(
        tmp_path / "m", adapted, probes=make_probes(adapted, images, Normaliser(default_preprocessing(adapted)))
    )
    loaded = rg.load_model(tmp_path / "m", model=Fcn())
    assert torch.equal(logits(loaded, torch.ones(1, 3, 24, 24)), logits(adapted, torch.ones(1, 3, 24, 24)))
    assert json.loads((tmp_path / "m" / CONFIG).read_text())["regraft"]["output"] == "segmentation"


def test_inspect_lists_a_unet_and_a_folder(cli: Cli) -> None:
    result = cli("inspect", "unet", "--image-size", "32")
    assert result.code == 0, result.err
    assert "block5_conv3" in result.out
    assert "decoder.stage4.convs.conv2" in result.out
    result = cli("inspect", "unet", "--arg", f"encoder={SMALL}", "--arg", "depth=3", "--arg", "filters=[8, 4]")
    assert result.code == 0, result.err
    assert "decoder.stage2.convs.conv2" in result.out
    assert "decoder.stage3" not in result.out
    assert {"segnet", "unet"} <= set(cli("inspect", "*net").out.split())
    assert cli("inspect", "unet", "--arg", "encoder").code == 2
