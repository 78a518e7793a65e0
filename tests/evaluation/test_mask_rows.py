"""Which images with masks are measured, and what their masks mean to the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.segmentation import CLASSES, COLOURS, scene, scenes_in

import regraft as rg
from regraft import commit
from regraft.errors import DataError
from regraft.evaluation.labelled_rows import other_mask_rows
from regraft.run.folder import RunFolder

ONE_EACH = {"train": 1, "val": 1, "test": 1}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """What a run on masks of 0, 10 and 20 has stored, two of which are one class, and 9 is void."""
    root = scenes_in(tmp_path / "trained", ONE_EACH)
    (root / "classes.txt").write_text("0 ground\n10 thing\n20 thing\n9 void\n")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for path in root.rglob("masks/*.png"):
        _write(path, [0, 10, 20])
    commit.write_json(folder.splits, rg.open_data(root).to_dict())
    return folder


def _write(path: Path, values: list[int]) -> None:
    """The mask of scene 0 with these numbers instead of 0, 1 and 2, and its stripe of 9."""
    _, mask = scene(0)
    coded = np.array([*values, *[9] * 253], np.uint8)[mask]
    Image.fromarray(coded).save(path)


def _other(root: Path, values: list[int]) -> Path:
    scenes_in(root, {"test": 1})
    _write(root / "test" / "masks" / "000.png", values)
    return root


def test_masks_without_a_list_of_classes_are_read_as_those_of_the_run(run: RunFolder, tmp_path: Path) -> None:
    rows = other_mask_rows(_other(tmp_path / "other", [0, 10, 20]), run, ["thing", "ground"])
    _, mask = scene(0)
    expected = np.array([1, 0, 0, *[255] * 253], np.uint8)[mask]
    np.testing.assert_array_equal(rows.truth(rows.masks[0]), expected)


def test_a_list_beside_the_masks_or_one_that_is_named_comes_first(run: RunFolder, tmp_path: Path) -> None:
    root = _other(tmp_path / "other", [1, 2, 3])
    table = tmp_path / "named.txt"
    table.write_text("1 thing\n2 thing\n3 ground\n9 void\n")
    named = other_mask_rows(root, run, ["thing", "ground"], class_table=table)
    (root / "classes.txt").write_text("1 ground\n2 thing\n3 thing\n9 void\n")
    beside = other_mask_rows(root, run, ["thing", "ground"])
    _, mask = scene(0)
    for rows, places in ((named, [0, 0, 1]), (beside, [1, 0, 0])):
        np.testing.assert_array_equal(rows.truth(rows.masks[0]), np.array([*places, *[255] * 253], np.uint8)[mask])


def test_colours_mean_what_they_meant_in_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    colours = np.array([*COLOURS, *[(0, 0, 0)] * 253], np.uint8)
    for root, counts in ((tmp_path / "trained", ONE_EACH), (tmp_path / "other", {"test": 1})):
        for path in scenes_in(root, counts).rglob("masks/*.png"):
            Image.fromarray(colours[scene(0)[1]]).save(path)
    lines = ["name,r,g,b", *(f"{name},{r},{g},{b}" for name, (r, g, b) in zip(CLASSES, COLOURS, strict=True))]
    (tmp_path / "trained" / "class_dict.csv").write_text("\n".join([*lines, "void,0,0,0"]))
    commit.write_json(folder.splits, rg.open_data(tmp_path / "trained").to_dict())
    rows = other_mask_rows(tmp_path / "other", folder, CLASSES)
    np.testing.assert_array_equal(rows.truth(rows.masks[0]), scene(0)[1])


def test_values_that_the_training_did_not_have_are_told_with_what_to_type(run: RunFolder, tmp_path: Path) -> None:
    root = _other(tmp_path / "other", [0, 10, 30])
    scenes_in(root, {"train": 2})
    for path in root.rglob("masks/*.png"):
        _write(path, [0, 10, 30])
    with pytest.raises(DataError, match=r"the class table of the training does not have(?s:.*)--ignore 30"):
        other_mask_rows(root, run, ["thing", "ground"])
    rows = other_mask_rows(root, run, ["thing", "ground"], ignore=[30])
    _, mask = scene(0)
    np.testing.assert_array_equal(rows.truth(rows.masks[0]), np.array([1, 0, *[255] * 254], np.uint8)[mask])


def test_classes_that_the_model_does_not_know_can_be_left_out(run: RunFolder, tmp_path: Path) -> None:
    root = _other(tmp_path / "other", [0, 10, 20])
    (root / "classes.txt").write_text("0 ground\n10 thing\n20 wet grass\n9 void\n")
    with pytest.raises(DataError, match=r"does not know: 'wet grass'(?s:.*)--ignore 'wet grass'"):
        other_mask_rows(root, run, ["thing", "ground"])
    assert other_mask_rows(root, run, ["thing", "ground"], ignore=["wet grass"]).table.names == ("ground", "thing")
