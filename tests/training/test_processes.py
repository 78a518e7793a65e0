"""A run shared by several processes: the same weights as in one, written once, resumed by another number of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from regraft.run.records import read_metrics
from tests.segmentation import void_scenes_in
from tests.training import worker

WORKER = Path(worker.__file__)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def launch(num: int, *arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """Start `num` workers as a launcher does, through the environment; wait for all of them."""
    together = {"WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **together, "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(WORKER.parents[2]), os.environ.get("PYTHONPATH")]))
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), *map(str, arguments)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)} if num > 1 else os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num)
    ]
    ended = [worker.communicate(timeout=240) for worker in workers]
    return [
        subprocess.CompletedProcess(worker.args, worker.returncode, out, err)
        for worker, (out, err) in zip(workers, ended, strict=True)
    ]


def trained(num: int, photos: Path, out: Path, kind: str, *more: str) -> dict[str, torch.Tensor]:
    if num == 1:
        worker.main(str(photos), str(out), kind, *more)  # a run that is shared with nobody needs no other process
    else:
        for ended in launch(num, photos, out, kind, *more):
            assert ended.returncode == 0, ended.stderr
    return load_file(out / "model" / "model.safetensors")


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) for kind in ("groupnorm", "frozen-bn", "head")],
)
def test_two_processes_give_the_weights_of_one(kind: str, photos: Path, tmp_path: Path) -> None:
    """20 photos in batches of 8: 12 steps, the last batch of each epoch is smaller; 12 photos validate."""
    one, two = (trained(num, photos, tmp_path / f"{kind}-{num}", kind) for num in (1, 2))
    print(f"{kind}: weights after training differ by {distance(one, two):.2g}")
    assert distance(one, two) <= 1e-6
    rows = [read_metrics(tmp_path / f"{kind}-{num}" / "metrics.jsonl") for num in (1, 2)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]], "each epoch is written once"
    for single, shared in zip(*rows, strict=True):
        assert single["val_top1"] == shared["val_top1"]
        np.testing.assert_allclose(shared["val_loss"], single["val_loss"], rtol=1e-6)
        np.testing.assert_allclose(shared["train_loss"], single["train_loss"], rtol=1e-5)


@pytest.mark.slow
def test_masks_weigh_by_their_pixels_in_two_processes_as_in_one(tmp_path: Path) -> None:
    scenes = void_scenes_in(tmp_path / "scenes")
    one, two = (trained(num, scenes, tmp_path / f"run-{num}", "masks") for num in (1, 2))
    print(f"masks: weights after training differ by {distance(one, two):.2g}")
    assert distance(one, two) <= 1e-6
    rows = [read_metrics(tmp_path / f"run-{num}" / "metrics.jsonl") for num in (1, 2)]
    for single, shared in zip(*rows, strict=True):
        np.testing.assert_allclose(shared["train_loss"], single["train_loss"], rtol=1e-5)


@pytest.mark.slow
def test_three_processes_share_batches_that_do_not_divide(photos: Path, tmp_path: Path) -> None:
    failed = launch(3, photos, tmp_path / "run", "groupnorm")
    assert {ended.returncode for ended in failed} == {2}
    assert "batch_size: 9" in failed[0].stderr


@pytest.mark.slow
def test_training_batch_norms_on_several_cpu_processes_are_refused(photos: Path, tmp_path: Path) -> None:
    failed = launch(2, photos, tmp_path / "run", "training-bn")
    assert {ended.returncode for ended in failed} == {2}
    assert "bn: affine-only" in failed[0].stderr


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_lost_process_ends_the_others_and_any_number_goes_on(
    before: int, after: int, photos: Path, tmp_path: Path
) -> None:
    whole = trained(1, photos, tmp_path / "whole", "groupnorm")
    ended = launch(before, photos, tmp_path / "run", "lost")
    assert ended[0].returncode == -9
    if before == 2:
        assert ended[1].returncode == 1
        assert "Another process of this run has ended" in ended[1].stderr
    assert not (tmp_path / "run" / "model").exists()
    went_on = trained(after, photos, tmp_path / "run", "lost", "resume")
    assert distance(whole, went_on) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_launchers_run_the_command_line(launcher: str, photos: Path, tmp_path: Path) -> None:
    """The same command under both launchers: one run folder, one report, one set of lines."""
    starts = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        "accelerate": ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"],
    }
    command = ["train", str(photos), "--model", "test_efficientnet", "--image-size", "32", "--out", "run"]
    settings = ["model.weights=none", "stages.1.bn=affine-only"]
    ended = subprocess.run(
        [sys.executable, "-m", *starts[launcher], "-m", "regraft", *command]
        + [part for setting in settings for part in ("--set", setting)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("report: ") == 1
    assert ended.stderr.count("stage head:") == 1, "only the main process writes lines"
    assert (tmp_path / "run" / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
