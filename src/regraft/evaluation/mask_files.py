"""Masks as files: PNG with a palette, whose numbers are class positions; and images with the colours over them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from regraft import commit
from regraft.data.decode.decode import PixelProgram, decode
from regraft.data.files import access
from regraft.data.sources.masks.not_inputs import OWN_COMMENT
from regraft.errors import StorageError

__all__ = ["MaskFolder", "OutputNames", "mask_png", "overlay_jpeg"]

Mask = npt.NDArray[np.uint8]
_OPAQUE = 0.5  # of the colours over the image
_QUALITY = 90


def mask_png(mask: Mask, palette: Mask) -> bytes:
    """Return the mask (H, W) as a PNG file of palette indices; every reader gives the same numbers back.

    Args:
        mask: Class positions.
        palette: Red, green, blue of each, uint8 (256, 3).
    """
    image = Image.fromarray(mask).convert("P")
    image.putpalette(palette.tobytes())
    return _encoded(image, "PNG")


def overlay_jpeg(path: str | Path, mask: Mask, palette: Mask) -> bytes:
    """Return the image of a file with the mask's colours over it, half of each, as a JPEG file of the mask's size.

    Raises:
        DecodeError: The image cannot be read any more.
    """
    height, width = mask.shape
    pixels = decode(path, PixelProgram((height, width), draft=False))
    blended = pixels * (1 - _OPAQUE) + palette[mask] * _OPAQUE
    return _encoded(Image.fromarray(blended.round().astype(np.uint8)), "JPEG")


class OutputNames:
    """Names of files that are made from images: the image's own without its ending, a number behind it for namesakes.

    Args:
        inputs: Where the images lie: places below it are kept. None for images from anywhere.
    """

    def __init__(self, inputs: Path | None) -> None:
        self.inputs = inputs
        self._names: set[str] = set()

    def name(self, path: str) -> str:
        """Return a name that no image before had."""
        place = Path(path)
        inside = self.inputs is not None and access.is_folder(self.inputs) and place.is_relative_to(self.inputs)
        stem = str(place.relative_to(self.inputs).with_suffix("")) if inside and self.inputs else place.stem
        name, number = stem, 2
        while name in self._names:
            name, number = f"{stem}-{number}", number + 1
        self._names.add(name)
        return name


class MaskFolder:
    """A folder that masks are written to, each under the name of its image.

    Args:
        root: The folder.
        inputs: Where the images lie: places below it are kept. None for images from anywhere.
        palette: Of the masks.
        overlay: Whether images with the colours over them are written too.
    """

    def __init__(self, root: Path, inputs: Path | None, palette: Mask, *, overlay: bool = False) -> None:
        self.root, self.inputs, self.palette, self.overlay = root, inputs, palette, overlay
        self._names = OutputNames(inputs)

    def require_new(self, paths: Sequence[str]) -> None:
        """Raise StorageError where the mask of one of these images would overwrite a file."""
        names = OutputNames(self.inputs)
        files = [self.root / f"{name}{end}" for name in map(names.name, paths) for end in self._ends]
        taken = [file for file in files if os.path.lexists(file)]
        if taken:
            raise StorageError(
                f"{len(taken)} of the files to be written are there already, the first is {str(taken[0])!r}.",
                "nothing is overwritten",
                "give a new folder with --out, or leave it out for the next free one below predictions/",
            )

    @property
    def _ends(self) -> tuple[str, ...]:
        return (".png", "-overlay.jpg") if self.overlay else (".png",)

    def write(self, path: str, mask: Mask) -> Path:
        """Write the mask of an image; returns where.

        Raises:
            StorageError: The disk is full or read-only, or there is a file of that name.
        """
        name = self._names.name(path)
        target = self.root / f"{name}.png"
        commit.write_new(target, mask_png(mask, self.palette))
        if self.overlay:
            commit.write_new(self.root / f"{name}-overlay.jpg", overlay_jpeg(path, mask, self.palette))
        return target


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "JPEG":
        image.save(stream, kind, quality=_QUALITY, comment=OWN_COMMENT)
    else:
        note = PngInfo()
        note.add_text("Comment", OWN_COMMENT)
        image.save(stream, kind, optimize=True, pnginfo=note)
    return stream.getvalue()
