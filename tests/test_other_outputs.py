"""Whole runs with one logit and with a sigmoid for each label: trained, resumed, loaded, measured, predicted."""

from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn import metrics

import regraft as rg
from regraft import pipeline
from regraft.compute.numerics import choose_numerics
from regraft.data.dataset import Split
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.store.folder import load_probes
from regraft.run.records import read_metrics
from tests.conftest import TINY_MODEL, Cli, photos
from tests.training.tiny import Killed, kill_at_step

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
PLAIN = {"model": {"name": TINY_MODEL, "weights": "none", "image_size": 32}, "numerics": {"precision": "fp32"}}


def scene(path: Path, labels: tuple[str, ...], seed: int) -> None:
    """A grey picture with a square of each label's colour, each in a place of its own."""
    noise = np.random.default_rng(seed).normal(0, 25, (40, 48, 3)) + 120
    for place, (name, colour) in enumerate(COLOURS.items()):
        if name in labels:
            noise[4:36, 16 * place : 16 * place + 14] += np.array(colour) - 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`scenes.csv` with 96 pictures that have any of three labels, or none."""
    root = tmp_path_factory.mktemp("scenes")
    kinds = [kind for size in range(4) for kind in itertools.combinations(COLOURS, size)]
    lines = ["path,labels,split"]
    for number in range(96):
        kind = kinds[number % len(kinds)]
        scene(root / "pictures" / f"{number:03}.png", kind, number)
        split = "train" if number < 48 else "val" if number < 72 else "test"
        lines.append(f"pictures/{number:03}.png,{'|'.join(kind)},{split}")
    (root / "scenes.csv").write_text("\n".join(lines) + "\n")
    return root / "scenes.csv"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that are told apart by a shade only, so that probabilities are not all 0 and 1."""
    root = tmp_path_factory.mktemp("pairs") / "shades"
    for index, (split, num) in enumerate((("train", 20), ("val", 12), ("test", 12))):
        for name, level, share in (("dark", 100, 1), ("light", 150, 2)):
            for number in range(num // share):
                noise = np.random.default_rng([index, level, number]).normal(level, 60, (24, 24, 3))
                path = root / split / name / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)
    return root


def recipe(source: Path, **more: Any) -> dict[str, Any]:
    head = {"name": "head", "train": "head", "epochs": 3, "optimizer": "adamw", "lr": 1e-2}
    top = {"name": "top", "train": ["stage:-1", "head"], "epochs": 2, "optimizer": "adamw", "lr": 1e-2}
    return {**PLAIN, "data": {"source": str(source), "batch_size": 8}, "stages": [head, top], "seed": 3, **more}


