"""The whole training loop against a bare hand-written one, alternating epoch by epoch in the same run.

    uv run python benchmarks/loop_overhead.py [--rounds 5] [--steps 12] [--threads 0] [--precision fp32] [CASE ...]

regraft's side is `rg.train` as users call it: loading, normalising, seeds, checks for finite numbers, TensorBoard and
signals included. The bare side holds a copy of the network on the same pixels in memory, in the same order of
sizes, layout and precision: index, normalise, forward, loss, backward, step, `loss.item()`. Everything trains, with SGD
and Nesterov momentum. Validation and checkpoints, which the bare loop does not have, are not in the time.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.machine.heap import keep_freed_memory

CASES = {"small": ("resnet18", 64, 32), "big": ("resnet50", 160, 16)}


class Alternate(rg.Callback):
    """Times the steps of each epoch from the first to the last, then as many steps of the bare loop."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.first = self.last = 0.0

    def on_stage_start(self, stage: Any) -> None:
        self.model = copy.deepcopy(stage.model).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
        cache = stage.session.pixels["train"]
        self.pixels = np.stack([cache.row(row) for row in range(len(cache))])
        self.labels = torch.from_numpy(stage.session.labels["train"])

    def on_step_end(self, stage: Any, loss: float) -> None:
        self.last = time.perf_counter()
        if stage.progress.batch == 1:
            self.first = self.last

    def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
        num_steps = stage.length.steps_per_epoch - 1
        self.ours.append((self.last - self.first) / num_steps)
        numerics, normaliser, size = stage.engine.numerics, stage.session.normaliser, stage.batch_size
        order = np.random.default_rng(stage.progress.epoch).permutation(len(self.pixels))
        begin = time.perf_counter()
        for number in range(num_steps):
            index = order[number * size : (number + 1) * size]
            images = normaliser(torch.from_numpy(self.pixels[index]).permute(0, 3, 1, 2))
            images = images.contiguous(memory_format=numerics.memory_format)
            with torch.autocast("cpu", torch.bfloat16, enabled=numerics.precision == "bf16"):
                logits = self.model(images)
            loss = functional.cross_entropy(logits.float(), self.labels[index])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            loss.item()
        self.theirs.append((time.perf_counter() - begin) / num_steps)


def photos(folder: Path, size: int, num: int) -> Path:
    """`num` training pictures of noise of two classes, and four to validate on."""
    noise = np.random.default_rng(0)
    for split, count in (("train", num), ("val", 4)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return folder


def compare(case: str, options: argparse.Namespace) -> None:
    """Print milliseconds a step of both sides, and the median of the rounds' ratios."""
    name, size, batch = CASES[case]
    numerics = choose_numerics("cpu", options.precision, options.threads or None)
    with tempfile.TemporaryDirectory() as folder:
        data = rg.open_data(photos(Path(folder) / "photos", size, batch * options.steps))
        model = rg.adapt(rg.build_model(name, seed=0), classes=data.class_names, image_size=size)
        stage = rg.Stage("all", train="all", optimizer="sgd", lr=1e-3, epochs=options.rounds + 1, batch_size=batch)
        watch = Alternate()
        out = Path(folder) / "run"
        plan = rg.make_plan(model, [stage])
        rg.train(model, plan, data, out=out, numerics=numerics, callbacks=[watch], show=False)
    ours, theirs = watch.ours[1:], watch.theirs[1:]  # the first round warms up
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    told = f"{case:5s} {name}, {size} px, batch {batch}, {numerics.precision}"
    milliseconds = [1000 * statistics.median(times) for times in (ours, theirs)]
    print(f"{told}: regraft {milliseconds[0]:.1f} ms/step, bare {milliseconds[1]:.1f} ms/step, ratio {ratio:.3f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help="small, big")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    for name, default in (("rounds", 5), ("steps", 12), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    keep_freed_memory()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads")
    for case in options.cases:
        compare(case, options)


if __name__ == "__main__":
    main()
