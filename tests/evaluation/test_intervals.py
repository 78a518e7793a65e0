"""Intervals: they hold the truth as often as they say, for every kind of figure, and say so where they cannot."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Cli, photo, photos

import regraft as rg
from regraft.evaluation.metrics.binary import binary_metrics
from regraft.evaluation.metrics.metrics import classification_metrics
from regraft.evaluation.metrics.multilabel import multilabel_metrics
from regraft.evaluation.metrics.scores import average_precision, roc_auc
from regraft.evaluation.trust.intervals import label_intervals, mask_intervals, mean_of_shares_interval
from regraft.evaluation.trust.reliability import error_difference
from regraft.evaluation.trust.slices import slice_figures, slices_of

NAMES = ["a", "b", "c"]


def drawn(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of three classes, and labels drawn from them."""
    noise = np.random.default_rng(seed)
    shares = noise.dirichlet((0.6, 0.6, 0.6), num)
    return shares, (shares.cumsum(1) < noise.random((num, 1))).sum(1).clip(0, 2)


def test_accuracy_and_its_kin() -> None:
    shares, labels = drawn(200, 0)
    measures = classification_metrics(shares, labels, NAMES)
    found = label_intervals("softmax", measures, shares, labels)
    for key in ("top1", "balanced_accuracy", "loss"):
        low, high = found["intervals"][key]
        assert low < measures[key] < high, key
    for row in found["per_class"]:
        assert all(row["intervals"][key][0] <= row[key] <= row["intervals"][key][1] for key in row["intervals"])
        assert set(row["intervals"]) == {"recall", "precision", "f1"}


def test_they_hold_the_truth_as_often_as_they_say() -> None:
    """Balanced accuracy of classes of very different sizes, and AUC, over 200 draws of 120 images."""
    recalls, sizes = np.array([0.95, 0.7, 0.5]), np.array([80, 30, 10])
    noise = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        low, high = mean_of_shares_interval(noise.binomial(sizes, recalls), sizes)
        inside += low <= recalls.mean() <= high
    assert 0.92 <= inside / 400 <= 0.985
    inside = 0
    true_auc = 0.7602  # of two normals one standard deviation apart: Phi(1 / sqrt(2))
    for seed in range(100):
        noise = np.random.default_rng([2, seed])
        labels = np.repeat([0, 1], 60)
        positive = 1 / (1 + np.exp(-(noise.normal(labels, 1.0))))
        shares = np.stack([1 - positive, positive], 1)
        measures = binary_metrics(shares, labels, ["no", "yes"], {"yes": 0.5})
        low, high = label_intervals("binary", measures, shares, labels)["intervals"]["auc"]
        inside += low <= true_auc <= high
    assert inside >= 88


def test_areas_by_weights_are_those_of_the_metrics() -> None:
    from regraft.evaluation.trust.intervals import _Ranked

    noise = np.random.default_rng(3)
    scores, positive = noise.integers(0, 8, 60) / 8, noise.random(60) < 0.4
    (area, precision), (twice, _) = _Ranked(scores, positive).areas(np.stack([np.ones(60), np.full(60, 2.0)]))
    assert area == pytest.approx(roc_auc(scores, positive)) == pytest.approx(twice)
    assert precision == pytest.approx(average_precision(scores, positive))


def test_labels_and_masks() -> None:
    noise = np.random.default_rng(4)
    scores = noise.random((90, 3))
    there = (noise.random((90, 3)) < scores).astype(np.uint8)
    measures = multilabel_metrics(scores, there, NAMES, dict.fromkeys(NAMES, 0.5))
    found = label_intervals("multilabel", measures, scores, there)
    for key in ("map", "f1_micro", "f1_macro", "exact", "loss"):
        low, high = found["intervals"][key]
        assert low < measures[key] < high, key
    assert all(row["intervals"]["ap"][0] < row["ap"] < row["intervals"]["ap"][1] for row in found["per_class"])
    support = noise.integers(50, 100, (40, 2)).astype(float)
    hits = np.floor(support * noise.uniform(0.5, 0.9, support.shape))
    named = hits + (support - hits)[:, ::-1]
    iou = hits.sum(0) / (support + named - hits).sum(0)
    of_masks = {"miou": float(iou.mean()), "per_class": [{"name": n, "iou": float(v)} for n, v in zip("ab", iou)]}  # noqa: B905
    told = mask_intervals(of_masks, hits, support, named)
    assert told["intervals"]["miou"][0] < of_masks["miou"] < told["intervals"]["miou"][1]
    assert told["per_class"][0]["intervals"]["iou"][0] < iou[0] < told["per_class"][0]["intervals"]["iou"][1]


