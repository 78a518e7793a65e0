"""One image file, opened: its bytes, its format, its orientation, or the reason in words why it cannot be read.

The decoder is Pillow, limited to seven formats (its other readers start programs or have a history of holes), with the
size read from the header before a pixel is decoded.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, UnidentifiedImageError

from regraft.data.decode.deep import read_deep
from regraft.data.decode.sniff import (
    FORMATS,
    HEIC,
    RefusedError,
    is_address,
    known_format,
    misses_its_end,
    not_a_picture,
)
from regraft.data.decode.tiff import bit_depths, num_bands, orientation_of, read_tags
from regraft.data.files.access import leads_on, read_member
from regraft.data.files.archives import MAX_BYTES

__all__ = [
    "MAX_PIXELS",
    "NO_MEMORY",
    "UPRIGHT",
    "exif_orientation",
    "memory_for",
    "opened",
    "opened_or_reason",
    "read_file",
    "require_pixels",
    "result_or_reason",
    "turned",
]

Result = TypeVar("Result")

MAX_PIXELS = 178_956_970  # Pillow's own hard limit, about 180 megapixels
NO_MEMORY = "needs more memory than there is"  # a reason that says nothing about the file

# An image at the limit takes 1.5 GB on its way, and there may be a thread for each of many processors.
_LARGE_PIXELS = 32_000_000
_ONE_LARGE_PICTURE = threading.Lock()
_ONE_HEIC = threading.Lock()  # while its plug-in is registered

_ORIENTATION_TAG = 0x0112  # TIFF 6.0 section 8, EXIF 2.32 section 4.6.4
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The size is checked here, and a broken EXIF block costs only the orientation: neither is news for the user.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


def opened_or_reason(data: bytes, work: Callable[[Image.Image], Result], *, deep: bool = False) -> Result | str:
    """Return the result of `work` on the opened image, or the reason as text why there is none; nothing is raised.

    Args:
        data: The file.
        work: What to do with the image.
        deep: Whether a TIFF that Pillow does not read comes as its bytes: an image, never a mask.
    """

    def worked() -> Result:
        with opened(data, deep=deep) as image:
            require_pixels(*image.size)
            with memory_for(image.width * image.height):
                return work(image)

    return result_or_reason(data, worked)


def result_or_reason(data: bytes, work: Callable[[], Result]) -> Result | str:
    strange = not_a_picture(data)
    if strange:
        return strange
    try:
        return work()
    except RefusedError as refused:
        return str(refused)
    except Image.DecompressionBombError as error:
        return _too_many_pixels(error)
    except MemoryError:
        return NO_MEMORY
    except Exception as error:  # a hostile file can raise anything inside a decoder
        return _damage(data, error)


def read_file(path: Path | str) -> bytes | str:
    """Return the bytes of a regular file of at most 1 GiB, or the reason as text why there are none."""
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return "is not a regular file"
            if status.st_size > MAX_BYTES:
                return f"has {status.st_size / 2**30:.1f} GiB, more than the limit of {MAX_BYTES / 2**30:.0f} GiB"
            return file.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        found = read_member(path) if leads_on(error) else None
        if found is not None:
            return found
        if isinstance(error, NotADirectoryError):
            return f"cannot be read ({error})"
        return "is an address, and regraft downloads nothing" if is_address(str(path)) else "does not exist"
    except PermissionError:
        return "may not be read (permission denied)"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"


def opened(data: bytes, *, deep: bool = False) -> Image.Image:
    """Return the image in a file's bytes, of which no pixel is read yet; a `deep` one that Pillow does not know is
    read.
    """
    heic = known_format(data[:32]) == HEIC
    if heic:
        _require_heic()
    try:
        return Image.open(io.BytesIO(data), formats=(HEIC,) if heic else FORMATS)
    except UnidentifiedImageError:
        found = _deep_tiff(data) if deep else None
        if found is None:
            raise
        return found


def _deep_tiff(data: bytes) -> Image.Image | None:
    """Return a TIFF of one to four bands of more than 8 bits, upright; None for another file.

    Raises:
        RefusedError: It needs a plug-in, or cannot be read.
    """
    tags = _tags_or_none(data)
    if tags is None or num_bands(tags) > 4 or max(bit_depths(tags)) <= 8:
        return None
    pixels = read_deep(data, MAX_PIXELS)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return turned(image, orientation_of(tags))


def _tags_or_none(data: bytes) -> dict[int, Any] | None:
    if known_format(data[:32]) != "TIFF":
        return None
    try:
        tags = read_tags(data)
        num_bands(tags)
        return tags
    except Exception:  # a hostile file can raise anything inside a decoder
        return None


def _require_heic() -> None:
    """Make Pillow read HEIC; the plug-in turns images upright itself.

    Raises:
        RefusedError: The plug-in is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise RefusedError("is a HEIC image, which needs a plug-in: pip install 'regraft[heic]'") from None
    with _ONE_HEIC:
        if HEIC not in Image.OPEN:
            pillow_heif.register_heif_opener(thumbnails=False)


def require_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS / 1e6:.0f} megapixels"
        raise RefusedError(f"has {width} x {height} pixels, more than the limit of {limit}")


def memory_for(num_pixels: int) -> contextlib.AbstractContextManager[Any]:
    return _ONE_LARGE_PICTURE if num_pixels > _LARGE_PIXELS else contextlib.nullcontext()


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """Return an image turned upright, as its EXIF orientation says."""
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, from 1 (upright) to 8."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block leaves the image as it is
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _too_many_pixels(error: Exception) -> str:
    found = re.search(r"\d+", str(error))
    pixels = f"{int(found.group()) / 1e6:.0f}" if found else "too many"
    return f"has {pixels} megapixels, more than the limit of {MAX_PIXELS / 1e6:.0f}"


def _bands_or_none(data: bytes) -> int | None:
    """Return the number of bands of a TIFF with more than four, which Pillow does not read; None for another file."""
    tags = _tags_or_none(data)
    count = 0 if tags is None else num_bands(tags)
    return count if count > 4 else None


def _damage(data: bytes, error: Exception) -> str:
    kind = known_format(data[:32])
    if kind == HEIC:
        return "is a damaged HEIC image"
    if "truncated" in str(error).lower() or misses_its_end(kind, data):
        return "is cut off"
    if isinstance(error, UnidentifiedImageError) and kind == "TIFF" and (bands := _bands_or_none(data)):
        return f"holds {bands} bands, of which none are named (name those of the network: model.bands)"
    if isinstance(error, UnidentifiedImageError):
        return f"is damaged (its first bytes say {kind}, the rest does not follow)"
    return f"is damaged ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
