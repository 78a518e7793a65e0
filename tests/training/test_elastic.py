"""torchrun starts its processes again when one is killed, and the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from regraft.run.records import read_metrics
from tests.training.test_processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SETTINGS = {
    "model.name": "test_efficientnet",
    "model.image_size": 32,
    "model.weights": "none",
    "save_steps": 2,
    "data.batch_size": 4,
    "stages.head.optimizer": "adamw",
    "stages.head.epochs": 2,
    "stages.all.epochs": 4,
    "stages.all.bn": "affine-only",
}
TRAIN = ["-m", "regraft", "train", "--out", "run", *(f"--set={key}={value}" for key, value in SETTINGS.items())]


# Without it, the processes of a restart look for each other where those before them were.
FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def launched(folder: Path, *options: str, command: list[str]) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *command],
        cwd=folder,
        env={**os.environ, **FRESH_STORE, "OMP_NUM_THREADS": "1", "REGRAFT_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*launchers: subprocess.Popen[str]) -> list[tuple[int, str, str]]:
    told = [launcher.communicate(timeout=600) for launcher in launchers]
    return [(launcher.returncode, *lines) for launcher, lines in zip(launchers, told, strict=True)]


def wait_for(path: Path, lines: int) -> None:
    until = time.monotonic() + 300
    while not path.exists() or path.read_text().count("\n") < lines:
        assert time.monotonic() < until, f"{path} never came to {lines} lines"
        time.sleep(0.02)


def worker_of(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    found = [child for child in psutil.Process(launcher.pid).children() if child.environ().get("RANK") == str(rank)]
    (worker,) = found
    return worker


def results(run: Path) -> tuple[bytes, list[dict[str, object]]]:
    timed = ("seconds", "images_per_second", "data_wait")
    rows = [{key: row[key] for key in row if key not in timed} for row in read_metrics(run / "metrics.jsonl")]
    return (run / "model" / "model.safetensors").read_bytes(), rows


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_started_again_and_goes_on(rank: int, photos: Path, tmp_path: Path) -> None:
    together = ["--standalone", "--nproc-per-node", "2"]
    ((code, _, told),) = ended(launched(tmp_path / "whole", *together, command=[*TRAIN, str(photos)]))
    assert code == 0, told
    command = [*TRAIN, str(photos)]
    launcher = launched(tmp_path / "killed", *together, "--max-restarts", "2", command=command)
    wait_for(tmp_path / "killed" / "run" / "metrics.jsonl", 3)
    worker_of(launcher, rank).send_signal(signal.SIGKILL)
    ((code, out, told),) = ended(launcher)
    assert code == 0, told
    assert out.count("report: ") == 1
    assert results(tmp_path / "killed" / "run") == results(tmp_path / "whole" / "run")
    ((code, _, told),) = ended(launched(tmp_path / "killed", *together, command=command))
    assert code != 0, "another launch of the same command begins a new run, and this folder holds one"
    assert "exists already" in told


def test_two_launchers_share_a_run_as_two_machines_do(photos: Path, tmp_path: Path) -> None:
    """Two launchers of two processes each, with the same result as one launcher of four; a lost one is replaced."""
    command = [*TRAIN, str(photos)]
    ((code, _, told),) = ended(launched(tmp_path / "one", "--standalone", "--nproc-per-node", "4", command=command))
    assert code == 0, told
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}", "--rdzv-id", "job-7"]
    together = ["--nnodes", "2", "--nproc-per-node", "2", "--max-restarts", "2", *meeting]
    machines = [launched(tmp_path / "two", *together, command=command) for _ in range(2)]
    wait_for(tmp_path / "two" / "run" / "metrics.jsonl", 3)
    workers = [child for machine in machines for child in psutil.Process(machine.pid).children()]
    next(worker for worker in workers if worker.environ().get("RANK") == "3").send_signal(signal.SIGKILL)
    found = ended(*machines)
    assert [code for code, _, _ in found] == [0, 0], found
    assert sum(out.count("report: ") for _, out, _ in found) == 1
    assert (tmp_path / "two" / "run" / "launch.txt").read_text() == "job-7\n"
    assert results(tmp_path / "two" / "run") == results(tmp_path / "one" / "run")
    machines = [launched(tmp_path / "two", *together, command=command) for _ in range(2)]
    found = ended(*machines)
    assert [code for code, _, _ in found] == [0, 0], "a job that is started again under its own number goes on"
    assert "is finished; nothing to resume" in "".join(told for _, _, told in found)
