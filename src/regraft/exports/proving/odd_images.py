"""Image files of every odd kind, to be read by both of two ways: a function of a seed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["NUM_KINDS", "odd_images"]

Pixels = npt.NDArray[np.uint8]
_LONG, _SHORT = 1200, 320
_LARGE = 4000
_ORIENTATION = 0x0112


def odd_images(num: int, contents: Sequence[Pixels], *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the kind and the bytes of so many image files, all kinds in turn.

    Args:
        num: How many.
        contents: What they show, uint8 (h, w, 3): parts of these, mixed, in changed colours.
        seed: The same files for the same seed.
    """
    kinds = list(_KINDS.items())
    for place in range(num):
        name, make = kinds[place % len(kinds)]
        rng = np.random.default_rng([seed, place])
        yield name, make(rng, contents)


def _drawn(rng: np.random.Generator, contents: Sequence[Pixels], size: tuple[int, int] | None = None) -> Image.Image:
    """Return an image of some size: part of one content, or of two, in changed colours, with some noise."""
    height, width = size or (int(side) for side in rng.integers(24, _SHORT, 2))
    parts = []
    for content in (contents[int(place)] for place in rng.integers(0, len(contents), 2)):
        tall, wide = (max(1, int(side * rng.uniform(0.5, 1))) for side in content.shape[:2])
        top, left = (
            int(rng.integers(0, side - part + 1)) for side, part in zip(content.shape, (tall, wide), strict=False)
        )
        part = Image.fromarray(np.ascontiguousarray(content[top : top + tall, left : left + wide]))
        parts.append(np.asarray(part.resize((width, height), Image.Resampling.BILINEAR), np.float32))
    share = rng.choice([0.0, 0.0, rng.uniform(0, 0.5)])
    mixed = (1 - share) * parts[0] + share * parts[1]
    mixed = mixed * rng.uniform(0.7, 1.3, 3) + rng.uniform(-20, 20, 3)
    mixed += rng.normal(0, rng.choice([0, 2, 12]), (height, width, 1))
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _plain(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    return _file(_drawn(rng, contents), str(rng.choice(["PNG", "BMP", "TIFF", "WEBP", "GIF"])))


def _jpeg(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    return _file(_drawn(rng, contents), "JPEG", quality=int(rng.integers(30, 96)), progressive=bool(rng.integers(2)))


def _exif(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = int(rng.integers(1, 9))
    return _file(_drawn(rng, contents), str(rng.choice(["JPEG", "PNG", "WEBP"])), exif=exif)


def _deep(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    grey = np.asarray(_drawn(rng, contents).convert("L")).astype(np.uint16)
    deep = grey << 8 | rng.integers(0, 256, grey.shape, dtype=np.uint16)
    return _file(Image.fromarray(deep), str(rng.choice(["PNG", "TIFF"])))


def _floating(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    grey = np.asarray(_drawn(rng, contents).convert("L"), np.float32) / np.float32(255)
    return _file(Image.fromarray(grey), "TIFF")


def _inks(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    return _file(_drawn(rng, contents).convert("CMYK"), str(rng.choice(["JPEG", "TIFF"])))


def _palette(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    image = _drawn(rng, contents).convert("P", palette=Image.Palette.ADAPTIVE, colors=int(rng.integers(2, 257)))
    clear = {"transparency": int(rng.integers(0, 2))} if rng.integers(2) else {}
    return _file(image, str(rng.choice(["PNG", "GIF"])), **clear)


def _grey(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    return _file(_drawn(rng, contents).convert(str(rng.choice(["L", "LA", "1"]))), "PNG")


def _clear(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    image = _drawn(rng, contents)
    image.putalpha(_drawn(rng, contents, (image.height, image.width)).convert("L"))
    return _file(image, str(rng.choice(["PNG", "WEBP", "TIFF"])))


def _long(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    side = int(rng.integers(24, _LONG // 8))
    size = (side * 8, side) if rng.integers(2) else (side, side * 8)
    return _file(_drawn(rng, contents, size), str(rng.choice(["JPEG", "PNG"])))


def _tiny(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    height, width = (int(side) for side in rng.choice([1, 1, 2, 7], 2))
    return _file(_drawn(rng, contents, (height, width)), "PNG")


def _large(rng: np.random.Generator, contents: Sequence[Pixels]) -> bytes:
    if rng.integers(4):  # of four large images one is very large
        size = (int(rng.integers(500, _LONG)), int(rng.integers(500, _LONG)))
    else:
        size = (_LARGE, int(rng.integers(500, 3000))) if rng.integers(2) else (int(rng.integers(500, 3000)), _LARGE)
    return _file(_drawn(rng, contents, size), str(rng.choice(["JPEG", "PNG"])), quality=80, compress_level=1)


_KINDS: dict[str, Callable[[np.random.Generator, Sequence[Pixels]], bytes]] = {
    "plain": _plain,
    "JPEG": _jpeg,
    "turned by EXIF": _exif,
    "16-bit": _deep,
    "floating-point": _floating,
    "CMYK": _inks,
    "palette": _palette,
    "grey": _grey,
    "transparent": _clear,
    "1:8": _long,
    "1 pixel": _tiny,
    "large": _large,
}
NUM_KINDS = len(_KINDS)
