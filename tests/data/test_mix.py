"""Mixup and CutMix: what is in an image is what its target says, and nothing depends on anything but the counters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincinv

from regraft.data.augment.beta import beta_from_uniform
from regraft.data.augment.mix import Mix, mix, shares_of

KINDS = {"mixup": Mix(0.4, 0.0, 6), "cutmix": Mix(0.0, 1.0, 6), "both": Mix(0.2, 1.0, 6)}


def one_colour_each(num: int, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Image n is 255 in channel n and 0 elsewhere, and of class n."""
    images = torch.eye(num)[:, :, None, None].expand(num, num, side, side + 3) * 255
    return images.clone(), torch.arange(num)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 1000), num=st.integers(1, 6))
def test_each_class_has_the_share_of_the_image_that_it_fills(kind: str, seed: int, epoch: int, num: int) -> None:
    images, labels = one_colour_each(num)
    how = KINDS[kind]
    mixed, shares = mix(images, labels, how, seed=seed, epoch=epoch, sample_ids=np.arange(num))
    assert shares.shape == (num, 6)
    assert torch.allclose(shares.sum(1), torch.ones(num), atol=1e-6)
    assert torch.allclose(mixed.mean((2, 3)) / 255, shares[:, :num], atol=1e-5)
    assert torch.equal(images, one_colour_each(num)[0]), "what came in stays as it was"


def test_an_image_is_mixed_with_the_one_at_the_mirrored_place() -> None:
    images, labels = one_colour_each(4)
    _, shares = mix(images, labels, KINDS["mixup"], seed=1, epoch=2, sample_ids=np.arange(4))
    for row in range(4):
        assert set(torch.nonzero(shares[row]).flatten().tolist()) <= {row, 3 - row}


def test_it_is_a_function_of_seed_epoch_and_sample() -> None:
    images, labels = one_colour_each(4)
    first = mix(images, labels, KINDS["both"], seed=1, epoch=2, sample_ids=np.array([5, 6, 7, 8]))[1]
    again = mix(images, labels, KINDS["both"], seed=1, epoch=2, sample_ids=np.array([5, 6, 7, 8]))[1]
    assert torch.equal(first, again)
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        moved = mix(images, labels, KINDS["both"], sample_ids=np.array([5, 6, 7, 8]), **other)[1]
        assert not torch.equal(first, moved)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_distributed_as_the_paper_says(alpha: float) -> None:
    num = 20_000
    images, labels = torch.zeros(num, 1, 1, 1), torch.arange(num) % 2
    flipped = torch.stack([labels, 1 - labels], 1)  # the mirrored image is always of the other class
    assert torch.equal(flipped.flip(0), 1 - flipped)
    shares = mix(images, labels, Mix(alpha, 0.0, 2), seed=3, epoch=0, sample_ids=np.arange(num))[1]
    kept = shares[torch.arange(num), labels].numpy()
    assert kept.mean() == pytest.approx(0.5, abs=0.02)
    assert kept.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)  # of Beta(alpha, alpha)


def test_labels_of_several_classes_are_shares_already() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.uint8)
    assert torch.equal(shares_of(labels, 3), labels.float())
    _, shares = mix(torch.zeros(2, 3, 4, 4), labels, Mix(1.0, 0.0, 3), seed=0, epoch=0, sample_ids=np.arange(2))
    kept = shares[:, 0]
    assert torch.allclose(shares, torch.stack([kept, 1 - kept, kept], 1))
    assert torch.all((kept > 0) & (kept < 1))


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.2, 0.4, 0.8, 1.0, 1.5, 8.0, 100.0])
def test_beta_numbers_are_scipys_to_the_bits_that_images_are_blended_with(alpha: float) -> None:
    """Runs that were mixed with SciPy's numbers go on to the same bits: shares are taken in fp32."""
    uniform = np.random.default_rng(0).random(50_000)
    whole = beta_from_uniform(alpha, uniform)
    for part, same in zip(np.array_split(uniform, 500), np.array_split(whole, 500), strict=True):
        mine, scipys = beta_from_uniform(alpha, part), betaincinv(alpha, alpha, part)
        assert np.array_equal(mine, same), "a number is the same in any batch"
        assert np.array_equal(mine.astype(np.float32), scipys.astype(np.float32))
        assert np.allclose(mine, scipys, rtol=1e-13, atol=1e-300)


def test_beta_numbers_at_the_ends() -> None:
    uniform = np.array([0.0, 2.0**-53, 0.5, 1 - 2.0**-53])
    with np.errstate(all="raise", under="ignore"):
        found = beta_from_uniform(0.2, uniform)
    assert found[[0, 3]].tolist() == [0.0, 1.0]
    assert found[2] == pytest.approx(0.5, rel=1e-14)
    assert found[1] == pytest.approx(float(betaincinv(0.2, 0.2, 2.0**-53)), rel=1e-12)
    assert beta_from_uniform(0.2, np.empty(0)).shape == (0,)
