"""Right pixels from every kind of file, and a plain reason where there are none."""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regraft.data.decode.decode import PixelProgram, decode, decode_or_reason
from regraft.data.decode.image_file import MAX_PIXELS
from regraft.errors import DecodeError, SettingsError

SCENE_SIZE = (40, 60)


def scene(height: int = 40, width: int = 60) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([4 * columns, 6 * rows, 2 * (rows + columns)], axis=-1).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def as_is(image: np.ndarray) -> PixelProgram:
    return PixelProgram(image.shape[:2])


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: the test must not share Pillow's idea of the format."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def bomb() -> bytes:
    return png(30_000, 30_000, 1, 0, bytes(3751) * 30_000)


# Right pixels


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_exact_pixels(kind: str) -> None:
    np.testing.assert_array_equal(decode(encoded(scene(), kind), PixelProgram(SCENE_SIZE)), scene())


@pytest.mark.parametrize(
    "options", [{"kind": "WEBP", "lossless": True}, {"kind": "AVIF", "quality": 100, "subsampling": "4:4:4"}]
)
def test_webp_and_avif_are_read(options: dict[str, Any]) -> None:
    pixels = decode(encoded(scene(), options.pop("kind"), **options), PixelProgram(SCENE_SIZE))
    assert np.abs(pixels.astype(int) - scene()).mean() < 2


@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_read(progressive: bool) -> None:
    pixels = decode(
        encoded(scene(), "JPEG", quality=95, subsampling=0, progressive=progressive), PixelProgram(SCENE_SIZE)
    )
    assert np.abs(pixels.astype(int) - scene()).mean() < 2


