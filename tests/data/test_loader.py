"""Batches: the same for any number of threads, from any start, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.data.cache.cache import PixelCache
from regraft.data.cache.loader import Batch, batch_bounds, batches, num_batches
from regraft.data.decode.decode import PixelProgram
from regraft.data.random import permutation
from regraft.errors import DecodeError

Plant = Callable[[Mapping[str, int | bytes]], Path]
PROGRAM = PixelProgram((6, 8))
LABELS = np.arange(23, dtype=np.int64) % 3


@pytest.fixture
def paths(plant: Plant) -> list[str]:
    return sorted(str(path) for path in (plant({"all": 23}) / "all").iterdir())


def equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_follow_the_order(paths: list[str]) -> None:
    cache = PixelCache(paths, PROGRAM)
    order = permutation(0, 1, 23)
    found = list(batches(cache, LABELS, order, batch_bounds(23, 5)))
    assert [len(batch.indices) for batch in found] == [5, 5, 5, 5, 3]
    assert num_batches(23, 5) == 5
    np.testing.assert_array_equal(np.concatenate([batch.indices for batch in found]), order)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in found]), LABELS[order])
    assert cache.images is not None
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in found]), cache.images[order])
    assert found[0].images.dtype == np.uint8
    assert found[0].indices.dtype == found[0].labels.dtype == np.int64


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_streaming_gives_the_same_batches_with_any_number_of_threads(
    paths: list[str], threads: int, ahead: int
) -> None:
    order = permutation(5, 0, 23)
    expected = list(batches(PixelCache(paths, PROGRAM), LABELS, order, batch_bounds(23, 4)))
    streamed = PixelCache(paths, PROGRAM, budget_bytes=0, threads=threads)
    equal(list(batches(streamed, LABELS, order, batch_bounds(23, 4), threads=threads, ahead=ahead)), expected)


@pytest.mark.parametrize("budget", [0, None])
def test_resuming_gives_the_rest_of_the_epoch(paths: list[str], budget: int | None) -> None:
    cache = PixelCache(paths, PROGRAM, budget_bytes=budget)
    order = permutation(2, 2, 23)
    whole = list(batches(cache, LABELS, order, batch_bounds(23, 4)))
    for start in range(8):
        equal(list(batches(cache, LABELS, order, batch_bounds(23, 4), start_batch=start)), whole[start:])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 8), st.integers(0, 4))
def test_any_order_with_repeats_is_served(order: list[int], batch_size: int, ahead: int) -> None:
    cache = PixelCache([], PROGRAM)
    cache.paths = [str(row) for row in range(10)]
    cache.images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 8, 3), np.uint8)
    found = list(
        batches(cache, np.arange(10), np.array(order, np.int64), batch_bounds(len(order), batch_size), ahead=ahead)
    )
    assert len(found) == num_batches(len(order), batch_size)
    assert [int(image[0, 0, 0]) for batch in found for image in batch.images] == order


def test_a_batch_is_a_copy_that_the_caller_may_change(paths: list[str]) -> None:
    cache = PixelCache(paths, PROGRAM)
    first = next(iter(batches(cache, LABELS, np.arange(23), batch_bounds(23, 4))))
    first.images[:] = 0
    assert cache.images is not None
    assert cache.images[:4].any()


@pytest.mark.parametrize("budget", [0, None])
def test_an_abandoned_loop_leaves_no_thread(paths: list[str], budget: int | None) -> None:
    cache = PixelCache(paths, PROGRAM, budget_bytes=budget)
    before = set(threading.enumerate())
    running = batches(cache, LABELS, np.arange(23), batch_bounds(23, 2), threads=3)
    next(running)
    assert set(threading.enumerate()) > before
    running.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


def test_an_error_in_the_loop_leaves_no_thread(paths: list[str]) -> None:
    cache = PixelCache(paths, PROGRAM, budget_bytes=0)
    before = set(threading.enumerate())

    def train() -> None:
        for _ in batches(cache, LABELS, np.arange(23), batch_bounds(23, 2), threads=3):
            raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError, match="the step failed"):
        train()
    assert set(threading.enumerate()) <= before


def test_a_file_that_vanished_is_named_and_no_thread_is_left(paths: list[str]) -> None:
    cache = PixelCache(paths, PROGRAM, budget_bytes=0)
    before = set(threading.enumerate())
    Path(paths[9]).unlink()
    with pytest.raises(DecodeError, match=r"009\.jpg does not exist"):
        list(batches(cache, LABELS, np.arange(23), batch_bounds(23, 4), threads=2))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("labels", "order", "batch_size", "start"),
    [
        (LABELS, [23], 4, 0),
        (LABELS, [-1], 4, 0),
        (LABELS[:5], [0], 4, 0),
        (LABELS, [0], 0, 0),
        (LABELS, [0], 4, -1),
        (LABELS, [0, 1], 4, 0),
    ],
)
def test_sizes_that_do_not_fit_are_refused_at_once(
    paths: list[str], labels: np.ndarray, order: list[int], batch_size: int, start: int
) -> None:
    cache = PixelCache(paths, PROGRAM)
    with pytest.raises(ValueError, match=r"row|start_batch"):
        batches(cache, labels, np.array(order), batch_bounds(1, batch_size), start_batch=start)


def test_batches_hold_the_rows_of_zeros_and_ones(paths: list[str]) -> None:
    tags = (np.arange(23 * 4).reshape(23, 4) % 3 == 0).astype(np.uint8)
    order = permutation(0, 1, 23)
    found = list(batches(PixelCache(paths, PROGRAM), tags, order, batch_bounds(23, 5)))
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in found]), tags[order])
    assert found[0].labels.dtype == np.uint8
