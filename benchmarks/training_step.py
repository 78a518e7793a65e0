"""One step of full fine-tuning on a CPU: regraft's step against hand-written torch loops, alternating in the same run.

    uv run python benchmarks/training_step.py [--size 160] [--batch 32] [--rounds 5] [--threads 0] [NETWORK ...]

All sides hold the same network with the same batch in memory, train everything with SGD and momentum, and take batch
statistics. `naive` is fp32 with torch's default layout; `hand-written` is bf16 autocast with channels-last, the best
that plain torch gives here. The last column says how far the step is from the processor: the share of its products per
second that a large bf16 matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import regraft as rg
from regraft.models.numerics import choose_numerics, keep_freed_memory
from regraft.models.program import split_program
from regraft.plan.freeze import freeze
from regraft.train.engine import Engine
from regraft.train.losses import build_loss
from regraft.train.optim import build_optimizer
from regraft.train.step import training_step

NETWORKS = ["resnet50", "tf_efficientnet_lite0"]
NUM_CLASSES = 10


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
    parameters, loss = list(model.parameters()), build_loss("softmax")
    images = images.contiguous(memory_format=torch.channels_last)
    model.train()

    def step() -> None:
        training_step(
            engine,
            program,
            [((images,), labels, 1.0)],
            loss=loss,
            parameters=parameters,
            clip_norm=None,
            optimizer=optimizer,
            where=str,
        )

    return step


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def limit() -> float:
    """bf16 products and sums per second of a large matrix product."""
    left, right = (torch.randn(4096, 4096).bfloat16() for _ in range(2))
    return 2 * 4096**3 / min(seconds(lambda: left @ right) for _ in range(5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    for name, default in (("size", 160), ("batch", 32), ("rounds", 5), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    keep_freed_memory()
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    images = torch.randn(options.batch, 3, options.size, options.size)
    labels = torch.arange(options.batch) % NUM_CLASSES
    most = limit()
    print(f"{platform.machine()}, {threads} threads, batch {options.batch} at {options.size} px")
    print(f"a matrix product in bf16: {most / 1e9:.0f} GFLOP/s")
    for name in options.networks:
        sides = {
            "naive": by_hand(name, images, labels, tuned=False),
            "hand-written": by_hand(name, images, labels, tuned=True),
            "regraft": by_regraft(name, images, labels, threads),
        }
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():  # the counter takes the backward pass of grouped convolutions for a dense one
            network(name)(images)
        for step in sides.values():
            step()
        rounds = [{side: seconds(step) for side, step in sides.items()} for _ in range(options.rounds)]
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
