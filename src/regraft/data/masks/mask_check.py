"""Whether a mask lies on its image: the same height and width, once both are turned upright."""

from __future__ import annotations

import os
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from regraft.data.decode.image_file import exif_orientation, read_file
from regraft.data.decode.sniff import FORMATS, known_format
from regraft.data.decode.tiff import orientation_of, read_tags
from regraft.data.files import access
from regraft.data.masks.coco import coco_size, fetch_annotations

__all__ = ["Misfit", "misfit", "upright_size"]

Header = tuple[tuple[int, int], int]  # width and height, EXIF orientation

_TAIL = 1 << 16  # bytes at the end of a PNG file in which its EXIF block is looked for
_WIDTH, _HEIGHT = 256, 257  # TIFF 6.0 section 8
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


@dataclass(frozen=True)
class Misfit:
    """What is wrong with a pair; the reason is empty where the mask may have been drawn either way."""

    reason: str


def misfit(image: str, mask: str) -> Misfit | None:
    """Return the mismatch in size or orientation between a readable image and its mask; None where they fit.

    Only headers are read.
    """
    of_image, of_mask = _header(image), _mask_header(mask)
    if of_image is None or of_mask is None:
        return None
    size, tag = of_image
    mask_size, mask_tag = of_mask
    upright, mask_upright = _upright(size, tag), _upright(mask_size, mask_tag)
    is_turned = tag != 1 and mask_tag == 1
    if upright == mask_upright:
        same_either_way = size == mask_size and (tag not in _QUARTER_TURNS or size[0] == size[1])
        return Misfit("") if is_turned and same_either_way else None
    shown = f"its mask has {mask_upright[0]} x {mask_upright[1]} pixels"
    if is_turned and size == mask_size:
        return Misfit(
            f"is turned by its EXIF tag ({upright[0]} x {upright[1]} pixels upright) and its mask is not "
            f"({mask_upright[0]} x {mask_upright[1]}); rotate the image itself, or its mask"
        )
    return Misfit(f"has {upright[0]} x {upright[1]} pixels, and {shown}")


def upright_size(path: str) -> tuple[int, int] | None:
    """Return width and height of an image once it is turned upright; None for what cannot be told. Only its header
    is read.
    """
    header = _header(path)
    return None if header is None else _upright(*header)


def _mask_header(path: str) -> Header | None:
    annotations = fetch_annotations(path)
    if annotations is None:
        return _header(path)
    return (coco_size(annotations), 1) if isinstance(annotations, bytes) else None


def _header(path: str) -> Header | None:
    """Return width and height as they are stored, and the EXIF orientation; None for what cannot be told."""
    try:
        with access.open_bytes(path) as file, Image.open(file, formats=FORMATS) as image:
            if image.format == "TIFF" or (image.format == "PNG" and _ends_with_exif(path)):
                image.load()  # a TIFF turns itself; a PNG may hold its EXIF block behind the pixels
            is_plain = image.format == "PNG" and "exif" not in image.info
            return image.size, 1 if is_plain else exif_orientation(image)
    except UnidentifiedImageError:
        return _tiff_header(path)
    except Exception:  # it was read a moment ago; whatever is wrong now will be told when it is read again
        return None


def _tiff_header(path: str) -> Header | None:
    """Return size and orientation as `_header` does, for a TIFF of more bands than Pillow reads."""
    data = read_file(path)
    if isinstance(data, str) or known_format(data[:32]) != "TIFF":
        return None
    try:
        tags = read_tags(data)
        return (int(tags[_WIDTH]), int(tags[_HEIGHT])), orientation_of(tags)
    except Exception:  # as above
        return None


def _ends_with_exif(path: str) -> bool:
    with access.open_bytes(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return b"eXIf" in file.read()


def _upright(size: tuple[int, int], tag: int) -> tuple[int, int]:
    return (size[1], size[0]) if tag in _QUARTER_TURNS else size
