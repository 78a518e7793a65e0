"""Predictions: one row for each input, in order, and never a made-up one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import COLOURS, photo

import regraft as rg
from regraft.compute.numerics import Numerics
from regraft.data.inputs import list_inputs
from regraft.errors import DataError, SettingsError
from regraft.evaluation.predict import Predictor

FP32 = Numerics("cpu", "fp32", True, 1)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with good pictures, bad ones of several kinds, and files that are none."""
    root = tmp_path / "mixed"
    photo(root / "b" / "green.png", COLOURS["green"], 1)
    photo(root / "a.jpg", COLOURS["red"], 2)
    photo(root / "z" / "deep" / "blue.jpeg", COLOURS["blue"], 3)
    (root / "empty.jpg").write_bytes(b"")
    (root / "page.jpg").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (root / "cut.jpg").write_bytes((root / "a.jpg").read_bytes()[:200])
    (root / "notes.txt").write_text("hello")
    (root / ".DS_Store").write_bytes(b"\0")
    return root


def test_a_folder_gives_its_pictures_sorted_and_the_bad_ones_as_errors(tiny_run: Path, mixed: Path) -> None:
    rows = rg.predict(tiny_run, mixed, numerics=FP32)
    names = [str(Path(row.path).relative_to(mixed)) for row in rows]
    assert names == sorted(names)
    assert set(names) == {"a.jpg", "b/green.png", "cut.jpg", "empty.jpg", "page.jpg", "z/deep/blue.jpeg"}
    for row in rows:
        bad = Path(row.path).name in ("empty.jpg", "page.jpg", "cut.jpg")
        assert (row.error is not None) is bad
        if bad:
            assert (row.prediction, row.probability, row.probabilities) == (None, None, {})
        else:
            assert set(row.probabilities) == set(COLOURS)
            assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert row.probability == max(row.probabilities.values())


def test_a_list_gives_a_row_for_each_entry_in_its_order(tiny_run: Path, mixed: Path, tmp_path: Path) -> None:
    given = [mixed / "z" / "deep" / "blue.jpeg", mixed / "missing.png", mixed, mixed / "a.jpg", mixed / "a.jpg", ""]
    rows = rg.predict(tiny_run, given, numerics=FP32)
    assert [row.path for row in rows] == [str(path) for path in given]
    assert [row.error is not None for row in rows] == [False, True, True, False, False, True]
    assert rows[3] == rows[4]


def test_a_row_does_not_depend_on_its_company(tiny_run: Path, tiny_photos: Path) -> None:
    paths = sorted(map(str, tiny_photos.glob("*/*.png")))
    assert len(paths) > 16, "more than a batch"
    predictor = Predictor(rg.load_model(tiny_run), FP32)
    rows = list(predictor.predict(paths))
    assert list(predictor.predict(reversed(paths))) == rows[::-1]
    assert list(predictor.predict([paths[7]])) == [rows[7]]


def test_rows_come_before_all_inputs_are_known(tiny_run: Path, tiny_photos: Path) -> None:
    path = next(map(str, tiny_photos.glob("*/*.png")))
    asked = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal asked
        while True:
            asked += 1
            yield path

    rows = Predictor(rg.load_model(tiny_run), FP32).predict(endless())
    assert next(rows).path == path
    assert asked < 1000


def test_a_single_file_and_a_loaded_model(tiny_run: Path, mixed: Path) -> None:
    model = rg.load_model(tiny_run)
    assert rg.predict(model, mixed / "a.jpg", numerics=FP32) == rg.predict(
        tiny_run / "model", str(mixed / "a.jpg"), numerics=FP32
    )
    (row,) = rg.predict(model, mixed / "page.jpg", numerics=FP32)
    assert row.error


def test_the_tiny_run_has_learnt_its_colours(tiny_run: Path, tmp_path: Path) -> None:
    for name, colour in COLOURS.items():
        photo(tmp_path / "new" / f"{name}.png", colour, 99)
    rows = rg.predict(tiny_run, tmp_path / "new", numerics=FP32)
    assert [row.prediction for row in rows] == [Path(row.path).stem for row in rows]


def test_what_is_not_there_is_told(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="no file or folder"):
        rg.predict(tiny_run, tmp_path / "missing.jpg")
    with pytest.raises(DataError, match="holds no images"):
        rg.predict(tiny_run, tmp_path / "bare")
    with pytest.raises(SettingsError, match="There is no model"):
        rg.predict(tmp_path / "bare", tmp_path)
    with pytest.raises(SettingsError, match="no class names"):
        rg.predict(torch.nn.Linear(1, 1), [])


def test_other_files_are_counted(mixed: Path) -> None:
    paths, ignored = list_inputs(mixed)
    assert len(paths) == 6
    assert ignored == {"hidden or system file": 1, "not an image": 1}


def test_a_run_that_moved_still_predicts(tiny_run: Path, mixed: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_run / "model", tmp_path / "elsewhere")
    assert rg.predict(moved, mixed, numerics=FP32) == rg.predict(tiny_run, mixed, numerics=FP32)
