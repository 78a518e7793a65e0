"""What a file is by its first bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regraft.data.decode.sniff import FORMATS, known_format, misses_its_end, not_a_picture


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(4800, dtype=np.uint8).reshape(40, 40, 3)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_are_known_by_their_first_bytes(kind: str) -> None:
    data = encoded(kind)
    assert known_format(data[:32]) == kind
    assert not_a_picture(data) == ""
    assert not misses_its_end(kind, data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_file_that_was_cut_misses_its_end(kind: str) -> None:
    data = encoded(kind)
    assert misses_its_end(kind, data[: len(data) // 2])


def test_words_that_begin_like_a_format_are_words() -> None:
    assert known_format(b"BMW is a maker of cars and motorcycles") is None
    assert known_format(b"GIF is a format of CompuServe") is None
    assert known_format(b"") is None


@given(st.binary(max_size=200))
def test_whatever_is_no_known_format_gets_a_reason(data: bytes) -> None:
    assert bool(not_a_picture(data)) == (known_format(data) is None)