def test_a_cmyk_jpeg_has_its_colours_not_their_negative() -> None:
    colours = np.zeros((16, 48, 3), np.uint8)
    colours[:, :16], colours[:, 16:32], colours[:, 32:] = (255, 0, 0), (255, 255, 255), (20, 120, 220)
    data = encoded(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    pixels = decode(data, as_is(colours)).astype(int)
    for column, golden in ((8, (255, 0, 0)), (24, (255, 255, 255)), (40, (20, 120, 220))):
        assert np.abs(pixels[8, column] - golden).max() <= 4


@pytest.mark.parametrize("value", [0, 255, 256, 32_767, 40_000, 65_535])
def test_sixteen_bit_grey_is_scaled_by_its_depth(value: int) -> None:
    by_hand = png(3, 2, 16, 0, b"".join(b"\x00" + struct.pack(">H", value) * 3 for _ in range(2)))
    tiff = encoded(Image.fromarray(np.full((2, 3), value, np.uint16)), "TIFF")
    for data in (by_hand, tiff):
        assert np.unique(decode(data, PixelProgram((2, 3)))).tolist() == [value >> 8]


def tiff(width: int, height: int, depth: int, strip: bytes, *, white_is_zero: bool = False) -> bytes:
    """A minimal little-endian grey TIFF with one strip."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, depth), (259, 3, 1), (262, 3, int(not white_is_zero))]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(strip))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + directory + bytes(4)


def test_twelve_bit_grey_is_scaled_by_its_depth() -> None:
    strip = bytes([0x00, 0x04, 0x00, 0x80, 0x0F, 0xFF])  # 0, 1024, 2048, 4095
    assert decode(tiff(2, 2, 12, strip), PixelProgram((2, 2)))[..., 0].tolist() == [[0, 64], [128, 255]]


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_that_counts_from_white_is_turned_round(depth: int) -> None:
    strip = struct.pack("<BB" if depth == 8 else "<HH", 0, 2**depth - 1)
    assert decode(tiff(2, 1, depth, strip), PixelProgram((1, 2)))[0, :, 0].tolist() == [0, 255]
    inverted = tiff(2, 1, depth, strip, white_is_zero=True)
    assert decode(inverted, PixelProgram((1, 2)))[0, :, 0].tolist() == [255, 0]


def test_sixteen_bit_colour_keeps_its_colours() -> None:
    row = b"\x00" + struct.pack(">HHH", 65_535, 32_768, 257)
    assert decode(png(1, 1, 16, 2, row), PixelProgram((1, 1)))[0, 0].tolist() == [255, 128, 1]


def test_one_bit_pictures_are_black_and_white() -> None:
    pixels = decode(png(8, 1, 1, 0, b"\x00\xf0"), PixelProgram((1, 8)))
    assert pixels[0, :, 0].tolist() == [255] * 4 + [0] * 4


def test_palettes_give_the_colours_of_the_palette() -> None:
    palette = (b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    pixels = decode(png(2, 1, 8, 3, b"\x00\x00\x01", palette), PixelProgram((1, 2)))
    assert pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_a_transparent_palette_entry_shows_the_background() -> None:
    chunks = (b"PLTE", bytes([10, 20, 30, 200, 100, 50])), (b"tRNS", bytes([255, 0]))
    data = png(2, 1, 8, 3, b"\x00\x00\x01", *chunks)
    assert decode(data, PixelProgram((1, 2))).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert decode(data, PixelProgram((1, 2), background=(1, 2, 3))).tolist() == [[[10, 20, 30], [1, 2, 3]]]


def test_half_transparent_pixels_are_mixed_with_the_background() -> None:
    colour = np.zeros((1, 3, 4), np.uint8)
    colour[0] = [[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels = decode(encoded(colour, kind, **options), PixelProgram((1, 3)))
        assert pixels[0, :2].tolist() == [[200, 100, 0], [255, 255, 255]]
        assert np.abs(pixels[0, 2].astype(int) - [227, 177, 127]).max() <= 1


def test_grey_with_alpha_and_a_key_colour_are_laid_on_the_background() -> None:
    assert decode(png(1, 1, 8, 4, b"\x00\x40\x00"), PixelProgram((1, 1)))[0, 0].tolist() == [255, 255, 255]
    key = (b"tRNS", struct.pack(">HHH", 9, 8, 7))
    pixels = decode(png(2, 1, 8, 2, b"\x00\x09\x08\x07\x07\x08\x09", key), PixelProgram((1, 2)))
    assert pixels.tolist() == [[[255, 255, 255], [7, 8, 9]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_is_turned_upright(orientation: int, kind: str) -> None:
    upright = scene()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(np.ascontiguousarray(stored), kind, exif=exif, **options)
    pixels = decode(data, PixelProgram(SCENE_SIZE))
    assert np.abs(pixels.astype(int) - upright).mean() < 2


def test_a_large_turned_photo_is_drafted_in_its_own_orientation() -> None:
    upright = np.kron(scene(20, 90), np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(np.ascontiguousarray(np.rot90(upright, 1)), "JPEG", quality=95, exif=exif)
    pixels = decode(data, PixelProgram((20, 90)))
    assert np.abs(pixels.astype(int) - scene(20, 90)).mean() < 4


def test_broken_exif_costs_only_the_orientation() -> None:
    data = encoded(scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert decode(data, PixelProgram(SCENE_SIZE)).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_files_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.abs(decode(data, PixelProgram((8, 8))).astype(int) - [250, 0, 0]).max() <= 3


def test_the_content_counts_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "ein Bild mit Ümläuten.jpg"
    path.write_bytes(encoded(scene(), "PNG"))
    np.testing.assert_array_equal(decode(path, PixelProgram(SCENE_SIZE)), scene())
    np.testing.assert_array_equal(decode(str(path), PixelProgram(SCENE_SIZE)), scene())


def test_junk_after_a_jpeg_is_ignored() -> None:
    data = encoded(scene(), "JPEG")
    program = PixelProgram(SCENE_SIZE)
    np.testing.assert_array_equal(decode(data + b"trailing junk" * 100, program), decode(data, program))


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3)])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_odd_sizes_come_out_at_the_stated_size(size: tuple[int, int], resize: Any) -> None:
    pixels = decode(encoded(scene(*size), "PNG"), PixelProgram((17, 31), resize))
    assert pixels.shape == (17, 31, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable


# Resize policies


def stripes() -> np.ndarray:
    """Red, green and blue thirds, 30 high and 90 wide."""
    image = np.zeros((30, 90, 3), np.uint8)
    image[:, :30, 0] = image[:, 30:60, 1] = image[:, 60:, 2] = 255
    return image


def test_squash_keeps_every_part() -> None:
    pixels = decode(encoded(stripes(), "PNG"), PixelProgram((30, 30)))
    assert pixels[15, [4, 15, 25]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_crop_cuts_out_the_middle() -> None:
    pixels = decode(encoded(stripes(), "PNG"), PixelProgram((30, 30), "crop"))
    np.testing.assert_array_equal(pixels, stripes()[:, 30:60])


def test_crop_fraction_keeps_the_middle_of_the_crop() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 200
    pixels = decode(encoded(image, "PNG"), PixelProgram((20, 20), "crop", crop_fraction=0.5))
    np.testing.assert_array_equal(pixels, np.full((20, 20, 3), 200, np.uint8))


def test_pad_fills_with_the_background() -> None:
    pixels = decode(encoded(stripes(), "PNG"), PixelProgram((90, 90), "pad", background=(9, 8, 7)))
    np.testing.assert_array_equal(pixels[30:60], stripes())
    assert np.unique(np.concatenate([pixels[:30], pixels[60:]]).reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]


def test_shrinking_averages_and_does_not_skip() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        pixels = decode(encoded(checks, "PNG"), PixelProgram((8, 8), interpolation=interpolation))
        assert np.abs(pixels.astype(int) - 127).max() <= 3


def test_a_stored_size_is_passed_through_on_the_way() -> None:
    data = encoded(scene(80, 120), "PNG")
    twice = decode(data, PixelProgram((32, 32), "crop", stored=(16, 16)))
    first = decode(data, PixelProgram((16, 16), "crop"))
    np.testing.assert_array_equal(twice, decode(encoded(first, "PNG"), PixelProgram((32, 32))))
    assert np.abs(twice.astype(int) - decode(data, PixelProgram((32, 32), "crop"))).max() > 0


def blocks(height: int, width: int) -> np.ndarray:
    """Random colours in blocks of 10 x 10 pixels: sharp edges that a too small draft would lose."""
    colours = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.kron(colours, np.ones((10, 10, 1), np.uint8))


@pytest.mark.parametrize("size", [(40, 60), (200, 300), (300, 100)])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft_decoding_is_used_and_stays_near_the_full_decode(size: Any, resize: Any, orientation: int) -> None:
    upright = blocks(900, 1000)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.rot90(upright, 1 if orientation == 6 else 0).copy(), "JPEG", quality=95, exif=exif)
    drafted = decode(data, PixelProgram(size, resize)).astype(int)
    full = decode(data, PixelProgram(size, resize, draft=False)).astype(int)
    assert np.abs(drafted - full).mean() < 8
    assert (drafted != full).any() or min(900 // size[0], 1000 // size[1]) < 4


@pytest.mark.parametrize("size", [(200, 400), (1600, 50)])
def test_a_turned_photo_is_never_drafted_below_its_size(size: tuple[int, int]) -> None:
    upright = np.repeat(blocks(160, 4000)[:, ::10], 10, axis=0)  # 1600 high, 400 wide, a new colour in each column
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(np.rot90(upright, 1).copy(), "JPEG", quality=95, subsampling=0, exif=exif)
    drafted = decode(data, PixelProgram(size)).astype(int)
    full = decode(data, PixelProgram(size, draft=False)).astype(int)
    assert np.abs(drafted - full).mean() < 3


@settings(max_examples=40, deadline=None)
@given(
    source=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["squash", "crop", "pad"]),
    stored=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kind=st.sampled_from(["JPEG", "PNG"]),
)
def test_a_plain_picture_stays_plain_at_any_size(
    source: tuple[int, int], size: tuple[int, int], resize: Any, stored: tuple[int, int] | None, kind: str
) -> None:
    data = encoded(np.full((*source, 3), 96, np.uint8), kind)
    pixels = decode(data, PixelProgram(size, resize, background=(96, 96, 96), stored=stored))
    assert pixels.shape == (*size, 3)
    assert np.abs(pixels.astype(int) - 96).max() <= 1


# Files without a picture


def damaged_png() -> bytes:
    data = bytearray(encoded(scene(), "PNG"))
    data[data.index(b"IDAT") + 12] ^= 0xFF
    return bytes(data)


INT_TIFF = encoded(Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)), "TIFF")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n <!DOCTYPE html><html><body>404</body></html>", "is an HTML page"),
        (b"<html><head>", "is an HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is a PostScript document"),
        (b"PK\x03\x04....", "is a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ", "is a macOS resource file"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "is a damaged HEIC image"),
        (bytes(5000), "holds only zero bytes"),
        (bytes(5000) + b"\x01", "begins with zero bytes"),
        (b"just some words", "is not an image"),
        (encoded(scene(), "JPEG")[:600], "is cut off"),
        (encoded(scene(), "JPEG")[:-200], "is cut off"),
        (encoded(scene(400, 400), "JPEG", progressive=True)[:4000], "is cut off"),
        (encoded(scene(), "PNG")[:-100], "is cut off"),
        (encoded(scene(), "PNG")[:20], "is cut off"),
        (encoded(scene(), "GIF")[:300], "is cut off"),
        (b"\xff\xd8\xff", "is cut off"),
        (damaged_png(), "is damaged"),
        (encoded(scene(), "WEBP")[:100], "is cut off"),
        (b"GIF89a" + bytes(200), "is damaged|is cut off"),
        (INT_TIFF, "holds 32-bit numbers"),
        (bomb(), "has 900 megapixels, more than the limit of 179"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_without_a_picture_says_why(data: bytes, reason: str) -> None:
    assert str(decode_or_reason(data, PixelProgram((8, 8)))).startswith(tuple(reason.split("|")))
    with pytest.raises(DecodeError, match=reason) as caught:
        decode(data, PixelProgram((8, 8)))
    assert caught.value.exit_code == 3


@functools.cache
def bombs() -> dict[str, bytes]:
    """Small files whose headers promise gigabytes, or that hide one in a side block."""
    row, flood = zlib.compress(bytes(9) * 8), zlib.compress(bytes(200_000_000))
    screen = struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00;"
    bitmap = struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return {
        "gif": b"GIF89a" + screen + frame,
        "bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bitmap,
        "tiff": tiff(65_535, 65_535, 8, bytes(10)),
        "webp": b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X\x0a\x00\x00\x00" + bytes(4) + b"\xff" * 6 + bytes(80),
        "text": png(8, 8, 8, 0, row, (b"zTXt", b"k\x00\x00" + flood)),
        "profile": png(8, 8, 8, 0, row, (b"iCCP", b"k\x00\x00" + flood)),
    }


@pytest.mark.parametrize("kind", ["gif", "bmp", "tiff", "webp", "text", "profile"])
def test_bombs_of_every_format_are_refused_before_they_unfold(kind: str) -> None:
    resource = pytest.importorskip("resource", reason="peak memory is measured with Unix's getrusage")
    data = bombs()[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert isinstance(decode_or_reason(data, PixelProgram((8, 8))), str)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_chain_of_many_directories_costs_nothing() -> None:
    ring = bytearray(tiff(8, 8, 8, bytes(64)))
    ring[-4:] = struct.pack("<I", 8 + 64)  # the next directory is this one
    assert decode(bytes(ring), PixelProgram((8, 8))).shape == (8, 8, 3)


def test_the_pixel_limit_holds_where_pillows_own_was_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_or_reason(bomb(), PixelProgram((8, 8))) == (
        "has 30000 x 30000 pixels, more than the limit of 179 megapixels"
    )


def test_the_pixel_limit_holds_one_row_above_it() -> None:
    width = 1 + MAX_PIXELS // 10_000
    reason = decode_or_reason(png(width, 10_000, 1, 0, b""), PixelProgram((8, 8)))
    assert isinstance(reason, str)
    assert "more than the limit" in reason


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for name, reason in (
        ("empty.jpg", "is empty"),
        ("nowhere.jpg", "does not exist"),
        (".", "is not a regular file|cannot be read"),
    ):
        with pytest.raises(DecodeError, match=reason):
            decode(tmp_path / name, PixelProgram((8, 8)))
    with pytest.raises(DecodeError, match=r"empty\.jpg"):
        decode(tmp_path / "empty.jpg", PixelProgram((8, 8)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert decode_or_reason(tmp_path / "pipe.jpg", PixelProgram((8, 8))) == "is not a regular file"


def test_other_formats_that_pillow_knows_are_refused() -> None:
    for kind in ("PPM", "TGA", "ICO", "PCX", "EPS", "PDF"):
        reason = decode_or_reason(encoded(scene(), kind), PixelProgram((8, 8)))
        assert isinstance(reason, str), kind


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"]), st.data())
def test_damage_never_raises_anything_else(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(scene(16, 16), kind))
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)):
        whole[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    result = decode_or_reason(bytes(whole[:cut]), PixelProgram((8, 8)))
    if isinstance(result, str):
        assert result.startswith(("is ", "has ", "holds ", "begins "))
    else:
        assert result.shape == (8, 8, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_no_proper_beginning_of_a_jpeg_is_taken_for_the_whole(seed: int) -> None:
    data = encoded(scene(64, 64), "JPEG", quality=90)
    cut = data[: seed % (len(data) - 40)]
    assert isinstance(decode_or_reason(cut, PixelProgram((8, 8))), str)


# The program as a value


@settings(max_examples=50)
@given(
    size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    resize=st.sampled_from(["squash", "crop", "pad"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    background=st.tuples(*[st.integers(0, 255)] * 3),
    crop_fraction=st.floats(0.05, 1.0),
    stored=st.none() | st.tuples(st.integers(1, 500), st.integers(1, 500)),
    draft=st.booleans(),
)
def test_programs_survive_json(**fields: Any) -> None:
    import json

    program = PixelProgram(**fields)
    assert PixelProgram.from_dict(json.loads(json.dumps(program.to_dict()))) == program


def test_all_mistakes_of_a_program_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        PixelProgram((0, 8), "stretch", "sinc", (0, 0, 300), 2.0, (1, 2, 3))  # type: ignore[arg-type]
    assert len(caught.value.details) == 6


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "has no size"),
        ({"size": [8, 8], "colour": "red"}, r"unknown fields \['colour'\]"),
        ({"size": [8.5, 8]}, r"size is \(8\.5, 8\)"),
        ({"size": 8}, "size is 8"),
        ({"size": [8, 8], "crop_fraction": "1"}, "crop_fraction is '1'"),
    ],
)
def test_foreign_fields_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        PixelProgram.from_dict(fields)
