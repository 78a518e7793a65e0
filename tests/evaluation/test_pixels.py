"""Measures of masks: scikit-learn's figures, streamed or at once, and boundaries found by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from regraft.evaluation.metrics.measure import measure_for
from regraft.evaluation.metrics.pixels import BoundaryCounts, mask_confusion, pixel_metrics
from regraft.models.describe.outputs import monitors

NAMES = ("sky", "road", "car")
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 3, (4, 20, 24)).astype(np.uint8)
CALLED = np.where(RANDOM.random(TRUTH.shape) < 0.6, TRUTH, RANDOM.integers(0, 3, TRUTH.shape)).astype(np.uint8)
TRUTH[:, :3] = 255


def test_the_figures_are_scikit_learns() -> None:
    counted = TRUTH != 255
    truth, called = TRUTH[counted], CALLED[counted]
    found = pixel_metrics(mask_confusion(TRUTH, CALLED, 3), NAMES)
    assert found["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(truth, called))
    assert found["class_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    assert found["miou"] == pytest.approx(metrics.jaccard_score(truth, called, average="macro"))
    f1 = metrics.f1_score(truth, called, average=None)
    assert [row["f1"] for row in found["per_class"]] == pytest.approx(f1)


def test_a_class_that_is_nowhere_is_in_no_mean() -> None:
    found = pixel_metrics(np.array([[5, 1, 0], [0, 4, 0], [0, 0, 0]]), NAMES)
    assert found["per_class"][2]["iou"] is None
    assert found["miou"] == pytest.approx((5 / 6 + 4 / 5) / 2)
    assert pixel_metrics(np.zeros((3, 3), np.int64), NAMES)["miou"] is None


def test_an_epochs_measures_are_streamed() -> None:
    logits = torch.randn(4, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    masks = torch.from_numpy(TRUTH)
    results = []
    for sizes in ([4], [1, 3]):
        measure = measure_for("segmentation", NAMES)
        for batch, targets in zip(logits.split(sizes), masks.split(sizes), strict=True):
            measure.update(batch, targets)
        results.append(measure.compute())
    assert results[0] == pytest.approx(results[1], abs=1e-6)
    expected = torch.nn.functional.cross_entropy(logits, masks.long(), ignore_index=255)
    assert results[0]["loss"] == pytest.approx(float(expected), abs=1e-5)
    assert {f"val_{name}" for name in results[0]} == set(monitors("segmentation", 3)) - {"train_loss"}


def boundary_f1(truth: np.ndarray, called: np.ndarray, reach: int) -> list[float | None]:
    """Slowly, pixel by pixel."""
    height, width = truth.shape
    called = np.where(truth == 255, 255, called)

    def edge(mask: np.ndarray, place: int) -> list[tuple[int, int]]:
        return [
            (y, x)
            for y in range(height)
            for x in range(width)
            if mask[y, x] == place
            and any(
                0 <= y + dy < height and 0 <= x + dx < width and mask[y + dy, x + dx] not in (place, 255)
                for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))
            )
        ]

    def near(mine: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        hits = [any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others) for y, x in mine]
        return sum(hits) / len(mine) if mine else 0.0

    found: list[float | None] = []
    for place in range(3):
        mine, others = edge(called, place), edge(truth, place)
        precision, recall = near(mine, others), near(others, mine)
        total = precision + recall
        found.append(None if not mine and not others else 2 * precision * recall / total if total else 0.0)
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_boundaries_are_those_of_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 3, (2, 3, 4)).astype(np.uint8)
    truth, called = (np.kron(block, np.ones((9, 8), np.uint8)) for block in blocks)
    called = np.roll(called, int(random.integers(0, 3)), axis=1)
    truth[random.random(truth.shape) < 0.05] = 255
    counts = BoundaryCounts(3)
    counts.update(truth, called)
    assert counts.compute() == pytest.approx(boundary_f1(truth, called, reach=1), abs=1e-12)


def test_more_classes_than_bits() -> None:
    truth = np.arange(200, dtype=np.uint8).repeat(4).reshape(20, 40)
    counts = BoundaryCounts(200)
    counts.update(truth, truth)
    assert counts.compute() == [1.0] * 200
