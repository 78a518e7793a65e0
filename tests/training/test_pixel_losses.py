"""Losses of pixels: torch's own figures, and pixels of 255 that change nothing."""

from __future__ import annotations

import itertools
import math

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


def test_ohem_is_the_cross_entropy_of_the_pixels_that_are_not_easy() -> None:
    costs = F.cross_entropy(LOGITS, MASKS.long(), ignore_index=255, reduction="none")
    hard = (costs >= -math.log(0.7)) & (MASKS != 255)
    assert 0 < hard.sum() < (MASKS != 255).sum()
    torch.testing.assert_close(build_loss("segmentation", terms={"ohem": 1})(LOGITS, MASKS), costs[hard].mean())


def test_ohem_keeps_the_hardest_sixteenth_where_all_are_easy() -> None:
    logits = 20 * F.one_hot(MASKS.long().clamp(max=3), 4).permute(0, 3, 1, 2) + LOGITS
    costs = F.cross_entropy(logits, MASKS.long(), ignore_index=255, reduction="none")[MASKS != 255]
    expected = costs.topk(round(len(costs) / 16)).values.mean()
    torch.testing.assert_close(build_loss("segmentation", terms={"ohem": 1})(logits, MASKS), expected)


def test_lovasz_of_decided_pixels_is_one_minus_iou() -> None:
    """At the corners of the cube the extension is the loss that it extends."""
    found = torch.randint(0, 4, MASKS.shape, generator=torch.Generator().manual_seed(3))
    logits = 200.0 * F.one_hot(found, 4).permute(0, 3, 1, 2)
    counted = MASKS != 255
    each = []
    for place in range(4):
        one, two = (found == place)[counted], (place == MASKS)[counted]
        each.append(1 - (one & two).sum() / (one | two).sum())
    torch.testing.assert_close(build_loss("segmentation", terms={"lovasz": 1})(logits, MASKS), torch.stack(each).mean())


def test_lovasz_between_is_the_integral_over_thresholds() -> None:
    """The extension is the mean of the loss of {pixels whose error exceeds t} over t from 0 to 1."""
    counted = MASKS != 255
    chances, each = LOGITS.double().softmax(1), []
    for place in range(4):
        truth = (place == MASKS)[counted]
        errors = (truth.double() - chances[:, place][counted]).abs()
        steps = torch.cat([torch.zeros(1).double(), errors.sort().values])
        total = 0.0
        for low, high in itertools.pairwise(steps.tolist()):
            wrong = errors > low
            total += (high - low) * float(1 - (truth & ~wrong).sum() / (truth | wrong).sum())
        each.append(total)
    found = build_loss("segmentation", terms={"lovasz": 1})(LOGITS, MASKS)
    assert float(found) == pytest.approx(sum(each) / 4, rel=1e-5)


def test_a_sum_adds_the_losses_with_their_factors() -> None:
    parts = [build_loss("segmentation", terms={name: 1.0})(LOGITS, MASKS) for name in ("cross_entropy", "dice")]
    whole = build_loss("segmentation", terms={"cross_entropy": 0.5, "dice": 2.0})(LOGITS, MASKS)
    torch.testing.assert_close(whole, 0.5 * parts[0] + 2 * parts[1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["cross_entropy", "ohem", "dice", "focal", "lovasz"]))
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


@pytest.mark.parametrize("name", ["cross_entropy", "ohem", "dice", "focal", "lovasz"])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.0, 1.0, 1.0, 1.0])])
def test_a_batch_in_which_nothing_counts_has_no_loss(name: str, weights: torch.Tensor | None) -> None:
    masks = torch.full((2, 6, 5), 255 if weights is None else 0, dtype=torch.uint8)
    logits = LOGITS.clone().requires_grad_()
    loss = build_loss("segmentation", terms={name: 1.0}, class_weights=weights)(logits, masks)
    if weights is not None and name in ("dice", "lovasz"):
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
