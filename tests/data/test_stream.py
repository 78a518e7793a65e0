"""Files decoded ahead of their reader: every one, in order, a reason for each that cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data.decode import PixelProgram, decode
from regraft.data.stream import DecodedStream

PROGRAM = PixelProgram((12, 10))


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    names = [str(tmp_path / f"{number:02}.png") for number in range(23)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(name)
    Path(names[5]).write_bytes(b"")
    return names


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_hold_every_file_in_order(paths: list[str], threads: int, far: bool) -> None:
    batches = list(DecodedStream(paths, PROGRAM, batch_size=4, threads=threads, far=far))
    assert [len(batch.paths) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert [path for batch in batches for path in batch.paths] == paths
    for batch in batches:
        for path, pixels, reason in zip(batch.paths, batch.images, batch.reasons, strict=True):
            assert (reason is not None) == (path == paths[5])
            assert np.array_equal(pixels, np.zeros_like(pixels) if reason else decode(path, PROGRAM))


def test_it_begins_at_once_and_does_not_run_away(paths: list[str]) -> None:
    asked = 0

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            yield paths[0]

    stream = DecodedStream(endless(), PROGRAM, batch_size=4, threads=1)
    assert 0 < asked <= 16
    stream.close()


def test_no_thread_is_left_when_the_reader_stops(paths: list[str]) -> None:
    before = threading.active_count()
    rows = iter(DecodedStream(paths, PROGRAM, batch_size=4, threads=2))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