def test_one_image_one_class_and_no_error() -> None:
    one = classification_metrics(np.array([[0.9, 0.1, 0.0]]), np.array([0]), NAMES)
    found = label_intervals("softmax", one, np.array([[0.9, 0.1, 0.0]]), np.array([0]))
    assert found["intervals"]["top1"][0] < 0.3
    assert "loss" not in found["intervals"], "one image says nothing about its like"
    assert found["per_class"][1]["intervals"] == {}
    shares, labels = np.eye(3)[[0] * 20], np.zeros(20, int)
    found = label_intervals("softmax", classification_metrics(shares, labels, NAMES), shares, labels)
    assert found["intervals"]["top1"] == pytest.approx([0.8389, 1.0], abs=1e-3)
    assert found["intervals"]["balanced_accuracy"] == pytest.approx(found["intervals"]["top1"])


def test_slices_by_folder_size_and_brightness(tmp_path: Path) -> None:
    paths = [str(photo(tmp_path / name / f"{n}.png", (60 * n,) * 3, n, (20 + 10 * n, 30))) for name in "ab" for n in range(4)]  # type: ignore[arg-type]  # fmt: skip  # noqa: E501
    assert slices_of("folder", paths, None) == ["a"] * 4 + ["b"] * 4
    sizes = slices_of("size", paths, None)
    assert len(set(sizes)) == 4
    assert sizes[:4] == sizes[4:]
    assert all(name.endswith("megapixels") for name in sizes)
    brightness = slices_of("brightness", [*paths, str(tmp_path / "gone.png")], None)
    assert brightness[0] != brightness[3]
    assert brightness[-1] == "(none)"
    rows = slice_figures(sizes, np.array([True, False] * 4))
    assert [row["num_images"] for row in rows] == [2] * 4
    assert rows[0]["share"] <= rows[-1]["share"]
    assert all(row["interval"][0] <= row["share"] <= row["interval"][1] for row in rows)


def test_evaluate_by_a_column_of_the_table(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    root = photos(tmp_path / "other", {"green": 6, "red": 6}, seed=8)
    with (root / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "camera"])
        writer.writerows(
            [f"{path.parent.name}/{path.name}", path.parent.name, f"cam{int(path.stem) % 2}"]
            for path in sorted(root.rglob("*.png"))
        )
    result = cli("evaluate", run, root / "rows.csv", "--slice", "camera")
    assert result.code == 0, result.err
    assert "right answers by camera (rows):" in result.out
    assert "cam0" in result.out
    assert "of 6 images, 95 % interval" in result.out
    assert "accuracy (rows): 100.00% of 12 images, 95 % interval " in result.out
    rg.write_report(run)
    assert "Right answers by camera" in (run / "report.html").read_text()
    missing = cli("evaluate", run, root / "rows.csv", "--slice", "lens")
    assert missing.code == 2
    assert "camera" in missing.err
    no_table = cli("evaluate", run, root, "--slice", "camera", "--quiet")
    assert no_table.code == 2
    assert "folder, size, brightness" in no_table.err
    assert rg.evaluate(run, slice_by="brightness")["slices"]["brightness"]


def test_the_difference_of_two_calibration_errors_has_an_interval() -> None:
    shares, labels = drawn(400, 3)
    sharper = shares**3 / (shares**3).sum(1, keepdims=True)
    difference, interval = error_difference(shares, sharper, labels)
    assert interval is not None
    assert 0 < interval[0] < difference < interval[1], "probabilities that are too sure are further off"
    assert error_difference(shares, shares, labels) == (0.0, [0.0, 0.0])
    assert error_difference(shares[:5], sharper[:5], labels[:5])[1] is None
