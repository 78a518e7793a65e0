"""Masks: empty ones, specks, rare classes, and copies of an image whose masks disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tests.segmentation import scenes_in

import regraft as rg
from regraft.checkup.masks import _areas


def mask_of(root: Path, name: str) -> np.ndarray:
    return np.array(Image.open(root / "train" / "masks" / f"{name}.png"))


def write(root: Path, name: str, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(root / "train" / "masks" / f"{name}.png")


def stems(issue: rg.Issue | None) -> set[str]:
    return set() if issue is None else {Path(item.path).stem for item in issue.items}


def test_faults_of_masks_are_found_and_sound_ones_left_alone(tmp_path: Path) -> None:
    root = scenes_in(tmp_path / "photos", {"train": 14, "val": 4})
    write(root, "001", np.full_like(mask_of(root, "001"), 255))
    write(root, "002", np.zeros_like(mask_of(root, "002")))
    specks = mask_of(root, "003")
    specks[5:45:8, 30] = np.where(specks[5:45:8, 30] == 0, 2, 0)
    specks[8:45:8, 50] = np.where(specks[8:45:8, 50] == 0, 2, 0)
    write(root, "003", specks)
    for folder in ("images", "masks"):
        content = (root / "train" / folder / "004.png").read_bytes()
        (root / "train" / folder / "copy.png").write_bytes(content)
    write(root, "copy", (mask_of(root, "004") + 1) % 3)
    found = rg.check(root, model="none")
    assert stems(found.of("void-mask")) == {"001"}
    assert stems(found.of("empty-mask")) == {"002"}
    assert stems(found.of("islands")) == {"003"}
    assert stems(found.of("mask-conflict")) == {"004", "copy"}
    assert found.of("rare-class") is None
    assert found.of("label-conflict") is None
    sound = rg.check(scenes_in(tmp_path / "sound"), model="none")
    assert {issue.kind for issue in sound.issues} == {"data", "small"}, sound.render()


def test_a_class_with_almost_no_pixels(tmp_path: Path) -> None:
    root = scenes_in(tmp_path / "photos")
    for split in ("train", "val", "test"):
        for path in (root / split / "masks").iterdir():
            mask = np.array(Image.open(path))
            mask[mask == 2] = 0
            Image.fromarray(mask).save(path)
    one = mask_of(root, "000")
    one[10, 10] = 2
    write(root, "000", one)
    found = rg.check(root, model="none").of("rare-class")
    assert found is not None
    assert stems(found) == {"000"}


def test_areas_are_those_of_a_flood_fill() -> None:
    mask = np.random.default_rng(0).integers(0, 3, (30, 40)).astype(np.uint8)
    sizes, codes = _areas(mask)
    expected, left = [], np.ones_like(mask, dtype=bool)
    for y, x in np.ndindex(mask.shape):
        stack, size = [(y, x)], 0
        while stack:
            row, column = stack.pop()
            inside = 0 <= row < 30 and 0 <= column < 40
            if inside and left[row, column] and mask[row, column] == mask[y, x]:
                left[row, column] = False
                size += 1
                stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        if size:
            expected.append((size, int(mask[y, x])))
    assert sorted(zip(sizes.tolist(), codes.tolist(), strict=True)) == sorted(expected)
