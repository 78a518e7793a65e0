"""What `train` and `resume` say: JSON lines on stdout, a bar on a terminal, lines elsewhere, little when quiet."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cli

import regraft as rg
from regraft.cli.output import Output

TINY = ("--set", "model.weights=none", "--image-size", "32", "--threads", "1", "--model", "test_efficientnet")
STAGE = ("--stages", "head", "--set", "stages.head.optimizer=adamw", "--set", "stages.head.epochs=2")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_are_the_start_the_epochs_and_the_end(cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = cli("train", tiny_photos, "--out", out, "--json", *STAGE, *TINY)
    assert result.code == 0, result.err
    start, *epochs, end = objects(result.out)
    assert start == {"kind": "start", "run": str(out), "stages": ["head"], "stage": "head", "step": 0}
    recorded = objects((out / "metrics.jsonl").read_text())
    assert len(epochs) == 2
    assert epochs == [{"kind": "epoch", "run": str(out), **record} for record in recorded]
    assert {key: end[key] for key in ("kind", "state", "run", "model", "report")} == {
        "kind": "end",
        "state": "finished",
        "run": str(out),
        "model": str(out / "model"),
        "report": str(out / "report.html"),
    }
    assert end["measures"] == json.loads((out / "predictions" / "test.json").read_text())
    assert "head epoch 2/2" in result.err, "people still read what happens, on stderr"

    again = cli("resume", out, "--json")
    assert objects(again.out) == [{key: value for key, value in end.items() if key != "measures"}]


@pytest.mark.parametrize("arguments", [("nowhere",), ("--set", "nonsense=1"), ("--recipe", "none.yaml")])
def test_an_error_is_the_last_object_too(cli: Cli, arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = cli("train", "--json", *arguments, "--out", tmp_path / "run")
    (end,) = objects(result.out)
    assert (end["kind"], end["state"], end["exit_code"]) == ("end", "failed", result.code)
    assert end["message"] in result.err


def test_a_stopped_run_says_so_in_json(
    cli: Cli, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from regraft.training.loop import gradient_stage

    monkeypatch.setattr(gradient_stage, "watch", lambda run, values: os.kill(os.getpid(), signal.SIGTERM))
    result = cli("train", tiny_photos, "--out", tmp_path / "run", "--json", *STAGE, *TINY)
    assert result.code == 143
    assert [record["kind"] for record in objects(result.out)] == ["start", "epoch", "end"]
    assert objects(result.out)[-1]["state"] == "stopped"


def test_folds_say_which_run_an_epoch_is_of(cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    stage = (*STAGE[:4], "--set", "stages.head.epochs=1")
    result = cli("train", tiny_photos, "--out", tmp_path / "cv", "--json", "--folds", "2", *stage, *TINY)
    assert result.code == 0, result.err
    *lines, end = objects(result.out)
    first, second = (str(tmp_path / "cv" / f"fold-{number}") for number in (1, 2))
    expected = [("start", first), ("epoch", first), ("start", second), ("epoch", second)]
    assert [(line["kind"], line["run"]) for line in lines] == expected
    assert end["run"] == str(tmp_path / "cv")
    assert len(end["measures"]["top1"]["folds"]) == 2


def test_a_reader_that_goes_away_does_not_stop_the_run(
    tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", broken)
        data = rg.open_data(tiny_photos)
        model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32)
        plan = rg.make_plan(model, [rg.Stage("head")])
        run = rg.train(model, plan, data, out=tmp_path / "run", callbacks=Output(as_json=True).callbacks, show=False)
    assert json.loads(run.status.read_text())["state"] == "finished"


def test_quiet_is_quiet(cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    result = cli("-q", "train", tiny_photos, "--out", tmp_path / "run", *STAGE, *TINY)
    assert (result.code, result.err) == (0, "")
    assert "accuracy (test)" in result.out
    assert "head epoch 2/2" in (tmp_path / "run" / "log.txt").read_text()


def test_without_a_terminal_each_epoch_is_a_line(cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    result = cli("train", tiny_photos, "--out", tmp_path / "run", *STAGE, *TINY)
    lines = [line for line in result.err.splitlines() if line.startswith("head epoch ")]
    assert len(lines) == 2
    for line in lines:
        assert re.search(
            r"^head epoch \d/2  train_loss \d.*  \d+ images/s  data wait \d+%  about \d+:\d\d remaining$", line
        )
    assert "\r" not in result.err
    assert "\x1b" not in result.err


@contextmanager
def terminal(patch: pytest.MonkeyPatch, **environment: str) -> Iterator[list[bytes]]:
    """Make stderr a terminal of 120 columns; yields what is written to it, complete at the end."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo terminals")
    ours, theirs = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # Linux says so when the other end is closed
            while data := os.read(ours, 65536):
                written.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "120", **environment}.items():
        patch.setenv(name, value)
    with os.fdopen(theirs, "w") as stream, patch.context() as inner:
        inner.setattr(sys, "stderr", stream)
        yield written
    reader.join()
    os.close(ours)


def train_30_epochs(photos: Path, out: Path) -> None:
    data = rg.open_data(photos)
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("[bold]", train="head", optimizer="adamw", epochs=30)])
    rg.train(model, plan, data, out=out)


def test_on_a_terminal_there_is_a_bar_with_the_time_left_of_the_run(
    tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regraft.training.loop.progress_bar._SECONDS", -1.0)  # these steps take less than one drawing
    with terminal(monkeypatch) as written:
        train_30_epochs(tiny_photos, tmp_path / "run")
    text = b"".join(written).decode()
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    assert re.search(r"\[bold\] \d+/30 .*\d+% loss \d\.\d{4} +about \d+:\d{2} remaining", plain)
    assert re.search(r"^\[bold\] epoch 30/30 ", plain, flags=re.MULTILINE)
    assert not re.search(r" {60}\[bold\]", plain), "no line is pushed aside by the bar"


def test_a_dumb_terminal_gets_plain_lines(tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, TERM="dumb") as written:
        train_30_epochs(tiny_photos, tmp_path / "run")
    text = b"".join(written).decode()
    assert "\x1b" not in text
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in text
    assert "[bold] epoch 30/30 " in text
