"""A small data set of photos and a small plan, on which whole runs take seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import regraft as rg


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark noise: root/{train,val}/{bright,dark}/*.png, 10 and 6 images a class."""
    root = tmp_path_factory.mktemp("photos")
    for split, num in (("train", 10), ("val", 6)):
        for index, (name, level) in enumerate((("bright", 150), ("dark", 100))):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(num):
                noise = np.random.default_rng([index, number, len(split)]).integers(0, 106, (40, 48, 3))
                Image.fromarray((noise + level - 50).astype(np.uint8)).save(folder / f"{number}.png")
    return root


def small_model(classes: tuple[str, ...], head: rg.Head | None = None) -> nn.Module:
    """timm's `test_efficientnet` with random weights, for 32-pixel images."""
    return rg.adapt(rg.build_model("test_efficientnet", seed=3), classes=classes, image_size=32, head=head)


def two_stages(**settings: object) -> list[rg.Stage]:
    """A head stage with dropout's randomness, then an augmented one: all that resume has to get right."""
    augment = rg.Augment(flip="horizontal", rotation=15, zoom=0.2)
    common = {"optimizer": "adamw", "epochs": 2, "lr": 1e-2, "batch_size": 8, **settings}
    return [
        rg.Stage("head", train="head", **common),  # type: ignore[arg-type]
        rg.Stage("top", train=["stage:-1", "head"], augment=augment, schedule="cosine", **common),  # type: ignore[arg-type]
    ]
