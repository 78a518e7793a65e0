"""A folder of images with changed copies of some of them, and how many of the copies were found (for `doctor.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Picture = Image.Image
Change = Callable[[Picture, np.random.Generator], Picture]


def crop(image: Picture, rng: np.random.Generator) -> Picture:
    width, height = (round(side * 0.9**0.5) for side in image.size)
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def write(image: Picture, rng: np.random.Generator) -> Picture:
    image = image.copy()
    place, size = (image.width * 0.1, image.height * 0.8), max(10, image.width // 12)
    ImageDraw.Draw(image).text(place, "www.example.com 2026", fill=(255, 255, 0), font_size=size)
    return image


def shift_colour(image: Picture, rng: np.random.Generator) -> Picture:
    pixels = np.array(image.convert("HSV"))
    pixels[..., 0] += 25
    return ImageEnhance.Brightness(Image.fromarray(pixels, "HSV").convert("RGB")).enhance(1.15)


def add_noise(image: Picture, rng: np.random.Generator) -> Picture:
    pixels = np.asarray(image, dtype=np.float64)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8))


def screenshot(image: Picture, rng: np.random.Generator) -> Picture:
    """The image in the frame of a telephone: a bar with the time above, one with buttons below."""
    width, height = image.size
    frame = Image.new("RGB", (round(width * 1.08), round(height * 1.3)), (250, 250, 250))
    draw = ImageDraw.Draw(frame)
    draw.rectangle((0, 0, frame.width, height * 0.08), fill=(40, 40, 60))
    draw.text((8, 4), "12:01  Photos", fill=(255, 255, 255), font_size=max(8, height // 25))
    draw.rectangle((0, frame.height * 0.95, frame.width, frame.height), fill=(40, 40, 60))
    frame.paste(image, ((frame.width - width) // 2, round(height * 0.14)))
    return frame


CHANGES: dict[str, Change] = {
    "re-encode": lambda image, rng: image,  # at quality 30, below
    "resize": lambda image, rng: image.resize((image.width // 2, round(image.height * 0.55))),
    "crop 10 %": crop,
    "flip": lambda image, rng: ImageOps.mirror(image),
    "rotate 3 degrees": lambda image, rng: image.rotate(
        float(rng.choice((-3, 3))), Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)
    ),
    "text": write,
    "border": lambda image, rng: ImageOps.expand(image, max(image.size) * 7 // 100, (int(rng.integers(256)),) * 3),
    "grey": lambda image, rng: image.convert("L").convert("RGB"),
    "colour shift": shift_colour,
    "blur": lambda image, rng: image.filter(ImageFilter.GaussianBlur(max(image.size) / 160)),
    "noise": add_noise,
    "screenshot": screenshot,
}


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def plant(folder: Path, root: Path, num: int, most: int) -> None:
    """Write `NUMBER-original.jpg` for each image, and `NUMBER-CHANGE.jpg` for the first ones."""
    rng = np.random.default_rng(0)
    paths = images_of(folder)
    for place, at in enumerate(rng.permutation(len(paths))[:most].tolist()):
        image = Image.open(paths[at]).convert("RGB")
        target = root / "images"
        target.mkdir(exist_ok=True)
        (target / f"{place:05}-original.jpg").write_bytes(paths[at].read_bytes())
        for change, make in CHANGES.items() if place < num else ():
            quality = 30 if change == "re-encode" else 92
            make(image, rng).save(target / f"{place:05}-{change}.jpg", quality=quality)


def counted(pairs: list[tuple[str, str]], num: int) -> dict[str, Any]:
    """Return recall by change, and how many pairs join images of different originals."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    false = [pair for pair in pairs if pair[0][:5] != pair[1][:5]]
    for one, two in pairs:
        if one[:5] == two[:5]:
            parent[root(one)] = root(two)
    planted = sorted({name for pair in pairs for name in pair if not name.endswith("original.jpg")})
    numbers = range(num)
    recall = {
        change: float(np.mean([root(f"{at:05}-{change}.jpg") == root(f"{at:05}-original.jpg") for at in numbers]))
        for change in CHANGES
    }
    return {
        "recall": recall,
        "overall": float(np.mean(list(recall.values()))),
        "pairs": len(pairs),
        "false": len(false),
        "in pairs": len(planted),
        "examples": false[:6],
    }
