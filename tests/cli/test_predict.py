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


def test_many_inputs_and_patterns(cli: Cli, tiny_run: Path, folder: Path) -> None:
    result = cli("predict", tiny_run, folder / "red.png", f"{folder}/[bg]*n.png", folder / "blue.png", *FP32)
    assert result.code == 0, result.err
    rows = [line.split("\t") for line in result.out.splitlines()]
    assert [row[1] for row in rows] == ["red", "green", "blue"]
    refused = cli("predict", tiny_run, folder / "red.png", "https://example.org/cat.jpg", *FP32)
    assert refused.code == 3
    assert "is an address, and regraft downloads nothing" in refused.err


@pytest.mark.parametrize("name", ["new.csv", "deep/new.jsonl", "folder", "odd.csv/"])
def test_out_is_a_table_that_is_never_written_over(
    name: str, cli: Cli, tiny_run: Path, folder: Path, tmp_path: Path
) -> None:
    given = f"{tmp_path}/{name}"
    result = cli("predict", tiny_run, folder, "--out", given, *FP32)
    assert result.code == 0, result.err
    table = tmp_path / name if name.startswith(("new", "deep")) else tmp_path / name / "predictions.csv"
    assert result.out == f"{table}: 4 rows\n"
    text = table.read_text()
    same = cli("predict", tiny_run, folder, "--json" if table.suffix == ".jsonl" else "--csv", *FP32)
    assert text == same.out
    again = cli("predict", tiny_run, folder, "--out", given, *FP32)
    assert (again.code, again.out) == (7, "")
    assert "nothing is overwritten" in again.err
    assert table.read_text() == text
    assert [path for path in tmp_path.rglob("*") if ".tmp-" in path.name] == []


@pytest.mark.parametrize("out", ["results.xlsx", "results.txt", "results.json"])
def test_an_out_of_another_kind_is_refused(out: str, cli: Cli, tiny_run: Path, folder: Path, tmp_path: Path) -> None:
    result = cli("predict", tiny_run, folder, "--out", tmp_path / out, *FP32)
    assert result.code == 2
    assert "NAME.csv, NAME.jsonl or a folder" in result.err
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize("out", ["/proc/results.csv", "/proc/results", "{file}/results.csv", "{file}/folder"])
def test_an_out_that_cannot_be_written_is_a_storage_error(
    out: str, cli: Cli, tiny_run: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    result = cli("predict", tiny_run, folder, "--out", out.format(file=tmp_path / "file"), *FP32)
    assert result.code == 7, result.err
    assert "bug" not in result.err
    assert (tmp_path / "file").read_text() == "mine"


def test_only_errors_end_with_the_code_of_data(cli: Cli, tiny_run: Path, folder: Path, tmp_path: Path) -> None:
    result = cli("predict", tiny_run, folder / "bad.jpg", "--json", *FP32)
    assert result.code == 3
    assert json.loads(result.out)["error"] == "is empty"
    assert "The input could not be read" in result.err
    stdin = os.fsencode(folder / "bad.jpg") + b"\nhttps://example.org/a.jpg\n"
    result = cli("predict", tiny_run, "-", "--out", tmp_path / "all.jsonl", *FP32, stdin=stdin)
    assert result.code == 3
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [row["error"] for row in rows] == ["is empty", "is an address, and regraft downloads nothing"]


def test_what_is_in_memory_predicts_as_its_file(tiny_run: Path, folder: Path) -> None:
    import numpy as np
    from PIL import Image

    import regraft as rg
    from regraft.compute.numerics import choose_numerics

    files = [folder / f"{name}.png" for name in COLOURS]
    fp32 = choose_numerics(precision="fp32", threads=1)
    expected = [row.probabilities for row in rg.predict(tiny_run, files, numerics=fp32)]
    arrays = [np.asarray(Image.open(file)) for file in files]
    for inputs in (arrays, np.stack(arrays), [Image.fromarray(array) for array in arrays]):
        rows = rg.predict(tiny_run, inputs, numerics=fp32)
        assert [row.probabilities for row in rows] == expected
    (row,) = rg.predict(tiny_run, arrays[0], numerics=fp32)
    assert (row.path, row.prediction) == ("image", "blue")
    assert list(row.probabilities.values()) == pytest.approx(list(expected[0].values()), abs=1e-5)


@pytest.mark.parametrize("model", ["", "model"], ids=["run", "model folder"])
def test_images_before_the_run(cli: Cli, tiny_run: Path, folder: Path, model: str) -> None:
    for images in (folder, folder / "red.png"):
        result = cli("predict", images, tiny_run / model)
        assert result.code == 2
        assert "the run first" in result.err
        assert f"`regraft predict {tiny_run / model} {images}`" in result.err
