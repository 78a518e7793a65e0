"""Losses of pixels: torch's own figures, and pixels of 255 that change nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import SettingsError
from regraft.settings.stage import Stage
from regraft.training.objective.losses import build_loss

F = torch.nn.functional
RANDOM = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(2, 4, 6, 5, generator=RANDOM)
MASKS = torch.randint(0, 4, (2, 6, 5), generator=RANDOM).to(torch.uint8)
MASKS[0, :2] = 255
WEIGHTS = torch.tensor([0.5, 1.0, 3.0, 2.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(weights: torch.Tensor | None, smoothing: float) -> None:
    loss = build_loss("segmentation", label_smoothing=smoothing, class_weights=weights)
    expected = F.cross_entropy(LOGITS, MASKS.long(), weight=weights, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(loss(LOGITS, MASKS), expected)


def test_focal_is_cross_entropy_that_counts_what_is_sure_less() -> None:
    counted = MASKS != 255
    right = LOGITS.softmax(1).gather(1, MASKS.long().clamp(max=3)[:, None])[:, 0][counted]
    expected = (-((1 - right) ** 2) * right.log()).mean()
    torch.testing.assert_close(build_loss("segmentation", terms={"focal": 1})(LOGITS, MASKS), expected)


def test_dice_is_one_minus_the_mean_overlap_of_the_classes_that_occur() -> None:
    masks = MASKS.clone()
    masks[masks == 3] = 0
    shares, counted = LOGITS.softmax(1), masks != 255
    each = []
    for place in range(3):
        truth = (masks == place).float()
        overlap = (shares[:, place] * truth).sum()
        each.append(1 - 2 * overlap / ((shares[:, place] * counted).sum() + truth.sum()))
    loss = build_loss("segmentation", terms={"dice": 1})(LOGITS, masks)
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_a_sum_adds_the_losses_with_their_factors() -> None:
    parts = [build_loss("segmentation", terms={name: 1.0})(LOGITS, MASKS) for name in ("cross_entropy", "dice")]
    whole = build_loss("segmentation", terms={"cross_entropy": 0.5, "dice": 2.0})(LOGITS, MASKS)
    torch.testing.assert_close(whole, 0.5 * parts[0] + 2 * parts[1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["cross_entropy", "dice", "focal"]))
def test_what_is_ignored_changes_neither_loss_nor_gradient(seed: int, name: str) -> None:
    random = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 4, (2, 6, 5), generator=random)
    masks[torch.rand(2, 6, 5, generator=random) < 0.4] = 255
    other = LOGITS + 9 * torch.randn(LOGITS.shape, generator=random) * (masks == 255)[:, None]
    loss = build_loss("segmentation", terms={name: 1.0}, class_weights=WEIGHTS)
    results = []
    for logits in (LOGITS.clone().requires_grad_(), other.requires_grad_()):
        value = loss(logits, masks.to(torch.uint8))
        (gradient,) = torch.autograd.grad(value, logits)
        results.append((value, gradient * (masks != 255)[:, None]))
        assert not gradient.masked_select((masks == 255)[:, None]).any()
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal"])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.0, 1.0, 1.0, 1.0])])
def test_a_batch_in_which_nothing_counts_has_no_loss(name: str, weights: torch.Tensor | None) -> None:
    masks = torch.full((2, 6, 5), 255 if weights is None else 0, dtype=torch.uint8)
    logits = LOGITS.clone().requires_grad_()
    loss = build_loss("segmentation", terms={name: 1.0}, class_weights=weights)(logits, masks)
    if weights is not None and name == "dice":
        assert loss > 0  # every class that occurs counts
        return
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient.any()


def test_losses_that_do_not_exist_are_named_all_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Stage("all", loss={"dise": 1.0, "focal": -1.0})
    assert "did you mean 'dice'" in str(caught.value)
    assert "loss.focal: must be above 0; it is -1.0" in str(caught.value)
