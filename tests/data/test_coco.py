"""COCO: polygons and run lengths as masks, equal to what they describe; every damage has a reason."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.drawn import COLOURS, classes, picture, save

from regraft.data.cache.cache import CACHES
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode_all import decode_all
from regraft.data.masks.coco import REST, coco_codes, fetch_annotations
from regraft.data.masks.masks import read_mask
from regraft.data.open import open_data
from regraft.errors import DataError

CATEGORIES = [{"id": 7, "name": "house"}, {"id": 18, "name": "tree"}, {"id": 44, "name": "river"}]
IDS = (0, 7, 18, 44)


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs of 0 and 1 in turn, down the columns."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(np.int8), [2]])
    edges = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], edges])).tolist()
    return lengths if mask.size and mask.T.reshape(-1)[0] == 0 else [0, *lengths[1:]]


def compressed(counts: list[int]) -> str:
    """The text that the COCO API makes of run lengths (rleToString)."""
    text = ""
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        more = True
        while more:
            chunk = value & 0x1F
            value >>= 5
            more = value != (-1 if chunk & 0x10 else 0)
            text += chr((chunk | (0x20 if more else 0)) + 48)
    return text


def rectangle(mask: np.ndarray) -> list[float]:
    """The polygon around the pixels of a rectangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return [float(v) for v in (left, top, right, top, right, bottom, left, bottom)]


def annotation(mask: np.ndarray, form: str) -> Any:
    if form == "polygon":
        return [rectangle(mask)]
    counts = runs(mask)
    return {"size": list(mask.shape), "counts": compressed(counts) if form == "compressed" else counts}


def data_of(segments: list[Any], height: int = 30, width: int = 44) -> bytes:
    return json.dumps({"coco_mask": [height, width], "segments": segments}, separators=(",", ":")).encode()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_run_lengths_are_what_they_say(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    for form in ("runs", "compressed"):
        drawn = coco_codes(data_of([[5, annotation(mask, form)]], height, width))
        assert not isinstance(drawn, str)
        np.testing.assert_array_equal(drawn == 5, mask)
        assert set(np.unique(drawn).tolist()) <= {5, REST}


def test_a_known_text_of_the_coco_api() -> None:
    mask = np.zeros((3, 3), dtype=bool)
    mask[1:, 1] = True
    assert compressed(runs(mask)) == "423"
    drawn = coco_codes(data_of([[1, {"size": [3, 3], "counts": "423"}]], 3, 3))
    assert not isinstance(drawn, str)
    np.testing.assert_array_equal(drawn == 1, mask)


@given(st.lists(st.tuples(st.floats(0, 44), st.floats(0, 30)), min_size=3, max_size=3))
@example([(0.0, 12.0), (1.0, 11.0), (18.0, 1.375)])
@settings(max_examples=60, deadline=None)
def test_a_polygon_covers_the_pixels_whose_middle_it_holds(corners: list[tuple[float, float]]) -> None:
    """But for those on its edges; a triangle is told by the signs of three products."""
    (ax, ay), (bx, by), (cx, cy) = corners
    assume(abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) > 1)
    y, x = np.mgrid[0:30, 0:44] + 0.5
    sides = [
        ((qx - px) * (y - py) - (qy - py) * (x - px), np.hypot(qx - px, qy - py))
        for (px, py), (qx, qy) in (((ax, ay), (bx, by)), ((bx, by), (cx, cy)), ((cx, cy), (ax, ay)))
    ]
    drawn = coco_codes(data_of([[1, [[ax, ay, bx, by, cx, cy]]]]))
    assert not isinstance(drawn, str)
    inside = np.all([s >= 1e-6 * n for s, n in sides], axis=0) | np.all([s <= -1e-6 * n for s, n in sides], axis=0)
    outside = ~(np.all([s >= -1e-6 * n for s, n in sides], axis=0) | np.all([s <= 1e-6 * n for s, n in sides], axis=0))
    assert (drawn[inside] == 1).all()
    assert (drawn[outside] == REST).all()


def test_of_objects_that_overlap_the_smaller_one_is_seen() -> None:
    large, small = np.zeros((30, 44), dtype=bool), np.zeros((30, 44), dtype=bool)
    large[2:28, 2:40], small[10:15, 10:15] = True, True
    for order in (1, -1):
        shapes = [[1, annotation(large, "runs")], [2, annotation(small, "compressed")]][::order]
        drawn = coco_codes(data_of(shapes))
        assert not isinstance(drawn, str)
        assert ((drawn == 2) == small).all()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"size": [30, 44], "counts": [5]}, "do not add up"),
        ({"size": [30, 44], "counts": [-5, 1325]}, "do not add up"),
        ({"size": [30, 44], "counts": [[1320]]}, "do not add up"),
        ({"size": [3, 4], "counts": [12]}, "run lengths for"),
        ({"size": [30, 44], "counts": "\x7f\x01"}, "cannot be read"),
        ({"size": [30, 44], "counts": "ooooooooooooo"}, "cannot be read"),
        ({"size": [30, 44], "counts": "o"}, "cut off"),
        ({"size": [30, 44], "counts": "é"}, "cannot be drawn"),
        ({"size": [30, 44]}, "cannot be drawn"),
        ({"size": [30, 44], "counts": None}, "cannot be drawn|do not add up"),
        ([[1, 2, 3]], "at least three corners"),
        ([[1, 2, 3, 4, 5]], "at least three corners"),
        ([[1, 2, 3, 4, 5, "a"]], "cannot be drawn"),
        ([[1, 2, 3, 4, 5, 1e999]], "at least three corners"),
        ([5], "at least three corners"),
        ("abc", "cannot be drawn|at least"),
    ],
)
def test_annotations_that_cannot_be_drawn_have_a_reason(segmentation: Any, said: str) -> None:
    found = coco_codes(data_of([[1, segmentation]]))
    assert isinstance(found, str)
    assert re.search(said, found)


