"""Generated pictures with masks: coloured shapes on grey, three classes, and a stripe that counts for nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

import regraft as rg

CLASSES = ("ground", "disc", "box")
COLOURS = ((90, 90, 90), (220, 60, 40), (40, 90, 220))
SIZE = (48, 64)
Pixels = npt.NDArray[np.uint8]


def scene(number: int, size: tuple[int, int] = SIZE) -> tuple[Pixels, Pixels]:
    """A picture (H, W, 3) and its mask (H, W) of 0, 1, 2, with the left two columns 255."""
    rng = np.random.default_rng(number)
    height, width = size
    ys, xs = np.mgrid[:height, :width]
    mask = np.zeros(size, np.uint8)
    radius = min(size) // 5
    y, x = rng.integers(radius, height - radius), rng.integers(radius, width - radius)
    mask[(ys - y) ** 2 + (xs - x) ** 2 < radius**2] = 1
    top, left = rng.integers(0, height - 2 * radius), rng.integers(0, width - 2 * radius)
    mask[top : top + radius, left : left + 2 * radius] = 2
    pixels = np.array(COLOURS)[mask] + rng.normal(0, 12, (*size, 3))
    mask[:, :2] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def scenes_in(root: Path, counts: dict[str, int] | None = None, size: tuple[int, int] = SIZE) -> Path:
    """`root/{train,val,test}/{images,masks}` with as many pairs, and `root/classes.txt`."""
    number = 0
    for split, count in (counts or {"train": 8, "val": 4, "test": 4}).items():
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            pixels, mask = scene(number, size)
            Image.fromarray(pixels).save(root / split / "images" / f"{number:03}.png")
            picture = Image.fromarray(mask)
            picture.save(root / split / "masks" / f"{number:03}.png")
            number += 1
    return root


def void_scenes_in(root: Path) -> Path:
    """Ten pictures to train on and two to validate; in every second mask most is void, in one of them everything."""
    scenes_in(root, {"train": 10, "val": 2}, size=(32, 32))
    for number, path in enumerate(sorted((root / "train" / "masks").iterdir())):
        if number % 2:
            with Image.open(path) as picture:
                mask = np.array(picture)
            mask[4 if number > 1 else 0 :] = 255
            Image.fromarray(mask).save(path)
    return root


def small_unet(**settings: object) -> nn.Module:
    """A U-Net on timm's smallest ResNet, with random weights."""
    return rg.build_model("unet", weights="none", encoder="test_resnet", depth=3, filters=[16, 8], **settings)
