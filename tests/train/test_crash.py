"""kill -9, SIGTERM and Ctrl-C against the real command, at moments drawn from a seed; then the same bits."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1500)]
ROUNDS = 12
ENDS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
OPTIONS = [
    "--model",
    "test_efficientnet",
    "--image-size",
    "32",
    "--set",
    "model.weights=none",
    "--set",
    "save_steps=2",
    "--set",
    "data.batch_size=4",
    "--set",
    "stages.head.optimizer=adamw",
    "--set",
    "stages.head.epochs=20",
    "--set",
    "stages.top.epochs=20",
    "--set",
    "stages.top.early_stopping=null",
]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "regraft.cli.main", "-q", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finished(run: RunFolder) -> bool:
    return bool((run.read(run.status) or {}).get("state") == "finished" and run.report.exists())


def result(run: RunFolder) -> tuple[str, list[tuple[object, ...]]]:
    weights = hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest()
    return weights, [(row["stage"], row["epoch"], row["step"], row["val_loss"]) for row in read_metrics(run.metrics)]


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("crash") / "whole")
    process = start("train", str(photos), "--out", str(run.path), *OPTIONS)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return run


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_stopped_runs_end_in_the_same_bits(name: str, whole: RunFolder, photos: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    moments = random.Random(name)
    process = start("train", str(photos), "--out", str(run.path), *OPTIONS)
    for _ in range(ROUNDS):
        while process.poll() is None and not run.recipe.exists():
            time.sleep(0.01)  # before its first checkpoint a run is none
        began, last = time.monotonic(), read_step(run)
        while process.poll() is None and read_step(run) == last and time.monotonic() - began < 60:
            time.sleep(0.01)  # each round gets somewhere, so that the rounds end
        time.sleep(moments.uniform(0, 0.8))
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate()
        # A signal may also meet a process that has finished its run and is just ending.
        ending = (ENDS[name], -getattr(signal, name))
        if process.returncode == 0 or (finished(run) and process.returncode in ending):
            break
        assert process.returncode == ENDS[name], errors.decode()
        assert name == "SIGKILL" or b"regraft resume" in errors
        process = start("resume", str(run.path))
    if process.poll() is None:
        process.communicate()
    if not finished(run):
        last_try = start("resume", str(run.path))
        _, errors = last_try.communicate()
        assert last_try.returncode == 0, errors.decode()
    assert result(run) == result(whole)
    assert not [path.name for path in run.path.rglob(".*")], "something temporary is left"


def read_step(run: RunFolder) -> int:
    try:
        step: int = json.loads(run.last.read_text())["step"]
    except (OSError, ValueError):
        step = -1
    return step
