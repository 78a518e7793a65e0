"""Lists of lines `path label`: what is read, what stands for numbers, and which mistakes are told."""

from __future__ import annotations

import pytest
from tests.data.sources.conftest import Write, mistakes, rows, whole

from regraft.data.open import open_data
from regraft.errors import DataError

FOUR: dict[str, str | bytes | None] = dict.fromkeys(("a.jpg", "b.jpg", "c.jpg", "in/d.jpg"))


def test_the_label_is_the_last_field_and_paths_may_hold_spaces(write: Write) -> None:
    text = "my photo 1.jpg 0\n\n  in/two  words.jpg\t1\r\na.jpg   1\r\n"
    root = write({"my photo 1.jpg": None, "in/two  words.jpg": None, "a.jpg": None, "list.txt": text})
    assert whole(root / "list.txt") == [("a.jpg", "1"), ("in/two  words.jpg", "1"), ("my photo 1.jpg", "0")]


def test_words_are_labels_too_and_behind_a_tab_with_spaces(write: Write) -> None:
    root = write({**FOUR, "list.lst": "a.jpg\thouse finch\nb.jpg\tcrow\n./in/d.jpg\tcrow\n"})
    assert whole(root / "list.lst") == [("a.jpg", "house finch"), ("b.jpg", "crow"), ("in/d.jpg", "crow")]


