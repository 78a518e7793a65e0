"""Images that are in memory: arrays, PIL images and bytes become files, so that one program serves all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from regraft.data.decode.image_file import read_file
from regraft.errors import SettingsError

__all__ = ["MemoryImage", "images_in_memory", "is_in_memory", "read_source"]

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("CMYK", "F", "I")
_CHANNELS = (1, 3, 4)
_EXPECTED = (
    "paths; PIL images; the bytes of image files; or NumPy arrays of uint8 from 0 to 255: (height, width, "
    "channels) with 1, 3 (red first) or 4 channels, (height, width), or a batch (images, height, width, channels)."
)


@dataclass(frozen=True, eq=False)
class MemoryImage:
    """One image that is no file.

    Attributes:
        name: What its row is called.
        content: A PIL image, an array uint8 (height, width) or (height, width, channels), or the bytes of a file.
    """

    name: str
    content: Any = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Return the bytes of a file that holds these pixels, without loss."""
        if isinstance(self.content, bytes | bytearray | memoryview):
            return bytes(self.content)
        if isinstance(self.content, Image.Image):
            return _opened_bytes(self.content) or _as_file(self.content)
        pixels = np.ascontiguousarray(self.content)
        return _as_file(Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels))


def read_source(source: str | MemoryImage) -> bytes | str:
    """Return the bytes of a file, or of one that holds an image in memory; or the reason as text why there are none."""
    if isinstance(source, str):
        return read_file(source)
    try:
        return source.read()
    except Exception as error:  # an image that was opened, and whose file is damaged or gone
        return f"cannot be read ({type(error).__name__}: {error})"


def is_in_memory(value: object) -> bool:
    """Return whether a value is an image, or a batch of them, and not a path or a list."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "USO"  # an array of paths is a list
    return isinstance(value, Image.Image | bytes | bytearray | memoryview) or _is_tensor(value)


def images_in_memory(value: Any, name: str) -> Iterator[MemoryImage]:
    """Yield the image, or the images of a batch, that a value is.

    Args:
        value: Something that `is_in_memory`.
        name: What it is called; a PIL image that was opened from a file is called like that, and the images of a
            batch get numbers.

    Raises:
        SettingsError: It has another type, shape or range than images have.
    """
    if _is_tensor(value):
        raise SettingsError(
            f"{name} is a tensor of the shape {tuple(value.shape)}.",
            _EXPECTED,
            "convert it, `tensor.mul(255).round().byte().permute(1, 2, 0).numpy()` for (channels, height, width) from "
            "0 to 1 without normalization; or call the model with normalized input, `rg.load_model(RUN)(batch)`",
        )
    if isinstance(value, np.ndarray):
        yield from _images_of(value, name)
    else:
        yield MemoryImage(str(getattr(value, "filename", "") or name), value)


def _images_of(array: npt.NDArray[Any], name: str) -> Iterator[MemoryImage]:
    if array.dtype != np.uint8:
        raise SettingsError(
            f"{name} is an array of {array.dtype} with the shape {array.shape}.",
            _EXPECTED,
            "convert it: `(array * 255).round().astype(numpy.uint8)` for values from 0 to 1",
        )
    if array.ndim == 4 and array.shape[3] in _CHANNELS:
        for number, image in enumerate(array):
            yield MemoryImage(f"{name}[{number}]", image)
        return
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in _CHANNELS)
    if not is_image or not array.size:
        turned = array.ndim in (3, 4) and array.shape[-3] in _CHANNELS
        raise SettingsError(
            f"{name} is an array of the shape {array.shape}.",
            _EXPECTED,
            "Convert it: `numpy.moveaxis(array, -3, -1)`, if its channels come first."
            if turned
            else "Pass one image, a batch, or a list of images.",
        )
    yield MemoryImage(name, array)


def _is_tensor(value: object) -> bool:
    """Return whether a value is a tensor of torch, TensorFlow or JAX, without importing any."""
    kind = type(value)
    return kind.__module__.partition(".")[0] in ("torch", "tensorflow", "jax", "jaxlib") and hasattr(value, "shape")


def _opened_bytes(image: Image.Image) -> bytes | None:
    """Return the file's own bytes of an image that was opened and not yet loaded; it then predicts as its path does."""
    file = getattr(image, "fp", None)
    if not isinstance(image, ImageFile) or not image.tile or file is None or not file.seekable():
        return None
    place = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(place)
    return data


def _as_file(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    if image.mode in _TIFF_MODES:
        image.save(stream, "TIFF", exif=image.getexif())
    else:
        stored = image if image.mode in _PNG_MODES else image.convert("RGB")
        stored.save(stream, "PNG", compress_level=0, exif=image.getexif())
    return stream.getvalue()
