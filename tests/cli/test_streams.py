"""Whoever stops reading what a command prints ends neither its run nor with a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = ("--set", "model.weights=none", "--image-size", "32", "--threads", "1", "--model", "test_resnet.r160_in1k")
STAGE = ("--stages", "head", "--set", "stages.head.optimizer=adamw", "--set", "stages.head.epochs=2")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "regraft", *map(str, arguments)]


def state(run: Path) -> str:
    return str(json.loads((run / "status.json").read_text())["state"])


@pytest.mark.slow  # in this process: test_news.py, a reader that goes away
def test_a_run_outlives_the_reader_of_its_output(tiny_photos: Path, tmp_path: Path) -> None:
    """As `regraft train ... 2>&1 | head -1` does: both ends are gone after a line."""
    out = tmp_path / "run"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("train", tiny_photos, "--out", out, *STAGE, *TINY), stdout=writer, stderr=writer, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert state(out) == "finished"
    assert (out / "model" / "config.json").is_file()
    assert (out / "report.html").is_file()


def test_a_run_outlives_its_terminal_or_saves(tiny_photos: Path, tmp_path: Path) -> None:
    """A terminal that closes: writes fail with EIO, and SIGHUP comes."""
    out = tmp_path / "run"
    main, side = os.openpty()
    process = subprocess.Popen(
        command("train", tiny_photos, "--out", out, *STAGE, "--set", "stages.head.epochs=100000", *TINY),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup themselves
    )
    os.close(side)
    os.close(main)  # before the first line
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.05)
    assert process.poll() is None, "writes that fail end nothing"
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 129
    assert state(out) == "stopped"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the file of Linux that is always full")
def test_data_that_cannot_be_printed_is_a_storage_error(tiny_run: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command("inspect", tiny_run), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 7
    assert done.stderr.startswith("error: The output could not be written: No space left on device")
    assert "Traceback" not in done.stderr


def test_data_whose_reader_goes_ends_quietly(tiny_run: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command("inspect", tiny_run), stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
