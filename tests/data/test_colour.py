"""Colour changes against torchvision's, and what a turn of the hue leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torchvision.transforms.v2 import functional as tv

from regraft.data.augment.colour import recolour_


def photo(height: int = 64, width: int = 64, *, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """A smooth picture with every colour in it, uint8 (C, H, W), as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (channels, 7, 7)).astype(np.float64)
    zoomed = ndimage.zoom(coarse, (1, height / 7, width / 7), order=3, mode="nearest")
    return torch.from_numpy(np.clip(zoomed, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_single_colour_changes_equal_torchvision(name: str, factor: float) -> None:
    image = photo(seed=3)
    adjust = getattr(tv, f"adjust_{name}")
    result = recolour_(image[None].float(), **{name: np.array([factor])})[0]
    assert (result - adjust(image.float() / 255, factor) * 255).abs().max() < 0.2
    assert (result.floor() - adjust(image, factor).float()).abs().max() <= 1


@given(st.floats(-0.5, 0.5), st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_hue_keeps_greys_and_luma(turn: float, level: int) -> None:
    grey = torch.full((1, 3, 4, 4), level, dtype=torch.uint8)
    assert torch.allclose(recolour_(grey.float(), hue=np.array([turn])), grey.float(), atol=0.02)
    # Pale colours only: strong ones leave the range of colours and are clipped.
    pale = photo(seed=5)[None].float() / 8 + 112
    luma = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    turned = recolour_(pale.clone(), hue=np.array([turn]))
    assert torch.allclose((turned * luma).sum(1), (pale * luma).sum(1), atol=0.02)


def test_hue_turns_red_towards_green_and_back_after_a_full_circle() -> None:
    red = torch.tensor([150.0, 60.0, 60.0]).reshape(1, 3, 1, 1)
    third = recolour_(red.clone(), hue=np.array([1 / 3])).flatten()
    assert third.argmax() != 0
    assert torch.allclose(recolour_(red.clone(), hue=np.array([1.0])), red, atol=0.01)


def test_colours_are_clipped_to_white_on_the_callers_scale() -> None:
    image = photo()[None].float() / 255
    result = recolour_(image.clone(), brightness=np.array([3.0]), white=1.0)
    assert result.max() == 1.0
    assert torch.equal(result, (image * 3).clamp(0, 1))
