"""A network and a set of photos so small that a whole run takes half a second; and ways to end it in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import regraft as rg
from regraft import pipeline
from regraft.run.folder import RunFolder
from regraft.training.loop import gradient_stage

LEVELS = (("bright", 160), ("dark", 90))


class Killed(BaseException):
    """Stands for kill -9: nothing of regraft handles it."""


def few_photos_in(root: Path) -> Path:
    """`root/{train,val}/{bright,dark}`, four noisy pictures each, of 20 pixels."""
    rng = np.random.default_rng(1)
    for folder, level in [(f"{split}/{name}", level) for split in ("train", "val") for name, level in LEVELS]:
        (root / folder).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(level - 60, level + 60, (20, 20, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{number}.png")
    return root


def tiny_network() -> nn.Module:
    """Always with the same weights: a convolution, a batch norm, dropout and a head."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout()]
    return rg.adapt(nn.Sequential(*layers, nn.Linear(4, 5)), classes=("bright", "dark"), image_size=16)


def stages(epochs: int = 2, **settings: Any) -> list[rg.Stage]:
    """The head with AdamW for an epoch; then everything with SGD, in steps of 4 of the 8 images."""
    return [
        rg.Stage("head", train="head", optimizer="adamw", epochs=1, batch_size=4, lr=0.1),
        rg.Stage("all", train="all", optimizer="sgd", epochs=epochs, batch_size=4, lr=0.05, **settings),
    ]


def begin(photos: Path, out: Path, *, plan: list[rg.Stage] | None = None, **settings: Any) -> RunFolder:
    """Train the tiny network."""
    model = tiny_network()
    made = rg.make_plan(model, plan or stages())
    settings = {"monitor": "val_top1", "show": False, **settings}
    return rg.train(model, made, rg.open_data(photos), out=out, **settings)


@contextmanager
def kill_at_step(number: int) -> Iterator[None]:
    """Killed is raised before the step of this number, from 0, of those taken inside."""
    done = 0
    original = gradient_stage.training_step

    def step(*arguments: Any, **options: Any) -> float:
        nonlocal done
        if done == number:
            raise Killed
        done += 1
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_stage, "training_step", step)
        yield


def resumed_through_kills(run: RunFolder) -> RunFolder:
    """Resume a run and kill it at each third step, until one of at most twelve attempts ends."""
    for _ in range(12):
        try:
            with kill_at_step(2):  # an epoch, then its checkpoint
                return pipeline.resume(run, recipe=run.settings(), model=tiny_network(), show=False)
        except Killed:
            continue
    return run
