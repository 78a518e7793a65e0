"""Names come from files: they steer no terminal, deceive no reader, and are no formulas in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from regraft.run.records import append_metrics, write_metrics_csv
from regraft.visible import cell, visible
from tests.conftest import Cli, photo

STEERING = ("\x1b", "\x9b", "\u202e", "\u2066", "\x07", "\r", "\x08")
NAMES = ["=HYPERLINK(0)", "\x1b[2Jred\u202e", "@x\x9b31m"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),
        ("-1", "-1"),
        ("+2.5e3", "+2.5e3"),
        ("a=b", "a=b"),
        ("", ""),
        (-0.5, -0.5),
        (None, None),
    ],
)
def test_formulas_become_texts_and_numbers_stay(text: object, shown: object) -> None:
    assert cell(text) == shown


def test_what_steers_is_spelt_out() -> None:
    assert visible("a\x1b[31mb\u202ec\x9b\udcff\n") == "a\\x1b[31mb\\u202ec\\x9b\\udcff\\n"
    assert visible("a\nb", keep="\n") == "a\nb"
    assert visible("Grün 猫") == "Grün 猫"


@pytest.fixture
def named_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run whose classes have the names of somebody who means harm."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((run / "model" / "config.json").read_text())
    config["label_names"] = NAMES
    (run / "model" / "config.json").write_text(json.dumps(config))
    (run / "classes.json").write_text(json.dumps(NAMES))
    return run


def test_predictions(named_run: Path, tmp_path: Path, cli: Cli) -> None:
    image = photo(tmp_path / "images" / "-1+\x1b[0m.png", (200, 50, 40), 1)
    text = cli("predict", named_run, image)
    table = cli("predict", named_run, image, "--csv")
    assert (text.code, table.code) == (0, 0)
    assert not any(sign in text.out + text.err for sign in STEERING)
    header, *rows = csv.reader(io.StringIO(table.out))
    assert header[3] == "'=HYPERLINK(0)"
    assert header[5] == "'" + NAMES[2]
    assert all(not value.startswith(("=", "@", "\t")) for row in rows for value in row)
    told = json.loads(cli("predict", named_run, image, "--json").out.splitlines()[0])
    assert set(told["probabilities"]) == set(NAMES)  # data stays what it is


@pytest.mark.parametrize("command", ["inspect", "report", "resume"])
def test_lines_for_people(named_run: Path, command: str, cli: Cli) -> None:
    (named_run / "status.json").write_text(json.dumps({"state": "stopped\x1b[31m", "message": "\u202ebad\x9b"}))
    result = cli(command, named_run)
    assert not any(sign in result.out + result.err for sign in STEERING)
    html = (named_run / "report.html").read_text() if command == "report" else ""
    assert not any(sign in html for sign in ("\x1b", "\u202e", "\x9b"))


def test_metrics_as_a_table(tmp_path: Path) -> None:
    append_metrics(tmp_path / "metrics.jsonl", {"kind": "epoch", "stage": "=1+1", "epoch": 1, "lr": {"@x": -0.5}})
    write_metrics_csv(tmp_path / "metrics.jsonl", tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["stage,epoch,lr/@x", "'=1+1,1,-0.5"]
