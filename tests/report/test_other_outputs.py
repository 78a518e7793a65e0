"""The report of one logit and of labels: areas, curves, thresholds, and what hostile records do to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.conftest import epochs, write_json, write_lines
from tests.report.test_build import Page

from regraft.evaluation.metrics.binary import binary_metrics
from regraft.evaluation.metrics.multilabel import multilabel_metrics
from regraft.report.build import write_report

MakeRun = Callable[..., Path]
NAMES = ["cats", "dogs"]
MARK = "<script>alert(1)</script>"


def told(run: Path, output: str, measures: dict[str, Any], rows: list[dict[str, Any]], *, split: str = "test") -> None:
    """Put an evaluation and epochs of this output into the run folder."""
    record = {"split": split, "used_for_selection": False, "output": output, "num_errors": 0, **measures}
    write_json(run / "predictions" / f"{split}.json", record)
    write_lines(run / "predictions" / f"{split}.jsonl", rows)
    config = json.loads((run / "model" / "config.json").read_text())
    write_json(run / "model" / "config.json", {**config, "regraft": {"output": output}})


def with_epochs(run: Path, **measures: float) -> None:
    kept = [{key: value for key, value in row.items() if key != "val_top1"} for row in epochs()]
    write_lines(run / "metrics.jsonl", [{**row, **measures} for row in kept])


@pytest.fixture
def binary(make_run: MakeRun) -> Path:
    run = make_run(splits=("test",))
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 120)
    positive = np.clip(0.35 + 0.3 * labels + random.normal(0, 0.2, 120), 0.001, 0.999)
    measures = binary_metrics(np.stack([1 - positive, positive], 1), labels, NAMES, {"dogs": 0.4})
    picture = str(next((run.parent / "photos").glob("*.jpg")))
    rows = [
        {
            "path": picture,
            "label": NAMES[label],
            "prediction": NAMES[int(p >= 0.4)],
            "probability": max(p, 1 - p),
            "probabilities": {"cats": 1 - p, "dogs": p},
            "error": None,
        }
        for label, p in zip(labels.tolist(), positive.tolist(), strict=True)
    ]
    told(run, "binary", measures, rows)
    with_epochs(run, val_auc=0.876, val_ap=0.81, val_balanced_accuracy=0.7)
    return run


@pytest.fixture
def labels(make_run: MakeRun) -> Path:
    run = make_run(splits=("test",))
    random = np.random.default_rng(0)
    truth = (random.random((60, 3)) < 0.4).astype(np.uint8)
    truth[:, 2] = 0
    shares = np.clip(truth * 0.4 + random.random((60, 3)) * 0.6, 0, 1)
    names, limits = ["sky", "sea", "sand"], {"sky": 0.45, "sea": 0.3}
    picture = str(next((run.parent / "photos").glob("*.jpg")))
    rows = [
        {
            "path": picture,
            "label": [name for name, yes in zip(names, row, strict=True) if yes],
            "labels": [name for name, p in zip(names, line, strict=True) if p >= limits.get(name, 0.5)],
            "prediction": "",
            "probability": None,
            "probabilities": dict(zip(names, line, strict=True)),
            "error": None,
        }
        for row, line in zip(truth.tolist(), shares.tolist(), strict=True)
    ]
    told(run, "multilabel", multilabel_metrics(shares, truth, names, limits), rows)
    with_epochs(run, val_map=0.77, val_f1_micro=0.66, val_f1_macro=0.5)
    return run


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_two_classes_by_one_logit(binary: Path) -> None:
    page = page_of(binary)
    metrics = json.loads((binary / "predictions" / "test.json").read_text())
    for words in (
        f"{metrics['auc']:.4g} ROC-AUC (test)",
        "average precision",
        "dogs is named from a probability of 0.4 on",
        "Over all thresholds",
        "true positive rate",
        "Confusion matrix",
        "Validation: ROC-AUC and average precision",
        "val ROC-AUC",
        "0.876",
    ):
        assert words in page.text, words
    assert "top-1" not in page.text
    circles = [attrs for tag, attrs in page.tags if attrs.get("class") == "mark"]
    assert len(circles) == 2
    hits = metrics["per_class"][1]["recall"]
    assert float(str(circles[0]["cy"])) == pytest.approx(12 + (1 - hits) * 250, abs=0.01), "the ROC at the threshold"


def test_labels_each_with_its_threshold(labels: Path) -> None:
    page = page_of(labels)
    metrics = json.loads((labels / "predictions" / "test.json").read_text())
    for words in (
        f"{metrics['map']:.4g} mean average precision (test)",
        "Micro F1",
        f"({metrics['at_default']['f1_micro']:.4f} at 0.5)",
        "All labels right",
        "named from",
        "Labels that no image here has (1): 'sand'",
        "Validation: mean average precision and micro F1",
    ):
        assert words in page.text, words
    assert "Confusion matrix" not in page.text
    assert "named sand" in page.text or "missed sky" in page.text
    wrong = sum(set(row["label"]) != set(row["labels"]) for row in read_rows(labels))
    assert f"Wrong {wrong}" in page.text


def test_the_surest_mistake_comes_first(labels: Path) -> None:
    rows = read_rows(labels)
    rows[7] |= {"label": [], "labels": ["sea"], "probabilities": {"sky": 0.1, "sea": 0.9999, "sand": 0.2}}
    write_lines(labels / "predictions" / "test.jsonl", rows)
    figures = page_of(labels).text
    assert figures.index("named sea (100.0%)") < figures.index("missed")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [MARK], "label": [MARK]},
        {"labels": [[1]], "label": [{"a": 1}]},
        {"labels": None},
        {"label": "sky"},
        {"probabilities": [1, 2]},
        {"probabilities": {"sky": "much", "sea": None}},
        {"labels": ["sky"], "label": [], "probabilities": None},
    ],
    ids=repr,
)
def test_strange_rows_harm_nothing(labels: Path, change: dict[str, Any]) -> None:
    rows = [{**row, **change} for row in read_rows(labels)]
    write_lines(labels / "predictions" / "test.jsonl", rows)
    text = write_report(labels).read_text(encoding="utf-8")
    Page(text)
    assert "<script>" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"roc": "all"},
        {"roc": [[0, 0], ["x", 1], [2, 3], None]},
        {"precision_recall": []},
        {"threshold": MARK, "positive": MARK},
        {"at_default": [1]},
        {"at_default": {"top1": "good"}},
        {"confusion": [[0, 0], [0, 0]]},
        {"confusion": [[1, 2, 3]]},
        {"auc": None, "ap": None, "notes": [MARK]},
        {"auc": "large"},
        {"notes": 3},
        {"output": "regression"},
        {"output": ["binary"]},
    ],
    ids=repr,
)
def test_strange_measures_harm_nothing(binary: Path, change: dict[str, Any]) -> None:
    path = binary / "predictions" / "test.json"
    write_json(path, {**json.loads(path.read_text()), **change})
    text = write_report(binary).read_text(encoding="utf-8")
    Page(text)
    assert "<script>" not in text


def read_rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions" / "test.jsonl").read_text().splitlines()]


def test_the_choices_of_a_run_are_told(make_run: MakeRun) -> None:
    run = make_run()
    text = (run / "recipe.yaml").read_text()
    head = "# model auto: vgg16, first of 2 by a linear probe on 40 images (91.0%)\n# model auto: <b> reaches 88.0%\n"
    (run / "recipe.yaml").write_text(head + text + "# not this\n")
    page = write_report(run).read_text()
    assert "<ul><li>model auto: vgg16, first of 2 by a linear probe on 40 images (91.0%)</li>" in page
    assert "<li>model auto: &lt;b&gt; reaches 88.0%</li></ul>" in page
