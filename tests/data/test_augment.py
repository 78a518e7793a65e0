"""Augmentation: what each setting does, and the same bits whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.conftest import needs_cuda

from regraft.data.augment.augment import apply
from regraft.errors import SettingsError
from regraft.settings.augment import Augment


def photo(height: int = 64, width: int = 64, *, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """A smooth picture with every colour in it, uint8 (C, H, W), as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (channels, 7, 7)).astype(np.float64)
    zoomed = ndimage.zoom(coarse, (1, height / 7, width / 7), order=3, mode="nearest")
    return torch.from_numpy(np.clip(zoomed, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "both"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_flips_are_exact_and_happen_to_about_half(flip: str, kind: torch.dtype) -> None:
    images = torch.stack([photo(9, 14, seed=seed) for seed in range(40)]).to(kind)
    result = apply(images, Augment(flip=flip), seed=1, epoch=0, sample_ids=range(40))
    axes = {"horizontal": [[], [-1]], "vertical": [[], [-2]], "both": [[], [-1], [-2], [-1, -2]]}[flip]
    turned = [images.float().flip(axis) if axis else images.float() for axis in axes]
    hits = [sum(torch.equal(result[i], option[i]) for i in range(40)) for option in turned]
    assert sum(hits) == 40
    assert all(count >= 3 for count in hits)


def test_flip_inside_a_warp_is_the_warp_of_a_flip() -> None:
    images = torch.stack([photo(seed=seed) for seed in range(12)])
    only_warp = apply(images, Augment(rotation=30, zoom=0.2), seed=4, epoch=2, sample_ids=range(12))
    both = apply(images, Augment(rotation=30, zoom=0.2, flip="horizontal"), seed=4, epoch=2, sample_ids=range(12))
    kinds = [
        min((both[i] - option).abs().max().item() for option in (only_warp[i], only_warp[i].flip(-1)))
        for i in range(12)
    ]
    assert max(kinds) < 0.5
    assert any((both[i] - only_warp[i]).abs().max() > 20 for i in range(12))


def test_crop_cuts_a_share_of_the_area_and_fills_the_frame() -> None:
    ramp = torch.arange(100.0).expand(200, 3, 100, 100)
    out = apply(ramp, Augment(crop=(0.25, 0.25)), seed=0, epoch=0, sample_ids=range(200))
    widths = out[:, 0, 50, -1] - out[:, 0, 50, 0]
    assert 50 * (3 / 4) ** 0.5 - 1.5 <= widths.min() < 46
    assert 54 < widths.max() <= 50 * (4 / 3) ** 0.5 + 0.5
    assert out.min() >= 0
    assert out[:, 0, 50, 0].min() < 5
    assert out[:, 0, 50, -1].max() > 94


def test_erase_fills_a_rectangle_and_nothing_else() -> None:
    images = torch.stack([photo(seed=seed) for seed in range(60)])
    out = apply(images, Augment(erase=1.0), seed=0, epoch=0, sample_ids=range(60), constant=(300.0, 301.0, 302.0))
    gone = out[:, 0] == 300.0
    assert torch.equal(out.movedim(1, -1)[~gone], images.float().movedim(1, -1)[~gone])
    shares = gone.float().mean((1, 2))
    assert shares.min() > 0.015
    assert shares.max() < 0.35
    rows, columns = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(rows * columns, gone.sum((1, 2)))


def test_a_window_holds_pixels_of_the_image_in_full_resolution() -> None:
    images = torch.stack([photo(41, 37, seed=seed) for seed in range(30)])
    out = apply(images, Augment(window=(12, 20)), seed=3, epoch=1, sample_ids=range(30))
    assert out.shape == (30, 3, 12, 20)
    places = set()
    for part, whole in zip(out, images.float(), strict=True):
        windows = whole.unfold(1, 12, 1).unfold(2, 20, 1)
        same = (windows - part[:, None, None]).abs().amax((0, 3, 4)) < 1e-2
        places.add(tuple(same.nonzero()[0].tolist()))
    assert len(places) > 20
    with pytest.raises(SettingsError, match="12x38 pixels is to be cut out of images of 41x37"):
        apply(images, Augment(window=(12, 38)), seed=3, epoch=1, sample_ids=range(30))


def test_a_window_leaves_all_other_draws_as_they_were() -> None:
    images = torch.stack([photo(40, 40, seed=seed) for seed in range(4)])
    whole = apply(images, Augment(rotation=20, zoom=0.2, brightness=0.3), seed=3, epoch=1, sample_ids=range(4))
    full = Augment(rotation=20, zoom=0.2, brightness=0.3, window=40)
    assert torch.equal(apply(images, full, seed=3, epoch=1, sample_ids=range(4)), whole)


EVERYTHING = Augment(
    rotation=40, shift=0.2, shear=11.5, zoom=0.2, flip="both", crop=(0.5, 1.0),
    brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, erase=0.5, fill="reflect",
)  # fmt: skip
POOL = torch.stack([photo(37, 41, seed=seed) for seed in range(9)])


@given(
    chosen=st.lists(st.integers(0, 8), min_size=1, max_size=14),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 500),
    augment=st.sampled_from([EVERYTHING, Augment(flip="both", contrast=0.5), Augment(rotation=10, fill="constant")]),
)
@settings(max_examples=40, deadline=None)
def test_a_sample_has_the_same_bits_in_any_batch(chosen: list[int], seed: int, epoch: int, augment: Augment) -> None:
    ids = np.array(chosen)
    batch = apply(POOL[ids], augment, seed=seed, epoch=epoch, sample_ids=ids)
    last = apply(POOL[ids[-1:]], augment, seed=seed, epoch=epoch, sample_ids=ids[-1:])
    assert torch.equal(batch[-1:], last)
    assert torch.equal(apply(POOL[ids].float(), augment, seed=seed, epoch=epoch, sample_ids=ids), batch)


def test_the_number_of_threads_and_the_memory_layout_change_no_bit() -> None:
    wanted = apply(POOL, EVERYTHING, seed=7, epoch=1, sample_ids=range(9))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            last_channel = POOL.contiguous(memory_format=torch.channels_last)
            assert torch.equal(apply(last_channel, EVERYTHING, seed=7, epoch=1, sample_ids=range(9)), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"sample_ids": [1]}])
