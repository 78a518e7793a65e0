"""The bands of an image, by name or in their order, each as an 8-bit plane; or all laid together as RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from regraft.data.decode.deep import bytes_of
from regraft.data.decode.sniff import RefusedError

__all__ = ["choose_bands", "flatten", "named_planes"]

_COLOURS = ("R", "G", "B", "A")
# What Pillow's other modes are turned into; those with an entry of "" are taken as they are.
_AS = {"1": "L", "L": "", "LA": "", "La": "LA", "RGB": "", "RGBA": "", "RGBa": "RGBA", "PA": "RGBA", "CMYK": ""}


def flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return the image as 8-bit RGB: grey scaled by its bit depth, transparency laid on the background."""
    image = _of_bytes(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    canvas = Image.new("RGB", layer.size, background)
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def named_planes(image: Image.Image, wanted: Sequence[str]) -> dict[str, Image.Image]:
    """Return the bands of a loaded image, by name, in its order; of an image in colours, those that `wanted` asks
    for.
    """
    image = _of_bytes(image)
    if set(wanted) <= set(_COLOURS):
        image = _with_alpha(image)
    elif image.mode == "CMYK" and set(wanted) != set(image.getbands()):
        image = image.convert("RGB")  # inks are a spelling of colours, not bands of their own
    else:
        kind = _AS.get(image.mode, "RGB")
        if image.has_transparency_data:
            kind = {"L": "LA", "RGB": "RGBA", "P": "RGBA"}.get(image.mode, kind)
        image = image.convert(kind) if kind else image
    return dict(zip(image.getbands(), image.split(), strict=True))


def choose_bands(planes: dict[str, Image.Image], wanted: Sequence[str]) -> list[Image.Image]:
    """Return the wanted bands: by name where the image has them all, else all of its bands in its order.

    Raises:
        RefusedError: It has another number of bands, or a wanted one at another place.
    """
    if set(wanted) <= set(planes):
        return [planes[name] for name in wanted]
    names = list(planes)
    if len(names) != len(wanted):
        bands = "one band" if len(names) == 1 else f"{len(names)} bands"
        raise RefusedError(f"holds {bands} ({', '.join(names)}), not the {len(wanted)} wanted: {', '.join(wanted)}")
    if any(name in planes and names[place] != name for place, name in enumerate(wanted)):
        raise RefusedError(f"holds the bands {', '.join(names)} in this order, not {', '.join(wanted)}")
    return list(planes.values())


def _with_alpha(image: Image.Image) -> Image.Image:
    """Convert to RGBA; an image without transparency is opaque."""
    if image.has_transparency_data or image.mode == "RGBA":
        return image.convert("RGBA")
    image = image.convert("RGB")
    image.putalpha(255)
    return image


def _of_bytes(image: Image.Image) -> Image.Image:
    """Return grey numbers of more than 8 bits as bytes (see `regraft.data.decode.deep`).

    Raises:
        RefusedError: Numbers for which no black and no white is stated.
    """
    if image.mode.startswith("I;16"):
        return _from_deep_grey(image)
    if image.mode in ("F", "I"):
        grey = bytes_of(np.asarray(image))
        return Image.fromarray(255 - grey if getattr(image, "tag_v2", {}).get(262) == 0 else grey)
    return image


def _from_deep_grey(image: Image.Image) -> Image.Image:
    # Pillow clips these to 255 on convert("L"), which turns every image white. Its 16-bit colour reader keeps the
    # high byte of each number, and so does this.
    tags = getattr(image, "tag_v2", {})  # of a TIFF; numbers from TIFF 6.0 section 8
    depth = int(np.max(tags.get(258, 16)))
    if not 8 <= depth <= 16:
        raise RefusedError(f"holds grey values of {depth} bits, which regraft does not read")
    grey = (np.asarray(image).astype(np.uint16) >> (depth - 8)).astype(np.uint8)
    white_is_zero = tags.get(262) == 0
    return Image.fromarray(255 - grey if white_is_zero else grey)
