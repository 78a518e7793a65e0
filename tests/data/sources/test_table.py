"""CSV and TSV: columns by any of their usual names, several labels, splits, and pictures beside a table."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.sources.conftest import Write, mistakes, rows, whole

from regraft.data.dataset import DataSet
from regraft.data.open import open_data
from regraft.errors import DataError

FOUR: dict[str, str | bytes | None] = dict.fromkeys(("a.jpg", "b.jpg", "c.jpg", "in/d.jpg"))
PLAIN = [("a.jpg", "wren"), ("b.jpg", "crow")]


@pytest.mark.parametrize("path", ["path", "filename", "file", "Image", "FilePath", "image_path", "Image Name", "id"])
@pytest.mark.parametrize("label", ["label", "class", "Target", "category", "y", "class_name", "what it is"])
def test_columns_are_known_by_their_usual_names(write: Write, path: str, label: str) -> None:
    root = write({**FOUR, "t.csv": f"{label},{path}\nwren,a.jpg\ncrow,b.jpg\n"})
    assert whole(root / "t.csv") == PLAIN


@pytest.mark.parametrize(
    "text",
    [
        "path;label\na.jpg;wren\nb.jpg;crow\n",
        "path\tlabel\na.jpg\twren\nb.jpg\tcrow\n",
        "sep=;\npath;label\na.jpg;wren\nb.jpg;crow\n",
        '"path","label"\r\n"a.jpg","wren"\r\n"b.jpg","crow"\r\n',
        "path, label\na.jpg, wren\n\nb.jpg, crow\n,\n",
        "path,label\ra.jpg,wren\rb.jpg,crow\r",
        ",path,label\n0,a.jpg,wren\n1,b.jpg,crow\n",
        "Unnamed: 0,path,width,label\n0,a.jpg,8,wren\n1,b.jpg,8,crow\n",
        "a.jpg,wren\nb.jpg,crow\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_tables_of_many_programs_are_read(write: Write, text: str, encoding: str) -> None:
    root = write({**FOUR, "t.csv": text.encode(encoding)})
    assert whole(root / "t.csv") == PLAIN


def test_a_table_may_be_called_txt(write: Write) -> None:
    root = write(
        {**FOUR, "t.txt": "path,label\na.jpg,wren\nb.jpg,crow\n", "u.lst": "file\tclass\na.jpg\t0\nb.jpg\t1\n"}
    )
    assert whole(root / "t.txt") == PLAIN
    assert whole(root / "u.lst") == [("a.jpg", "0"), ("b.jpg", "1")]


cells = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"], exclude_characters="|"), min_size=1)


@given(st.lists(cells, min_size=2, max_size=2, unique=True), st.sampled_from(",;\t"), st.sampled_from([0, 1]))
def test_any_label_survives_quoting(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], by: str, how: int
) -> None:
    root = tmp_path_factory.mktemp("t")
    for name in ("a,b.jpg", 'c;"d".jpg'):
        (root / name).write_bytes(b"")
    text = io.StringIO()
    written = zip(("a,b.jpg", 'c;"d".jpg'), names, strict=True)
    csv.writer(text, delimiter=by, quoting=how).writerows([("path", "label"), *written])
    (root / "t.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    assert whole(root / "t.csv") == [("a,b.jpg", names[0]), ('c;"d".jpg', names[1])]


def test_splits_by_any_of_their_words(write: Write) -> None:
    text = "image,label,Subset\na.jpg,x,training\nb.jpg,y,Train\nc.jpg,x,VALID\nin/d.jpg,y,test\n"
    data = open_data(write({**FOUR, "t.csv": text}) / "t.csv")
    assert rows(data) == {
        "train": [("a.jpg", "x"), ("b.jpg", "y")],
        "val": [("c.jpg", "x")],
        "test": [("in/d.jpg", "y")],
    }
    assert (data.name, data.split_origin) == ("t", "lists")
    again = DataSet.from_dict(data.to_dict())
    assert again.to_dict() == data.to_dict()
    assert again.settings() == data.settings()
    assert (again.name, again.source, again.root) == (data.name, data.source, data.root)


def test_fastais_column_of_validation_rows(write: Write) -> None:
    text = "name,label,is_valid\na.jpg,x,False\nb.jpg,y,False\nc.jpg,x,True\n"
    data = open_data(write({**FOUR, "t.csv": text}) / "t.csv")
    assert rows(data) == {"train": [("a.jpg", "x"), ("b.jpg", "y")], "val": [("c.jpg", "x")]}


def test_unknown_and_missing_splits_are_told(write: Write) -> None:
    text = "path,label,split\na.jpg,x,train\nb.jpg,y,trian\nc.jpg,x,\n"
    assert mistakes(write({**FOUR, "t.csv": text}) / "t.csv") == (
        "t.csv, row 3: the split is 'trian'; it is train, val or test.",
        "t.csv, row 4: has no split, and others have.",
    )


def test_numbers_of_folds_are_no_splits(write: Write) -> None:
    data = open_data(write({**FOUR, "t.csv": "path,label,fold\na.jpg,x,0\nb.jpg,y,1\n"}) / "t.csv", fractions=(1, 0, 0))
    assert "t.csv: columns that were not used: 'fold'." in data.warnings


def test_several_labels_in_one_cell(write: Write) -> None:
    text = "path,label\na.jpg,wet|hot\nb.jpg,dry\nc.jpg, hot | wet |\n"
    data = open_data(write({**FOUR, "t.csv": text}) / "t.csv", fractions=(1, 0, 0))
    assert data.multilabel
    assert data.class_names == ("dry", "hot", "wet")
    assert rows(data)["train"] == [("a.jpg", ["hot", "wet"]), ("b.jpg", ["dry"]), ("c.jpg", ["hot", "wet"])]


def test_a_column_of_tags_may_hold_one_or_none(write: Write) -> None:
    text = "path,tags\na.jpg,wet\nb.jpg,dry\nc.jpg,\n"
    data = open_data(write({**FOUR, "t.csv": text}) / "t.csv", fractions=(1, 0, 0))
    assert rows(data)["train"] == [("a.jpg", ["wet"]), ("b.jpg", ["dry"]), ("c.jpg", [])]
    assert "1 of 3 images without a label: counted as having none of the classes." in data.warnings


def test_a_column_of_zeros_and_ones_for_each_class(write: Write) -> None:
    text = "image,wet,dry,hot,note\na.jpg,1,0,1,x\nb.jpg,0,1.0,0,\nc.jpg,0,False,0.0,\nin/d.jpg,true,1,0,y\n"
    data = open_data(write({**FOUR, "t.csv": text}) / "t.csv", fractions=(1, 0, 0))
    assert data.class_names == ("dry", "hot", "wet")
    assert rows(data)["train"] == [
        ("a.jpg", ["hot", "wet"]),
        ("b.jpg", ["dry"]),
        ("c.jpg", []),
        ("in/d.jpg", ["dry", "wet"]),
    ]
    assert "t.csv: columns that were not used: 'note'." in data.warnings


def test_columns_of_zeros_alone_are_no_classes_and_that_is_said(write: Write) -> None:
    text = "image,wet,dry,hot\na.jpg,1,0,0\nb.jpg,1,1,0\n"
    data = open_data(write({**FOUR, "t.csv": text}) / "t.csv", fractions=(1, 0, 0))
    assert data.class_names == ("dry", "wet")
    assert "t.csv: columns without a single 1: 'hot'." in data.warnings


def test_a_single_one_in_every_row_is_one_label(write: Write) -> None:
    text = "image,mel,nev\na.jpg,1.0,0.0\nb.jpg,0.0,1.0\n"
    data = open_data(write({**FOUR, "t.csv": text}) / "t.csv", fractions=(1, 0, 0))
    assert not data.multilabel
    assert rows(data)["train"] == [("a.jpg", "mel"), ("b.jpg", "nev")]
    assert "Every row has a single 1, so each image has one label." in data.warnings


def test_cells_that_are_neither_are_told(write: Write) -> None:
    text = "image,wet,dry\na.jpg,1,0\nb.jpg,2,1\nc.jpg,,1\nin/d.jpg,-1,0\n"
    assert mistakes(write({**FOUR, "t.csv": text}) / "t.csv") == (
        "t.csv, row 3: the column 'wet' holds '2', not 0 or 1.",
        "t.csv, row 4: the column 'wet' holds '', not 0 or 1.",
        "t.csv, row 5: the column 'wet' holds '-1', not 0 or 1.",
    )


def test_every_bad_row_is_told_at_once(write: Write) -> None:
    text = 'path,label\na.jpg,x\nb.jpg\nc.jpg,x,y\n,x\nin/d.jpg,\nq.jpg,x\n"a.jpg"b,x\n"b.jpg,x\n'
    root = write({**FOUR, "t.csv": text})
    assert mistakes(root / "t.csv") == (
        "t.csv, row 3: has 1 cell, the header has 2.",
        "t.csv, row 4: has 3 cells, the header has 2; a cell with the delimiter in it needs quotes.",
        "t.csv, row 5: has no path.",
        "t.csv, row 7: there is no file 'q.jpg'.",
        "t.csv, row 8: there is text behind a closing quote; a quote inside a cell is written twice.",
        "t.csv, row 9: a quote is opened here and never closed.",
        f"t.csv, row 6: {str(root / 'in/d.jpg')!r} has no label.",
    )


def test_rows_are_counted_in_lines_of_the_file(write: Write) -> None:
    text = 'path,note,label\na.jpg,"two\nlines",x\n\nb.jpg,,y\nq.jpg,,x\n'
    assert mistakes(write({**FOUR, "t.csv": text}) / "t.csv") == ("t.csv, row 6: there is no file 'q.jpg'.",)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("where,what", "no column has a name such as path"),
        ("path,split", "no column has a name such as label"),
        ("path,width,height", "no column has a name such as label"),
        ("path,label,label", "two columns are called 'label'"),
        ("q.jpg,wren", "no column has a name such as path"),
    ],
)
def test_a_header_that_says_nothing_is_shown(write: Write, header: str, reason: str) -> None:
    (found,) = mistakes(write({**FOUR, "t.csv": f"{header}\na.jpg,x,y\n"}) / "t.csv")
    assert found.startswith(f"t.csv: {reason}")
    assert f"the first row is {', '.join(map(repr, header.split(',')))}, expected are names such as path,label" in found


# Pictures in a folder, labels in a table


def test_ids_without_suffix_are_found_in_the_folder(write: Write) -> None:
    root = write({"train/a1.jpg": None, "train/b2.png": None, "labels.csv": "id,breed\na1,pug\nb2,collie\n"})
    assert whole(root) == [("train/a1.jpg", "pug"), ("train/b2.png", "collie")]
    assert whole(root / "labels.csv") == whole(root)
    assert whole(root / "train", labels=root / "labels.csv") == [("a1.jpg", "pug"), ("b2.png", "collie")]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_ids_are_found_behind_links_and_link_loops_end(write: Write, tmp_path: Path) -> None:
    root = write({"labels.csv": "id,breed\na1,pug\nb2,collie\n"})
    (tmp_path / "disk").mkdir()
    for name in ("a1.jpg", "b2.jpg"):
        (tmp_path / "disk" / name).write_bytes(b"")
    (root / "images").symlink_to(tmp_path / "disk", target_is_directory=True)
    (root / "again").symlink_to(root, target_is_directory=True)
    assert whole(root) == [("images/a1.jpg", "pug"), ("images/b2.jpg", "collie")]


def test_a_table_for_training_with_its_own_folder(write: Write) -> None:
    files: dict[str, str | bytes | None] = {f"{split}/{n}.jpg": None for split in ("train", "test") for n in range(4)}
    table = "id,label\n0,x\n1,y\n2,x\n3,y\n"
    root = write({**files, "train.csv": table, "test.csv": "id\n0\n1\n2\n3\n"})
    data = open_data(root, fractions=(0.5, 0.5, 0))
    assert {path for name in ("train", "val") for path, _ in rows(data)[name]} == {f"train/{n}.jpg" for n in range(4)}
    assert list(data.splits) == ["train", "val"]
    assert "test.csv has no labels and was left out." in data.warnings


def test_an_id_that_may_be_several_files_is_told(write: Write) -> None:
    root = write({"one/a.jpg": None, "two/a.jpg": None, "two/b.jpg": None, "t.csv": "id,label\na,x\nb,y\n"})
    assert mistakes(root / "t.csv") == (
        f"t.csv, row 2: 'a' may be any of 2 files, for example {str(root / 'one/a.jpg')!r} "
        f"and {str(root / 'two/a.jpg')!r}.",
    )


def test_flat_split_folders_without_a_list_are_no_classes(write: Write) -> None:
    (found,) = mistakes(write({"train/a.jpg": None, "test/b.jpg": None}))
    assert found.startswith("'test', 'train' hold no class folders; if a list holds the labels, name it")


def test_several_label_tables_are_refused(write: Write) -> None:
    root = write({**FOUR, "labels.csv": "path,label\na.jpg,x\n", "metadata.csv": "path,label\na.jpg,x\n"})
    with pytest.raises(DataError, match=r"several lists: 'labels.csv', 'metadata.csv'"):
        open_data(root)
    (root / "labels.csv").write_text("path,label\na.jpg,x\nb.jpg,y\n")
    assert whole(root, labels="labels.csv") == [("a.jpg", "x"), ("b.jpg", "y")]
