"""Images of 16 bits, of floating-point numbers and in LZW: read by one rule, with and without the plug-in."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft.data.decode.decode import PixelProgram, decode_or_reason
from regraft.data.decode.deep import bytes_of
from regraft.data.decode.sniff import RefusedError

SIZE = (6, 8)
BYTES = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
GREY = BYTES[:, :, 0]
RGB = PixelProgram(SIZE, interpolation="nearest")


def pillow(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "TIFF", **options)
    return stream.getvalue()


def written(array: np.ndarray, **options: Any) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    if options.get("compression") == "lzw":
        pytest.importorskip("imagecodecs")
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **{"photometric": "rgb" if array.ndim == 3 else "minisblack", **options})
    return stream.getvalue()


def same(data: bytes, expected: np.ndarray, program: PixelProgram = RGB) -> None:
    found = decode_or_reason(data, program)
    assert not isinstance(found, str), found
    wanted = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(found, wanted)


def test_whole_numbers_keep_their_high_bits_and_floats_their_range() -> None:
    np.testing.assert_array_equal(bytes_of(GREY), GREY)
    np.testing.assert_array_equal(bytes_of(GREY.astype(np.uint16) * 257), GREY)
    for white in (1.0, 255.0, 65535.0):
        full = np.append(GREY.ravel(), 255)  # what a file's own range is told by
        for kind in (np.float32, np.float64):
            np.testing.assert_array_equal(bytes_of((full * (white / 255)).astype(kind)), full)
    np.testing.assert_array_equal(bytes_of(np.array([-0.0005, 1.0005, 0.5], np.float32)), [0, 255, 128])


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([-1.0, 1.0], "from -1 to 1"),
        ([0.0, 70000.0], "from 0 to 70000"),
        ([0.0, np.nan], "not finite"),
        ([0.0, np.inf], "not finite"),
        (np.array([-5], np.int16), "negative numbers"),
        (np.array([5]), "64-bit numbers"),
    ],
)
def test_numbers_without_a_stated_black_and_white_are_refused(numbers: Any, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        bytes_of(np.asarray(numbers))


def test_what_pillow_reads_needs_no_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    same(pillow(GREY, compression="tiff_lzw"), GREY)
    same(pillow(BYTES, compression="tiff_lzw"), BYTES)
    same(pillow(GREY.astype(np.uint16) * 257), GREY)
    same(pillow((GREY / 255).astype(np.float32)), GREY)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_colours_of_deep_numbers(kind: type, compression: str | None) -> None:
    numbers = (BYTES.astype(np.uint16) * 257) if kind is np.uint16 else (BYTES / 255).astype(np.float32)
    same(written(numbers, compression=compression), BYTES)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_many_bands_of_deep_numbers(kind: type, compression: str | None) -> None:
    bands = np.concatenate([BYTES, BYTES[::-1]], axis=2)
    factor = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[kind]
    data = written((bands * np.asarray(factor, kind)).astype(kind), compression=compression, planarconfig="contig")
    same(data, bands, PixelProgram(SIZE, interpolation="nearest", bands=tuple(f"B{number}" for number in range(6))))


def test_a_missing_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written((BYTES / 255).astype(np.float32))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert "pip install 'regraft[tiff]'" in str(decode_or_reason(data, RGB))


def test_a_run_trains_and_predicts_on_the_same_bytes(tmp_path: Path) -> None:
    """What predicts is what trained: a file in 16 bits is the same image as in 8."""
    deep, plain = tmp_path / "deep.tif", tmp_path / "plain.tif"
    deep.write_bytes(pillow(GREY.astype(np.uint16) * 257))
    plain.write_bytes(pillow(GREY))
    program = PixelProgram((4, 4))
    np.testing.assert_array_equal(decode_or_reason(deep, program), decode_or_reason(plain, program))


@pytest.mark.parametrize("cut", [40, 90, 150, 200])
def test_damaged_files_give_a_reason(cut: int) -> None:
    data = written((BYTES / 255).astype(np.float32), compression="zlib")
    for program in (RGB, PixelProgram(SIZE, bands=("a", "b", "c", "d", "e"))):
        assert isinstance(decode_or_reason(data[:cut], program), str)
