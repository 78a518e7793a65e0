"""Bands in place of colours: by name or in order, from pictures with a transparency and from TIFFs of many bands."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.tiff_writer import tiff

from regraft.data.decode.decode import PixelProgram, decode, decode_or_reason, finish
from regraft.errors import SettingsError

HEIGHT, WIDTH = 10, 14
RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 9), dtype=np.uint8)


def program(*bands: str, **options: Any) -> PixelProgram:
    return PixelProgram(options.pop("size", (HEIGHT, WIDTH)), bands=bands, **options)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("bands", [("R", "G", "B", "A"), ("A", "B"), ("band1", "band2", "band3", "band4")])
def test_bands_of_a_picture_with_a_transparency(kind: str, bands: tuple[str, ...]) -> None:
    pixels = BYTES[:, :, :4].copy()
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    places = [int(name[-1]) - 1 if name.startswith("band") else "RGBA".index(name) for name in bands]
    got = decode(encoded(pixels, kind, **options), program(*bands))
    np.testing.assert_array_equal(got, pixels[:, :, places])


def test_what_has_no_transparency_is_opaque() -> None:
    pixels = BYTES[:, :, :3].copy()
    got = decode(encoded(pixels), program("R", "G", "B", "A"))
    np.testing.assert_array_equal(got, np.dstack([pixels, np.full((HEIGHT, WIDTH), 255)]))
    grey = decode(encoded(pixels[:, :, 0]), program("B", "A"))
    np.testing.assert_array_equal(grey[:, :, 0], pixels[:, :, 0])


def test_one_band_of_8_and_16_bits() -> None:
    grey = BYTES[:, :, 0].copy()
    for stored in (grey, grey.astype(np.uint16) * 257):
        np.testing.assert_array_equal(decode(encoded(stored), program("NIR"))[:, :, 0], grey)


def test_inks_are_colours_unless_they_are_named() -> None:
    inks = Image.frombytes("CMYK", (WIDTH, HEIGHT), BYTES[:, :, :4].tobytes())
    file = io.BytesIO()
    inks.save(file, "TIFF")
    np.testing.assert_array_equal(decode(file.getvalue(), program("C", "M", "Y", "K")), BYTES[:, :, :4])
    assert "holds 3 bands (R, G, B)" in str(decode_or_reason(file.getvalue(), program(*"1234")))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": 8}, {"compression": 32946, "predictor": 2}], ids=str)
@pytest.mark.parametrize("parts", [{"rows": 4}, {"rows": 100}, {"tile": (16, 16)}, {"tile": (4, 8)}], ids=str)
@pytest.mark.parametrize("planar", [False, True])
def test_tiffs_of_many_bands(order: str, options: dict[str, Any], parts: dict[str, Any], planar: bool) -> None:
    for bands in (2, 5, 9):
        pixels = BYTES[:, :, :bands]
        file = tiff(pixels, order=order, planar=planar, **options, **parts)
        names = [f"b{place}" for place in range(bands)]
        np.testing.assert_array_equal(decode(file, program(*names)), pixels)


def test_big_tiffs() -> None:
    np.testing.assert_array_equal(decode(tiff(BYTES, big=True), program(*"abcdefghi")), BYTES)


@pytest.mark.parametrize("photometric", [1, 2])
def test_colours_with_a_fourth_band(photometric: int) -> None:
    pixels = BYTES[:, :, :4]
    got = decode(tiff(pixels, t262=photometric), program("R", "G", "B", "NIR"))
    np.testing.assert_array_equal(got, pixels)
    if photometric == 2:
        refused = decode_or_reason(tiff(BYTES[:, :, :5], t262=2), program("NIR", "R", "G", "B", "x"))
        assert refused == "holds the bands R, G, B, band4, band5 in this order, not NIR, R, G, B, x"


@pytest.mark.parametrize("turn", range(1, 9))
def test_bands_are_turned_upright_as_colours_are(turn: int) -> None:
    colours = decode(tiff(BYTES[:, :, :3], t262=2, t274=turn), PixelProgram((HEIGHT, WIDTH), interpolation="nearest"))
    bands = decode(tiff(BYTES[:, :, :5], t262=2, t274=turn), program(*"12345", interpolation="nearest"))
    np.testing.assert_array_equal(bands[:, :, :3], colours)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("stored", [None, (9, 9)])
def test_bands_are_resized_as_colours_are(resize: Any, stored: tuple[int, int] | None) -> None:
    """And no band changes another, as a transparency would."""
    options: dict[str, Any] = {"size": (6, 7), "resize": resize, "stored": stored, "background": (10, 20, 30)}
    colours = decode(encoded(BYTES[:, :, :3].copy()), program(**options))
    bands = decode(encoded(BYTES[:, :, :4].copy()), program("R", "G", "B", "A", **options))
    np.testing.assert_array_equal(bands[:, :, :3], colours)
    first = decode(encoded(BYTES[:, :, :4].copy()), program("R", "G", "B", "A", **options).first)
    np.testing.assert_array_equal(finish(first, program("R", "G", "B", "A", **options)), bands)


@pytest.mark.parametrize(("kind", "bits"), [(np.uint16, 16), (np.float32, 32)])
def test_deep_bands_need_a_plug_in(kind: type, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    found = str(decode_or_reason(tiff(BYTES[:, :, :5].astype(kind)), program("1", "2", "3", "4", "5")))
    assert found.startswith(f"holds 5 bands of {bits} bits")
    assert "pip install 'regraft[tiff]'" in found


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(BYTES[:, :, :3].copy()), "holds 3 bands (R, G, B), not the 5 wanted: 1, 2, 3, 4, 5"),
        (tiff(BYTES[:, :, :6]), "holds 6 bands (band1, band2, band3, band4, band5, band6), not the 5 wanted"),
        (tiff(BYTES[:, :, :5], compression=5), "is compressed in the way 5"),
        (tiff(BYTES[:, :, :5], t262=8), "holds colours of kind 8"),
        (tiff(BYTES[:, :, :5])[:-10], "is cut off"),
        (tiff(BYTES[:, :, :5], rows=1, t257=9000), "is cut off"),
        (tiff(BYTES[:, :, :5], t256=60_000, t257=60_000), "has 60000 x 60000 pixels"),
        (tiff(BYTES[:, :, :5], t278=0), "in parts of 14 x 0"),
        (tiff(BYTES[:, :, :5], t256=0), "has 0 x 10 pixels"),
        (tiff(BYTES[:, :, :5], t277=0), "has 14 x 10 pixels of 0 bands"),
        (tiff(BYTES[:, :, :5], tile=(16, 16), t322=60_000, t323=60_000), "in parts of 60000 x 60000"),
        (b"II*\0\x08\0\0\0", "is damaged"),
        (b"no picture", "is not an image"),
    ],
    ids=str,
)
def test_what_has_other_bands_is_told(data: bytes, reason: str) -> None:
    told = decode_or_reason(data, program(*"12345"))
    assert isinstance(told, str)
    assert reason in told


def test_many_bands_read_as_a_photo_are_told() -> None:
    told = decode_or_reason(tiff(BYTES), PixelProgram((8, 8)))
    assert told == "holds 9 bands, of which none are named (name those of the network: model.bands)"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_never_raises(data: st.DataObject) -> None:
    file = bytearray(tiff(BYTES[:, :, :5], compression=data.draw(st.sampled_from([1, 8])), tile=(16, 16)))
    for place in data.draw(st.lists(st.integers(0, len(file) - 1), min_size=1, max_size=8)):
        file[place] = data.draw(st.integers(0, 255))
    result = decode_or_reason(bytes(file[: data.draw(st.integers(8, len(file)))]), program(*"12345"))
    assert isinstance(result, str) or (result.shape == (HEIGHT, WIDTH, 5) and result.dtype == np.uint8)


def test_a_program_with_bands_comes_back_and_one_without_is_written_as_before() -> None:
    for bands in ((), ("R", "G", "B", "NIR")):
        there = program(*bands)
        assert PixelProgram.from_dict(there.to_dict()) == there
        assert ("bands" in there.to_dict()) == bool(bands)


@pytest.mark.parametrize(
    ("bands", "said"),
    [(("a", "a"), "each name stands once"), *((bands, "it is a list of names") for bands in (("",), "RGB", (1, 2)))],
)
def test_impossible_bands(bands: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        PixelProgram((8, 8), bands=bands)
