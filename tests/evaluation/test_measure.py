"""The measures of an epoch: batch by batch the same as all at once, and scikit-learn's figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from regraft.evaluation.metrics.measure import measure_for
from regraft.models.describe.outputs import monitors, probabilities

RANDOM = torch.Generator().manual_seed(1)
LOGITS = 2 * torch.randn(60, 8, generator=RANDOM)
LABELS = torch.randint(0, 8, (60,), generator=RANDOM)
YES = (torch.rand(60, 8, generator=RANDOM) < 0.3).to(torch.uint8)
CASES = {"softmax": (LOGITS, LABELS), "binary": (LOGITS[:, :1], LABELS % 2), "multilabel": (LOGITS, YES)}


def names(output: str) -> list[str]:
    return list("ab") if output == "binary" else list("abcdefgh")


def measured(output: str, logits: Tensor, targets: Tensor, sizes: list[int]) -> dict[str, float]:
    measure = measure_for(output, names(output))
    for batch, labels in zip(logits.split(sizes), targets.split(sizes), strict=True):
        measure.update(batch, labels)
    return measure.compute()


@pytest.mark.parametrize("output", CASES)
def test_batches_do_not_matter_and_the_names_are_those_that_can_be_watched(output: str) -> None:
    logits, targets = CASES[output]
    whole, parts = (measured(output, logits, targets, sizes) for sizes in ([60], [17, 1, 42]))
    assert whole == pytest.approx(parts, abs=1e-6)
    watched = set(monitors(output, len(names(output)))) - {"train_loss"}
    assert {f"val_{name}" for name in whole} == watched


def test_softmax_measures_are_scikit_learns() -> None:
    values = measured("softmax", LOGITS, LABELS, [60])
    top = metrics.top_k_accuracy_score(LABELS, LOGITS.softmax(1), k=5, labels=range(8))
    assert values["loss"] == pytest.approx(metrics.log_loss(LABELS, LOGITS.double().softmax(1), labels=range(8)))
    assert values["top1"] == pytest.approx(metrics.accuracy_score(LABELS, LOGITS.argmax(1)))
    assert values["top5"] == pytest.approx(top)
    recall = metrics.balanced_accuracy_score(LABELS, LOGITS.argmax(1))
    assert values["balanced_accuracy"] == pytest.approx(recall)


def test_binary_measures_are_scikit_learns() -> None:
    logits, labels = CASES["binary"]
    values, scores = measured("binary", logits, labels, [60]), logits[:, 0].double().sigmoid().numpy()
    assert values["loss"] == pytest.approx(metrics.log_loss(labels, scores))
    assert values["top1"] == pytest.approx(metrics.accuracy_score(labels, scores >= 0.5))
    assert values["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, scores >= 0.5))
    assert values["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert values["ap"] == pytest.approx(metrics.average_precision_score(labels, scores))


def test_multilabel_measures_are_scikit_learns() -> None:
    values, scores = measured("multilabel", LOGITS, YES, [60]), LOGITS.double().sigmoid().numpy()
    truth = YES.numpy()
    losses = [metrics.log_loss(truth[:, place], scores[:, place], labels=[0, 1]) for place in range(8)]
    assert values["loss"] == pytest.approx(np.mean(losses))
    assert values["map"] == pytest.approx(metrics.average_precision_score(truth, scores, average="macro"))
    assert values["f1_micro"] == pytest.approx(metrics.f1_score(truth, scores >= 0.5, average="micro"))
    assert values["f1_macro"] == pytest.approx(metrics.f1_score(truth, scores >= 0.5, average="macro"))


def test_one_class_alone_has_no_areas() -> None:
    values = measured("binary", LOGITS[:4, :1], torch.zeros(4, dtype=torch.int64), [4])
    assert math.isnan(values["auc"])
    assert math.isnan(values["ap"])
    assert 0 <= values["top1"] == values["balanced_accuracy"] <= 1


def test_labels_that_never_occur_are_left_out_of_the_mean() -> None:
    targets = YES.clone()
    targets[:, 3] = 0
    logits = LOGITS.clone()
    logits[:, 3] = -9
    values = measured("multilabel", logits, targets, [60])
    others = [place for place in range(8) if place != 3]
    assert values["map"] == pytest.approx(measured_of(logits[:, others], targets[:, others])["map"])
    assert values["f1_macro"] == pytest.approx(measured_of(logits[:, others], targets[:, others])["f1_macro"])
    nothing: Any = measured("multilabel", torch.full((3, 8), -9.0), torch.zeros(3, 8, dtype=torch.uint8), [3])
    assert math.isnan(nothing["map"])
    assert math.isnan(nothing["f1_micro"])


def measured_of(logits: Tensor, targets: Tensor) -> dict[str, float]:
    measure = measure_for("multilabel", [str(place) for place in range(logits.shape[1])])
    measure.update(logits, targets)
    return measure.compute()


def test_thresholds_are_those_of_all_batches() -> None:
    measure = measure_for("binary", ["a", "b"])
    scores = torch.linspace(-3, 1, 40)[:, None]
    for batch in torch.arange(40).split(9):
        measure.update(scores[batch], (batch >= 20).long())
    threshold = measure.thresholds()["b"]
    below, above = probabilities("binary", scores[19:21])[:, 1]
    assert below < threshold <= above
    softmax = measure_for("softmax", ["a", "b"])
    softmax.update(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert softmax.thresholds() == {}


def test_confusions_are_scikit_learns() -> None:
    for output in ("softmax", "binary"):
        logits, targets = CASES[output]
        measure = measure_for(output, names(output))
        for batch, labels in zip(logits.split([17, 1, 42]), targets.split([17, 1, 42]), strict=True):
            measure.update(batch, labels)
        called = logits.argmax(1) if output == "softmax" else logits[:, 0] >= 0
        assert np.array_equal(measure.confusion(), metrics.confusion_matrix(targets, called))
    assert measure_for("multilabel", names("multilabel")).confusion() is None
    assert measure_for("softmax", [str(number) for number in range(1000)]).confusion() is None
