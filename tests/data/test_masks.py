"""Reading masks: every way to store classes gives the same ones, and what cannot hold classes is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.drawn import COLOURS, NAMES, classes, picture

from regraft.data.class_table import ClassTable, default_colours
from regraft.data.decode.decode import PixelProgram
from regraft.data.masks.masks import MaskProgram, codes_or_reason, read_mask
from regraft.errors import DataError

INDEX = ClassTable(NAMES, default_colours(NAMES), "index", {0: 0, 1: 1, 2: 2, 3: 3, 255: 255})
COLOUR = ClassTable(
    NAMES,
    tuple(map(tuple, COLOURS.tolist())),  # type: ignore[arg-type]
    "colour",
    {int(red) << 16 | int(green) << 8 | int(blue): place for place, (red, green, blue) in enumerate(COLOURS)},
)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_png(mask: np.ndarray, bits: int) -> bytes:
    """A grey PNG file of so many bits for each pixel, which Pillow itself does not write."""
    height, width = mask.shape
    digits = np.unpackbits(mask[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in digits)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette_of(mask: np.ndarray, colours: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(colours.astype(np.uint8).tobytes())
    return image


MASK = classes(seed=3)
STORED = {
    "grey": encoded(Image.fromarray(MASK)),
    "palette": encoded(palette_of(MASK, COLOURS)),
    "palette of another order": encoded(palette_of(MASK, COLOURS[::-1])),
    "grey as RGB": encoded(Image.fromarray(np.repeat(MASK[..., None], 3, 2))),
    "opaque": encoded(Image.fromarray(MASK).convert("LA")),
    "16 bits": encoded(Image.fromarray(MASK.astype(np.uint16))),
    "2 bits": grey_png(MASK, 2),
    "4 bits": grey_png(MASK, 4),
    "BMP": encoded(Image.fromarray(MASK), "BMP"),
    "TIFF": encoded(Image.fromarray(MASK), "TIFF", compression="tiff_lzw"),
    "GIF": encoded(palette_of(MASK, COLOURS), "GIF"),
    "WebP without loss": encoded(Image.fromarray(np.repeat(MASK[..., None], 3, 2)), "WEBP", lossless=True, exact=True),
}
IN_COLOURS = {
    "RGB": encoded(Image.fromarray(picture(MASK))),
    "RGBA": encoded(Image.fromarray(picture(MASK)).convert("RGBA")),
    "palette": encoded(palette_of(MASK, COLOURS)),
    "palette of another order": encoded(palette_of(3 - MASK, COLOURS[::-1])),
    "WebP without loss": encoded(Image.fromarray(picture(MASK)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", STORED)
def test_numbers_in_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask"
    path.write_bytes(STORED[kind])
    np.testing.assert_array_equal(read_mask(path, INDEX), MASK)


@pytest.mark.parametrize("kind", IN_COLOURS)
def test_colours_in_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask"
    path.write_bytes(IN_COLOURS[kind])
    np.testing.assert_array_equal(read_mask(path, COLOUR), MASK)


def test_a_mask_of_one_bit() -> None:
    found = codes_or_reason(encoded(Image.fromarray(MASK > 1)))
    assert not isinstance(found, str)
    np.testing.assert_array_equal(found[1], MASK > 1)


def test_a_mask_is_turned_by_its_own_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(Image.fromarray(MASK), exif=exif))
    np.testing.assert_array_equal(read_mask(path, INDEX), np.rot90(MASK, -1))


@pytest.mark.parametrize(
    ("data", "table", "said"),
    [
        (encoded(Image.fromarray(MASK), "JPEG"), INDEX, "is a JPEG file"),
        (encoded(Image.fromarray(picture(MASK)), "JPEG"), COLOUR, "is a JPEG file"),
        (encoded(Image.fromarray(picture(MASK)), "WEBP", quality=80), COLOUR, "is a WebP file"),
        (encoded(Image.fromarray(picture(MASK))), INDEX, "holds colours"),
        (encoded(Image.fromarray(MASK + 2)), INDEX, r"holds the values 4, 5, which the class table does not have"),
        (encoded(Image.fromarray(picture(MASK) + 1)), COLOUR, r"\(91, 61, 31\)"),
        (encoded(Image.fromarray(MASK.astype(np.uint16) + 300)), INDEX, "300, 301"),
        (encoded(Image.fromarray(MASK.astype(np.uint16))), COLOUR, "16 bits"),
        (encoded(Image.fromarray(MASK.astype(np.float32)), "TIFF"), INDEX, "name no class"),
        (encoded(Image.fromarray(MASK.astype(np.int32) - 5), "TIFF"), INDEX, "from -5 to"),
        (encoded(Image.fromarray(np.dstack([picture(MASK), MASK]), "RGBA")), COLOUR, "transparent"),
        (encoded(Image.fromarray(picture(MASK)).convert("CMYK"), "TIFF"), COLOUR, "CMYK"),
        (encoded(Image.fromarray(MASK))[:-30], INDEX, "cut off"),
        (b"", INDEX, "is empty"),
        (b"<html>", INDEX, "HTML"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), INDEX, "damaged|cut off"),
    ],
)
def test_what_cannot_hold_classes_is_refused(tmp_path: Path, data: bytes, table: ClassTable, said: str) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        read_mask(path, table)
    assert caught.value.next_step


@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from(sorted(STORED)))
@settings(max_examples=150, deadline=None)
def test_damage_never_raises(noise: bytes, place: int, kind: str) -> None:
    data = bytearray(STORED[kind])
    data[place : place + len(noise)] = noise
    for table in (INDEX, COLOUR):
        found = MaskProgram(PixelProgram((8, 8)), table).read(bytes(data))
        assert isinstance(found, str) or (found.shape == (8, 8) and set(np.unique(found)) <= {0, 1, 2, 3, 255})


@given(
    st.integers(2, 60),
    st.integers(2, 60),
    st.integers(2, 40),
    st.integers(2, 40),
    st.sampled_from(["squash", "crop", "pad"]),
)
@settings(max_examples=60, deadline=None)
def test_a_resized_mask_is_the_nearest_pixel_of_the_same_place(
    height: int, width: int, rows: int, columns: int, resize: str
) -> None:
    """The mask of a picture of its own classes, resized as the picture is by the nearest pixel, is the same."""
    mask = np.random.default_rng(height * width).integers(0, 4, (height, width), dtype=np.uint8)
    program = PixelProgram((rows, columns), resize, "nearest", background=(0, 0, 0))  # type: ignore[arg-type]
    found = MaskProgram(program, INDEX).read(encoded(Image.fromarray(mask)))
    shown = program.read(encoded(Image.fromarray(picture(mask))))
    assert not isinstance(found, str)
    assert not isinstance(shown, str)
    inside = found != 255
    np.testing.assert_array_equal(COLOURS[found[inside]], shown[inside])
    assert not shown[~inside].any()


def test_tables_come_back_from_json_and_others_are_refused() -> None:
    for table in (INDEX, COLOUR):
        assert ClassTable.from_dict(table.to_dict()) == table
        assert table.palette.shape == (256, 3)
    good = INDEX.to_dict()
    for key, value in (("coding", "x"), ("codes", [[0, 9]]), ("colours", []), ("names", None), ("codes", [[0]])):
        with pytest.raises(DataError, match="stored class table cannot be read"):
            ClassTable.from_dict(good | {key: value})
