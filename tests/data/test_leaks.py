"""The same picture in two splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.data.conftest import jpeg

from regraft.data import leaks
from regraft.data.check import check
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode_all import decode_all
from regraft.data.leaks import find_leaks, with_leaks
from regraft.data.open import open_data

Plant = Callable[[Mapping[str, int | bytes]], Path]


@pytest.fixture
def leaking(plant: Plant) -> DataSet:
    tree: dict[str, int | bytes] = {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("a", "b")}
    copies: dict[str, int | bytes] = {
        "train/a/x.jpg": jpeg(90),
        "val/b/copy.jpg": jpeg(90),
        "train/b/y.jpg": jpeg(91),
        "test/b/y.jpg": jpeg(91),
        "test/b/again.jpg": jpeg(91),
        "val/a/z.jpg": jpeg(92),
        "test/a/z.jpg": jpeg(92),
    }
    return open_data(plant({**tree, **copies}))


EXPECTED = [
    "1 of 8 val images is in train too, byte for byte ('val/b/copy.jpg' = 'train/a/x.jpg'); metrics on val are "
    "inflated by train/test leakage.",
    "2 of 9 test images are in train too, byte for byte ('test/b/again.jpg' = 'train/b/y.jpg', 'test/b/y.jpg' = "
    "'train/b/y.jpg'); metrics on test are inflated by train/test leakage.",
    "1 of 9 test images is in val too, byte for byte ('test/a/z.jpg' = 'val/a/z.jpg'); metrics on test are inflated "
    "by train/test leakage.",
]


def test_copies_across_splits_are_counted_and_named(leaking: DataSet) -> None:
    assert find_leaks(leaking) == EXPECTED
    findings = check(with_leaks(leaking))
    assert [finding.text for finding in findings if finding.level == "warning"] == EXPECTED


def test_copies_within_a_split_are_no_leak(plant: Plant) -> None:
    copies: dict[str, int | bytes] = {"train/a/x.jpg": jpeg(90), "train/a/y.jpg": jpeg(90)}
    data = open_data(plant({"train/a": 2, "train/b": 2, "val/a": 2, "val/b": 2, **copies}))
    assert find_leaks(data) == []


def test_files_that_were_decoded_are_not_read_again(leaking: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    data, caches = decode_all(leaking, PixelProgram((8, 8)), cache="off")
    known = {name: (part.paths, part.digests) for name, part in caches.items() if name != "test"}
    read: list[str] = []
    real = leaks.read_file
    monkeypatch.setattr(leaks, "read_file", lambda path: read.append(path) or real(path))
    assert find_leaks(data, known) == EXPECTED
    assert read
    assert all("/test/" in Path(path).as_posix() for path in read)


def test_many_examples_are_three_and_a_count(plant: Plant) -> None:
    files: dict[str, int | bytes] = {f"{split}/a/{n}.jpg": jpeg(50 + n) for split in ("train", "val") for n in range(9)}
    (text,) = find_leaks(open_data(plant({**files, "train/b": 1, "val/b": 1})))
    assert text.startswith("9 of 10 val images are in train too")
    assert text.count(" = ") == 3
    assert "and 6 more" in text


def test_files_that_went_away_or_are_empty_are_no_copies(plant: Plant) -> None:
    empty: dict[str, int | bytes] = {"train/a/e.jpg": b"", "val/a/e.jpg": b""}
    data = open_data(plant({"train/a": 2, "train/b": 2, "val/a": 2, "val/b": 2, **empty}))
    Path(data.val.paths[0]).unlink()
    assert find_leaks(data, {"train": ([], np.zeros((0, 32), np.uint8))}) == []
