"""Drawn scenes for segmentation: pictures whose colours say the class of each pixel, and their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.uint8]

NAMES = ("ground", "house", "tree", "river")
COLOURS = np.array([(90, 60, 30), (220, 30, 40), (20, 160, 60), (30, 80, 230)], dtype=np.uint8)


def classes(height: int = 30, width: int = 44, seed: int = 0) -> Array:
    """The class of each pixel, uint8 (height, width): a few rectangles on the ground, all four classes."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.uint8)
    for number in range(1, 4):
        tall, wide = (int(side * rng.uniform(0.25, 0.4)) for side in (height, width))
        top, left = int(rng.integers(0, height - tall)), int((number - 1) * width / 3)
        mask[top : top + tall, left : left + wide] = number
    return mask


def picture(mask: Array) -> Array:
    """The picture of a mask, uint8 (height, width, 3)."""
    return COLOURS[np.minimum(mask, len(COLOURS) - 1)]


def save(path: Path, pixels: Array, palette: npt.NDArray[np.uint8] | None = None, **options: object) -> Path:
    """Write pixels, the suffix chooses the format; a palette makes them a palette picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path, **options)
    return path


def plant_pairs(
    root: Path,
    counts: Mapping[str, int],
    *,
    image: str = "{split}/images/{name}.png",
    mask: str = "{split}/masks/{name}.png",
    table: str | None = "".join(f"{name}\n" for name in NAMES),
    colours: bool = False,
    names: Sequence[str] = (),
) -> Path:
    """Images and masks for each split, under these names; a list of classes beside them."""
    seed = 0
    for split, count in counts.items():
        for number in range(count):
            seed += 1
            name = names[number] if names else f"{split or 'x'}_{number:03}"
            drawn = classes(seed=seed)
            save(root / image.format(split=split, name=name), picture(drawn))
            save(root / mask.format(split=split, name=name), picture(drawn) if colours else drawn)
    if table is not None:
        (root / "classes.txt").write_text(table, encoding="utf-8")
    return root
