"""Other channels: the pretrained stem is kept, and answers grey as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import regraft as rg
from regraft.assembly.rehearsal import rehearse
from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.channels import choose_mix, stem_layers
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.trace import image_channels
from regraft.models.store.folder import read_config
from regraft.models.surgery.surgery import default_preprocessing

CLASSES = ["cat", "dog"]


def preprocessing(model: nn.Module) -> Preprocessing:
    return preprocessing_of(model)


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "channels"),
    [*(("test_resnet", count) for count in range(1, 8)), ("test_efficientnet", 4), ("test_byobnet", 1), ("alexnet", 4)],
)
def test_the_answer_to_grey_stays(name: str, channels: int) -> None:
    model = rg.build_model(name, num_classes=5)
    changed = rg.adapt(model, in_channels=channels)
    side = 227 if name == "alexnet" else 64
    grey = torch.randn(2, 1, side, side)
    before, after = logits(model, grey.expand(-1, 3, -1, -1)), logits(changed, grey.expand(-1, channels, -1, -1))
    assert (before - after).abs().max() <= 1e-5 * max(1, before.abs().max())
    stem = set(stem_layers(model))
    for key, tensor in model.state_dict().items():
        assert torch.equal(changed.state_dict()[key], tensor) or key.removesuffix(".weight") in stem
    assert image_channels(model) == 3
    assert info_of(changed).args.get("in_chans", 3) == channels


def test_one_channel_is_the_sum_of_the_three() -> None:
    model = rg.build_model("test_efficientnet")
    changed = rg.adapt(model, in_channels=1)
    weight = model.get_parameter("conv_stem.weight")
    assert torch.allclose(changed.get_parameter("conv_stem.weight"), weight.sum(1, keepdim=True), atol=1e-7)
    assert changed.get_submodule("conv_stem").in_channels == 1
    described = preprocessing(changed)
    assert described.channels == "L"
    assert described.mean == pytest.approx([sum(default_preprocessing(model).mean) / 3])
    assert described.std == pytest.approx([sum(default_preprocessing(model).std) / 3])


def test_bands_by_name_keep_their_kernels() -> None:
    model = timm.create_model("test_resnet")
    changed = rg.adapt(model, classes=CLASSES, image_size=64, bands=["NIR", "B", "R", "G"])
    old, new = model.get_parameter("conv1.0.weight"), changed.get_parameter("conv1.0.weight")
    assert torch.equal(new[:, 1:], old[:, [2, 0, 1]])
    assert torch.allclose(new[:, 0], old.mean(1))
    described, before = preprocessing(changed), default_preprocessing(model)
    assert described.channels == ("NIR", "B", "R", "G")
    assert described.mean[1:] == (before.mean[2], before.mean[0], before.mean[1])
    assert described.mean[0] == pytest.approx(sum(before.mean) / 3)
    assert "NIR average, B kept" in info_of(changed).origin.stem
    again = rg.adapt(changed, bands=["R", "G", "B"])
    assert torch.equal(again.get_parameter("conv1.0.weight"), old)
    assert preprocessing(again).channels == "RGB"
    assert "in_chans" not in info_of(again).args


def test_a_network_for_bgr_becomes_one_for_rgb() -> None:
    model = rg.build_model("alexnet", num_classes=3)
    changed = rg.adapt(model, bands=["R", "G", "B"])
    before, after = default_preprocessing(model), preprocessing(changed)
    assert (before.channels, after.channels) == ("BGR", "RGB")
    assert after.mean == before.mean[::-1]
    assert torch.equal(changed.get_parameter("conv1.weight"), model.get_parameter("conv1.weight").flip(1))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 227, 227, 3), dtype=np.uint8)
    outputs = []
    for network, described in ((model, before), (changed, after)):
        normaliser = Normaliser(described)
        outputs.append(logits(network, normaliser(normaliser.pixels(pixels))))
    assert torch.allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_a_users_own_module() -> None:
    model = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert stem_layers(model) == ("1",)
    changed = rg.adapt(model, classes=CLASSES, image_size=16, in_channels=2)
    assert changed(torch.zeros(1, 2, 16, 16)).shape == (1, 2)
    assert preprocessing(changed).channels == ("band1", "band2")
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 2)


def test_a_grey_model_survives_its_folder_and_trains(tiny_photos: Any, tmp_path: Any) -> None:
    data = rg.open_data(tiny_photos)
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32, in_channels=1)
    run = rg.train(model, rg.make_plan(model, [rg.Stage("head", epochs=1)]), data, out=tmp_path / "run", show=False)
    loaded = rg.load_model(run.path)
    config = read_config(run.model)
    assert config["pretrained_cfg"]["input_size"] == [1, 32, 32]
    assert config["regraft"]["timm_loadable"]
    recipe = run.settings()
    assert (recipe["model"]["in_channels"], recipe["model"]["args"]) == (1, {})  # its weights are for colour
    assert "channels L" in rehearse(recipe)
    assert loaded.get_submodule("conv_stem").in_channels == 1
    images = torch.randn(2, 1, 32, 32)
    assert torch.allclose(logits(loaded, images), logits(model, images), atol=1e-5)
    rows = list(rg.predict(run.path, tiny_photos))
    assert {row.prediction for row in rows} <= set(data.class_names)
    assert not any(row.error for row in rows)


def test_a_run_on_bands_that_photos_do_not_have_is_refused(tiny_photos: Any, tmp_path: Any) -> None:
    data = rg.open_data(tiny_photos)
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32, in_channels=4)
    with pytest.raises(SettingsError, match="takes 4 bands"):
        rg.train(model, rg.make_plan(model, [rg.Stage("head", epochs=1)]), data, out=tmp_path / "run", show=False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"in_channels": 0}, "would take 0 channels"),
        ({"in_channels": -1}, "would take -1 channels"),
        ({"bands": []}, "a list of names"),
        ({"bands": "RGB"}, "a list of names"),
        ({"bands": ["R", "R"]}, "stands once"),
        ({"bands": ["R", "G"], "in_channels": 3}, "in_channels is 3, and bands names 2"),
    ],
)
def test_channels_that_cannot_be(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        choose_mix("RGB", **arguments)
    assert text in str(caught.value)


def test_a_stem_that_rearranges_the_image_is_refused() -> None:
    model = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SettingsError, match="takes 48 channels"):
        rg.adapt(model, in_channels=1)
