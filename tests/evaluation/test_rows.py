"""Which images are measured, and what their labels mean to the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import photos

from regraft.errors import DataError
from regraft.evaluation.labelled_rows import other_rows
from regraft.run.folder import open_run

CLASSES = ("blue", "green", "red")


def test_one_label_is_a_row_with_a_single_one_to_a_model_of_several(tiny_run: Path, tmp_path: Path) -> None:
    rows = other_rows(photos(tmp_path / "p", {"red": 1, "green": 1}), open_run(tiny_run), CLASSES, multilabel=True)
    assert rows.labels.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert rows.labels.dtype == "uint8"


def test_several_labels_are_found_by_name(tiny_run: Path, tmp_path: Path) -> None:
    root = photos(tmp_path / "p", {"red": 3})
    (root / "tags.csv").write_text("path,tags\nred/000.png,red|green\nred/001.png,\nred/002.png,red\n")
    rows = other_rows(root / "tags.csv", open_run(tiny_run), CLASSES, multilabel=True)
    assert rows.labels.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 1]]
    assert (rows.name, rows.selected_by) == ("tags", False)
    with pytest.raises(DataError, match="several labels"):
        other_rows(root / "tags.csv", open_run(tiny_run), CLASSES, multilabel=False)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_other_photos_never_take_the_name_of_a_split(tiny_run: Path, tmp_path: Path, split: str) -> None:
    root = photos(tmp_path / "p", {"red": 1})
    (root / f"{split}.csv").write_text("path,label\nred/000.png,red\n")
    assert other_rows(root / f"{split}.csv", open_run(tiny_run), CLASSES, multilabel=False).name == f"other-{split}"
