"""Every measure of every task against torchmetrics, on logits with ties and with classes of different sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from regraft.evaluation.metrics.binary import binary_metrics
from regraft.evaluation.metrics.measure import measure_for
from regraft.evaluation.metrics.metrics import classification_metrics
from regraft.evaluation.metrics.multilabel import multilabel_metrics
from regraft.models.describe.outputs import probabilities

pytestmark = pytest.mark.oracle
NAMES = tuple("abcdefg")


def logits_of(num_columns: int, seed: int) -> Tensor:
    """Rounded to quarters, as bf16 and real data have ties."""
    values = 3 * torch.randn(300, num_columns, generator=torch.Generator().manual_seed(seed))
    return (4 * values).round() / 4


def classes_of(num_classes: int, seed: int) -> Tensor:
    """Large and small classes, the last ones rare."""
    shares = 0.5 ** torch.arange(num_classes, dtype=torch.float32)
    return torch.multinomial(shares, 300, replacement=True, generator=torch.Generator().manual_seed(seed))


def epoch_measures(output: str, logits: Tensor, targets: Tensor) -> dict[str, float]:
    measure = measure_for(output, NAMES[: 2 if output == "binary" else logits.shape[1]])
    for batch, labels in zip(logits.split(64), targets.split(64), strict=True):
        measure.update(batch, labels)
    return measure.compute()


@pytest.mark.parametrize("seed", range(5))
def test_softmax(seed: int) -> None:
    from torchmetrics.functional import classification as oracle

    logits, labels = logits_of(7, seed), classes_of(7, seed)
    # torchmetrics takes any of equal logits; which one is first is a convention, so there are none here.
    logits = logits + 1e-3 * torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed))
    shares = logits.softmax(1)
    epoch = epoch_measures("softmax", logits, labels)
    whole = classification_metrics(shares.numpy(), labels.numpy(), NAMES)
    for key, options in (
        ("top1", {"average": "micro"}),
        ("top5", {"average": "micro", "top_k": 5}),
        ("balanced_accuracy", {"average": "macro"}),
    ):
        expected = float(oracle.multiclass_accuracy(logits, labels, num_classes=7, **options))
        assert epoch[key] == pytest.approx(expected, abs=1e-6), key
        assert whole[key] == pytest.approx(expected, abs=1e-6), key
    for key, function in (
        ("precision", oracle.multiclass_precision),
        ("recall", oracle.multiclass_recall),
        ("f1", oracle.multiclass_f1_score),
    ):
        expected = function(logits, labels, num_classes=7, average=None)
        assert [row[key] for row in whole["per_class"]] == pytest.approx(expected.tolist(), abs=1e-6), key
    assert whole["confusion"] == oracle.multiclass_confusion_matrix(logits, labels, num_classes=7).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.5, 0.31])
def test_binary(seed: int, threshold: float) -> None:
    from torchmetrics.functional import classification as oracle

    logits, labels = logits_of(1, seed), (classes_of(3, seed) > 0).long()
    shares = probabilities("binary", logits)
    epoch = epoch_measures("binary", logits, labels)
    whole = binary_metrics(shares.numpy(), labels.numpy(), ["no", "yes"], {"yes": threshold})
    positive = shares[:, 1]
    for key, function in (("auc", oracle.binary_auroc), ("ap", oracle.binary_average_precision)):
        expected = float(function(positive, labels))
        assert epoch[key] == pytest.approx(expected, abs=1e-6), key
        assert whole[key] == pytest.approx(expected, abs=1e-6), key
    # torchmetrics names what is above a threshold, regraft what reaches it
    below = float(np.nextafter(threshold, 0))
    assert whole["top1"] == pytest.approx(float(oracle.binary_accuracy(positive, labels, threshold=below)), abs=1e-6)
    assert whole["confusion"] == oracle.binary_confusion_matrix(positive, labels, threshold=below).tolist()
    for key, function in (
        ("precision", oracle.binary_precision),
        ("recall", oracle.binary_recall),
        ("f1", oracle.binary_f1_score),
    ):
        expected = float(function(positive, labels, threshold=below))
        assert whole["per_class"][1][key] == pytest.approx(expected, abs=1e-6), key
    false, hits, _ = oracle.binary_roc(positive, labels)
    assert np.array(whole["roc"]) == pytest.approx(torch.stack([false, hits], 1).numpy(), abs=1e-6)
    precision, recall, _ = oracle.binary_precision_recall_curve(positive, labels)
    expected = torch.stack([recall, precision], 1).numpy()[:-1][::-1]  # without the point that stands for no image
    assert np.array(whole["precision_recall"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_multilabel(seed: int) -> None:
    from torchmetrics.functional import classification as oracle

    logits = logits_of(7, seed)
    labels = (torch.rand(300, 7, generator=torch.Generator().manual_seed(seed)) < torch.linspace(0.03, 0.6, 7)).long()
    shares = probabilities("multilabel", logits)
    epoch = epoch_measures("multilabel", logits, labels.to(torch.uint8))
    whole = multilabel_metrics(shares.numpy(), labels.numpy(), NAMES, {})
    options = {"num_labels": 7}
    expected = float(oracle.multilabel_average_precision(shares, labels, average="macro", **options))
    assert epoch["map"] == pytest.approx(expected, abs=1e-6)
    assert whole["map"] == pytest.approx(expected, abs=1e-6)
    each = oracle.multilabel_average_precision(shares, labels, average=None, **options)
    assert [row["ap"] for row in whole["per_class"]] == pytest.approx(each.tolist(), abs=1e-6)
    below = float(np.nextafter(0.5, 0))
    for key, average in (("f1_micro", "micro"), ("f1_macro", "macro")):
        value = float(oracle.multilabel_f1_score(shares, labels, threshold=below, average=average, **options))
        assert epoch[key] == pytest.approx(value, abs=1e-6), key
        assert whole[key] == pytest.approx(value, abs=1e-6), key
    exact = float(oracle.multilabel_exact_match(shares, labels, threshold=below, **options))
    assert whole["exact"] == pytest.approx(exact, abs=1e-6)
    for key, function in (("precision", oracle.multilabel_precision), ("recall", oracle.multilabel_recall)):
        values = function(shares, labels, threshold=below, average=None, **options)
        assert [row[key] for row in whole["per_class"]] == pytest.approx(values.tolist(), abs=1e-6), key
