"""The loss at the best temperature: smallest over temperatures, blind to confidence, defined where the raw one is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.evaluation.metrics.measure import measure_for


def cases(seed: int, num: int = 60, num_classes: int = 4, sure: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits that are right more often than not, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, num_classes, (num,), generator=generator)
    logits = torch.randn(num, num_classes, generator=generator)
    logits[range(num), targets] += sure
    return logits, targets


def smallest(logits: Tensor, targets: Tensor) -> float:
    """By trying temperatures, on the targets that the temperature is fitted to."""
    spread = 1 / (len(logits) + 1)
    found = [
        (
            float(functional.cross_entropy(wide, targets, label_smoothing=spread)),
            float(functional.cross_entropy(wide, targets)),
        )
        for factor in torch.logspace(-3, 3, 6001).tolist()
        for wide in [logits.double() * factor]
    ]
    return min(found)[1]


@pytest.mark.parametrize("sure", [0.3, 2.0, 6.0])
def test_it_is_the_loss_at_the_temperature_that_is_best(sure: float) -> None:
    logits, targets = cases(1, sure=sure)
    assert float(calibrated_losses(logits, targets).mean()) == pytest.approx(smallest(logits, targets), rel=1e-3)


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.integers(2, 9), st.sampled_from([False, True]))
@settings(max_examples=60, deadline=None)
def test_how_sure_a_network_is_changes_nothing(seed: int, factor: float, num_classes: int, sigmoid: bool) -> None:
    logits, targets = cases(seed, num_classes=num_classes)
    logits = logits.double()
    if sigmoid:
        targets = functional.one_hot(targets, num_classes)
    losses = calibrated_losses(logits, targets, sigmoid=sigmoid)
    torch.testing.assert_close(
        calibrated_losses(logits * factor, targets, sigmoid=sigmoid), losses, rtol=1e-6, atol=1e-12
    )
    assert len(losses) == len(logits)
    assert bool((losses >= 0).all())


@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(-1, 4))
@settings(max_examples=60, deadline=None)
def test_it_is_never_worse_than_a_guess_nor_much_worse_than_the_raw_loss(
    seed: int, num_classes: int, sure: float
) -> None:
    logits, targets = cases(seed, num_classes=num_classes, sure=sure)
    loss, raw = (
        float(calibrated_losses(logits, targets).mean()),
        float(functional.cross_entropy(logits.double(), targets)),
    )
    spread = 1 / (len(logits) + 1)
    smoothed = float(functional.cross_entropy(logits.double(), targets, label_smoothing=spread))
    assert loss <= math.log(num_classes) + 1e-9
    assert loss <= max(raw, smoothed) + 1e-9


def test_perfect_networks_are_told_apart_and_hopeless_ones_are_a_guess() -> None:
    targets = torch.arange(8) % 2
    narrow, wide = (functional.one_hot(targets, 2) * torch.tensor([[margin]] + [[1.0]] * 7) for margin in (0.1, 0.9))
    assert 0 < float(calibrated_losses(wide, targets).mean()) < float(calibrated_losses(narrow, targets).mean())
    for hopeless in (-wide, wide * 0):
        assert float(calibrated_losses(hopeless, targets).mean()) == pytest.approx(math.log(2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_have_no_loss(value: float) -> None:
    logits, targets = cases(1)
    logits[3, 1] = value
    assert bool(torch.isnan(calibrated_losses(logits, targets)).all())


@pytest.mark.parametrize("output", ["softmax", "binary", "multilabel", "segmentation"])
def test_every_output_has_it_whatever_the_batches(output: str) -> None:
    generator = torch.Generator().manual_seed(3)
    names = ("a", "b", "c") if output != "binary" else ("a", "b")
    logits = torch.randn(12, 1 if output == "binary" else 3, *((9, 7) if output == "segmentation" else ()))
    classes = torch.randint(0, len(names), (12, *((9, 7) if output == "segmentation" else ())), generator=generator)
    targets = {"multilabel": (torch.rand(12, 3, generator=generator) > 0.5).to(torch.uint8)}.get(output, classes)
    whole, parts, scaled = (measure_for(output, names) for _ in range(3))
    whole.update(logits, targets)
    scaled.update(logits * 8, targets)
    for part in range(0, 12, 5):
        parts.update(logits[part : part + 5], targets[part : part + 5])
    value = whole.compute()["calibrated_loss"]
    assert parts.compute()["calibrated_loss"] == value
    assert scaled.compute()["calibrated_loss"] == pytest.approx(value, rel=1e-6)
    assert len(whole.losses()) == 12
    assert float(whole.losses().mean()) == value


def test_pixels_that_do_not_count_are_left_out_and_few_of_many_images_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    module = importlib.import_module("regraft.evaluation.metrics.calibrated")
    generator = torch.Generator().manual_seed(4)
    masks = torch.randint(0, 2, (6, 20, 20), generator=generator)
    logits = functional.one_hot(masks, 2).permute(0, 3, 1, 2) + torch.randn(6, 2, 20, 20, generator=generator)
    masks[0] = 255
    masks[1:, :5], logits[1:, :, :5] = 255, float("nan")
    full = module.PixelSample()
    full.update(logits, masks)
    losses = full.losses().numpy()
    assert np.isnan(losses[0])
    assert np.isfinite(losses[1:]).all()
    monkeypatch.setattr(module, "_MOST_HELD", 800)
    thin = module.PixelSample()
    for image in range(6):
        thin.update(logits[image : image + 1], masks[image : image + 1])
    assert sum(scores.numel() for scores, _ in thin._images) <= 800
    assert float(thin.losses().nanmean()) == pytest.approx(float(np.nanmean(losses)), abs=0.1)
