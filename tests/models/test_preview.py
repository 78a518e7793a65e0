"""The plan of a surgery tells what the surgery then does."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from tests.conftest import photos
from torch import nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.describe.trace import trace
from regraft.models.surgery.preview import surgery_plan

CLASSES = ["cat", "dog"]


def resnet50() -> nn.Module:
    with torch.device("meta"):
        return timm.create_model("resnet50")


def test_flatten_against_pooling_at_128_pixels() -> None:
    """Flatten of 4x4x2048 hands on 32,768 numbers, global pooling 2,048."""
    plan = surgery_plan(resnet50(), classes=CLASSES, image_size=128, head=rg.Head(pool="flatten"))
    assert plan.features == (2048, 4, 4)
    costs = {cost.pool: (cost.num_inputs, cost.num_parameters) for cost in (plan.cost, *plan.others) if cost}
    assert costs == {"flatten": (32_768, 65_538), "avg": (2048, 4098), "max": (2048, 4098), "avgmax": (4096, 8194)}
    assert plan.cost is not None
    assert plan.cost.pool == "flatten"
    text = plan.render()
    assert "features 4×4×2048" in text
    assert "flatten  32,768 inputs  65,538 parameters of the new layers  <- chosen" in text
    assert "avg       2,048 inputs   4,098 parameters" in text


def test_shapes_of_resnet50_at_128_pixels() -> None:
    calls = trace(resnet50(), 128)
    assert calls["act1"].shape == (64, 64, 64)
    assert calls["layer4"].shape == (2048, 4, 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"classes": CLASSES, "image_size": 64, "head": rg.Head(pool="flatten", hidden=[16, 8], dropout=0.5)},
        {"classes": CLASSES, "image_size": (64, 96), "head": rg.Head(pool="avgmax")},
        {"classes": CLASSES, "image_size": 64},
        {"classes": CLASSES, "image_size": 64, "in_channels": 1, "head": rg.Head(hidden=[8])},
        {"bands": ["R", "G", "B", "NIR"]},
    ],
)
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_the_plan_is_what_is_done(name: str, arguments: dict[str, Any]) -> None:
    model = rg.build_model(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plan = surgery_plan(model, **arguments)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    adapted = rg.adapt(model, **arguments)
    info = info_of(adapted)
    total = sum(p.numel() for p in adapted.parameters()) + sum(
        b.numel() for key, b in adapted.named_buffers() if "num_batches" not in key
    )
    assert plan.num_backbone_parameters + plan.num_head_parameters == total
    assert info.preprocessing is not None
    assert plan.image_size == info.preprocessing.pixels.size
    if plan.cost is not None:
        new = [p.numel() for key, p in adapted.named_parameters() if info.is_new(key)]
        assert plan.cost.num_parameters == sum(new)
    assert plan.render() == surgery_plan(model, **arguments).render()


def test_rows_and_stem_are_told() -> None:
    model = rg.adapt(rg.build_model("test_resnet"), classes=["cat", "dog", "hen"], image_size=64)
    plan = surgery_plan(model, classes=["owl", "cat"], in_channels=1)
    assert "classes     2: kept cat; added owl; dropped dog, hen" in plan.render()
    assert "stem        conv1.0: the sum of 3 kernels" in plan.render()
    other = surgery_plan(model, classes=["owl", "cat"], head=rg.Head(pool="max"))
    assert "added owl, cat; dropped dog, hen (the head has another form)" in other.render()


def test_feature_maps_with_channels_last_are_not_taken_for_others() -> None:
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224")
    plan = surgery_plan(model, classes=CLASSES)
    assert (plan.features, plan.others) == (None, ())
    with pytest.raises(SettingsError, match="not in a feature map"):
        surgery_plan(model, classes=CLASSES, head=rg.Head(pool="avg"))


def test_the_plan_refuses_what_surgery_refuses() -> None:
    for arguments, said in (({"classes": ["cat"]}, "1 name"), ({"classes": CLASSES, "in_channels": 0}, "0 channels")):
        with pytest.raises(SettingsError, match=said):
            surgery_plan(resnet50(), **arguments)


def test_a_dry_run_prints_the_plan_and_writes_nothing(cli: Any, tiny_photos: Any, tmp_path: Any) -> None:
    out = tmp_path / "run"
    options = ("--model", "test_resnet", "--image-size", 64, "--set", "head.pool=flatten", "--out", out)
    result = cli("train", tiny_photos, *options, "--dry-run")
    assert result.code == 0
    assert "flatten  384 inputs" in result.out
    assert "head: trains head (2 tensors, 1,155 parameters) on 64x64 images\n    fit with L-BFGS" in result.out
    assert "10 epochs of 1 step (10 steps), batches of 32, adamw, lr backbone/depth-0 " in result.out
    assert "whole run: about" in result.out
    assert "timed and counted just now on this machine (cpu, " in result.out
    assert not out.exists()
    refused = cli("train", tiny_photos, *options, "--set", "stages.0.train=heed", "--dry-run")
    assert refused.code == 2
    assert "did you mean 'head'" in refused.err
    bands = cli("train", tiny_photos, *options, "--set", "model.in_channels=4", "--dry-run")
    assert bands.code == 2
    assert "takes 4 bands" in bands.err


def test_a_dry_run_on_an_earlier_run_tells_which_rows_stay(cli: Any, tiny_run: Any, tmp_path: Any) -> None:
    source = photos(tmp_path / "photos", {"red": 6, "yellow": 6, "blue": 6})
    options = ("--model", "test_efficientnet", "--image-size", 32, "--dry-run")
    result = cli("train", source, *options, "--set", f"model.weights={tiny_run}")
    assert result.code == 0, result.err
    assert "classes     3: kept blue, red; added yellow; dropped green" in result.out
    missing = cli("train", source, *options, "--set", f"model.weights={tmp_path / 'not_there'}")
    assert missing.code != 0
    assert "not_there" in missing.err
