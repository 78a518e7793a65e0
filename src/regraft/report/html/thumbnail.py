"""An image, small, as an element of a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from regraft.data.decode.decode import PixelProgram, decode
from regraft.errors import RegraftError
from regraft.report.html.markup import Html, html

__all__ = ["thumbnail"]

_SIDE = 176
_QUALITY = 82


def thumbnail(file: Path, path: str, *, side: int = _SIDE) -> Html:
    """Return an image as an element of the page; a sentence where the file is gone or not readable.

    Args:
        file: The image.
        path: What it is called.
        side: In pixels; narrower images are padded.
    """
    try:
        pixels = decode(file, PixelProgram(size=(side, side), resize="pad", background=(128, 128, 128)))
    except (RegraftError, OSError, ValueError):
        return html('<div class="no-picture">image not found or not readable</div>')
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return html('<img src="data:image/jpeg;base64,{}" width="{}" height="{}" alt="{}">', data, side, side, path)
