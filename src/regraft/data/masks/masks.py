"""One mask file to the class of each pixel, without loss: numbers, palette indices or colours by a class table."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.data.class_table import IGNORED, UNKNOWN, ClassTable, Coding
from regraft.data.decode.decode import PixelProgram, resized
from regraft.data.decode.image_file import exif_orientation, opened_or_reason, read_file, turned
from regraft.data.decode.sniff import RefusedError
from regraft.data.masks.coco import coco_codes, fetch_annotations, is_annotated
from regraft.errors import DecodeError

__all__ = ["MaskProgram", "codes_or_reason", "fetch_mask", "mask_or_reason", "read_mask"]

Mask = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.integer]

_FEW = 8  # values that a reason lists
_LOSSY = ("JPEG", "MPO", "AVIF")
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF 6.0 section 8


@dataclass(frozen=True)
class MaskProgram:
    """How a mask file becomes one row: each pixel's class, moved as the image is, always by the nearest pixel.

    Args:
        pixels: The program of the images. Padding is ignored (255).
        table: What stands for which class.
    """

    pixels: PixelProgram
    table: ClassTable

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.pixels.size

    @property
    def stored(self) -> tuple[int, int] | None:
        """Height and width of a first resize; None where there is one resize."""
        return self.pixels.stored

    @property
    def first(self) -> MaskProgram:
        """The program without its second resize."""
        return self if self.stored is None else dataclasses.replace(self, pixels=self.pixels.first)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Height and width of the result."""
        return self.size

    def sized(self, size: tuple[int, int]) -> MaskProgram:
        """Return the same program with another final size."""
        return dataclasses.replace(self, pixels=self.pixels.sized(size))

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides about a row beside the file's contents; names and colours of classes do not."""
        pixels = self.pixels.to_dict()
        kept = {name: pixels[name] for name in ("size", "resize", "crop_fraction", "stored")}
        return {"mask": kept, **{name: self.table.to_dict()[name] for name in ("coding", "codes")}}

    def fetch(self, path: str) -> bytes | str:
        """Do what `fetch_mask` does."""
        return fetch_mask(path)

    def read(self, data: bytes) -> Mask | str:
        """Return the mask at the program's size, uint8 (height, width), or the reason as text why there is none."""
        mask = _mask_or_reason(data, self.table)
        return mask if isinstance(mask, str) else np.array(resized(Image.fromarray(mask), self._nearest, IGNORED))

    def finish(self, pixels: Mask) -> Mask:
        """Return the result of the program from that of its first resize."""
        if self.stored is None:
            return pixels
        return np.array(Image.fromarray(pixels).resize((self.size[1], self.size[0]), Image.Resampling.NEAREST))

    @property
    def _nearest(self) -> PixelProgram:
        return dataclasses.replace(self.pixels, interpolation="nearest")


def fetch_mask(path: str) -> bytes | str:
    """Return the contents that a mask is made of, a file's or the annotations of an image; or why there are none."""
    found = fetch_annotations(path)
    return read_file(path) if found is None else found


def read_mask(path: str | os.PathLike[str], table: ClassTable) -> Mask:
    """Return the class of each pixel of a mask at its own size, uint8 (H, W): a position in `table.names`, or 255 for
    none.

    Args:
        path: The mask, as `Split.masks` names it.
        table: What stands for which class.

    Raises:
        DecodeError: The file is no mask of these classes.
    """
    mask = mask_or_reason(os.fspath(path), table)
    if not isinstance(mask, str):
        return mask
    raise DecodeError(
        f"The mask {str(Path(path))!r} {mask}.",
        "a mask holds a value or a colour of the class table in each pixel",
        "correct the mask or the class table (data.class_table, data.ignore), or leave the image out",
    )


def mask_or_reason(path: str, table: ClassTable) -> Mask | str:
    """Do what `read_mask` does, but what is no mask gives the reason as text and raises nothing."""
    data = fetch_mask(path)
    return data if isinstance(data, str) else _mask_or_reason(data, table)


