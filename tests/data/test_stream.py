"""Files decoded ahead of their reader: every one, in order, a reason for each that cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data.cache.stream import DecodedStream
from regraft.data.decode.decode import PixelProgram, decode, decode_or_reason

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


@pytest.mark.parametrize(("threads", "decoding"), [(1, 1), (3, 2)])
def test_a_reader_who_comes_later_is_left_a_processor(
    paths: list[str], threads: int, decoding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    started, go_on = threading.Semaphore(0), threading.Event()

    def slow(path: str, program: PixelProgram) -> object:
        decoded.append(threading.get_ident())
        started.release()
        go_on.wait(10)
        return decode_or_reason(path, program)

    monkeypatch.setattr("regraft.data.cache.stream.decode_or_reason", slow)
    stream = DecodedStream(paths, PROGRAM, batch_size=4, threads=threads, far=True)
    for _ in range(decoding):
        assert started.acquire(timeout=10)
    assert not started.acquire(timeout=0.2)
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    for _ in range(threads - decoding):
        assert started.acquire(timeout=10)
    go_on.set()
    reader.join(10)
    assert not reader.is_alive()
    assert len(decoded) == len(paths)
    assert len(set(decoded)) == threads


def test_no_thread_is_left_when_the_reader_stops(paths: list[str]) -> None:
    before = threading.active_count()
    rows = iter(DecodedStream(paths, PROGRAM, batch_size=4, threads=2))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    DecodedStream(paths, PROGRAM, batch_size=4, threads=2, far=True).close()
    assert threading.active_count() == before
