"""One step of full fine-tuning on a CPU: regraft's step against hand-written torch loops, alternating in the same run.

    uv run python benchmarks/training_step.py [--size 160] [--batch 32] [--rounds 5] [--threads 0] [NETWORK ...]

All sides hold the same network with the same batch in memory, train everything with SGD and momentum, and take batch
statistics. `naive` is fp32 with torch's default layout, as one writes it; `hand-written` is bf16 autocast with
channels-last, and keeps freed memory as regraft does, the best that plain torch gives here. Each side is a process of
its own, because how memory is kept is a process's. The last column says how far the step is from the processor: the
share of its products per second that a large bf16 matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.compute.program import split_program
from regraft.machine.heap import keep_freed_memory
from regraft.plan.freezing.freeze import freeze
from regraft.training.engine import Engine
from regraft.training.loop.step import Update, training_step
from regraft.training.objective.objective import build_objective
from regraft.training.objective.optim import build_optimizer

NETWORKS = ["resnet50", "tf_efficientnet_lite0"]
NUM_CLASSES = 10
SIDES = ["naive", "hand-written", "regraft"]


def network(name: str) -> nn.Module:
    return rg.build_model(name, seed=0, num_classes=NUM_CLASSES).train()


def by_hand(name: str, images: torch.Tensor, labels: torch.Tensor, *, tuned: bool) -> Callable[[], None]:
    """A step of a loop as one writes it: fp32 as torch lays it out, or bf16 autocast with channels last."""
    model = network(name)
    if tuned:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if tuned else nullcontext():
            logits = model(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def by_regraft(name: str, images: torch.Tensor, labels: torch.Tensor, threads: int) -> Callable[[], None]:
    """The step that a stage takes, on the program that it runs."""
    model = network(name)
    stage = rg.Stage("all", train="all", optimizer="sgd", lr=1e-3, bn="train")
    freeze(model, stage.selectors, bn=stage.bn)
    engine = Engine(choose_numerics("cpu", "bf16", threads))
    engine.place(model)
    program, optimizer = split_program(model), build_optimizer(model, stage)
    objective = build_objective(stage, "softmax", None, num_processes=1)
    update = Update.of(model, optimizer, stage.clip_norm)
    images = images.contiguous(memory_format=torch.channels_last)
    model.train()

    def step() -> None:
        training_step(engine, program, [((images,), labels, 1.0)], objective, update, str)

    return step


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def limit() -> float:
    """bf16 products and sums per second of a large matrix product."""
    left, right = (torch.randn(4096, 4096).bfloat16() for _ in range(2))
    return 2 * 4096**3 / min(seconds(lambda: left @ right) for _ in range(5))


def serve(side: str, name: str, size: int, batch: int, threads: int) -> None:
    """A process of one side: for each line on stdin it takes a step, and prints the seconds."""
    torch.set_num_threads(threads)
    images, labels = torch.randn(batch, 3, size, size), torch.arange(batch) % NUM_CLASSES
    if side != "naive":
        keep_freed_memory()
    make = {
        "naive": lambda: by_hand(name, images, labels, tuned=False),
        "hand-written": lambda: by_hand(name, images, labels, tuned=True),
        "regraft": lambda: by_regraft(name, images, labels, threads),
    }
    step = make[side]()
    for _ in sys.stdin:
        print(seconds(step), flush=True)


class Side:
    """A process that `serve`s."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, __file__, "--serve", *map(str, words)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> float:
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("a side has no pipes")
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    for name, default in (("size", 160), ("batch", 32), ("rounds", 5), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    most = limit()
    print(f"{platform.machine()}, {threads} threads, batch {options.batch} at {options.size} px")
    print(f"a matrix product in bf16: {most / 1e9:.0f} GFLOP/s")
    for name in options.networks:
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():  # the counter takes the backward pass of grouped convolutions for a dense one
            network(name)(torch.randn(options.batch, 3, options.size, options.size))
        sides = {side: Side(side, name, options.size, options.batch, threads) for side in SIDES}
        for _ in range(2):
            for side in sides.values():
                side.step()
        rounds = [{side: process.step() for side, process in sides.items()} for _ in range(options.rounds)]
        for process in sides.values():
            process.end()
        speed = {side: options.batch / statistics.median(r[side] for r in rounds) for side in sides}
        used = 3 * counter.get_total_flops() * speed["regraft"] / options.batch / most
        over = {side: statistics.median(r[side] / r["regraft"] for r in rounds) for side in sides}
        print(
            f"{name}: "
            + ", ".join(f"{side} {value:.1f} images/s" for side, value in speed.items())
            + f"; regraft is {over['naive']:.2f}x naive, {over['hand-written']:.2f}x hand-written; "
            f"{used:.0%} of the processor's products"
        )


if __name__ == "__main__":
    main()
