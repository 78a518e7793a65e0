"""What exchanging gradients costs a step of ResNet50 on 2 to 1,024 workers: a simulation from a measured step.

    uv run python benchmarks/communication.py [--images-per-second 33.4] [--batch 32] [--size 160] [--gbit 1 10 100]

Gradients are added up as torch's DistributedDataParallel does it: in buckets (the first of 1 MiB, others of 25 MiB), in
the reverse order of the layers, each as soon as its gradients are there, beside the rest of the backward pass. A bucket
passes through a ring of n workers: each sends and receives 2 (n - 1) / n of its bytes, in 2 (n - 1) messages. The links
are full duplex, alike, and used by nothing else; workers are equally fast.

- *measured*: images per second of a whole training step of one worker, by `training_step.py` (the default is the row of
  benchmarks/README.md). A third of it is the forward pass, two thirds the backward pass, which takes for each layer
  what its products are of all.
- *stated*: Gbit/s of the links, and the microseconds of a message.

Four batches are added up to a step. *each* exchanges gradients with every batch, *last* with the last one alone, as
regraft does. Given are the bytes that a worker sends, the time of a step, and the share of it that is spent computing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch

from regraft.models.describe.trace import trace

WORKERS = (2, 4, 8, 16, 64, 256, 1024)
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20


@dataclass(frozen=True)
class Bucket:
    """Gradients that are exchanged together: their bytes, and after which share of the backward pass they are there."""

    num_bytes: int
    ready: float


@dataclass(frozen=True)
class Link:
    """A link between neighbours in the ring: bytes in a second, and the seconds of a message."""

    speed: float
    latency: float

    def sent(self, num_bytes: int, workers: int) -> float:
        """Return the bytes that each worker sends to add up a bucket."""
        return 2 * (workers - 1) / workers * num_bytes

    def seconds(self, num_bytes: int, workers: int) -> float:
        """Return how long the ring takes for a bucket."""
        return self.sent(num_bytes, workers) / self.speed + 2 * (workers - 1) * self.latency


@dataclass(frozen=True)
class Pace:
    """The seconds of one batch on one worker."""

    forward: float
    backward: float


def buckets_of(tensors: Sequence[tuple[int, float]]) -> list[Bucket]:
    """Return the buckets of parameters given by bytes and products, in the order of the layers."""
    whole = sum(products for _, products in tensors) or 1.0
    made: list[Bucket] = []
    num_bytes, done, most = 0, 0.0, FIRST_BUCKET
    for own, products in reversed(tensors):
        num_bytes, done = num_bytes + own, done + products
        if num_bytes >= most:
            made.append(Bucket(num_bytes, done / whole))
            num_bytes, most = 0, BUCKET
    return [*made, Bucket(num_bytes, 1.0)] if num_bytes else made


def exchanged_batch(buckets: Sequence[Bucket], pace: Pace, link: Link, workers: int) -> float:
    """Return the seconds of a batch whose gradients are exchanged beside its backward pass."""
    free = 0.0
    for bucket in buckets:
        free = max(free, pace.forward + bucket.ready * pace.backward) + link.seconds(bucket.num_bytes, workers)
    return max(free, pace.forward + pace.backward)


def parameters(size: int) -> list[tuple[int, float]]:
    """Return for each parameter of ResNet50 its gradient's bytes, and the products of its layer that fall to it."""
    with torch.device("meta"):
        model = timm.create_model("resnet50").eval()
    calls = trace(model, size)
    found = []
    for name, tensor in model.named_parameters():
        shape = calls[name.rpartition(".")[0]].shape or ()
        positions = shape[1] * shape[2] if tensor.ndim == 4 and len(shape) == 3 else 1
        found.append((tensor.numel() * 4, float(tensor.numel() * positions) if tensor.ndim > 1 else 0.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images-per-second", type=float, default=33.4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--gbit", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--microseconds", type=float, default=20)
    arguments = parser.parse_args()
    whole = arguments.batch / arguments.images_per_second
    pace, times = Pace(whole / 3, whole * 2 / 3), arguments.accumulate
    buckets = buckets_of(parameters(arguments.size))
    total = sum(bucket.num_bytes for bucket in buckets)
    print(
        f"{total / 1e6:.1f} MB of gradients in {len(buckets)} buckets; a batch takes {whole:.3f} s; {times} in a step"
    )
    print("| link | workers | sent each, last | step each | step last | computing each | computing last |")
    print("|---|---|---|---|---|---|---|")
    for gbit in arguments.gbit:
        link = Link(gbit * 1e9 / 8, arguments.microseconds / 1e6)
        for workers in WORKERS:
            sent = sum(link.sent(bucket.num_bytes, workers) for bucket in buckets) / 1e6
            batch = exchanged_batch(buckets, pace, link, workers)
            each, last = times * batch, (times - 1) * whole + batch
            shares = f"{times * whole / each:.0%} | {times * whole / last:.0%}"
            size = f"{times * sent:,.0f} MB, {sent:,.0f} MB"
            print(f"| {gbit:g} Gbit/s | {workers:,} | {size} | {each:.2f} s | {last:.2f} s | {shares} |")


if __name__ == "__main__":
    main()