@pytest.fixture(scope="module")
def binary(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = recipe(pairs, head={"output": "binary", "dropout": 0.2}, monitor="val_auc")
    return rg.run_recipe(settings, out=tmp_path_factory.mktemp("runs") / "binary", show=False).path


@pytest.fixture(scope="module")
def multilabel(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = recipe(scenes, monitor="val_map")
    settings["stages"][1]["early_stopping"] = {"monitor": "val_f1_micro", "patience": 2}
    return rg.run_recipe(settings, out=tmp_path_factory.mktemp("runs") / "many", show=False).path


def rows_of(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions" / f"{name}.jsonl").read_text().splitlines()]


def test_each_epoch_is_described_by_the_measures_of_its_task(binary: Path, multilabel: Path) -> None:
    for row in read_metrics(binary / "metrics.jsonl"):
        assert {"val_loss", "val_top1", "val_balanced_accuracy", "val_auc", "val_ap"} <= set(row)
    for row in read_metrics(multilabel / "metrics.jsonl"):
        assert {"val_loss", "val_map", "val_f1_micro", "val_f1_macro"} <= set(row)
        assert "val_top1" not in row


@pytest.mark.parametrize(("name", "measure"), [("binary", "val_auc"), ("multilabel", "val_map")])
def test_the_best_epoch_is_the_best_of_the_watched_measure(
    name: str, measure: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    best = json.loads((run / "best.json").read_text())
    assert best["value"] == max(row[measure] for row in read_metrics(run / "metrics.jsonl"))


def test_the_log_tells_the_measure_that_counts(binary: Path, multilabel: Path) -> None:
    assert "val_auc 0." in (binary / "log.txt").read_text() or "val_auc 1." in (binary / "log.txt").read_text()
    assert "val_map " in (multilabel / "log.txt").read_text()


def test_output_and_thresholds_are_kept_with_the_model(binary: Path, multilabel: Path) -> None:
    for run, output, names in ((binary, "binary", ["light"]), (multilabel, "multilabel", list(COLOURS))):
        section = json.loads((run / "model" / "config.json").read_text())["regraft"]
        assert (section["output"], list(section["thresholds"])) == (output, names)
        assert section["default_threshold"] == 0.5
        assert section["timm_loadable"] is True
        info = info_of(rg.load_model(run))
        assert (info.output, info.thresholds) == (output, section["thresholds"])
        assert json.loads((run / "best.json").read_text())["thresholds"] == section["thresholds"]
        stored = yaml.safe_load((run / "recipe.yaml").read_text())
        assert stored["head"]["output"] == output


def test_binary_thresholds_are_the_best_on_validation(binary: Path, pairs: Path) -> None:
    """Chosen by the run's own logits; here predicted again, so a hair's breadth is allowed."""
    predictions = rg.predict(binary, pairs / "val", numerics=choose_numerics(precision="fp32"))
    scores = np.array([row.probabilities["light"] for row in predictions])
    truth = np.array(["light" in row.path for row in predictions])
    threshold = info_of(rg.load_model(binary)).thresholds["light"]
    reached = metrics.balanced_accuracy_score(truth, scores >= threshold)
    assert reached >= max(metrics.balanced_accuracy_score(truth, scores >= s) for s in (*scores, 0.5)) - 1e-9


def test_binary_is_measured_at_its_threshold_and_at_all(binary: Path) -> None:
    measures = rg.evaluate(binary)
    rows = rows_of(binary, "test")
    truth = [row["label"] == "light" for row in rows]
    scores = [row["probabilities"]["light"] for row in rows]
    threshold = measures["threshold"]
    assert [row["prediction"] for row in rows] == ["light" if score >= threshold else "dark" for score in scores]
    assert all(row["probability"] == row["probabilities"][row["prediction"]] for row in rows)
    assert measures["output"] == "binary"
    assert measures["positive"] == "light"
    assert measures["auc"] == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert measures["ap"] == pytest.approx(metrics.average_precision_score(truth, scores))
    named = [score >= threshold for score in scores]
    assert measures["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, named))
    half = [score >= 0.5 for score in scores]
    assert measures["at_default"]["top1"] == pytest.approx(metrics.accuracy_score(truth, half))
    recalls = metrics.recall_score(truth, named, average=None)
    assert [row["recall"] for row in measures["per_class"]] == pytest.approx(recalls)
    assert measures["roc"][0] == [0, 0]
    assert measures["roc"][-1] == [1, 1]
    false, hits, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert np.array(measures["roc"]) == pytest.approx(np.stack([false, hits], 1), abs=1e-6)


def test_labels_are_measured_each_and_together(multilabel: Path) -> None:
    measures = rg.evaluate(multilabel)
    rows = rows_of(multilabel, "test")
    truth = np.array([[name in row["label"] for name in COLOURS] for row in rows])
    scores = np.array([[row["probabilities"][name] for name in COLOURS] for row in rows])
    limits = np.array([row["threshold"] for row in measures["per_class"]])
    named = scores >= limits
    assert [set(row["labels"]) for row in rows] == [
        {n for n, y in zip(COLOURS, row, strict=True) if y} for row in named
    ]
    assert all(row["prediction"] == "|".join(row["labels"]) for row in rows)
    for row in rows:
        shares = [row["probabilities"][name] for name in row["labels"]]
        assert shares == sorted(shares, reverse=True)
    assert measures["map"] == pytest.approx(metrics.average_precision_score(truth, scores))
    assert measures["f1_micro"] == pytest.approx(metrics.f1_score(truth, named, average="micro"))
    assert measures["f1_macro"] == pytest.approx(metrics.f1_score(truth, named, average="macro"))
    assert measures["exact"] == pytest.approx(metrics.accuracy_score(truth, named))
    half = metrics.f1_score(truth, scores >= 0.5, average="micro")
    assert measures["at_default"]["f1_micro"] == pytest.approx(half)
    for key, score in (("precision", metrics.precision_score), ("recall", metrics.recall_score)):
        values = [row[key] for row in measures["per_class"]]
        assert values == pytest.approx(score(truth, named, average=None, zero_division=np.nan), nan_ok=True)
    assert measures["map"] > 0.6, "a coloured square is easy"


@pytest.mark.parametrize(("name", "steps"), [("binary", 14), ("multilabel", 2), ("multilabel", 20)])
def test_a_killed_run_resumes_to_the_same_bits_and_thresholds(
    name: str, steps: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    finished: Path = request.getfixturevalue(name)
    settings = yaml.safe_load((finished / "recipe.yaml").read_text())
    with pytest.raises(Killed), kill_at_step(steps):
        rg.run_recipe(settings, out=tmp_path / "run", show=False)
    run = pipeline.resume(tmp_path / "run", show=False).path
    for file in ("model/model.safetensors", "model/config.json"):
        assert (run / file).read_bytes() == (finished / file).read_bytes(), file


def test_predictions_are_rows_of_names_in_every_format(
    cli: Cli, multilabel: Path, scenes: Path, tmp_path: Path
) -> None:
    folder = scenes.parent / "pictures"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    inputs = [str(path) for path in sorted(folder.iterdir())[:9]] + [str(broken)]
    stdin = "\n".join(inputs).encode()
    rows = [json.loads(line) for line in cli("predict", multilabel, "-", "--json", stdin=stdin).out.splitlines()]
    assert [row["path"] for row in rows] == inputs
    assert rows[-1]["error"]
    assert rows[-1]["labels"] == []
    assert rows[-1]["prediction"] is None
    table = list(csv.DictReader(io.StringIO(cli("predict", multilabel, "-", "--csv", stdin=stdin).out)))
    assert [row["prediction"] for row in table] == [row["prediction"] or "" for row in rows]
    assert table[-1]["error"]
    lines = cli("predict", multilabel, "-", stdin=stdin).out.splitlines()
    assert len(lines) == len(inputs)
    none = cli("predict", multilabel, "-", "--threshold", "1", stdin=stdin).out.splitlines()
    assert all("(no label)" in line for line in none[:-1])
    every = cli("predict", multilabel, "-", "--json", "--threshold", "0", stdin=stdin).out.splitlines()
    assert all(set(json.loads(line)["labels"]) == set(COLOURS) for line in every[:-1])


def test_a_threshold_moves_the_names_and_not_the_probabilities(cli: Cli, binary: Path, pairs: Path) -> None:
    stored, low = (
        [json.loads(line) for line in cli("predict", binary, pairs / "test", "--json", *more).out.splitlines()]
        for more in ((), ("--threshold", "0"))
    )
    assert {row["prediction"] for row in low} == {"light"}
    assert [row["probabilities"] for row in low] == [row["probabilities"] for row in stored]
    assert "labels" not in stored[0]


def test_a_threshold_is_refused_where_there_is_none(cli: Cli, tiny_run: Path, tiny_photos: Path) -> None:
    result = cli("predict", tiny_run, tiny_photos, "--threshold", "0.5")
    assert result.code == 2
    assert "most probable class" in result.err


def test_evaluate_and_inspect_print_the_tasks_figures(cli: Cli, binary: Path, multilabel: Path) -> None:
    printed = cli("evaluate", binary).out
    for text in (
        "ROC-AUC (test): ",
        " of 18 images",
        "average precision (test): ",
        "accuracy (test): ",
        "threshold: 'light'",
    ):
        assert text in printed
    printed = cli("evaluate", multilabel).out
    for text in ("mean average precision (test): ", "micro F1 (test): ", "macro F1 (test): ", "threshold 0."):
        assert text in printed
    assert "ROC-AUC (test)" in cli("inspect", binary).out
    assert "mean average precision (test)" in cli("inspect", multilabel).out
    model = cli("inspect", binary / "model").out
    for text in ("output: binary", "thresholds: light 0.", "classes: dark, light"):
        assert text in model


def test_heads_are_solved_too(pairs: Path, scenes: Path, tmp_path: Path) -> None:
    solved = [{"name": "head", "train": "head"}]
    for source, name, head in ((pairs, "auc", {"output": "binary"}), (scenes, "map", {})):
        run = rg.run_recipe({**recipe(source), "head": head, "stages": solved}, out=tmp_path / name, show=False)
        rows = read_metrics(run.metrics)
        assert all("l2" in row for row in rows)
        if "folds" in rows[0]:  # images are few, so the strength is known before
            assert len(rows) == 1
        else:
            assert rows[-1]["train_loss"] < rows[0]["train_loss"]
        assert max(row[f"val_{name}"] for row in rows) > 0.6


# What does not go together


def test_the_output_follows_from_the_data_and_a_wrong_one_is_refused(scenes: Path, pairs: Path, tmp_path: Path) -> None:
    for source, output, text in (
        (scenes, "softmax", "any number of labels"),
        (scenes, "binary", "exactly two|any number of labels"),
        (pairs, "multilabel", "one class each"),
    ):
        with pytest.raises(SettingsError, match=text) as caught:
            rg.run_recipe({**recipe(source), "head": {"output": output}}, out=tmp_path / "run", show=False)
        assert "output" in caught.value.next_step
        assert not (tmp_path / "run").exists()


def test_measures_that_the_head_does_not_give_are_all_named_at_once(pairs: Path, tmp_path: Path) -> None:
    settings = recipe(pairs, head={"output": "binary"})
    settings["stages"][0]["early_stopping"] = {"monitor": "val_map"}
    settings["stages"][1]["plateau"] = {"monitor": "val_f1_micro"}
    with pytest.raises(SettingsError) as caught:
        rg.run_recipe(settings, out=tmp_path / "run", show=False)
    assert sum("monitor is" in line for line in caught.value.details) == 2
    with pytest.raises(SettingsError, match="val_auc"):
        rg.run_recipe({**recipe(pairs), "monitor": "val_auc"}, out=tmp_path / "run", show=False)


def test_a_measure_that_validation_cannot_give_is_refused_or_left_empty(tmp_path: Path) -> None:
    """Folders without a class are refused before; a table, or quarantined pictures, can leave one class."""
    for split in ("train", "val"):
        photos(tmp_path / "data" / split, {"green": 8, "red": 8})
    settings = {**recipe(tmp_path / "data"), "head": {"output": "binary"}}
    settings["stages"] = settings["stages"][:1]
    data = rg.open_data(tmp_path / "data")
    val = Split([path for path in data.val.paths if "red" in path], data.val.labels[data.val.labels == 1])
    data = replace(data, splits={**data.splits, "val": val})
    with pytest.raises(SettingsError, match="cannot give") as caught:
        rg.run_recipe({**settings, "monitor": "val_auc"}, data=data, out=tmp_path / "run", show=False)
    assert "all images are 'red'" in caught.value.details[0]
    run = rg.run_recipe(settings, data=data, out=tmp_path / "run", show=False)
    rows = read_metrics(run.metrics)
    assert all(row["val_auc"] is None for row in rows)
    assert "note: val_auc is not defined" in run.log.read_text()
    assert info_of(rg.load_model(run.path)).thresholds == {"red": 0.5}


def test_evaluating_on_one_class_leaves_the_areas_empty(binary: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "light").symlink_to(pairs / "test" / "light")
    measures = rg.evaluate(binary, tmp_path / "other")
    assert (measures["auc"], measures["ap"]) == (None, None)
    assert "roc" not in measures
    assert "All images are 'light'" in measures["notes"][0]


def test_labels_that_do_not_occur_have_no_figures(multilabel: Path, scenes: Path, tmp_path: Path) -> None:
    lines = scenes.read_text().splitlines()
    kept = [line.rpartition(",")[0] for line in lines[1:] if line.split(",")[1] in ("blue", "green")]
    (scenes.parent / "few.csv").write_text("path,labels\n" + "\n".join(kept) + "\n")
    measures = rg.evaluate(multilabel, scenes.parent / "few.csv")
    red = measures["per_class"][2]
    assert (red["name"], red["ap"], red["recall"], red["support"]) == ("red", None, None, 0)
    assert "'red'" in measures["notes"][0]
    defined = [row["ap"] for row in measures["per_class"][:2]]
    assert measures["map"] == pytest.approx(np.mean(defined))


def test_the_probes_are_logits_of_the_head(binary: Path, multilabel: Path) -> None:
    for run, num_logits in ((binary, 1), (multilabel, 3)):
        probes = load_probes(run)
        with torch.no_grad():
            assert torch.equal(rg.load_model(run)(probes["images"]), probes["logits"])
        assert probes["logits"].shape[1] == num_logits