def test_seed_epoch_and_sample_each_change_the_picture(other: dict) -> None:
    usual = {"seed": 0, "epoch": 0, "sample_ids": [0]}
    image = photo()[None]
    assert not torch.equal(apply(image, EVERYTHING, **usual), apply(image, EVERYTHING, **(usual | other)))


def test_switching_one_change_on_leaves_the_numbers_of_the_others() -> None:
    image = photo()[None]
    turned = apply(image, Augment(rotation=40), seed=0, epoch=0, sample_ids=[0])
    brighter = apply(image, Augment(rotation=40, brightness=0.5), seed=0, epoch=0, sample_ids=[0])
    ratio = (brighter[brighter < 254] / turned[brighter < 254])[turned[brighter < 254] > 20]
    assert ratio.std() < 1e-3


@given(st.floats(0.0, 180.0), st.floats(0.0, 0.5), st.floats(0.0, 0.9))
@settings(max_examples=25, deadline=None)
def test_pixels_stay_within_the_range_of_the_picture(rotation: float, shift: float, zoom: float) -> None:
    augment = Augment(rotation=rotation, shift=shift, zoom=zoom, fill="reflect")
    out = apply(POOL, augment, seed=0, epoch=0, sample_ids=range(9))
    assert out.min() >= POOL.min() - 0.01
    assert out.max() <= POOL.max() + 0.01


def test_no_change_gives_the_pictures_back_as_float() -> None:
    assert Augment().is_identity
    assert Augment(fill="constant").is_identity
    assert not Augment(hue=0.1).is_identity
    out = apply(POOL, Augment(), seed=0, epoch=0, sample_ids=range(9))
    assert out.dtype == torch.float32
    assert torch.equal(out, POOL.float())


def test_the_input_is_never_changed() -> None:
    images = POOL.float()
    for augment in (EVERYTHING, Augment(flip="both"), Augment(brightness=0.5), Augment(erase=1.0)):
        apply(images, augment, seed=0, epoch=0, sample_ids=range(9))
    assert torch.equal(images, POOL.float())


def test_an_empty_batch_stays_empty() -> None:
    assert apply(POOL[:0], EVERYTHING, seed=0, epoch=0, sample_ids=[]).shape == (0, 3, 37, 41)


def test_one_channel_takes_geometry_brightness_and_contrast() -> None:
    grey = photo(channels=1)[None]
    out = apply(grey, Augment(rotation=10, brightness=0.2, contrast=0.2), seed=0, epoch=0, sample_ids=[0])
    assert out.shape == grey.shape
    with pytest.raises(SettingsError, match="three channels"):
        apply(grey, Augment(saturation=0.2), seed=0, epoch=0, sample_ids=[0])


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Augment(rotation=-1, zoom=1.0, flip="sideways", crop=(0.9, 0.1), hue=float("nan"), fill="wrap")
    named = " ".join(caught.value.details)
    assert all(word in named for word in ("rotation", "zoom", "sideways", "crop", "hue", "wrap"))
    assert len(caught.value.details) == 6


def test_sample_numbers_must_fit_the_batch() -> None:
    with pytest.raises(SettingsError, match="came with 2 sample numbers"):
        apply(POOL, Augment(flip="both"), seed=0, epoch=0, sample_ids=[1, 2])


@pytest.mark.gpu
@needs_cuda
def test_cuda_shows_the_same_pictures() -> None:
    here = apply(POOL, EVERYTHING, seed=7, epoch=1, sample_ids=range(9))
    there = apply(POOL.cuda(), EVERYTHING, seed=7, epoch=1, sample_ids=range(9)).cpu()
    assert (here - there).abs().max() <= 1
