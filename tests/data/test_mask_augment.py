"""Masks move with their images: one draw for both, nearest pixels, and nothing made up beyond the border."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.data.drawn import COLOURS, classes, picture

from regraft.data.augment.augment import apply
from regraft.errors import SettingsError
from regraft.settings.augment import Augment

GEOMETRY = Augment(rotation=35, shift=0.15, shear=12, zoom=0.3, flip="both", crop=(0.4, 1.0), fill="constant")


def batch(num: int = 6, height: int = 40, width: int = 56) -> tuple[torch.Tensor, torch.Tensor]:
    masks = np.stack([classes(height, width, seed) for seed in range(num)])
    images = np.stack([picture(mask) for mask in masks]).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(masks)


def decoded(images: torch.Tensor) -> np.ndarray:
    """The class whose colour is nearest to each pixel, (N, H, W)."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    distances = np.stack([np.abs(pixels - colour).sum(-1) for colour in COLOURS.astype(np.float32)])
    return distances.argmin(0)


def inner(mask: np.ndarray) -> np.ndarray:
    """Pixels whose whole neighbourhood lies in the picture and has one value."""
    low, high = (
        found(mask, 5, mode="constant", cval=255) for found in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    same = low == high
    return same & (mask != 255)


@given(
    st.builds(
        Augment,
        rotation=st.floats(0, 180),
        shift=st.floats(0, 0.3),
        shear=st.floats(0, 30),
        zoom=st.floats(0, 0.5),
        flip=st.sampled_from([None, "horizontal", "vertical", "both"]),
        crop=st.sampled_from([None, (0.3, 1.0), (0.5, 0.5)]),
        window=st.sampled_from([None, (30, 24)]),
        fill=st.sampled_from(["nearest", "reflect", "constant"]),
    ),
    st.integers(0, 10_000),
    st.sampled_from([(40, 56), (33, 33), (57, 31)]),
)
@settings(max_examples=60, deadline=None)
def test_away_from_borders_the_mask_says_what_the_image_shows(
    augment: Augment, epoch: int, size: tuple[int, int]
) -> None:
    images, masks = batch(4, *size)
    changed, moved = apply(images, augment, seed=3, epoch=epoch, sample_ids=range(4), masks=masks)
    shown = decoded(changed)
    for mask, classes_shown in zip(moved.numpy(), shown, strict=True):
        where = inner(mask)
        np.testing.assert_array_equal(mask[where], classes_shown[where])


def test_the_images_are_those_without_masks_and_a_sample_does_not_depend_on_its_batch() -> None:
    images, masks = batch()
    augment = Augment(rotation=20, flip="horizontal", erase=0.5, brightness=0.3, hue=0.1, fill="constant")
    alone = apply(images, augment, seed=7, epoch=2, sample_ids=range(6))
    changed, moved = apply(images, augment, seed=7, epoch=2, sample_ids=range(6), masks=masks)
    assert torch.equal(alone, changed)
    for row in (5, 0, 3):
        one, its = apply(images[[row]], augment, seed=7, epoch=2, sample_ids=[row], masks=masks[[row]])
        assert torch.equal(one[0], changed[row])
        assert torch.equal(its[0], moved[row])


@pytest.mark.parametrize(("fill", "ignored"), [("nearest", True), ("constant", True), ("reflect", False)])
def test_what_comes_from_beyond_the_border_is_ignored_unless_it_is_mirrored(fill: str, ignored: bool) -> None:
    images, masks = batch()
    _, moved = apply(images, Augment(shift=0.4, fill=fill), seed=0, epoch=0, sample_ids=range(6), masks=masks)
    assert bool((moved == 255).any()) is ignored
    assert set(moved.unique().tolist()) <= {0, 1, 2, 3, 255}


def test_colours_leave_masks_alone_and_an_erased_rectangle_is_ignored() -> None:
    images, masks = batch()
    colour = Augment(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3)
    changed, moved = apply(images, colour, seed=0, epoch=0, sample_ids=range(6), masks=masks)
    assert torch.equal(moved, masks)
    assert not torch.equal(changed, images.float())
    changed, moved = apply(
        images, Augment(erase=1.0), seed=0, epoch=0, sample_ids=range(6), masks=masks, constant=300.0
    )
    assert torch.equal(moved == 255, (changed == 300.0).all(1))
    assert torch.equal(moved[moved != 255], masks[moved != 255])


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "both"])
def test_flips_are_exact(flip: str) -> None:
    images, masks = batch(20)
    changed, moved = apply(images, Augment(flip=flip), seed=1, epoch=0, sample_ids=range(20), masks=masks)
    np.testing.assert_array_equal(decoded(changed), moved.numpy())
    assert not torch.equal(moved, masks)


def test_masks_of_another_size_or_kind_are_refused() -> None:
    images, masks = batch()
    for wrong in (masks[:5], masks[:, :-1], masks.long(), masks[:, None]):
        with pytest.raises(SettingsError, match="masks have the shape"):
            apply(images, GEOMETRY, seed=0, epoch=0, sample_ids=range(6), masks=wrong)


def test_an_input_is_never_changed() -> None:
    images, masks = batch()
    before = masks.clone()
    for augment in (GEOMETRY, Augment(flip="both"), Augment(erase=1.0), Augment()):
        apply(images, augment, seed=0, epoch=0, sample_ids=range(6), masks=masks)
        assert torch.equal(masks, before)
