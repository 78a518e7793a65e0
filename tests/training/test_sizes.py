"""Images that are too small for a network are refused before anything is written; small ones that it takes are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.training.limits.stage_sizes import require_room


def without_padding() -> nn.Module:
    """Three convolutions that take two pixels off each side: of 12 pixels none are left."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3 if place == 0 else 4, 4, 5) for place in range(3)]
    layers = [*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return rg.adapt(nn.Sequential(*layers), classes=("bright", "dark"), image_size=32)


@pytest.mark.parametrize(("size", "why"), [(1, "at least 8 pixels"), (7, "at least 8"), (12, "cannot compute them")])
def test_too_small_a_stage_is_refused(size: int, why: str) -> None:
    stages = [rg.Stage("a", optimizer="sgd"), rg.Stage("b", optimizer="sgd", image_size=size)]
    with pytest.raises(SettingsError, match=f"Images of {size}x{size} pixels are too small") as refused:
        require_room(without_padding(), stages)
    assert why in refused.value.expected


@pytest.mark.parametrize("size", [13, 16, (13, 90)])
def test_what_the_network_takes_is_not_refused(size: int | tuple[int, int]) -> None:
    require_room(without_padding(), [rg.Stage("a", optimizer="sgd", image_size=size)])


@pytest.mark.parametrize(("window", "why"), [((40, 16), "cut out of images of 32x32"), (12, "too small")])
def test_windows_fit_in_their_images_and_the_network(window: int | tuple[int, int], why: str) -> None:
    stage = rg.Stage("a", optimizer="sgd", augment=rg.Augment(window=window))
    with pytest.raises(SettingsError, match=why):
        require_room(without_padding(), [stage])


def test_a_window_counts_by_the_size_of_training_images() -> None:
    stage = rg.Stage("a", optimizer="sgd", train_image_size=24, augment=rg.Augment(window=28))
    with pytest.raises(SettingsError, match="cut out of images of 24x24"):
        require_room(without_padding(), [stage])
