"""`open_data`: from a folder to named, divided rows, and back from splits.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from regraft.data.dataset import DataSet, Quarantined, Split
from regraft.data.open import open_data
from regraft.errors import DataError, SettingsError

Plant = Callable[[Mapping[str, int | bytes]], Path]


def rows(data: DataSet) -> dict[str, list[tuple[str, str]]]:
    return {
        name: [
            (os.path.relpath(path, data.root), data.class_names[label])
            for path, label in zip(split.paths, split.labels, strict=True)
        ]
        for name, split in data.splits.items()
    }


def test_split_folders_are_kept(plant: Plant) -> None:
    root = plant({"train/cat": 2, "train/dog": 2, "valid/cat": 1, "valid/dog": 1})
    data = open_data(root)
    assert (data.name, data.root, data.split_origin) == ("photos", str(root), "folders")
    assert rows(data)["val"] == [(os.path.join("valid", n, "000.jpg"), n) for n in ("cat", "dog")]
    assert list(data.splits) == ["train", "val"]
    assert data.test is None
    assert data.warnings == ()


def test_plain_classes_are_divided_by_the_seed(plant: Plant) -> None:
    root = plant({"cat": 20, "dog": 40})
    data = open_data(root, seed=3)
    assert {name: data.counts(name).tolist() for name in data.splits} == {
        "train": [14, 28],
        "val": [3, 6],
        "test": [3, 6],
    }
    assert data.split_origin == "random"
    assert len({path for part in rows(data).values() for path, _ in part}) == 60
    assert rows(open_data(root, seed=3)) == rows(data)
    assert rows(open_data(root, seed=4)) != rows(data)


def test_the_split_does_not_depend_on_where_the_folder_lies(plant: Plant, tmp_path: Path) -> None:
    root = plant({"cat": 9, "dog": 9})
    shutil.copytree(root, tmp_path / "elsewhere" / "copy")
    assert rows(open_data(tmp_path / "elsewhere" / "copy")) == rows(open_data(root))


def test_fractions_can_leave_out_the_test_split(plant: Plant) -> None:
    data = open_data(plant({"cat": 10, "dog": 10}), fractions=(0.8, 0.2, 0.0))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 16, "val": 4}


def test_a_folder_can_stay_whole(plant: Plant) -> None:
    data = open_data(plant({"cat": 10, "dog": 10}), fractions=(1.0, 0.0, 0.0))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20}


@pytest.mark.parametrize("tree", [{"cat": 3, "dog": 3}, {"train/cat": 3, "train/dog": 3}])
@pytest.mark.parametrize("fractions", [(0.9, 0.2, 0.1), (0.0, 0.0, 1.0), (-1.0, 1.0, 1.0)])
def test_impossible_fractions_are_refused(plant: Plant, tree: dict[str, int], fractions: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match="three fractions that add up to 1"):
        open_data(plant(tree), fractions=fractions)  # type: ignore[arg-type]


@pytest.mark.parametrize("test", [{}, {"test/cat": 2, "test/dog": 2}])
def test_a_missing_validation_folder_is_drawn_from_train_and_said(plant: Plant, test: dict[str, int]) -> None:
    data = open_data(plant({"train/cat": 17, "train/dog": 17, **test}))
    assert data.counts("train").tolist() == [14, 14]
    assert data.counts("val").tolist() == [3, 3]
    assert list(data.splits) == ["train", "val", *(["test"] if test else [])]
    assert data.split_origin == "random"
    assert "6 of 34 training images were drawn for validation (seed 0)" in data.warnings[0]


def test_a_class_with_one_image_goes_to_train_with_a_warning(plant: Plant) -> None:
    data = open_data(plant({"cat": 10, "dog": 10, "yeti": 1}))
    assert [data.counts(name)[2] for name in data.splits] == [1, 0, 0]
    assert "'yeti'" in data.warnings[0]


def test_relative_paths_and_text_are_accepted(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant({"cat": 3, "dog": 3})
    monkeypatch.chdir(root.parent)
    assert open_data("photos/").root == str(root)
    assert open_data("photos").train.paths == open_data(root).train.paths


def test_splits_json_gives_the_same_data_set_back(plant: Plant) -> None:
    data = open_data(plant({"cat": 5, "dog": 5, "dog/x.txt": b"no"}), seed=7)
    data = data.without([Quarantined(data.val.paths[0], "is empty", "val")])
    stored = json.loads(json.dumps(data.to_dict()))
    assert stored["splits"]["train"][0][1] == "cat"
    assert not os.path.isabs(stored["splits"]["train"][0][0])
    again = DataSet.from_dict(stored)
    assert again.to_dict() == data.to_dict()
    assert again.fingerprint() == data.fingerprint()
    for name, split in data.splits.items():
        assert again.splits[name].paths == split.paths
        np.testing.assert_array_equal(again.splits[name].labels, split.labels)


@pytest.mark.parametrize("change", [{"splits": {"train": [["a.jpg", "wolf"]]}}, {"splits": None}, {"class_names": 3}])
def test_a_damaged_splits_json_is_refused(plant: Plant, change: dict[str, object]) -> None:
    stored = open_data(plant({"cat": 2, "dog": 2})).to_dict()
    with pytest.raises(DataError, match="stored list of splits cannot be read"):
        DataSet.from_dict({**stored, **change})
    with pytest.raises(DataError, match="KeyError: 'class_names'"):
        DataSet.from_dict({})


def tagged() -> DataSet:
    """Three images with any number of three classes."""
    tags = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], np.uint8)
    train = Split(["/photos/a.jpg", "/photos/b.jpg"], tags[:2])
    return DataSet(
        "photos", "/photos", ("cat", "dog", "fox"), {"train": train, "val": Split(["/other/c.jpg"], tags[2:])}
    )


def test_images_with_several_classes_keep_them_by_name() -> None:
    data = tagged()
    assert data.multilabel
    assert data.counts("train").tolist() == [1, 0, 1]
    stored = json.loads(json.dumps(data.to_dict()))
    assert stored["splits"]["train"] == [["a.jpg", ["cat", "fox"]], ["b.jpg", []]]
    again = DataSet.from_dict(stored)
    assert again.multilabel
    assert again.to_dict() == data.to_dict()
    assert again.fingerprint() == data.fingerprint()
    np.testing.assert_array_equal(again.train.labels, data.train.labels)
    fewer = data.without([Quarantined("/photos/b.jpg", "is empty", "train")])
    assert fewer.train.labels.tolist() == [[1, 0, 1]]
    changed = {**stored, "splits": {**stored["splits"], "train": [["a.jpg", ["cat"]], ["b.jpg", []]]}}
    assert DataSet.from_dict(changed).fingerprint() != data.fingerprint()
    for rows in ([["a.jpg", "cat"]], [["a.jpg", ["wolf"]]], [["a.jpg", None]]):
        with pytest.raises(DataError, match="stored list of splits"):
            DataSet.from_dict({**stored, "splits": {"train": rows}})


def test_a_list_of_splits_from_before_multilabel_is_read(plant: Plant) -> None:
    stored = open_data(plant({"cat": 3, "dog": 3})).to_dict()
    del stored["multilabel"]
    assert not DataSet.from_dict(stored).multilabel


def test_quarantined_files_leave_their_split(plant: Plant) -> None:
    data = open_data(plant({"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1}))
    gone = data.train.paths[1]
    after = data.without([Quarantined(gone, "is cut off", "train")])
    assert len(after.train) == 4
    assert gone not in after.train.paths
    assert after.counts("train").tolist() == [2, 2]
    assert after.quarantined == (Quarantined(gone, "is cut off", "train"),)
    assert len(data.train) == 5


def test_the_fingerprint_follows_contents_names_and_labels(plant: Plant) -> None:
    root = plant({"cat": 4, "dog": 4})
    first = open_data(root)
    before = first.fingerprint()
    assert open_data(root).fingerprint() == before
    assert open_data(root, seed=1).fingerprint() != before
    with open(first.train.paths[0], "ab") as file:
        file.write(b"more")
    assert open_data(root).fingerprint() != before


def test_opening_does_not_import_torch() -> None:
    import subprocess
    import sys

    modules = "regraft.data.cache.loader, regraft.data.check, regraft.data.decode.preprocess"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_folds_cover_every_row_once_for_validation(plant: Plant) -> None:
    root = plant({"cat": 11, "dog": 9})
    whole = {path for part in rows(open_data(root)).values() for path, _ in part}
    seen: list[str] = []
    for k in range(4):
        data = open_data(root, seed=5, fold=(k, 4))
        assert list(data.splits) == ["train", "val"], "no test split is drawn"
        assert (data.split_origin, data.options["fold"]) == ("folds", [k, 4])
        assert {path for part in rows(data).values() for path, _ in part} == whole
        assert abs(data.counts("val")[0] - 11 / 4) < 1
        seen += [path for path, _ in rows(data)["val"]]
        assert rows(open_data(root, seed=5, fold=(k, 4))) == rows(data)
        assert DataSet.from_dict(json.loads(json.dumps(data.to_dict()))).settings() == data.settings()
    assert sorted(seen) == sorted(whole)
    assert rows(open_data(root, seed=6, fold=(0, 4))) != rows(open_data(root, seed=5, fold=(0, 4)))


def test_folds_take_in_validation_and_leave_the_test_split(plant: Plant) -> None:
    tree = {f"{split}/{name}": 4 for split in ("train", "val", "test") for name in ("cat", "dog")}
    data = open_data(plant(tree), fold=(0, 2))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 8, "test": 8}
    assert {os.path.dirname(path) for path, _ in rows(data)["test"]} == {"test/cat", "test/dog"}
    assert {path.split(os.sep)[0] for path, _ in rows(data)["val"]} == {"train", "val"}


def test_the_only_image_of_a_class_is_trained_on_in_every_fold(plant: Plant) -> None:
    root = plant({"cat": 6, "dog": 6, "yeti": 1})
    for k in range(3):
        data = open_data(root, fold=(k, 3))
        assert [data.counts(name)[2] for name in ("train", "val")] == [1, 0]
        assert "'yeti'" in data.warnings[0]


@pytest.mark.parametrize("fold", [(0, 1), (3, 3), (-1, 3), (0,), (0, 3, 1), (0.0, 3), ("0", 3), (0, 99)])
def test_impossible_folds_are_refused(plant: Plant, fold: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="fold"):
        open_data(plant({"cat": 4, "dog": 4}), fold=fold)


def test_what_was_given_is_written_for_the_next_run(plant: Plant) -> None:
    root = plant({"all": 8})
    names = "".join(f"all/{n:03}.jpg {n % 2}\n" for n in range(8))
    (root / "list.txt").write_text(names)
    (root / "words.txt").write_text("even\nodd\n")
    data = open_data(root, labels="list.txt", names="words.txt", fractions=[0.5, 0.5, 0], seed=3)
    assert data.settings() == {
        "source": str(root),
        "fractions": [0.5, 0.5, 0.0],
        "labels": str(root / "list.txt"),
        "names": str(root / "words.txt"),
    }
    stored = json.loads(json.dumps(data.to_dict()))
    again = DataSet.from_dict(stored)
    assert again.settings() == data.settings()
    assert again.fingerprint() == data.fingerprint()
    settings = data.settings()
    assert rows(open_data(settings.pop("source"), seed=3, **settings)) == rows(data)
