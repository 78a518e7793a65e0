"""Files that are no lists, or lists that were made to hurt: one clear error and nothing else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.conftest import jpeg
from tests.data.sources.conftest import Write, mistakes, whole

from regraft.data.open import open_data
from regraft.errors import DataError

PICTURES: dict[str, str | bytes | None] = dict.fromkeys(("a.jpg", "b.jpg"))
GOOD = b"path,label\na.jpg,x\nb.jpg,y\n"
NAMES = ("t.csv", "t.txt")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(40), "is a ZIP archive or a table of Excel; save the table as CSV"),
        (b"PAR1" + bytes(40), "is a Parquet file; save it as CSV"),
        (b"\x1f\x8b\x08" + bytes(40), "is compressed with gzip; unpack it"),
        (b"\x93NUMPY\x01\x00" + bytes(range(256)) * 4 + bytes(100), "is a binary file, not text"),
        ("path,label\na.jpg,x\n".encode("utf-16-le"), "is in UTF-16 without its mark; save it as UTF-8"),
    ],
)
def test_what_is_no_list_is_named(write: Write, name: str, content: bytes, reason: str) -> None:
    assert mistakes(write({**PICTURES, name: content}) / name) == (f"{name}: {reason}.",)


def test_a_picture_is_no_list(write: Write) -> None:
    root = write({**PICTURES, "t.csv": jpeg(1)})
    with pytest.raises(DataError, match="is a file"):
        open_data(root / "t.csv")
    assert mistakes(root, labels="t.csv") == ("t.csv: is an image (JPEG), not a list of images.",)


def test_nul_bytes_and_bytes_that_are_no_utf8_are_told_by_row(write: Write) -> None:
    text = GOOD + b"a\0.jpg,x\n" + "café.jpg,x\n".encode("latin-1") + "naïve.jpg,x\n".encode()
    assert mistakes(write({**PICTURES, "t.csv": text}) / "t.csv") == (
        "t.csv, row 4: holds a NUL byte, as damaged files do.",
        "t.csv, row 5: is not in UTF-8: character 4 (byte 0xe9); save the file as UTF-8.",
        "t.csv, row 6: there is no file 'naïve.jpg'.",
    )


def test_a_damaged_utf16_table_is_told_by_row(write: Write) -> None:
    text = "path,label\na.jpg,x\nb.jpg,y\n".encode("utf-16") + b"\x00\xd8\x41\x00\n\x00"
    (found,) = mistakes(write({**PICTURES, "t.csv": text}) / "t.csv")
    assert found.startswith("t.csv, row 4: is not in UTF-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_line_of_a_hundred_megabytes_is_one_bad_row(write: Write, name: str) -> None:
    root = write({**PICTURES, name: GOOD + b"x" * 100_000_000 + b"\nq.jpg,x\n"})
    assert mistakes(root / name) == (
        f"{name}, row 4: is longer than 1,048,576 characters.",
        f"{name}, row 5: there is no file 'q.jpg'.",
    )


def test_a_quote_that_is_never_closed_does_not_swallow_the_table(write: Write) -> None:
    text = b'path,label\n"a.jpg,x\n' + b"b.jpg,y\n" * 100_000 + b"q.jpg,x\n"
    found = mistakes(write({**PICTURES, "t.csv": text}) / "t.csv")
    assert found[0] == "t.csv, row 2: a quote is opened here and never closed."
    assert any("'q.jpg'" in line for line in found)


def test_thousands_of_columns(write: Write) -> None:
    num = 20_000
    header = b"path," + b",".join(b"tag%d" % n for n in range(num))
    row = b",".join(b"%d" % (n % 7 == 0) for n in range(num))
    data = open_data(write({**PICTURES, "t.csv": b"%s\na.jpg,%s\nb.jpg,%s\n" % (header, row, row)}) / "t.csv")
    assert len(data.class_names) == num // 7 + 1
    assert data.train.labels.shape[1] == num // 7 + 1


def test_many_rows_are_read(write: Write) -> None:
    root = write({f"{n}.jpg": b"" for n in range(50)})
    (root / "t.csv").write_text("path,label\n" + "".join(f"{n % 50}.jpg,{n % 50 % 3}\n" for n in range(50_000)))
    assert len(whole(root / "t.csv")) == 50


def test_names_are_escaped(write: Write) -> None:
    (found,) = mistakes(write({**PICTURES, "t.csv": GOOD + b"\x1b[31mred.jpg,x\n"}) / "t.csv")
    assert "\x1b" not in found
    assert "\\x1b[31mred.jpg" in found


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_make_it_wait(write: Write) -> None:
    root = write(PICTURES)
    os.mkfifo(root / "t.csv")
    with pytest.raises(DataError, match=r"t\.csv' is a file"):
        open_data(root / "t.csv")
    with pytest.raises(DataError, match="There is no file"):
        open_data(root, labels="t.csv")


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(NAMES))
def test_any_bytes_give_a_data_set_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    root = tmp_path_factory.mktemp("hostile")
    (root / "a.jpg").write_bytes(b"")
    (root / name).write_bytes(GOOD + data)
    with contextlib.suppress(DataError):
        assert len(open_data(root / name, fractions=(1, 0, 0)).train) >= 1


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_any_text_as_a_path_is_found_or_told(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    from regraft.data.sources.labels.locate import Locator

    root = tmp_path_factory.mktemp("paths")
    locator = Locator([str(root)])
    path, _ = locator.find(text)
    assert path == "" or Path(path).is_file()
    assert locator.hint(text)
