"""`--numerics measure`: which precision and layout a training step of this network is fastest in, on this machine.

Another choice than the table's is taken only where it is more than 10 % faster, so that noise changes nothing, and it
is kept for the machine, so that the next run takes the same.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft import commit
from regraft.compute.numerics import Numerics, Precision
from regraft.errors import RegraftError
from regraft.machine.cache_folder import cache_folder, private_folder
from regraft.machine.processes import num_processes
from regraft.models.describe.info import info_of
from regraft.training.checkpoint.records import environment
from regraft.training.engine import Engine
from regraft.wording import quantity

__all__ = ["choose_fastest", "measured_numerics", "step_seconds"]

_MARGIN = 1.1
_SECONDS = 4.0
_ROUNDS = 5
_MOST_IMAGES = 16
Choice = tuple[Precision, bool]


def measured_numerics(
    model: nn.Module,
    numerics: Numerics,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    precision: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Numerics:
    """Return the numerics with the precision and layout that are fastest here, measured once for each machine and
    network.

    Args:
        model: The network; it is not changed.
        numerics: What the table says.
        image_size: Height and width.
        batch_size: Images in a step; no more than 16 are timed.
        precision: `auto`, or the only one to consider.
        say: Called with a line that tells the times.
    """
    if num_processes() > 1:
        say("numerics: several processes take what the table says; nothing is measured")
        return numerics
    key = _key(model, numerics, image_size, precision)
    known = _read().get(key)
    if known is not None:
        say(f"numerics: {_named(known)}, as measured before on this machine")
        return replace(numerics, precision=known[0], channels_last=known[1])
    num_images = min(batch_size, _MOST_IMAGES)
    seconds = step_seconds(model, numerics, choices(numerics, precision), image_size, num_images)
    chosen = choose_fastest(seconds, (numerics.precision, numerics.channels_last))
    times = ", ".join(f"{_named(choice)} {num_images / took:.0f}" for choice, took in seconds.items())
    say(f"numerics: {_named(chosen)} (images/s of a training step: {times})")
    with contextlib.suppress(RegraftError):  # a machine without such a folder measures again
        commit.write_json(private_folder(cache_folder() / "numerics") / "measured.json", {**_read(), key: list(chosen)})
    return replace(numerics, precision=chosen[0], channels_last=chosen[1])


def choices(numerics: Numerics, precision: str = "auto") -> list[Choice]:
    """Return the choices of precision and memory format, the table's first; fp16 on CUDA alone."""
    precisions: list[Precision] = ["bf16", "fp32"]
    if torch.device(numerics.device).type == "cuda":
        precisions.append("fp16")
    wanted = [name for name in precisions if precision in ("auto", name)]
    first = (numerics.precision, numerics.channels_last)
    return list(dict.fromkeys([first, *product(wanted, (True, False))]))


def choose_fastest(seconds: dict[Choice, float], usual: Choice) -> Choice:
    """Return the fastest choice where it is more than 10 % faster than the default one, else the default one."""
    best = min(seconds, key=lambda choice: seconds[choice])
    return best if seconds[usual] > _MARGIN * seconds[best] else usual


def step_seconds(
    model: nn.Module,
    numerics: Numerics,
    among: Sequence[Choice],
    image_size: tuple[int, int],
    num_images: int,
) -> dict[Choice, float]:
    """Return seconds of a forward and backward pass in each choice, in turn, for a few seconds; the least of each."""
    steps = {choice: _step(model, numerics, choice, image_size, num_images) for choice in among}
    best: dict[Choice, float] = {}
    with torch.random.fork_rng(devices=[]):
        for step in steps.values():
            step()
        began = time.perf_counter()
        for _ in range(_ROUNDS):
            for choice, step in steps.items():
                start = time.perf_counter()
                step()
                took = time.perf_counter() - start
                best[choice] = min(took, best.get(choice, took))
            if time.perf_counter() - began > _SECONDS:
                break
    return best


def _step(
    model: nn.Module, numerics: Numerics, choice: Choice, image_size: tuple[int, int], num_images: int
) -> Callable[[], None]:
    engine = Engine(replace(numerics, precision=choice[0], channels_last=choice[1]))
    own = engine.place(copy.deepcopy(model)).train().requires_grad_(True)
    preprocessing = info_of(model).preprocessing
    channels = 3 if preprocessing is None else preprocessing.num_channels
    images = torch.randn(num_images, channels, *image_size, device=engine.device)
    images = images.contiguous(memory_format=engine.numerics.memory_format)

    def step() -> None:
        own.zero_grad(set_to_none=True)
        with engine.autocast():
            logits = own(images)
        logits.float().square().mean().backward()
        if engine.device.type == "cuda":
            torch.cuda.synchronize(engine.device)

    return step


def _named(choice: Choice | Sequence[Any]) -> str:
    return f"{choice[0]} {'channels-last' if choice[1] else 'contiguous'}"


def _key(model: nn.Module, numerics: Numerics, image_size: tuple[int, int], precision: str) -> str:
    facts = environment()
    machine = facts.get("gpu") if numerics.device.startswith("cuda") else facts["processor"]
    network = f"{info_of(model).architecture} {image_size[0]}x{image_size[1]}"
    return f"{machine} | {quantity(numerics.threads, 'thread')} | torch {facts['torch']} | {network} | {precision}"


def _read() -> dict[str, Choice]:
    """Return the stored benchmark results of this machine; unreadable ones count as not measured."""
    try:
        path: Path = cache_folder() / "numerics" / "measured.json"
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, RegraftError):
        return {}
    return {key: (value[0], value[1]) for key, value in values.items() if _is_choice(value)} if _is_map(values) else {}


def _is_map(values: Any) -> bool:
    return isinstance(values, dict)


def _is_choice(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and value[0] in ("fp32", "bf16", "fp16")
        and isinstance(value[1], bool)
    )
