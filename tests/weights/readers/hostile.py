"""Damage: cut a file at many places, flip many bytes; a reader may refuse or read, and nothing else."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft.errors import WeightsError


def cut(whole: bytes, count: int, places: random.Random) -> Iterator[bytes]:
    for _ in range(count):
        yield whole[: places.randrange(len(whole))]


def flipped(whole: bytes, count: int, places: random.Random) -> Iterator[bytes]:
    for _ in range(count):
        wrong = bytearray(whole)
        wrong[places.randrange(len(wrong))] ^= places.randrange(1, 256)
        yield bytes(wrong)


def survive(reader: Any, path: Path) -> bool:
    """Read everything; True when it could be read, False when it was refused in words."""
    try:
        reader.sniff(path, path.read_bytes()[:4096])
        for tensor in reader.read(path):
            assert tensor.load().shape == tensor.shape
    except WeightsError as refusal:
        assert_in_words(refusal)
        return False
    return True


def assert_in_words(refusal: WeightsError) -> None:
    assert refusal.what
    assert refusal.expected
    assert refusal.next_step


def fuzz(reader: Any, path: Path, *, seed: int = 0) -> tuple[int, int]:
    """Cut a file at 200 places and flip 200 bytes; how many of each could still be read. Memory stays bounded."""
    whole, places = path.read_bytes(), random.Random(seed)
    tracemalloc.start()
    try:
        num_cut = sum(_with(reader, path, broken) for broken in cut(whole, 200, places))
        num_flipped = sum(_with(reader, path, broken) for broken in flipped(whole, 200, places))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        path.write_bytes(whole)
    assert peak < 32 * len(whole) + (16 << 20)
    return num_cut, num_flipped


def _with(reader: Any, path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    return survive(reader, path)
