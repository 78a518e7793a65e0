"""The arguments of `build_model` in the user's words: one code path for every kind of name, contradictions refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.layers.layers import num_parameters
from regraft.models.store.folder import load_model

NAMES = ["ant", "bee", "cat"]
THIN: dict[str, Any] = {"widths": (8, 8, 8, 8, 8), "hidden": 16}
NARROW: dict[str, Any] = {"mlp_ratio": 0.01}  # the dense layers of a VGG hold most of its weights


def shape_of(model: nn.Module, channels: int = 3, size: tuple[int, int] = (64, 64)) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(model.eval()(torch.zeros(1, channels, *size)).shape)


def file_of(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


def num_values(model: nn.Module) -> int:
    return sum(num_parameters(module)[0] for module in model.modules())


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [("test_resnet", {}, 64), ("alexnet", THIN, 227), ("keras_mobilenetv2", {}, 64), ("test_vit", {}, 160)],
)
def test_classes_by_number_and_by_name(name: str, arguments: dict[str, Any], size: int) -> None:
    by_number = rg.build_model(name, classes=3, **arguments)
    assert info_of(by_number).class_names is None
    assert shape_of(by_number, size=(size, size)) == (1, 3)
    by_name = rg.build_model(name, classes=NAMES, **arguments)
    assert info_of(by_name).class_names == tuple(NAMES)
    assert shape_of(by_name, size=(size, size)) == (1, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "size", "features"),
    [
        ("test_resnet", {}, (64, 96), (96, 2, 3)),
        ("test_convnext", {}, (64, 64), (64, 2, 2)),
        ("alexnet", THIN, (227, 227), (8, 6, 6)),
        ("keras_mobilenet", {}, (64, 64), (1024, 2, 2)),
        ("vgg11", NARROW, (64, 64), (512, 2, 2)),
    ],
)
def test_without_a_top(name: str, arguments: dict[str, Any], size: tuple[int, int], features: tuple[int, ...]) -> None:
    whole = rg.build_model(name, **arguments)
    base = rg.build_model(name, include_top=False, image_size=size, **arguments)
    assert shape_of(base, size=size) == (1, *features)
    assert shape_of(rg.build_model(name, include_top=False, pooling="none", **arguments), size=size) == (1, *features)
    pooled = rg.build_model(name, include_top=False, pooling="max", **arguments)
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(pooled.eval()(images), base.eval()(images).amax((2, 3)))
    for key, tensor in base.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[key])
    assert info_of(base).args["include_top"] is False


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [("alexnet", {}, (100, 131)), ("vgg16", NARROW, (40, 33)), ("keras_vgg16", NARROW, (40, 33))],
)
def test_a_base_takes_images_that_its_top_would_refuse(
    name: str, arguments: dict[str, Any], size: tuple[int, int]
) -> None:
    base = rg.build_model(name, include_top=False, pooling="avg", image_size=size, **arguments)
    assert base(torch.zeros(1, 3, *size)).shape == (1, 256 if name == "alexnet" else 512)
    assert preprocessing_of(base).pixels.size == size


def test_published_base_of_vgg16() -> None:
    with torch.device("meta"):
        base = rg.build_model("keras_vgg16", include_top=False, image_size=150)
        assert num_values(base) == 14_714_688
        assert base(torch.zeros(1, 3, 150, 150)).shape == (1, 512, 4, 4)
        head = rg.Head(pool="flatten", hidden=[256], dropout=0.5, output="binary")
        whole = rg.adapt(base, classes=["cat", "dog"], head=head)
        assert sum(1 for _ in whole.parameters()) == 30
        assert whole(torch.zeros(1, 3, 150, 150)).shape == (1, 1)


def test_a_network_without_a_top_takes_a_head(tmp_path: Path) -> None:
    base = rg.build_model("test_resnet", include_top=False, pooling="max")
    model = rg.adapt(base, classes=NAMES, image_size=64)
    assert shape_of(model) == (1, 3)
    info = info_of(model)
    assert info.args["head"]["pool"] == "max"
    assert "include_top" not in info.args
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64)
        classifier = model.get_submodule(info.head[0]).get_submodule("classifier")
        assert torch.allclose(model.eval()(images), classifier(base.eval()(images)), atol=1e-6)


def test_sizes_and_channels_go_through_surgery() -> None:
    model = rg.build_model("test_resnet", image_size=(64, 96), in_channels=4)
    assert preprocessing_of(model).pixels.size == (64, 96)
    assert shape_of(model, 4, (64, 96)) == (1, 1000)


@pytest.mark.parametrize("size", [16, (16, 300)])
def test_images_that_are_too_small(size: Any) -> None:
    with torch.device("meta"), pytest.raises(SettingsError, match="the smallest is 32x32"):
        rg.build_model("vgg11", image_size=size)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"include_top": False, "classes": NAMES}, "a network without a top has no classes"),
        ({"include_top": False, "classes": 3}, "a network without a top has no classes"),
        ({"pooling": "max"}, "include_top is True"),
        ({"pooling": "median", "include_top": False}, "expected none, avg or max"),
        ({"in_channels": 0}, "expected a number from 1"),
        ({"skip": ["fc"]}, "there are none"),
        ({"match": {"flip_stem": True}}, "there are none"),
        ({"classes": 3, "num_classes": 4}, "as well as num_classes"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rg.build_model("test_resnet", **arguments)
    assert said in " ".join(caught.value.details)


def test_all_contradictions_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        rg.build_model("test_resnet", include_top=False, classes=3, pooling="mean", in_channels=-1)
    assert len(caught.value.details) == 3


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["a", "a"], "names 'a' more than once"),
        (["a"], "has 1 name"),
        ("ab", "list is 'ab'"),
        ([], "has 0 name"),
        (0, "list is 0"),
        (True, "list is True"),
        ([1, 2], r"list is \[1, 2\]"),
    ],
)
def test_class_lists_that_are_none(classes: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rg.build_model("test_resnet", classes=classes)


def test_the_file_decides_how_many_rows_it_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = rg.build_model("test_resnet", classes=7, seed=1)
    path = file_of(source, tmp_path / "w.safetensors")
    with caplog.at_level(logging.INFO, "regraft"):
        model = rg.build_model("test_resnet", weights=path)
    assert "the weights are for num_classes 7" in caplog.text
    assert f"weights of test_resnet: file {path}" in caplog.text
    assert torch.equal(model.get_parameter("fc.weight"), source.get_parameter("fc.weight"))
    assert info_of(model).new_layers == ()
    fewer = rg.build_model("test_resnet", weights=path, classes=NAMES)
    assert info_of(fewer).new_layers == ("fc",)
    assert shape_of(fewer) == (1, 3)
    same = rg.build_model("test_resnet", weights=path, classes=list("abcdefg"))
    assert info_of(same).class_names == tuple("abcdefg")
    assert torch.equal(same.get_parameter("fc.weight"), source.get_parameter("fc.weight"))


def test_the_file_decides_how_many_channels_it_has(tmp_path: Path) -> None:
    grey = rg.build_model("test_resnet", in_channels=1, seed=1)
    path = file_of(grey, tmp_path / "grey.safetensors")
    same = rg.build_model("test_resnet", weights=path, in_channels=1)
    assert torch.equal(same.get_parameter("conv1.0.weight"), grey.get_parameter("conv1.0.weight"))
    colour = rg.build_model("test_resnet", weights=path)
    assert colour.get_parameter("conv1.0.weight").shape[1] == 3
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(grey.eval()(images), colour(images.expand(-1, 3, -1, -1)), atol=1e-5)
    two = rg.build_model("test_resnet", weights=file_of(colour, tmp_path / "colour.safetensors"), in_channels=2)
    assert shape_of(two, 2) == (1, 1000)


def test_weights_without_a_head_leave_it_new_and_say_so(tmp_path: Path) -> None:
    source = rg.build_model("test_resnet", seed=1)
    state = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "notop.safetensors")
    model = rg.build_model("test_resnet", weights=tmp_path / "notop.safetensors", classes=NAMES)
    assert info_of(model).new_layers == ("fc",)
    with pytest.raises(SettingsError, match="head is frozen while its weights are random"):
        rg.make_plan(model, [rg.Stage("top", train="layer4")])
    base = rg.build_model("test_resnet", weights=tmp_path / "notop.safetensors", include_top=False)
    assert info_of(base).new_layers == ()


def test_rows_follow_the_names_that_a_file_carries(tmp_path: Path) -> None:
    source = rg.build_model("test_resnet", classes=3, seed=1)
    arrays = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
    np.savez(tmp_path / "w.npz", class_names=np.array(NAMES), **arrays)
    model = rg.build_model("test_resnet", weights=tmp_path / "w.npz")
    assert info_of(model).class_names == tuple(NAMES)
    turned = rg.build_model("test_resnet", weights=tmp_path / "w.npz", classes=["cat", "dog", "ant"])
    before, after = source.get_parameter("fc.weight"), turned.get_parameter("fc.weight")
    assert torch.equal(after[[0, 2]], before[[2, 0]])
    rows = info_of(turned).origin.rows
    assert rows is not None
    assert rows.kept == ("cat", "ant")


def test_names_in_a_file_that_do_not_count_its_rows_are_left_alone(tmp_path: Path) -> None:
    source = rg.build_model("test_resnet", classes=4, seed=1)
    arrays = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
    np.savez(tmp_path / "w.npz", class_names=np.array(NAMES), **arrays)
    assert info_of(rg.build_model("test_resnet", weights=tmp_path / "w.npz")).class_names is None


def test_a_model_folder_carries_its_class_names(tiny_run: Path) -> None:
    weights = tiny_run / "model" / "model.safetensors"
    trained = load_model(tiny_run)
    model = rg.build_model("test_efficientnet", weights=weights)
    assert info_of(model).class_names == ("blue", "green", "red")
    assert torch.equal(model.get_parameter("classifier.weight"), trained.get_parameter("classifier.weight"))


def test_an_image_size_that_a_flattening_head_cannot_take() -> None:
    with pytest.raises(SettingsError, match="flattens a feature map of one size") as caught:
        rg.build_model("alexnet", image_size=300, **THIN)
    assert "pool='flatten'" in str(caught.value)
    flat = rg.adapt(rg.build_model("alexnet", **THIN), classes=NAMES, image_size=300, head=rg.Head(pool="flatten"))
    assert shape_of(flat, size=(300, 300)) == (1, 3)
    with pytest.raises(SettingsError, match="flattens a feature map of one size"):
        rg.adapt(flat, image_size=227)
    assert shape_of(rg.adapt(flat, classes=NAMES, image_size=227, head=rg.Head(pool="flatten")), size=(227, 227))