def test_numbers_are_classes_in_the_order_of_numbers(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 10\nb.jpg 9\nc.jpg 0\n"})
    assert open_data(root / "list.txt").class_names == ("0", "9", "10")


@pytest.mark.parametrize("name", ["names.txt", "classes.txt", "labels.txt", "synset_words.txt"])
def test_a_names_file_beside_the_list_names_the_numbers(write: Write, name: str) -> None:
    text = "n01 wren\nn02 finch, house\nn03 crow\n\n"
    root = write({**FOUR, "list.txt": "a.jpg 2\nb.jpg 0\n", name: text})
    data = open_data(root / "list.txt", fractions=(1, 0, 0))
    assert rows(data) == {"train": [("a.jpg", "n03 crow"), ("b.jpg", "n01 wren")]}
    assert data.class_names == ("n01 wren", "n03 crow"), "the order of the file, without names that no image has"
    assert any("'n02 finch, house'" in warning for warning in data.warnings)


def test_a_names_file_may_be_given_and_words_must_be_in_it(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({**FOUR, "list.txt": "a.jpg wren\nb.jpg crow\n", "birds.names": "wren\ncrow\n", "bad.names": "wren\n"})
    data = open_data(root / "list.txt", names=root / "birds.names")
    assert data.class_names == ("wren", "crow")
    assert open_data(root / "list.txt", names="birds.names").class_names == ("wren", "crow"), "beside the list"
    monkeypatch.chdir(root)
    assert open_data("list.txt", names="birds.names").class_names == ("wren", "crow")
    assert data.options["names"] == str(root / "birds.names")
    assert mistakes(root / "list.txt", names="bad.names") == ("list.txt, row 2: 'crow' is not in bad.names.",)


def test_numbers_without_a_name_are_told_with_their_rows(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 0\nb.jpg 2\nc.jpg 7\n", "names.txt": "wren\ncrow\n"})
    assert mistakes(root / "list.txt") == (
        "list.txt, row 2: the label is 2, and names.txt has names for 0 to 1 (do the labels count from 1?).",
        "list.txt, row 3: the label is 7, and names.txt has names for 0 to 1.",
    )


@pytest.mark.parametrize("text", ["1 wren\n2 crow\n", "1: wren\n2: crow\n", "0 owl\n1 wren\n2 crow\n"])
def test_a_names_file_may_number_its_lines(write: Write, text: str) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 2\nb.jpg 1\n", "classes.txt": text})
    assert whole(root / "list.txt") == [("a.jpg", "crow"), ("b.jpg", "wren")]


def test_names_that_begin_with_numbers_are_no_numbered_lines(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 1\nb.jpg 0\n", "classes.txt": "2 door\n4 door\n"})
    assert whole(root / "list.txt") == [("a.jpg", "4 door"), ("b.jpg", "2 door")]


def test_a_names_file_without_effect_is_told(write: Write) -> None:
    root = write({"cat/a.jpg": None, "dog/b.jpg": None, "words.txt": "x\ny\n"})
    data = open_data(root, names="words.txt", fractions=(1, 0, 0))
    assert "words.txt was not used: the names of the classes are those of their folders." in data.warnings


def test_a_names_file_with_holes_or_twins_is_refused(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 0\nb.jpg 1\n", "names.txt": "wren\n\ncrow\nwren\n"})
    found = mistakes(root / "list.txt")
    assert "names.txt, row 2: is empty, so that all labels behind it would be shifted." in found
    assert "names.txt, row 4: 'wren' stands in row 1 already." in found
    (root / "names.txt").write_text("")
    assert mistakes(root / "list.txt") == ("names.txt: is empty.",)


def test_several_labels_stand_in_the_last_field(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 0|2\nb.jpg 1\nc.jpg 2|0|2\n", "names.txt": "wet\ndry\nhot\n"})
    data = open_data(root / "list.txt", fractions=(1, 0, 0))
    assert data.multilabel
    assert rows(data)["train"] == [("a.jpg", ["wet", "hot"]), ("b.jpg", ["dry"]), ("c.jpg", ["wet", "hot"])]


def test_every_bad_row_is_told_at_once(write: Write) -> None:
    text = "a.jpg 0\nA.JPG 1\nnone.jpg 1\nb.jpg\nin 1\na.jpg 1\nin\\d.jpg 1\nhttp://x/y.jpg 1\n/far/away/in/d.jpg 1\n"
    root = write({**FOUR, "list.txt": text})
    found = mistakes(root / "list.txt")
    if (root / "A.JPG").exists():
        pytest.skip("this file system does not tell upper case from lower case")
    assert found == (
        "list.txt, row 2: there is no file 'A.JPG', but 'a.jpg': mind upper and lower case.",
        "list.txt, row 3: there is no file 'none.jpg'.",
        "list.txt, row 5: 'in' is a folder, not a file.",
        "list.txt, row 8: 'http://x/y.jpg' is a web address; regraft reads files.",
        "list.txt, row 9: there is no file '/far/away/in/d.jpg', but 'in/d.jpg': write the paths relative to the list.",
        f"list.txt, row 4: {str(root / 'b.jpg')!r} has no label.",
        f"list.txt, row 6: {str(root / 'a.jpg')!r} is '1' here and '0' in row 1 "
        "(several labels of one image stand in one cell: a|b).",
    )


def test_a_thousand_bad_rows_are_twenty_lines_and_a_count(write: Write) -> None:
    root = write({**FOUR, "list.txt": "".join(f"no/{n}.jpg 0\n" for n in range(1000)) + "a.jpg\n"})
    found = mistakes(root / "list.txt")
    assert len(found) == 21
    assert found[-1] == "and 981 more; all of them: 1000 x missing files, 1 x rows without a label."


def test_backslashes_are_read_as_slashes_and_that_is_said(write: Write) -> None:
    root = write({**FOUR, "list.txt": "in\\d.jpg 0\na.jpg 1\n"})
    data = open_data(root / "list.txt", fractions=(1, 0, 0))
    assert rows(data)["train"] == [("a.jpg", "1"), ("in/d.jpg", "0")]
    assert "1 paths are written with backslashes and were read with slashes." in data.warnings


def test_absolute_paths_and_paths_out_of_the_folder(write: Write) -> None:
    root = write({**FOUR, "lists/list.txt": ""})
    (root / "lists" / "list.txt").write_text(f"{root / 'a.jpg'} 0\n../b.jpg 1\n../in/../c.jpg 1\n")
    data = open_data(root / "lists" / "list.txt", fractions=(1, 0, 0))
    assert sorted(data.train.paths) == [str(root / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert any("2 paths lead out of" in warning and "'../b.jpg'" in warning for warning in data.warnings)


def test_repeated_rows_count_once(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 0\nb.jpg 1\n./a.jpg 0\n"})
    data = open_data(root / "list.txt", fractions=(1, 0, 0))
    assert len(data.train) == 2
    assert "1 row repeats an earlier one and was left out (row 3)." in data.warnings


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_list_without_rows_is_refused(write: Write, text: str) -> None:
    assert mistakes(write({"list.txt": text}) / "list.txt") == ("list.txt: has no rows.",)


def test_one_class_is_refused(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 3\nb.jpg 3\n"})
    assert mistakes(root / "list.txt") == ("list.txt: all rows have the class '3'; a classifier needs two.",)


def test_lists_for_each_split_in_one_folder(write: Write) -> None:
    root = write(
        {
            **FOUR,
            "train.txt": "a.jpg 0\nb.jpg 1\n",
            "valid.txt": "c.jpg 1\n",
            "test.txt": "in/d.jpg 0\n",
            "classes.txt": "wren\ncrow\n",
        }
    )
    data = open_data(root)
    assert rows(data) == {
        "train": [("a.jpg", "wren"), ("b.jpg", "crow")],
        "val": [("c.jpg", "crow")],
        "test": [("in/d.jpg", "wren")],
    }
    assert (data.name, data.source, data.split_origin) == ("birds", str(root), "lists")


def test_mistakes_of_all_lists_come_together(write: Write) -> None:
    root = write({**FOUR, "train.txt": "a.jpg x\nb.jpg y\nq.jpg y\n", "val.txt": "c.jpg z\nr.jpg x\n"})
    assert mistakes(root) == (
        "train.txt, row 3: there is no file 'q.jpg'.",
        "val.txt, row 2: there is no file 'r.jpg'.",
    )
    (root / "train.txt").write_text("a.jpg x\nb.jpg y\n")
    (root / "val.txt").write_text("c.jpg z\nin/d.jpg x\n")
    assert mistakes(root) == ("val.txt, row 1: the class 'z' is in val, and no training row has it.",)


def test_a_train_list_alone_is_divided_and_its_neighbours_are_named(write: Write) -> None:
    files: dict[str, str | bytes | None] = {f"{n:02}.jpg": None for n in range(20)}
    root = write({**files, "train.txt": "".join(f"{n:02}.jpg {n % 2}\n" for n in range(20)), "val.txt": "00.jpg 0\n"})
    data = open_data(root / "train.txt")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert "'val.txt' beside train.txt was not used; give the folder to use all of them." in data.warnings


def test_a_validation_list_is_drawn_from_the_training_list(write: Write) -> None:
    files: dict[str, str | bytes | None] = {f"{n:02}.jpg": None for n in range(20)}
    root = write({**files, "train.txt": "".join(f"{n:02}.jpg {n % 2}\n" for n in range(20))})
    data = open_data(root, seed=2)
    assert {name: data.counts(name).tolist() for name in data.splits} == {"train": [8, 8], "val": [2, 2]}
    assert data.split_origin == "random"
    assert "There is no validation list: 4 of 20 training images were drawn" in data.warnings[0]


def test_one_file_in_two_splits_is_told(write: Write) -> None:
    root = write({**FOUR, "train.txt": "a.jpg 0\nb.jpg 1\n", "val.txt": "a.jpg 0\nc.jpg 1\n"})
    data = open_data(root)
    assert f"1 file is listed in two splits, for example {str(root / 'a.jpg')!r} in train and val." in data.warnings
    (root / "val.txt").write_text("a.jpg 1\nc.jpg 1\n")
    assert "is '1' here and '0' in train.txt, row 1" in mistakes(root)[0]


def test_splits_without_train_are_refused(write: Write) -> None:
    root = write({**FOUR, "val.txt": "a.jpg 0\nb.jpg 1\n"})
    assert mistakes(root) == ("val.txt: there are rows for 'val', but none for train.",)


def test_two_lists_for_one_split_are_refused(write: Write) -> None:
    root = write({**FOUR, "train.txt": "a.jpg 0\n", "train.csv": "path,label\na.jpg,0\n"})
    with pytest.raises(DataError, match=r"several lists: 'train.csv', 'train.txt'"):
        open_data(root)


def test_class_folders_come_before_lists_and_the_list_may_be_named(write: Write) -> None:
    root = write({"cat/a.jpg": None, "dog/b.jpg": None, "train.txt": "cat/a.jpg x\ndog/b.jpg y\n"})
    data = open_data(root, fractions=(1, 0, 0))
    assert data.class_names == ("cat", "dog")
    assert "'train.txt' next to the class folders was not used; name it with data.labels to use it." in data.warnings
    assert open_data(root, labels="train.txt", fractions=(1, 0, 0)).class_names == ("x", "y")


def test_a_list_that_is_not_there(write: Write) -> None:
    root = write({**FOUR, "list.txt": "a.jpg 0\nb.jpg 1\n"})
    for options in ({"labels": "none.csv"}, {"labels": root / "none.csv"}):
        with pytest.raises(DataError, match=r"There is no file .*none.csv"):
            open_data(root, **options)
    with pytest.raises(DataError, match=r"There is no file .*none.txt"):
        open_data(root / "list.txt", names="none.txt")
    with pytest.raises(DataError, match="is a list, and another list"):
        open_data(root / "list.txt", labels="list.txt")
    with pytest.raises(DataError, match="There is no"):
        open_data(root / "lost.txt")
