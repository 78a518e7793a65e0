"""Cells with several labels, flag columns judged by all rows, labels that look alike, and labels that are numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from tests.data.sources.conftest import Write, mistakes, rows

from regraft.data.labels import label_names
from regraft.data.open import open_data
from regraft.data.sources.labels.label_cells import Column, read_cells
from regraft.data.sources.listing import looks_of, twin_warnings
from regraft.errors import DataError

FOUR: dict[str, str | bytes | None] = {"a.jpg": None, "b.jpg": None, "c.jpg": None, "d.jpg": None}
TAGS = [["clear", "primary", "water"], ["haze", "primary"], ["clear"], []]


def table(write: Write, header: str, lines: Sequence[str], **options: object):  # type: ignore[no-untyped-def]
    text = "\n".join([header, *lines]) + "\n"
    return open_data(write({**FOUR, "t.csv": text}) / "t.csv", fractions=(1, 0, 0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("spaces", " ".join),
        ("commas", ", ".join),
        ("semicolons", ";".join),
        ("bars", "|".join),
        ("JSON", lambda tags: "[" + ", ".join(f'""{tag}""' for tag in tags) + "]"),
        ("Python", lambda tags: "[" + ", ".join(f"'{tag}'" for tag in tags) + "]"),
        ("NumPy", lambda tags: "[" + " ".join(f"'{tag}'" for tag in tags) + "]"),
        ("bare words", lambda tags: "[" + " ".join(tags) + "]"),
        ("PostgreSQL", lambda tags: "{" + ",".join(tags) + "}"),
    ],
)
def test_a_column_of_tags_is_read_by_the_separator_that_its_cells_show(write: Write, name: str, written) -> None:  # type: ignore[no-untyped-def]
    cells = [f'"{written(tags)}"' for tags in TAGS]
    data = table(write, "image_name,tags", [f"{path},{cell}" for path, cell in zip(FOUR, cells, strict=True)])
    assert data.multilabel
    assert [label for _, label in rows(data)["train"]] == [sorted(tags) for tags in TAGS]
    told = [text for text in data.warnings if text.startswith("The cells of 'tags'")]
    assert len(told) == (0 if name == "bars" else 1)


@pytest.mark.parametrize(
    ("column", "cells", "expected", "told"),
    [
        # parts of names: nothing of them comes again in another cell
        (
            Column("labels", True),
            ["tench, Tinca tinca", "goldfish, Carassius auratus"],
            False,
            "separate them with '|'",
        ),
        (Column("tags", True), ["golden retriever", "tabby cat"], False, ""),
        # names of several words with one in common: only `tags` are single words
        (Column("labels", True), ["big cat", "big dog"], False, "separate them with '|'"),
        (Column("label", False), ["big cat", "big dog"], False, ""),
        (Column("label", False), ["cat;dog", "cat"], False, "separate them with '|'"),
        (Column("label", False), ["cat", "dog"], False, ""),
        # numbers in one cell, as in the Human Protein Atlas
        (Column("Target", False), ["16 0", "7 1 2 0", "25"], True, "split at spaces"),
        (Column("labels", True), ["red;wet", "blue"], True, "split at ';'"),
        # lists without commas: words only where they come again and no other list has commas or quotes
        (Column("tags", True), ["[cat dog bird]", "[cat]"], True, "They were split at spaces"),
        (Column("tags", True), ["[golden retriever]", "[tabby cat]"], False, "separate labels with ','"),
        (Column("tags", True), ["[big cat, wet]", "[big cat]"], True, "are lists: each may hold any number of labels."),
        (Column("tags", True), ["[7 1 2 0]", "[16]"], True, "are lists: each may hold any number of labels."),
        # in names as often as between labels
        (Column("tags", True), ["clear/primary/water", "haze/primary"], False, "hold '/' and were taken as one"),
        (Column("tags", True), ["cat+dog", "cat"], False, "hold '+' and were taken as one label each"),
        (Column("tags", True), ["c++ java", "c++ go"], True, "split at spaces"),
        (Column("tags", True), ["R&B/soul", "rock"], False, ""),
        (Column("label", False), ["mammal/cat", "mammal/dog"], False, ""),
    ],
)
def test_what_is_not_split_is_said_where_it_may_have_been_meant(
    column: Column, cells: list[str], expected: bool, told: str
) -> None:
    reading = read_cells(cells, column)
    assert any(len(reading.labels(cell) or ()) > 1 for cell in cells) == expected
    assert told in "\n".join(reading.warnings)
    assert bool(told) == bool(reading.warnings)


def test_a_cell_that_is_not_a_list_among_lists_is_told(write: Write) -> None:
    text = "path,tags\na.jpg,\"['x', 'y']\"\nb.jpg,\"['x']\"\nc.jpg,y\nd.jpg,\"['y', {1: 2}]\"\n"
    assert mistakes(write({**FOUR, "t.csv": text}) / "t.csv") == (
        "t.csv, row 4: 'y' is not a list of labels.",
        "t.csv, row 5: \"['y', {1: 2}]\" is not a list of labels.",
    )


ROWS = [("a.jpg", "0", "1", "0", "1"), ("b.jpg", "21", "0", "1", "1"), ("c.jpg", "22", "1", "0", "1"),
        ("d.jpg", "23.5", "0", "1", "0")]  # fmt: skip


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_which_columns_hold_flags_is_judged_by_all_rows(write: Write, order: tuple[int, ...]) -> None:
    data = table(write, "path,age,cat,dog,fur", [",".join(ROWS[row]) for row in order])
    assert data.class_names == ("cat", "dog", "fur")
    names = label_names(data.splits["train"].labels, data.class_names)
    found = {path.rsplit("/", 1)[-1]: label for path, label in zip(data.splits["train"].paths, names, strict=True)}
    assert found == {"a.jpg": ["cat", "fur"], "b.jpg": ["dog", "fur"], "c.jpg": ["cat", "fur"], "d.jpg": ["dog"]}
    assert "t.csv: columns that were not used: 'age'." in data.warnings


@pytest.mark.parametrize("cell", ["-1", "-1.0", "", "0.5", "u"])
@pytest.mark.parametrize("place", range(3))
def test_an_uncertain_or_blank_flag_is_refused_wherever_it_stands(write: Write, cell: str, place: int) -> None:
    lines = ["1,0,1", "0,1,1", "1,0,0"]
    lines[place] = "1,0," + cell
    text = "path,cat,dog,fur\n" + "".join(f"{path},{line}\n" for path, line in zip(FOUR, lines, strict=False))
    with pytest.raises(DataError) as caught:
        open_data(write({**FOUR, "t.csv": text}) / "t.csv")
    assert caught.value.details == (f"t.csv, row {place + 2}: the column 'fur' holds {cell!r}, not 0 or 1.",)
    assert "where a label is uncertain (-1) or blank, write" in caught.value.next_step


def test_one_and_minus_one_are_yes_and_no(write: Write) -> None:
    data = table(write, "image_id,Smiling,Male", ["a.jpg,-1,1", "b.jpg,1,1", "c.jpg,-1,-1", "d.jpg,1,-1"])
    assert [label for _, label in rows(data)["train"]] == [["Male"], ["Male", "Smiling"], [], ["Smiling"]]
    assert "t.csv: its columns hold 1 and -1 and never 0; -1 was read as no." in data.warnings


def test_one_and_blank_are_yes_and_no_where_there_is_never_a_zero(write: Write) -> None:
    data = table(write, "path,cat,fur", ["a.jpg,1,", "b.jpg,,1", "c.jpg,1,1", "d.jpg,1,"])
    assert [label for _, label in rows(data)["train"]] == [["cat"], ["fur"], ["cat", "fur"], ["cat"]]
    assert "t.csv: its columns hold 1 and blank and never 0; blank was read as no." in data.warnings
    assert (
        "row 2: the column 'fur' holds '', not 0 or 1."
        in mistakes(write({**FOUR, "t.csv": "path,cat,fur\na.jpg,1,\nb.jpg,0,1\n"}) / "t.csv")[0]
    )


@pytest.mark.parametrize(
    "other",
    ["big\u200bcat", "\ufeffbigcat", "big\u00adcat", "BigCat", "bigcat\u2060", "bigc\u200dat", "\u202abigcat\u202c"],
)
def test_labels_that_differ_by_what_is_not_seen_are_told(other: str) -> None:
    (told,) = twin_warnings(["bigcat", other, "dog"])
    assert "differ only in how they are written" in told


@pytest.mark.parametrize("other", ["\u0441at", "c\u0430t", "\u0421\u0410t"])
def test_letters_of_another_alphabet_that_look_alike_are_told(write: Write, other: str) -> None:
    data = table(write, "path,label", ["a.jpg,cat", f"b.jpg,{other}", "c.jpg,dog", "d.jpg,dog"])
    assert len(data.class_names) == 3
    assert sum("differ only in how they are written" in text for text in data.warnings) == 1
    russian = ["\u0432\u043e\u0434\u0430", "\u0412\u043e\u0434\u0430"]
    assert len(list(twin_warnings(russian))) == 1, "upper and lower case of the other alphabet"
    assert not list(twin_warnings(["\u0432\u043e\u0434\u0430", "boda", "\u03b1", "a"]))


@pytest.mark.parametrize(
    "other", ["big  cat", "big\u00a0cat", "big\u2009cat", "big\u3000cat", "Big cat", "big \u200bcat"]
)
def test_labels_that_differ_by_a_space_are_told_in_tables_and_folders(write: Write, other: str) -> None:
    data = table(write, "path,label", ["a.jpg,big cat", f"b.jpg,{other}", "c.jpg,dog", "d.jpg,dog"])
    assert len(data.class_names) == 3
    assert sum("differ only in how they are written" in text for text in data.warnings) == 1
    assert looks_of(other) == looks_of("big cat") != looks_of("bigcat")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["20.0", "21.5", "20.0", "23"], "3 different ones for 4 rows"),
        ([str(20 + 3 * number) for number in range(12)], "12 different ones for 12 rows"),
        ([str(number) for number in range(12)], ""),  # class numbers
        (["1.0", "2.0", "1.0", "2.0"], ""),
        (["20", "30", "20", "30"], ""),
    ],
)
def test_numbers_to_predict_are_said_to_become_classes(write: Write, values: list[str], told: str) -> None:
    files: dict[str, str | bytes | None] = {f"{row}.jpg": None for row in range(len(values))}
    text = "path,age\n" + "".join(f"{row}.jpg,{value}\n" for row, value in enumerate(values))
    data = open_data(write({**files, "t.csv": text}) / "t.csv", fractions=(1, 0, 0))
    found = [warning for warning in data.warnings if "predicts no numbers" in warning]
    assert len(found) == bool(told)
    assert told in "".join(found)
