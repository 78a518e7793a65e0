"""Every file decoded once: the same pixels for any number of threads, and every bad file named."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from regraft.data.cache.cache import PixelCache
from regraft.data.dataset import DataSet, Quarantined
from regraft.data.decode.decode import PixelProgram, decode
from regraft.data.decode_all import decode_all
from regraft.data.open import open_data
from regraft.errors import DataError, DecodeError
from regraft.machine.budget import memory_budget, num_cpus

Plant = Callable[[Mapping[str, int | bytes]], Path]
PROGRAM = PixelProgram((12, 16))
HTML = b"<!DOCTYPE html><html></html>"


def spoiled(plant: Plant) -> list[str]:
    """45 paths, of which the rows 0, 7 and 44 hold no picture."""
    root = plant({"all": 45})
    paths = sorted(str(path) for path in (root / "all").iterdir())
    for row, content in ((0, b""), (7, HTML), (44, Path(paths[44]).read_bytes()[:300])):
        Path(paths[row]).write_bytes(content)
    return paths


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_rows_hold_the_pixels_of_the_readable_files(plant: Plant, threads: int) -> None:
    paths = spoiled(plant)
    cache = PixelCache(paths, PROGRAM, threads=threads, split="train")
    assert cache.good.tolist() == [row for row in range(45) if row not in (0, 7, 44)]
    assert cache.paths == [paths[row] for row in cache.good]
    assert cache.images is not None
    assert cache.images.shape == (42, 12, 16, 3)
    for row, path in enumerate(cache.paths):
        np.testing.assert_array_equal(cache.images[row], decode(path, PROGRAM))
        assert cache.digests[row].tobytes() == hashlib.sha256(Path(path).read_bytes()).digest()
    assert cache.quarantined == (
        Quarantined(paths[0], "is empty", "train"),
        Quarantined(paths[7], "is an HTML page", "train"),
        Quarantined(paths[44], "is cut off", "train"),
    )


def test_a_set_over_the_budget_streams_with_the_same_rows(plant: Plant) -> None:
    paths = spoiled(plant)
    whole = PixelCache(paths, PROGRAM, budget_bytes=45 * 12 * 16 * 3)
    streamed = PixelCache(paths, PROGRAM, budget_bytes=45 * 12 * 16 * 3 - 1)
    assert (whole.streams, streamed.streams) == (False, True)
    assert streamed.images is None
    assert streamed.paths == whole.paths
    assert streamed.quarantined == whole.quarantined
    assert streamed.fingerprint() == whole.fingerprint()
    for row in range(len(whole)):
        np.testing.assert_array_equal(streamed.row(row), whole.row(row))


def test_a_file_that_vanishes_while_streaming_is_named(plant: Plant) -> None:
    root = plant({"all": 3})
    cache = PixelCache(sorted(map(str, (root / "all").iterdir())), PROGRAM, budget_bytes=0)
    (root / "all" / "001.jpg").unlink()
    with pytest.raises(DecodeError, match=r"001\.jpg does not exist"):
        cache.row(1)


def test_progress_counts_every_file_once_and_in_order(plant: Plant) -> None:
    seen: list[tuple[int, int]] = []
    PixelCache(spoiled(plant), PROGRAM, threads=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (45, 45)
    assert all(total == 45 for _, total in seen)


def test_an_error_in_the_caller_stops_the_threads(plant: Plant) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    paths = spoiled(plant)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        PixelCache(paths, PROGRAM, threads=2, progress=stop)
    assert set(threading.enumerate()) <= before


def test_nothing_to_decode_is_no_error() -> None:
    cache = PixelCache([], PROGRAM)
    assert len(cache) == 0
    assert cache.good.dtype == np.int64


def test_the_fingerprint_follows_contents_order_and_program(plant: Plant) -> None:
    root = plant({"all": 4})
    paths = sorted(map(str, (root / "all").iterdir()))
    first = PixelCache(paths, PROGRAM).fingerprint()
    assert PixelCache(paths, PROGRAM).fingerprint() == first
    assert PixelCache(paths[::-1], PROGRAM).fingerprint() != first
    assert PixelCache(paths, PixelProgram((12, 16), "pad")).fingerprint() != first
    with open(paths[2], "ab") as file:
        file.write(b"junk that changes no pixel")
    assert PixelCache(paths, PROGRAM).fingerprint() != first


def test_a_data_set_and_its_caches_keep_the_same_rows(plant: Plant) -> None:
    tree = {"train/cat": 5, "train/dog": 5, "train/cat/002.png": b"", "val/cat": 2, "val/dog": 2, "val/dog/x.jpg": HTML}
    data = open_data(plant(tree))
    seen: list[tuple[int, int]] = []
    checked, caches = decode_all(data, PROGRAM, progress=lambda done, total: seen.append((done, total)))
    assert (len(data.train), len(checked.train), len(checked.val)) == (11, 10, 4)
    for name, split in checked.splits.items():
        assert caches[name].paths == split.paths
        assert len(split.labels) == len(caches[name])
    assert [(Path(item.path).name, item.reason, item.split) for item in checked.quarantined] == [
        ("002.png", "is empty", "train"),
        ("x.jpg", "is an HTML page", "val"),
    ]
    assert seen[-1] == (16, 16)


def test_a_resumed_run_finds_the_same_rows_and_pixels(plant: Plant) -> None:
    tree = {"cat": 9, "dog": 9, "cat/005.jpg": b"", "dog/bad.png": HTML}
    checked, caches = decode_all(open_data(plant(tree), seed=2), PROGRAM)
    again, recached = decode_all(DataSet.from_dict(checked.to_dict()), PROGRAM, threads=1)
    assert again.to_dict() == checked.to_dict()
    for name, cache in caches.items():
        assert recached[name].quarantined == ()
        assert recached[name].fingerprint() == cache.fingerprint()
        np.testing.assert_array_equal(recached[name].images, cache.images)


def test_the_splits_share_the_budget(plant: Plant) -> None:
    data = open_data(plant({"train/cat": 5, "train/dog": 5, "val/cat": 2, "val/dog": 2}))
    _, caches = decode_all(data, PROGRAM, cache="ram", budget_bytes=12 * 12 * 16 * 3)
    assert {name: cache.streams for name, cache in caches.items()} == {"train": False, "val": True}


def test_a_class_without_a_readable_image_ends_in_an_error(plant: Plant) -> None:
    tree = {"train/cat": 2, "train/dog/a.jpg": b"", "train/dog/b.jpg": HTML, "val/cat": 1, "val/dog": 1}
    with pytest.raises(DataError, match="Class 'dog' has no readable image in train") as caught:
        decode_all(open_data(plant(tree)), PROGRAM)
    assert "is an HTML page" in str(caught.value)


def test_the_budget_and_the_processors_are_those_of_this_process() -> None:
    assert memory_budget() > 0
    assert num_cpus() >= 1
