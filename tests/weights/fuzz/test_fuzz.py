"""The fuzzer of the readers, for a short while in the default run and for longer under `-m slow`."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from fuzz_readers import input_of, run
from mutations import mutated
from seeds import seeds

from regraft.weights.file import FORMATS, read_weights

SEEDS = seeds()


def test_every_format_has_a_seed_that_can_be_read(tmp_path: Path) -> None:
    for place, seed in enumerate(SEEDS):
        folder = tmp_path / str(place)
        folder.mkdir()
        for name, content in ((seed.name, seed.content), *seed.beside):
            (folder / name).write_bytes(content)
        weights = read_weights(folder / seed.name)
        assert weights.format == seed.format
        assert all(tensor.load().shape == tensor.shape for tensor in weights)
    assert {seed.format for seed in SEEDS} == set(FORMATS)


def test_an_input_is_a_function_of_its_number() -> None:
    for number in range(60):
        assert input_of(number, SEEDS) == input_of(number, SEEDS)
    changed = Counter(mutated(SEEDS[0], SEEDS, random.Random(turn)) != SEEDS[0].content for turn in range(200))
    assert changed[True] > 150


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_damaged_files_are_read_or_refused(tmp_path: Path, count: int) -> None:
    counts, findings = run(5_000_000, count, 1, SEEDS, tmp_path)
    assert findings == 0, counts
    assert counts["read"] + counts["refused"] == count
    assert counts["read"] > count // 50
