"""Evaluation: which rows, under which label, and names before positions."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from tests.conftest import COLOURS, photo, photos

import regraft as rg
from regraft.errors import DataError, SettingsError, StorageError
from regraft.evaluation.evaluate import SELECTION_LABEL, stored_numerics
from regraft.run.folder import open_run


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_the_test_split_is_taken_where_there_is_one(run: Path) -> None:
    shutil.rmtree(run / "predictions")
    measures = rg.evaluate(run)
    assert (measures["split"], measures["label"], measures["used_for_selection"]) == ("test", "test", False)
    assert json.loads((run / "predictions" / "test.json").read_text()) == measures
    rows = [json.loads(line) for line in (run / "predictions" / "test.jsonl").read_text().split("\n") if line]
    splits = json.loads((run / "splits.json").read_text())
    assert [row["label"] for row in rows] == [label for _, label in splits["splits"]["test"]]
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert measures["top1"] == pytest.approx(right / len(rows))


def test_without_a_test_split_every_figure_is_labelled(run: Path) -> None:
    splits = json.loads((run / "splits.json").read_text())
    del splits["splits"]["test"]
    (run / "splits.json").write_text(json.dumps(splits))
    measures = rg.evaluate(run)
    assert measures["split"] == "val"
    assert measures["label"] == SELECTION_LABEL == "validation, also used for selection"
    assert measures["used_for_selection"] is True


def test_other_photos_with_fewer_classes_keep_their_names(run: Path, tmp_path: Path) -> None:
    """`red` is class 2 of the model and class 1 of this folder: positions must not be mistaken for names."""
    other = photos(tmp_path / "other", {"green": 5, "red": 4}, seed=5)
    measures = rg.evaluate(run, other)
    assert measures["top1"] == 1.0
    assert measures["num_images"] == 9
    assert [row["support"] for row in measures["per_class"]] == [0, 5, 4]
    assert [row["name"] for row in measures["per_class"]] == ["blue", "green", "red"]
    assert measures["used_for_selection"] is False
    assert (run / "predictions" / "other.jsonl").exists()


def test_one_class_of_the_models_is_enough(run: Path, tmp_path: Path) -> None:
    measures = rg.evaluate(run, photos(tmp_path / "other", {"green": 5}, seed=5))
    assert (measures["top1"], measures["num_images"]) == (1.0, 5)
    assert [row["support"] for row in measures["per_class"]] == [0, 5, 0]
    photos(tmp_path / "split" / "test", {"red": 3})
    photos(tmp_path / "split" / "train", {"red": 2, "blue": 2})
    assert rg.evaluate(run, tmp_path / "split")["num_images"] == 3, "the test split alone, with fewer classes"


def test_lists_and_tables_are_measured_by_the_names_of_their_classes(run: Path, tmp_path: Path) -> None:
    root = photos(tmp_path / "other", {"green": 3, "red": 2}, seed=5)
    rows = [(path.relative_to(root).as_posix(), path.parent.name) for path in sorted(root.rglob("*.png"))]
    (root / "some.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in rows))
    assert rg.evaluate(run, root / "some.csv")["top1"] == 1.0
    assert (run / "predictions" / "some.jsonl").exists()
    number = {"red": 0, "green": 1}
    (root / "list.txt").write_text("".join(f"{path} {number[name]}\n" for path, name in rows))
    with pytest.raises(DataError, match="does not know: '0', '1'"):
        rg.evaluate(run, root / "list.txt")
    (tmp_path / "colours.txt").write_text("red\ngreen\n")
    measures = rg.evaluate(run, root / "list.txt", names=tmp_path / "colours.txt")
    assert (measures["top1"], measures["num_images"]) == (1.0, 5)
    assert rg.evaluate(run, root, labels="list.txt", names=tmp_path / "colours.txt")["num_images"] == 5
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"]["names"] = str(tmp_path / "colours.txt")
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert rg.evaluate(run, root / "list.txt")["top1"] == 1.0, "numbers mean what they meant in the run"


def test_images_with_several_labels_are_refused_by_a_model_of_one(run: Path, tmp_path: Path) -> None:
    root = photos(tmp_path / "other", {"green": 2})
    (root / "tags.csv").write_text("path,tags\ngreen/000.png,green|red\ngreen/001.png,red\n")
    with pytest.raises(DataError, match="images with several labels"):
        rg.evaluate(run, root / "tags.csv")


def test_other_photos_in_splits_are_their_test_split(run: Path, tmp_path: Path) -> None:
    for seed, (split, count) in enumerate((("train", 3), ("val", 2), ("test", 4)), start=7):
        photos(tmp_path / "other" / split, {"blue": count, "red": count}, seed=seed)
    assert rg.evaluate(run, tmp_path / "other")["num_images"] == 8


def test_photos_in_a_folder_called_test_do_not_replace_the_runs_own_measures(run: Path, tmp_path: Path) -> None:
    before = (run / "predictions" / "test.json").read_text()
    measures = rg.evaluate(run, photos(tmp_path / "test", {"blue": 2, "red": 2}, seed=7))
    assert (run / "predictions" / "test.json").read_text() == before
    assert measures["label"] == "other-test"


def test_an_unknown_class_is_an_error_that_names_it(run: Path, tmp_path: Path) -> None:
    other = photos(tmp_path / "other", {"green": 2, "pink": 2})
    with pytest.raises(DataError, match="'pink'") as caught:
        rg.evaluate(run, other)
    assert caught.value.exit_code == 3
    assert not (run / "predictions" / "other.json").exists()


def test_unreadable_images_are_rows_and_no_part_of_the_accuracy(run: Path, tmp_path: Path) -> None:
    other = photos(tmp_path / "other", {"green": 3, "red": 3})
    (other / "red" / "bad.jpg").write_bytes(b"")
    measures = rg.evaluate(run, other)
    assert (measures["num_images"], measures["num_errors"]) == (6, 1)
    rows = [json.loads(line) for line in (run / "predictions" / "other.jsonl").read_text().split("\n") if line]
    assert len(rows) == 7
    (bad,) = [row for row in rows if row["error"]]
    assert (bad["label"], bad["prediction"]) == ("red", None)


def test_nothing_readable_is_an_error(run: Path, tmp_path: Path) -> None:
    for name in ("green", "red"):
        photo(tmp_path / "other" / name / "a.jpg", COLOURS["red"], 1).write_bytes(b"")
    with pytest.raises(DataError, match="None of the 2 images"):
        rg.evaluate(run, tmp_path / "other")


def test_where_there_is_nothing_to_evaluate(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="missing' does not exist"):
        rg.evaluate(tmp_path / "missing")
    with pytest.raises(DataError, match="There is no folder"):
        rg.evaluate(run, tmp_path / "missing")
    (run / "splits.json").write_text("{}")
    with pytest.raises(DataError, match="splits"):
        rg.evaluate(run)
    (run / "splits.json").write_text("{")
    with pytest.raises(StorageError, match=r"splits\.json' cannot be read"):
        rg.evaluate(run)
    shutil.rmtree(run / "model")
    with pytest.raises(SettingsError, match="no model yet"):
        rg.evaluate(run)


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_evaluated_with_what_it_was_trained_with(run: Path) -> None:
    text = (run / "recipe.yaml").read_text()
    for precision in ("fp32", "bf16"):
        (run / "recipe.yaml").write_text(re.sub(r"precision: \w+", f"precision: {precision}", text))
        assert stored_numerics(open_run(run)).precision == precision
    (run / "recipe.yaml").write_text(re.sub(r"device: \w+", "device: quantum", text))
    assert stored_numerics(open_run(run)).device in ("cpu", "cuda", "mps"), "what is lacking here is chosen anew"


def test_class_folders_with_odd_names(tmp_path: Path) -> None:
    """Commas, quotes, line breaks and accents are part of a name, in files and in figures."""
    names = {'a, "b"': 8, "line\nbreak": 8, "Süß — 猫": 8}
    data = rg.open_data(photos(tmp_path / "odd", names))
    model = rg.adapt(rg.build_model("test_resnet"), classes=data.class_names, image_size=32)
    run = rg.train(model, rg.make_plan(model, [rg.Stage("head", epochs=1)]), data, out=tmp_path / "run", show=False)
    measures = rg.evaluate(run)
    assert [row["name"] for row in measures["per_class"]] == sorted(names)
    rows = rg.predict(run.path, tmp_path / "odd")
    assert len(rows) == 24
    assert all(set(row.probabilities) == set(names) for row in rows)
    assert rg.write_report(run).is_file()
