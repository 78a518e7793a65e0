"""One image file to the pixels that a network sees: open, turn upright, flatten to RGB or take its bands, resize.

Only deterministic code stands here, and the same code serves training, prediction and every export, so that what
predicts is what trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from regraft.data.decode.bands import choose_bands, flatten, named_planes
from regraft.data.decode.deep import read_deep
from regraft.data.decode.image_file import (
    MAX_PIXELS,
    UPRIGHT,
    exif_orientation,
    memory_for,
    opened,
    read_file,
    require_pixels,
    result_or_reason,
    turned,
)
from regraft.data.decode.sniff import FORMATS, RefusedError, known_format
from regraft.data.decode.tiff import is_plain, num_bands, orientation_of, read_planes, read_tags
from regraft.errors import DecodeError, SettingsError

__all__ = ["PixelProgram", "decode", "decode_or_reason", "finish", "resized", "upright_or_reason"]

Pixels = npt.NDArray[np.uint8]
Resize = Literal["squash", "crop", "pad"]
Fill = int | tuple[int, int, int]  # what lies beside an image: of a band, or of an image in colours
Interpolation = Literal["bicubic", "bilinear", "lanczos", "nearest"]

_LONGEST_SIDE = 16_384


@dataclass(frozen=True)
class PixelProgram:
    """How a file becomes uint8 pixels of one size; equal programs give equal pixels.

    Args:
        size: Height and width of the result, in pixels.
        resize: `squash` fits both sides and forgets the aspect ratio; `crop` covers the size and cuts the middle
            out; `pad` fits inside the size and fills the rest with the background.
        interpolation: The filter, always with antialiasing (Pillow widens it by the scale factor).
        background: Red, green, blue under transparent pixels and in the padding.
        crop_fraction: For `crop` only: the part of the covered side that is kept (timm's `crop_pct`).
        stored: Height and width of a first resize, to which the policy applies; the second resize, to `size`,
            then squashes. None resizes once.
        draft: Let the JPEG decoder scale by 1/2, 1/4 or 1/8 where the result stays at least as large as needed.
        bands: The bands that are wanted in place of red, green and blue: by name where the file names them all (R, G,
            B, A; images without transparency are opaque), else all that the file has, in its order.
    """

    size: tuple[int, int]
    resize: Resize = "squash"
    interpolation: Interpolation = "bicubic"
    background: tuple[int, int, int] = (255, 255, 255)
    crop_fraction: float = 1.0
    stored: tuple[int, int] | None = None
    draft: bool = True
    bands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        mistakes = list(_program_mistakes(self))
        if mistakes:
            raise SettingsError(
                "The pixel program cannot be carried out.",
                "sizes are (height, width) in whole pixels, and every other field has one of its documented values",
                "",
                details=mistakes,
            )

    @property
    def num_channels(self) -> int:
        """How many numbers a pixel has."""
        return len(self.bands) or 3

    @property
    def first(self) -> PixelProgram:
        """The program without its second resize: what a cache holds, whatever size is made of it later."""
        return self if self.stored is None else dataclasses.replace(self, size=self.stored, stored=None)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Height, width and channels of the result."""
        return (*self.size, self.num_channels)

    @property
    def beside(self) -> tuple[int, ...]:
        """What lies beside a padded image, for each channel."""
        if not self.bands:
            return self.background
        known = dict(zip("RGB", self.background, strict=True)) | {"A": 255}
        return tuple(known.get(name, sum(self.background) // 3) for name in self.bands)

    def sized(self, size: tuple[int, int]) -> PixelProgram:
        """Return the same program with another final size."""
        return dataclasses.replace(self, size=size)

    def fetch(self, path: str) -> bytes | str:
        """Do what `read_file` does."""
        return read_file(path)

    def read(self, data: bytes) -> Pixels | str:
        """Do what `decode_or_reason` does."""
        return decode_or_reason(data, self)

    def finish(self, pixels: Pixels) -> Pixels:
        """Do what `finish` does."""
        return finish(pixels, self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and text, for JSON; `from_dict` gives an equal program back."""
        fields = dataclasses.asdict(self)
        if not self.bands:
            del fields["bands"]  # programs for images keep the identity that they had before there were others
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PixelProgram:
        """Return the program that `to_dict` wrote.

        Raises:
            SettingsError: For unknown, missing or impossible fields.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown or "size" not in fields:
            raise SettingsError(
                f"A stored pixel program has unknown fields {unknown}." if unknown else "A pixel program has no size.",
                f"it has the fields {sorted(known)}, of which size is required",
                "use the version of regraft that wrote the model folder, or a newer one",
            )
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**values)


Shaped = Callable[[Image.Image, PixelProgram, Fill], Image.Image]


def decode(source: Path | str | bytes, program: PixelProgram) -> Pixels:
    """Return the pixels of one image, as uint8 of shape (height, width, 3), red first, or one channel for each band.

    Animated files give their first frame; colour profiles are not applied.

    Args:
        source: A path, or the bytes of a file.
        program: What to do with the pixels.

    Raises:
        DecodeError: If the file holds no complete image that regraft may read.
    """
    result = decode_or_reason(source, program)
    if not isinstance(result, str):
        return result
    name = "The image" if isinstance(source, bytes) else str(source)
    raise DecodeError(
        f"{name} {result}.",
        f"a complete file in one of the formats {', '.join(FORMATS)}",
        "replace the file, or leave it out",
    )


def decode_or_reason(source: Path | str | bytes, program: PixelProgram) -> Pixels | str:
    """Do what `decode` does, but a file that cannot be read gives the reason as text ("is empty") and raises
    nothing.
    """
    data = source if isinstance(source, bytes) else read_file(source)
    return data if isinstance(data, str) else result_or_reason(data, lambda: _pixels(data, program, resized))


def upright_or_reason(data: bytes, program: PixelProgram) -> Pixels | str:
    """Return the pixels of a file before any resize, (height, width, channels); or the reason why there are none.

    They are those that the program resizes: a JPEG file that is much larger than needed is decoded smaller.
    """
    return result_or_reason(data, lambda: _pixels(data, program, _as_it_is))


def finish(pixels: Pixels, program: PixelProgram) -> Pixels:
    """Return the result of a program from the result of its first resize: `decode` gives the same in one go."""
    if program.stored is None:
        return pixels
    if program.bands:
        planes = [Image.fromarray(pixels[:, :, band]) for band in range(pixels.shape[2])]
        return np.stack([np.asarray(_squash(plane, program.size, program)) for plane in planes], axis=2)
    return np.array(_squash(Image.fromarray(pixels), program.size, program))


def _program_mistakes(program: PixelProgram) -> list[str]:
    mistakes = []
    for name, size in (("size", program.size), ("stored", program.stored)):
        if name == "stored" and size is None:
            continue
        if not _is_whole(size, 2) or not all(1 <= side <= _LONGEST_SIDE for side in size or ()):
            mistakes.append(f"{name} is {size!r}; it is (height, width), each from 1 to {_LONGEST_SIDE}.")
    if program.resize not in get_args(Resize):
        mistakes.append(f"resize is {program.resize!r}; it is one of {', '.join(get_args(Resize))}.")
    if program.interpolation not in get_args(Interpolation):
        names = ", ".join(get_args(Interpolation))
        mistakes.append(f"interpolation is {program.interpolation!r}; it is one of {names}.")
    bands: Any = program.bands
    if not isinstance(bands, tuple) or not all(isinstance(band, str) and band for band in bands):
        mistakes.append(f"bands is {bands!r}; it is a list of names.")
    elif len(set(bands)) < len(bands):
        mistakes.append(f"bands is {bands!r}; each name stands once.")
    if not _is_whole(program.background, 3) or not all(0 <= value <= 255 for value in program.background):
        mistakes.append(f"background is {program.background!r}; it is (red, green, blue), each from 0 to 255.")
    if not isinstance(program.crop_fraction, (int, float)) or not 0.05 <= program.crop_fraction <= 1.0:
        mistakes.append(f"crop_fraction is {program.crop_fraction!r}; it lies between 0.05 and 1.")
    return mistakes


def _is_whole(values: object, length: int) -> bool:
    return isinstance(values, tuple) and len(values) == length and all(type(value) is int for value in values)


def _pixels(data: bytes, program: PixelProgram, shaped: Shaped) -> Pixels:
    if program.bands:
        return _banded(data, program, shaped)
    with opened(data, deep=True) as image:
        require_pixels(*image.size)
        orientation = exif_orientation(image) if image.format in ("JPEG", "MPO") else None
        if program.draft and orientation is not None:
            image.draft(None, _needed(image.size, program, turned=orientation >= 5))
        with memory_for(image.width * image.height):
            return np.array(shaped(_upright(image, orientation, program), program, program.background))


def _banded(data: bytes, program: PixelProgram, shaped: Shaped) -> Pixels:
    """Return uint8 (height, width, bands), each band resized by itself."""
    tags = read_tags(data) if known_format(data[:32]) == "TIFF" else None
    with contextlib.suppress(UnidentifiedImageError), opened(data) as image:
        if tags is None or len(image.getbands()) == num_bands(tags):
            require_pixels(*image.size)
            with memory_for(image.width * image.height):
                image.load()
                return _chosen(named_planes(image, program.bands), exif_orientation(image), program, shaped)
    if tags is None:
        raise UnidentifiedImageError
    pixels = _planes(data, tags)
    names = [f"band{band + 1}" for band in range(pixels.shape[2])]
    names[:3] = "RGB" if tags.get(262) == 2 and len(names) >= 3 else names[:3]
    planes = {name: Image.fromarray(pixels[:, :, band]) for band, name in enumerate(names)}
    return _chosen(planes, orientation_of(tags), program, shaped)


def _planes(data: bytes, tags: dict[int, Any]) -> Pixels:
    """Return the bands of a TIFF: of 8 bits, plain or deflated, here; all others by the plug-in."""
    try:
        return read_planes(data, tags, MAX_PIXELS)
    except RefusedError as refused:
        if is_plain(tags):
            raise
        try:
            return read_deep(data, MAX_PIXELS)
        except RefusedError as deeper:
            raise RefusedError(f"{refused}; it {deeper}") from None


def _chosen(planes: dict[str, Image.Image], orientation: int, program: PixelProgram, shaped: Shaped) -> Pixels:
    """Return the bands that the program wants, upright and resized."""
    chosen = choose_bands(planes, program.bands)
    turn = UPRIGHT.get(orientation)
    upright = chosen if turn is None else [plane.transpose(turn) for plane in chosen]
    planes_shaped = [shaped(plane, program, fill) for fill, plane in zip(program.beside, upright, strict=True)]
    return np.stack([np.asarray(plane) for plane in planes_shaped], axis=2)


def _as_it_is(picture: Image.Image, program: PixelProgram, fill: Fill) -> Image.Image:
    return picture


def _upright(image: Image.Image, orientation: int | None, program: PixelProgram) -> Image.Image:
    image.load()
    # A PNG may hold its EXIF block behind the pixels, and a TIFF turns itself while it loads.
    orientation = orientation or exif_orientation(image)
    return turned(flatten(image, program.background), orientation)


def _needed(size: tuple[int, int], program: PixelProgram, *, turned: bool) -> tuple[int, int]:
    """Return the least (width, height) that the decoder must deliver, in the file's own orientation."""
    height, width = program.stored or program.size
    if turned:
        height, width = width, height
    if program.resize == "squash":
        return width, height
    x_scale, y_scale = width / size[0], height / size[1]
    scale = max(x_scale, y_scale) / program.crop_fraction if program.resize == "crop" else min(x_scale, y_scale)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized(picture: Image.Image, program: PixelProgram, fill: Fill) -> Image.Image:
    """Return an image at the program's size; `fill` is what lies beside it where it is padded."""
    picture = _POLICIES[program.resize](picture, program.stored or program.size, program, fill)
    return picture if program.stored is None else _squash(picture, program.size, program)


def _squash(picture: Image.Image, size: tuple[int, int], program: PixelProgram, fill: Fill = 0) -> Image.Image:
    return _scaled(picture, (size[1], size[0]), program, None)


def _crop(picture: Image.Image, size: tuple[int, int], program: PixelProgram, fill: Fill) -> Image.Image:
    height, width = size
    scale = max(width / picture.width, height / picture.height) / program.crop_fraction
    box_width, box_height = min(width / scale, picture.width), min(height / scale, picture.height)
    left, top = (picture.width - box_width) / 2, (picture.height - box_height) / 2
    return _scaled(picture, (width, height), program, (left, top, left + box_width, top + box_height))


def _pad(picture: Image.Image, size: tuple[int, int], program: PixelProgram, fill: Fill) -> Image.Image:
    height, width = size
    scale = min(width / picture.width, height / picture.height)
    inner = max(1, min(width, round(picture.width * scale))), max(1, min(height, round(picture.height * scale)))
    canvas = Image.new(picture.mode, (width, height), fill)
    canvas.paste(_scaled(picture, inner, program, None), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


_POLICIES = {"squash": _squash, "crop": _crop, "pad": _pad}


def _scaled(
    picture: Image.Image,
    size: tuple[int, int],
    program: PixelProgram,
    box: tuple[float, float, float, float] | None,
) -> Image.Image:
    # Above a factor of four, Pillow first averages whole blocks: several times faster, no visible difference.
    gap = None if program.interpolation == "nearest" else 2.0
    return picture.resize(size, Image.Resampling[program.interpolation.upper()], box=box, reducing_gap=gap)
