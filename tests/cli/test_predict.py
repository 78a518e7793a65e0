"""`regraft predict`: rows out = rows in, in three forms that read back."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from tests.conftest import COLOURS, Cli, photo

FP32 = ("--precision", "fp32", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        photo(tmp_path / "new" / f"{name}.png", colour, 99)
    (tmp_path / "new" / "bad.jpg").write_bytes(b"")
    (tmp_path / "new" / "notes.txt").write_text("hello")
    return tmp_path / "new"


def test_text_is_a_line_for_each_input(cli: Cli, tiny_run: Path, folder: Path) -> None:
    result = cli("predict", tiny_run, folder, *FP32)
    assert result.code == 0
    rows = [line.split("\t") for line in result.out.splitlines()]
    assert [Path(row[0]).name for row in rows] == ["bad.jpg", "blue.png", "green.png", "red.png"]
    assert rows[0][1].startswith("error: ")
    assert [row[1] for row in rows[1:]] == ["blue", "green", "red"]
    assert "left out: 1 x " in result.err
    assert "1 input could not be read" in result.err


def test_json_reads_back(cli: Cli, tiny_run: Path, folder: Path) -> None:
    rows = [json.loads(line) for line in cli("predict", tiny_run, folder, "--json", *FP32).out.splitlines()]
    assert len(rows) == 4
    assert rows[0]["error"]
    assert rows[0]["prediction"] is None
    assert rows[0]["probabilities"] == {}
    for row in rows[1:]:
        assert row["error"] is None
        assert row["probabilities"][row["prediction"]] == row["probability"]


def test_csv_reads_back(cli: Cli, tiny_run: Path, folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("predict", tiny_run, folder, "--csv", *FP32).out)))
    assert list(rows[0]) == ["path", "prediction", "probability", "blue", "green", "red", "error"]
    assert [row["prediction"] for row in rows] == ["", "blue", "green", "red"]
    assert [bool(row["error"]) for row in rows] == [True, False, False, False]
    assert sum(float(rows[1][name]) for name in COLOURS) == pytest.approx(1, abs=1e-5)


def test_names_with_commas_quotes_and_line_breaks(cli: Cli, tiny_run: Path, folder: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_run / "model", tmp_path / "model")
    names = ['a, "b"', "line\nbreak\ttab", "Süß — 猫"]
    config = json.loads((model / "config.json").read_text())
    config["label_names"] = names
    (model / "config.json").write_text(json.dumps(config))
    odd = photo(tmp_path / "odd" / 'x, "y"\n.png', COLOURS["green"], 1)

    (row,) = [json.loads(line) for line in cli("predict", model, odd, "--json", *FP32).out.splitlines()]
    assert row["path"] == str(odd)
    assert list(row["probabilities"]) == names
    (row,) = list(csv.DictReader(io.StringIO(cli("predict", model, odd, "--csv", *FP32).out, newline="")))
    assert row["path"] == str(odd)
    assert row["prediction"] == "line\nbreak\ttab"
    (line,) = cli("predict", model, odd, *FP32).out.splitlines()
    assert line.split("\t")[1] == "line\\nbreak\\ttab"


def test_stdin_gives_a_row_for_each_path_in_its_order(cli: Cli, tiny_run: Path, folder: Path) -> None:
    given = [folder / "red.png", folder / "missing.png", folder / "bad.jpg", folder, folder / "blue.png"]
    stdin = b"\r\n".join(os.fsencode(path) for path in given) + b"\n\n"
    result = cli("predict", tiny_run, "-", "--json", *FP32, stdin=stdin)
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in given]
    assert [row["prediction"] for row in rows] == ["red", None, None, None, "blue"]
    assert "3 inputs could not be read" in result.err


def test_no_paths_on_stdin_give_no_rows(cli: Cli, tiny_run: Path) -> None:
    result = cli("predict", tiny_run, "-", *FP32, stdin=b"")
    assert (result.code, result.out) == (0, "")


def test_file_names_that_are_no_utf8(cli: Cli, tiny_run: Path, folder: Path) -> None:
    name = os.fsencode(folder) + b"/caf\xe9.png"
    try:
        os.rename(os.fsencode(folder / "red.png"), name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for source, stdin in ((folder, b""), ("-", name + b"\n")):
        rows = [
            json.loads(line) for line in cli("predict", tiny_run, source, "--json", *FP32, stdin=stdin).out.splitlines()
        ]
        assert os.fsdecode(name) in [row["path"] for row in rows]
        for form in ((), ("--csv",)):
            result = cli("predict", tiny_run, source, *form, *FP32, stdin=stdin)
            assert result.code == 0, result.err
            assert os.fsdecode(name) in result.out
