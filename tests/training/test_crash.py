"""kill -9 at moments of every phase of a run, drawn from a seed; SIGTERM and Ctrl-C; then the same bits as without."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regraft.run.folder import RunFolder
from tests.training.faults import result, temporary
from tests.training.zygote import PHASES

pytestmark = [pytest.mark.crash, pytest.mark.timeout(2400)]
SETTINGS = {
    "model.name": "test_efficientnet",
    "model.image_size": 32,
    "model.weights": "none",
    "save_steps": 2,
    "data.batch_size": 4,
    "data.cache": "disk",
    "numerics.threads": 1,
    "stages.head.optimizer": "adamw",
    "stages.head.epochs": 2,
    "stages.all.epochs": 3,
    "stages.all.ema": 0.9,
    "stages.all.interpolate": "true",
    "stages.all.soup": "true",
}
OPTIONS = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
# The order in which one run meets its kills: each at one of the phase's next times, somewhere inside it.
KILLS = [
    "begin",
    "cache write",
    "stage begin",
    "step",
    "save",
    "rotate",
    "evaluate",
    "stage end",
    "step",
    "save",
    "merge",
    "export",
    "measure",
    "report",
]
NUM_ROUNDS, MOST_ROUNDS = 120, 300  # on a busy machine a kill may come after its phase: more of them are tried then
FEWEST_HITS = 3  # of each phase


class Zygote:
    """The parent of all children (see tests/training/zygote.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=environment,
        )
        assert self._read() == "ready\n"

    def run(self, *arguments: str, cache: Path, kill: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run `regraft ARGUMENTS` in a child; how it ended."""
        request = {
            "arguments": ["-q", *arguments],
            "environment": {"REGRAFT_CACHE": str(cache)},
            "log": str(self.folder / "log.txt"),
            "kill": kill,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply: dict[str, Any] = json.loads(self._read())
        return reply

    def said(self) -> str:
        return (self.folder / "log.txt").read_text()[-2000:]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def whole(photos: Path, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, float]]:
    """A run that nothing stopped, and how long each of its phases takes."""
    folder = tmp_path_factory.mktemp("whole")
    reply = zygote.run("train", str(photos), "--out", str(folder / "run"), *OPTIONS, cache=folder / "cache")
    assert reply["code"] == 0, zygote.said()
    assert set(reply["counts"]) == set(PHASES), "a phase has lost its marker"
    return RunFolder(folder / "run"), reply["seconds"]


def is_done(run: RunFolder) -> bool:
    return run.recipe.is_file() and run.is_finished and run.report.is_file()


def test_killed_in_every_phase_the_run_ends_in_the_same_bits(
    photos: Path, zygote: Zygote, whole: tuple[RunFolder, dict[str, float]], tmp_path: Path
) -> None:
    expected, seconds = result(whole[0]), whole[1]
    draw = random.Random(20)
    hits: Counter[str] = Counter()
    rounds = number = 0
    while rounds < NUM_ROUNDS or (rounds < MOST_ROUNDS and min(hits[phase] for phase in PHASES) < FEWEST_HITS):
        run, cache = RunFolder(tmp_path / f"run-{number}"), tmp_path / f"cache-{number}"
        number += 1
        kills: list[str | None] = [*KILLS, None]
        while not is_done(run):
            phase = kills.pop(0) if kills else None
            kill = None
            if phase is not None:
                number_of_times = draw.randint(1, 3) if phase in ("step", "save", "rotate") else 1
                kill = {"phase": phase, "number": number_of_times, "after": draw.uniform(0, seconds[phase])}
            command = ["resume", str(run.path)]
            if not run.recipe.is_file():
                command = ["train", str(photos), "--out", str(run.path), *OPTIONS]
            reply = zygote.run(*command, cache=cache, kill=kill)
            assert reply["code"] in (0, -signal.SIGKILL), zygote.said()
            rounds += reply["code"] != 0
            hits.update(reply["open"] or (["between"] if reply["code"] else []))
        assert result(run) == expected, f"run {number}"
        assert temporary(run) == []
    print(f"{rounds} kills in {number} runs; phases going on then: {dict(hits)}")
    assert rounds >= 100
    assert min(hits[phase] for phase in PHASES) >= FEWEST_HITS, hits


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "regraft.cli.main", "-q", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )  # a process group of its own, as a job of Slurm has


def read_step(run: RunFolder) -> int:
    try:
        step: int = json.loads(run.last.read_text())["step"]
    except (OSError, ValueError):
        step = -1
    return step


ENDS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}


@pytest.mark.parametrize(("name", "rounds"), [("SIGKILL", 3), ("SIGTERM", 4), ("SIGINT", 4)])
def test_signals_to_the_process_group_of_the_real_command(
    name: str, rounds: int, whole: tuple[RunFolder, dict[str, float]], photos: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    moments = random.Random(name)
    process = start("train", str(photos), "--out", str(run.path), *OPTIONS)
    for _ in range(rounds):
        while process.poll() is None and not run.recipe.exists():
            time.sleep(0.01)  # before its first checkpoint a run is none
        began, last = time.monotonic(), read_step(run)
        while process.poll() is None and read_step(run) == last and time.monotonic() - began < 60:
            time.sleep(0.01)  # each round gets somewhere, so that the rounds end
        time.sleep(moments.uniform(0, 0.1))
        if process.poll() is None:
            os.killpg(process.pid, getattr(signal, name))
        _, errors = process.communicate()
        # A signal may also meet a process that has finished its run and is just ending.
        if process.returncode == 0 or (is_done(run) and process.returncode in (ENDS[name], -getattr(signal, name))):
            break
        assert process.returncode == ENDS[name], errors.decode()
        assert name == "SIGKILL" or b"regraft resume" in errors
        process = start("resume", str(run.path))
    else:
        process.communicate()
    if not is_done(run):
        last_try = start("resume", str(run.path))
        _, errors = last_try.communicate()
        assert last_try.returncode == 0, errors.decode()
    assert result(run) == result(whole[0])
    assert temporary(run) == []


def test_a_second_ctrl_c_stops_at_once_and_what_was_saved_goes_on(
    whole: tuple[RunFolder, dict[str, float]], photos: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    process = start("train", str(photos), "--out", str(run.path), *OPTIONS, "--set", "stages.head.epochs=10000")
    while process.poll() is None and read_step(run) < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors.decode()
    assert b"regraft resume" in errors or b"what was saved before is still whole" in errors
    step = read_step(run)
    process = start("resume", str(run.path))
    while process.poll() is None and read_step(run) <= step:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