def codes_or_reason(data: bytes, coding: Coding | None = None) -> tuple[Coding, Codes] | str:
    """Return the coding of a mask file, and the number or packed colour of each pixel (H, W); or the reason as text.

    Args:
        data: The bytes of the file.
        coding: What is expected; None takes what the file is: colours where it holds any, else numbers.
    """
    if is_annotated(data):
        drawn = coco_codes(data)
        return drawn if isinstance(drawn, str) else ("index", drawn)
    if data[:4] == b"RIFF" and data[12:16] == b"VP8 ":
        return _lossy("WebP")
    return opened_or_reason(data, lambda image: _codes(image, coding, _grey_bits(data)))


def _codes(image: Image.Image, coding: Coding | None, grey_bits: int) -> tuple[Coding, Codes]:
    """Return the coding and the pixels of an opened mask, turned upright by its own EXIF orientation."""
    if image.format in _LOSSY:
        raise RefusedError(_lossy(str(image.format)))
    image.load()
    _require_opaque(image)
    if image.mode in ("LA", "RGBA"):
        image = turned(image.convert(image.mode[:-1]), exif_orientation(image))
    else:
        image = turned(image, exif_orientation(image))
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        return _of_one_channel(image, coding, grey_bits)
    if image.mode != "RGB":
        raise RefusedError(f"holds pixels of the kind {image.mode}, which name no class; save it as PNG")
    channels = np.asarray(image)
    grey = bool((channels[..., 0] == channels[..., 1]).all() and (channels[..., 0] == channels[..., 2]).all())
    if coding == "index" or (coding is None and grey):
        if not grey:
            raise RefusedError("holds colours, and the class table has numbers only")
        return "index", channels[..., 0]
    return "colour", _packed(channels)


def _lossy(kind: str) -> str:
    return f"is a {kind} file, whose compression changes the values at every border of two classes; save it as PNG"


def _require_opaque(image: Image.Image) -> None:
    if image.mode in ("LA", "RGBA", "PA") and image.getchannel("A").getextrema() != (255, 255):
        raise RefusedError("has transparent pixels, which name no class")


def _of_one_channel(image: Image.Image, coding: Coding | None, grey_bits: int) -> tuple[Coding, Codes]:
    if coding == "colour":
        if image.mode.startswith("I"):
            raise RefusedError("holds numbers of 16 bits, and the class table has colours")
        return "colour", _packed(np.asarray(image.convert("RGB")))
    values = np.asarray(image)
    if image.mode == "1":
        return "index", values.astype(np.uint8)
    if image.mode.startswith("I"):
        if values.min() < 0 or values.max() > 65535:
            raise RefusedError(f"holds values from {values.min()} to {values.max()}; a class is from 0 to 65535")
        return "index", values.astype(np.uint16)
    if image.mode == "L":
        _require_plain_grey(image)
        # Pillow stretches the numbers of 2 and 4 bits to the range of 8.
        return "index", values // (255 // (2**grey_bits - 1)) if grey_bits in (2, 4) else values
    return "index", values


def _require_plain_grey(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0 or int(np.max(tags.get(_BITS_PER_SAMPLE, 8))) not in (1, 8):
        raise RefusedError("is a TIFF file whose numbers are stretched or turned round; save it as PNG")


def _grey_bits(data: bytes) -> int:
    """Return bits in a pixel of a grey PNG file, from its first chunk (ISO/IEC 15948, 11.2.2); 8 for all others."""
    is_grey_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[25:26] == b"\0"
    return data[24] if is_grey_png else 8


def _packed(channels: Mask) -> Codes:
    wide = channels.astype(np.uint32)
    packed: Codes = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


def _mask_or_reason(data: bytes, table: ClassTable) -> Mask | str:
    found = codes_or_reason(data, table.coding)
    if isinstance(found, str):
        return found
    mask = table.positions(found[1])
    strange = mask == UNKNOWN
    return _strange(found[1][strange], table) if strange.any() else mask


def _strange(codes: Codes, table: ClassTable) -> str:
    values, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_FEW]
    kind = "value" if table.coding == "index" else "colour"
    many = f" and {len(values) - _FEW} more {kind}s" if len(values) > _FEW else ""
    listed = ", ".join(table.describe(int(code)) for code in sorted(values[order].tolist()))
    plural = "s" if len(values) > 1 else ""
    return f"holds the {kind}{plural} {listed}{many}, which the class table does not have ({counts.sum():,} pixels)"