@pytest.mark.parametrize("size", [(0, 5), (-3, 5), (10**6, 10**6)])
def test_impossible_sizes_have_a_reason(size: tuple[int, int]) -> None:
    assert isinstance(coco_codes(data_of([], *size)), str)


def plant(root: Path, kind: str = "instances", form: str = "runs", counts: dict[str, int] | None = None) -> Path:
    """A COCO data set of drawn scenes."""
    seed = 0
    for split, count in (counts or {"train": 4, "val": 2}).items():
        images, annotations = [], []
        for number in range(count):
            seed += 1
            mask = classes(seed=seed)
            images.append({"id": 100 + seed, "file_name": f"{number:06}.png", "height": 30, "width": 44})
            save(root / f"{split}2017" / f"{number:06}.png", picture(mask))
            annotations += [
                {"id": 10 * seed + place, "image_id": 100 + seed, "category_id": IDS[place], "iscrowd": 0,
                 "segmentation": annotation(mask == place, form)}
                for place in (1, 2, 3)
            ]  # fmt: skip
        path = root / "annotations" / f"{kind}_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return root


@pytest.fixture(autouse=True)
def _cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["runs", "compressed"])
@pytest.mark.parametrize("cache", CACHES)
def test_a_data_set_in_every_cache(tmp_path: Path, form: str, cache: str) -> None:
    root = plant(tmp_path / "coco", form=form)
    data = open_data(root)
    assert data.class_names == ("background", "house", "tree", "river")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2}
    for _ in range(2):
        checked, caches = decode_all(data, PixelProgram((30, 44), interpolation="nearest"), cache=cache)  # type: ignore[arg-type]
        assert not checked.quarantined
        for name, split in checked.splits.items():
            masks = caches[name].masks
            assert masks is not None
            for row, path in enumerate(split.paths):
                truth = np.asarray(Image.open(path))
                np.testing.assert_array_equal(COLOURS[masks.row(row)], truth)
                np.testing.assert_array_equal(COLOURS[read_mask(split.masks[row], data.class_table)], truth)  # type: ignore[arg-type]
        for path in root.rglob("*"):
            os.utime(path, (1_500_000_000, 1_500_000_000))


def test_polygons_within_a_pixel(tmp_path: Path) -> None:
    data = open_data(plant(tmp_path / "coco", form="polygon"))
    assert data.class_table is not None
    for path, name in zip(data.train.paths, data.train.masks, strict=True):
        shown = COLOURS[read_mask(name, data.class_table)]
        assert (shown == np.asarray(Image.open(path))).all(-1).mean() > 0.93


def test_stuff_leaves_the_rest_out_and_instances_can_too(tmp_path: Path) -> None:
    stuff = open_data(plant(tmp_path / "stuff", kind="stuff"))
    assert stuff.class_names == ("house", "tree", "river")
    assert open_data(plant(tmp_path / "coco"), ignore="background").class_names == stuff.class_names
    mask = read_mask(stuff.train.masks[0], stuff.class_table)  # type: ignore[arg-type]
    assert 255 in mask


def test_a_choice_of_categories_by_name(tmp_path: Path) -> None:
    root = plant(tmp_path / "coco")
    data = open_data(root, class_table=["background", "tree"])
    assert data.class_names == ("background", "tree")
    truth = read_mask(open_data(root).train.masks[0], open_data(root).class_table)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_mask(data.train.masks[0], data.class_table) == 1, truth == 2)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no categories 'boat'"):
        open_data(root, class_table=["background", "boat"])


def test_named_files_and_files_in_the_folders_of_the_splits(tmp_path: Path) -> None:
    root = plant(tmp_path / "coco")
    data = open_data(root, masks="annotations/instances_*.json")
    assert [len(split) for split in data.splits.values()] == [4, 2]
    one = open_data(root, masks="annotations/instances_train2017.json", fractions=(0.5, 0.5, 0))
    assert sum(map(len, one.splits.values())) == 4
    for split in ("train", "val"):
        (root / f"{split}2017").rename(root / split)
        (root / "annotations" / f"instances_{split}2017.json").rename(root / split / "_annotations.coco.json")
    (root / "annotations").rmdir()
    assert open_data(root).fingerprint() != data.fingerprint()
    assert [len(split) for split in open_data(root).splits.values()] == [4, 2]


def test_damage_to_files_is_told(tmp_path: Path) -> None:
    root = plant(tmp_path / "coco", counts={"train": 5, "val": 2})
    path = root / "annotations" / "instances_train2017.json"
    values = json.loads(path.read_text())
    values["annotations"][0]["segmentation"] = {"size": [30, 44], "counts": [5]}
    values["images"][1]["height"] = 31
    values["images"].append({"id": 999, "file_name": "../../secret.png", "height": 30, "width": 44})
    path.write_text(json.dumps(values))
    data = open_data(root)
    assert any("1 image of instances_train2017.json is not there" in text for text in data.warnings)
    checked, _ = decode_all(data, PixelProgram((30, 44)))
    assert len(checked.train) == 3
    reasons = " ".join(item.reason for item in checked.quarantined)
    assert "do not add up" in reasons
    for text in ("[]", "{", '{"images": 3}', '{"images": [], "annotations": [], "categories": []}'):
        path.write_text(text + ' "segmentation"' if text == "{" else text)
        with pytest.raises(DataError, match="cannot be read as annotations of COCO"):
            open_data(root, masks="annotations/instances_train2017.json")
    assert fetch_annotations(f"{path}#1") is not None
    assert fetch_annotations("photo#1.png") is None
