"""Near copies are found in groups, whatever was done to them; leaks between splits and labels that differ are told."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from tests.checkup.test_faults import scene, scenes

import regraft as rg

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "reencoded": lambda image: _jpeg(image, 30),
    "resized": lambda image: image.resize((120, 150)),
    "cropped": lambda image: image.crop((6, 7, 249, 250)),
    "mirrored": ImageOps.mirror,
    "turned": lambda image: image.rotate(3, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)),
    "bordered": lambda image: ImageOps.expand(image, 20, (10, 90, 10)),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "noisy": lambda image: _noisy(image),
}


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def _noisy(image: Image.Image) -> Image.Image:
    return _noisy_by(image, 15)


def _noisy_by(image: Image.Image, strength: float) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    noise = np.random.default_rng(0).normal(0, strength, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def groups(issue: rg.Issue | None) -> list[set[str]]:
    found: dict[int | None, set[str]] = {}
    for item in () if issue is None else issue.items:
        found.setdefault(item.group, set()).add(Path(item.path).stem)
    return list(found.values())


@pytest.mark.parametrize("model", ["none", "test_resnet@none"])
def test_changed_copies_are_one_group_and_other_images_are_in_none(tmp_path: Path, model: str) -> None:
    root = scenes(tmp_path / "photos", {"train/cat": 8, "train/dog": 8, "val/cat": 3, "val/dog": 3})
    original = scene(3)
    for name, change in CHANGES.items():
        change(original).save(root / "train" / "cat" / f"{name}.png")
    found = rg.check(root, model=model)
    (group,) = groups(found.of("near-duplicates"))
    missed = {"turned"} if model == "none" else set()  # which hashes alone do not bring together
    assert {"03", *CHANGES} - missed <= group <= {"03", *CHANGES}
    assert found.of("near-conflict") is None
    assert found.of("leak-val-train") is None


def test_a_copy_in_another_split_is_a_leak_and_one_of_another_class_a_conflict(tmp_path: Path) -> None:
    root = scenes(
        tmp_path / "photos", {f"{split}/{name}": 4 for split in ("train", "val", "test") for name in ("a", "b")}
    )
    ImageOps.mirror(Image.open(root / "train/a/00.png")).save(root / "test/a/copy.png")
    _jpeg(Image.open(root / "train/b/01.png"), 40).save(root / "train/a/other.png")
    found = rg.check(root, model="none")
    leak = found.of("leak-test-train")
    assert leak is not None
    assert leak.level == "warning"
    assert "1 of 9 test images has a near copy in train" in leak.text
    assert {item.path for item in leak.items} == {"train/a/00.png", "test/a/copy.png"}
    assert groups(found.of("near-conflict")) == [{"01", "other"}]
    assert any("wrong labels" in text for text in found.not_computed)


@pytest.mark.parametrize(("side", "is_copy"), [(8, False), (31, False), (32, True), (200, True)])
def test_small_images_that_look_alike_are_no_copies_unless_they_are_equal(
    tmp_path: Path, side: int, is_copy: bool
) -> None:
    root = scenes(tmp_path / "photos", {"train/cat": 3, "train/dog": 3, "val/cat": 2, "val/dog": 2})
    small = scene(40).resize((side, side))
    small.save(root / "train" / "cat" / "a.png")
    _noisy_by(small, 2).save(root / "val" / "cat" / "b.png")
    found = rg.check(root, model="none")
    assert (found.of("leak-val-train") is not None) is is_copy
    small.save(root / "val" / "cat" / "b.png")
    assert rg.check(root, model="none").of("leak-val-train") is not None


def test_identical_images_are_one_group_and_nothing_is_made_up_about_labels(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            scene(0).save(root / name / f"{name}{number}.png")
    found = rg.check(root, model="test_resnet@none")
    assert found.of("label-error") is None
    assert any("the same features" in text for text in found.not_computed)
    conflict = found.of("label-conflict")
    assert conflict is not None
    assert len(conflict.items) == 12
