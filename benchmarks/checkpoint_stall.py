"""What a checkpoint of a 100 MB model costs training, against saving the same state with torch.save and fsync.

uv run python benchmarks/checkpoint_stall.py [--rounds 7] [--threads 2] [--folder DIR]

A network of 25 million parameters trains with AdamW, so a checkpoint holds 300 MB: weights and two moments. In turn, in
one process: (a) the floor: torch.save of the same state and fsync, for which the loop waits; (b) regraft's Saver, which
copies the state, returns, and writes behind the loop. For (b) two times are printed: how long the loop stands still in
`save`, and how much later the steps are done than without a checkpoint, until it is on the disk; the second holds
the first and what writing takes from the processors. Medians of the rounds; the aim is 0.3 s.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import nn

from regraft.run.folder import RunFolder
from regraft.training.checkpoint.saver import Saver
from regraft.training.checkpoint.state import Progress, group_values

WIDTH, LAYERS, BATCH = 2048, 6, 64


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Six layers of 2048 x 2048: 25.2 million parameters, 100.7 MB."""
    torch.manual_seed(0)
    model = nn.Sequential(*[part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())])
    parameters = dict(model.named_parameters())
    group = {"params": list(parameters.values()), "names": list(parameters), "name": "all"}
    return model, torch.optim.AdamW([group], lr=1e-4)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def save_and_wait(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """The floor: one file, flushed to the disk."""
    with path.open("wb") as stream:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stream)
        stream.flush()
        os.fsync(stream.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; without it a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, optimizer = network()
    images = torch.randn(BATCH, WIDTH)

    def step() -> None:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()
    floors, stills, lates, steps_taken = [], [], [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run = RunFolder(Path(name))
        with Saver(run) as saver:
            groups = group_values(optimizer)
            saver.save(model, optimizer, Progress(step=0), groups=groups)  # the first touches its memory
            saver.wait()
            for number in range(1, options.rounds + 1):
                before = statistics.median(seconds(step) for _ in range(9))
                floors.append(seconds(lambda: save_and_wait(model, optimizer, run.path / "floor.pt")))
                os.sync()
                done: list[int] = []
                saver.told = lambda done=done: done.append(1)  # type: ignore[misc]
                began, taken = time.perf_counter(), 0
                saver.save(model, optimizer, Progress(step=number), groups=groups)
                stills.append(time.perf_counter() - began)
                while not done:
                    step()
                    taken += 1
                    saver.look()
                during = time.perf_counter() - began
                plain = (before + statistics.median(seconds(step) for _ in range(9))) / 2
                lates.append(during - taken * plain)
                steps_taken.append(taken)
    print(
        f"{platform.processor() or platform.machine()}, {options.threads} threads, {date.today()}, "
        f"{options.rounds} rounds"
    )
    print(f"floor: torch.save and fsync, the loop waits: {statistics.median(floors):.3f} s")
    print(f"regraft, the loop stands still:              {statistics.median(stills):.3f} s")
    print(f"regraft, all that training loses:            {statistics.median(lates):.3f} s", end=" ")
    print(f"(until it is on the disk, {statistics.median(steps_taken):.0f} steps later)")
    ratio = statistics.median(late / floor for late, floor in zip(lates, floors, strict=True))
    print(f"ratio to the floor: {ratio:.2f}x (aim: at most 0.3 s)")


if __name__ == "__main__":
    main()
