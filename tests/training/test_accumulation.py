"""Batches that are added up to one step: processes exchange gradients once, and the sum is the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.compute.program import SplitProgram
from regraft.training.engine import Engine
from regraft.training.loop.step import Update, training_step
from regraft.training.objective.objective import build_objective

NUM_BATCHES = 4


def step(engine: Engine, tail: nn.Module, *, each: bool = False) -> tuple[list[Tensor], float]:
    """Gradients and loss of a step over four batches of this process; `each` exchanges gradients with every batch.

    All numbers are multiples of powers of two, and the loss is linear, so that no sum is rounded in any order.
    """
    stage = rg.Stage("all", accumulate=NUM_BATCHES)
    objective = build_objective(stage, "softmax", None, num_processes=engine.num_processes)
    vars(objective)["loss"] = lambda logits, targets: (logits * targets[:, None]).mean()
    batches = []
    for number in range(NUM_BATCHES):
        images = torch.arange(8.0).view(2, 4) - 3 + number + 2 * engine.rank
        batches.append(((images,), torch.tensor([1.0, -2.0]) + number, 0.25))
    if each:
        engine.accumulating = lambda program: nullcontext()  # type: ignore[method-assign]
    update = Update.of(tail, torch.optim.SGD(tail.parameters(), 0.25), None)
    value = training_step(engine, SplitProgram(None, tail, tail, None), batches, objective, update, str)
    return [parameter.detach().clone() for parameter in tail.parameters()], value


def counted(tail: nn.Module) -> tuple[nn.parallel.DistributedDataParallel, list[int]]:
    """The network as processes share it, and a list that grows with each exchange of a bucket of gradients."""
    exchanged: list[int] = []

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, which are texts here
        exchanged.append(bucket.buffer().numel())
        return allreduce_hook(state, bucket)

    shared = nn.parallel.DistributedDataParallel(tail, broadcast_buffers=False, find_unused_parameters=True)
    shared.register_comm_hook(None, hook)
    return shared, exchanged


def network() -> nn.Module:
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(8.0).view(2, 4) / 8)
        layer.bias.copy_(torch.tensor([0.5, -0.25]))
    return layer


def test_gradients_are_exchanged_once_in_a_step() -> None:
    engine = Engine(choose_numerics("cpu", "fp32", 1))
    alone, loss = step(engine, network())
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        engine.num_processes = 2  # of which this group has one
        for each, exchanges in ((False, 1), (True, NUM_BATCHES)):
            shared, exchanged = counted(network())
            weights, value = step(engine, shared, each=each)
            assert exchanged == [10] * exchanges
            assert value == loss / 2
            assert all(torch.equal(one, two) for one, two in zip(weights, alone, strict=True))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_add_up_the_same_bits() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).parents[2])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": root}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", "from tests.training.test_accumulation import work; work()"],
            env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [worker.communicate(timeout=240)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    first, second = printed
    assert first == second
    (num_once, *once), (num_each, *each) = (line.split(" ", 1) for line in first)
    assert (num_once, num_each) == ("1", str(NUM_BATCHES))
    assert once == each


def work() -> None:
    """Print for both ways the number of exchanges, and the weights and the loss after a step."""
    for each in (False, True):
        engine = Engine(choose_numerics("cpu", "fp32", 1))
        shared, exchanged = counted(network())
        weights, value = step(engine, shared, each=each)
        print(len(exchanged), [weight.tolist() for weight in weights], value)
