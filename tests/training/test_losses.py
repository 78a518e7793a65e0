"""Losses of each output: torch's own figures, and the same loss for labels and for their shares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regraft.training.objective.losses import build_loss

F = torch.nn.functional
RANDOM = torch.Generator().manual_seed(0)
LOGITS = 4 * torch.randn(16, 3, generator=RANDOM)
LABELS = torch.randint(0, 3, (16,), generator=RANDOM)
YES = torch.randint(0, 2, (16, 3), generator=RANDOM, dtype=torch.uint8)
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_is_torchs_cross_entropy_to_the_bit(weights: Tensor | None, smoothing: float) -> None:
    loss = build_loss("softmax", label_smoothing=smoothing, class_weights=weights)
    expected = F.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=smoothing)
    assert torch.equal(loss(LOGITS, LABELS), expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("output", ["softmax", "binary"])
def test_shares_of_one_class_are_its_label(output: str, weights: Tensor | None, smoothing: float) -> None:
    logits, num = (LOGITS, 3) if output == "softmax" else (LOGITS[:, :1], 2)
    labels = LABELS % num
    weights = weights if weights is None else weights[:num]
    loss = build_loss(output, label_smoothing=smoothing, class_weights=weights)
    shares = F.one_hot(labels, num).float()
    torch.testing.assert_close(loss(logits, shares), loss(logits, labels))


def test_binary_is_torchs_loss_of_one_logit() -> None:
    logits, labels = LOGITS[:, :1], LABELS % 2
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    torch.testing.assert_close(build_loss("binary")(logits, labels), expected)
    smooth = F.binary_cross_entropy_with_logits(logits[:, 0], labels.float() * 0.8 + 0.1)
    torch.testing.assert_close(build_loss("binary", label_smoothing=0.2)(logits, labels), smooth)
    mixed = torch.tensor([[0.3, 0.7]]).repeat(16, 1)
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], mixed[:, 1])
    torch.testing.assert_close(build_loss("binary")(logits, mixed), expected)


def test_binary_weights_are_those_of_two_logits() -> None:
    weights, labels = torch.tensor([0.25, 4.0]), LABELS % 2
    two = torch.cat([torch.zeros(16, 1), LOGITS[:, :1]], 1)
    loss = build_loss("binary", class_weights=weights)
    torch.testing.assert_close(loss(LOGITS[:, :1], labels), F.cross_entropy(two, labels, weight=weights))


@given(st.floats(-200, 200))
@settings(max_examples=50, deadline=None)
def test_binary_is_finite_and_its_gradient_is_the_error(value: float) -> None:
    logit = torch.tensor([[value]], requires_grad=True)
    loss = build_loss("binary")(logit, torch.tensor([1]))
    loss.backward()
    assert torch.isfinite(loss)
    torch.testing.assert_close(logit.grad, torch.sigmoid(logit.detach()) - 1, atol=1e-6, rtol=1e-5)


def test_multilabel_is_torchs_loss_over_labels() -> None:
    expected = F.binary_cross_entropy_with_logits(LOGITS, YES.float())
    torch.testing.assert_close(build_loss("multilabel")(LOGITS, YES), expected)
    weighted = F.binary_cross_entropy_with_logits(LOGITS, YES.float(), pos_weight=WEIGHTS)
    torch.testing.assert_close(build_loss("multilabel", class_weights=WEIGHTS)(LOGITS, YES), weighted)
    smooth = F.binary_cross_entropy_with_logits(LOGITS, YES * 0.8 + 0.1)
    torch.testing.assert_close(build_loss("multilabel", label_smoothing=0.2)(LOGITS, YES), smooth)
    mixed = 0.3 * YES + 0.7 * YES.flip(0)
    expected = F.binary_cross_entropy_with_logits(LOGITS, mixed)
    torch.testing.assert_close(build_loss("multilabel")(LOGITS, mixed), expected)


@pytest.mark.parametrize("output", ["softmax", "binary", "multilabel"])
def test_weights_follow_the_precision_of_the_logits(output: str) -> None:
    num = 1 if output == "binary" else 3
    targets = YES if output == "multilabel" else LABELS % 2
    loss = build_loss(output, class_weights=WEIGHTS[: 2 if output == "binary" else 3])
    wide = loss(LOGITS[:, :num].double(), targets)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), loss(LOGITS[:, :num], targets))
