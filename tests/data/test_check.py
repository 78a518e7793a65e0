"""What the data doctor says."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.data.check import check, require_usable
from regraft.data.dataset import DataSet, Quarantined, Split
from regraft.errors import DataError


def data_set(**splits: list[int]) -> DataSet:
    return DataSet(
        name="photos",
        root="/photos",
        class_names=("cat", "dog"),
        splits={
            name: Split([f"/photos/{name}/{row}.jpg" for row in range(len(labels))], np.array(labels, np.int64))
            for name, labels in splits.items()
        },
    )


def levels(data: DataSet) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in check(data)]


def test_a_sound_data_set_has_no_findings() -> None:
    data = data_set(train=[0, 1], val=[0, 1])
    assert check(data) == []
    require_usable(data)


def test_the_quarantine_is_counted_by_reason_and_listed() -> None:
    bad = [Quarantined(f"/photos/train/{row}.jpg", "is empty" if row else "is cut off", "train") for row in range(3)]
    data = data_set(train=[0, 0, 0, 0, 1], val=[0, 1]).without(bad)
    found = levels(data)
    assert found[0] == ("warning", "3 files cannot be read and are left out: 2 x is empty, 1 x is cut off.")
    assert ("note", "'/photos/train/2.jpg' (train) is empty.") in found
    require_usable(data)


def test_lost_splits_and_classes_are_all_named() -> None:
    bad = [Quarantined(f"/photos/{split}/{row}.jpg", "is empty", split) for split in ("train", "val") for row in (0, 1)]
    data = data_set(train=[0, 0, 1], val=[0, 1], test=[0]).without(bad)
    with pytest.raises(DataError) as caught:
        require_usable(data)
    text = str(caught.value)
    assert "The val split has no readable image." in text
    assert "Class 'cat' has no readable image in train." in text
    assert "'/photos/val/1.jpg' (val) is empty." in text
    assert ("warning", "Class 'dog' has no readable image in test.") in levels(data)


def test_warnings_and_counts_of_ignored_files_are_passed_on() -> None:
    data = DataSet(
        name="photos",
        root="/photos",
        class_names=("cat",),
        splits={"train": Split(["/photos/a.jpg"], np.zeros(1, np.int64))},
        warnings=("Something to know.",),
        ignored={"not an image": 2},
    )
    assert levels(data) == [("warning", "Something to know."), ("note", "Left out: 2 x not an image.")]


def test_classes_are_counted_where_an_image_may_have_several() -> None:
    splits = {"train": [[1, 0], [1, 0]], "val": [[0, 1], [0, 0]]}
    data = DataSet(
        name="photos",
        root="/photos",
        class_names=("cat", "dog"),
        splits={name: Split([f"/{name}/a", f"/{name}/b"], np.array(rows, np.uint8)) for name, rows in splits.items()},
    )
    assert levels(data) == [
        ("error", "Class 'dog' has no readable image in train."),
        ("warning", "Class 'cat' has no readable image in val."),
    ]
