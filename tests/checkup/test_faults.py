"""Faults of single files are found, named and written down; sound images are left alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Cli, photos

import regraft as rg

SIDE = 256


def scene(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """An image with edges and shades, as a photograph has."""
    rng = np.random.default_rng(seed)
    canvas = np.full((SIDE, SIDE, 3), rng.integers(60, 190, 3), dtype=np.float64)
    canvas += np.linspace(-30, 30, SIDE)[:, None, None]
    for _ in range(12):
        top, left = rng.integers(0, SIDE - 40, 2)
        height, width = rng.integers(20, 120, 2)
        canvas[top : top + height, left : left + width] = rng.integers(0, 255, 3)
    canvas += rng.normal(0, 4, canvas.shape)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).resize(size)


def scenes(root: Path, classes: dict[str, int]) -> Path:
    """`root/class/*.png`, an image of its own each."""
    for at, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            scene(1000 * at + number).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound images, and one with each fault, named after it."""
    root = scenes(tmp_path_factory.mktemp("check") / "photos", {"cat": 12, "dog": 12})
    cat = root / "cat"
    (cat / "unreadable.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    scene(500).save(cat / "truncated.jpg")
    content = (cat / "truncated.jpg").read_bytes()
    (cat / "truncated.jpg").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (SIDE, SIDE), (90, 120, 30)).save(cat / "blank.png")
    pixels = np.asarray(scene(501), dtype=np.float64)
    Image.fromarray((pixels * 0.2).astype(np.uint8)).save(cat / "dark.png")
    Image.fromarray((255 - (255 - pixels) * 0.15).astype(np.uint8)).save(cat / "overexposed.png")
    scene(502, (16, 16)).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(cat / "blurred.png")
    scene(503, (64, 64)).save(cat / "small.png")
    scene(504, (1600, 1600)).save(cat / "odd-size.jpg")
    scene(505, (1200, 300)).save(cat / "odd-aspect.png")
    scene(506).convert("L").save(cat / "colour-mode.png")
    Image.fromarray(np.asarray(scene(507).convert("L")).astype(np.uint16) * 257).save(cat / "bit-depth.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    scene(508).save(cat / "exif-rotated.jpg", exif=turned)
    return root


FAULTS = ("blank", "dark", "overexposed", "blurred", "small", "odd-size", "odd-aspect", "bit-depth", "exif-rotated")


def named(found: rg.Checkup, kind: str) -> set[str]:
    issue = found.of(kind)
    return set() if issue is None else {Path(item.path).stem for item in issue.items}


def test_each_fault_is_found_and_nothing_else(damaged: Path) -> None:
    found = rg.check(damaged)
    assert named(found, "unreadable") == {"unreadable", "truncated"}
    for kind in FAULTS:
        assert named(found, kind) == {kind}, kind
    assert named(found, "colour-mode") == {"colour-mode", "bit-depth"}
    assert named(found, "stretched") == {"odd-aspect"}
    assert not found.is_sound
    cut = rg.check(damaged, resize="crop").of("cut")
    assert cut is not None
    assert [item.detail for item in cut.items] == ["75% is cut away"]
    assert named(rg.check(damaged, resize="pad"), "padded") == {"odd-aspect"}


def test_the_command_lists_findings_and_fails_only_when_told_to(cli: Cli, damaged: Path, tmp_path: Path) -> None:
    result = cli("check", damaged, "--out", tmp_path / "found")
    assert result.code == 0, result.err
    assert "warning: 2 files cannot be read; training leaves them out." in result.out
    assert "cat/truncated.jpg" in result.out
    assert cli("check", damaged, "--strict").code == 3
    stored = json.loads((tmp_path / "found" / "check.json").read_text())
    assert not stored["is_sound"]
    assert {"blank", "unreadable"} <= {issue["kind"] for issue in stored["issues"]}
    rows = list(csv.DictReader((tmp_path / "found" / "check.csv").open()))
    assert {"kind": "blank", "path": "cat/blank.png", "label": "cat"}.items() <= next(
        row for row in rows if row["kind"] == "blank"
    ).items()
    page = (tmp_path / "found" / "check.html").read_text()
    assert "Blank images" in page
    assert page.count("data:image/jpeg") >= len(FAULTS)
    assert "image not found or not readable" in page, "of the damaged files"
    (tmp_path / "found" / "check.html").write_text("mine")
    assert cli("check", damaged, "--out", tmp_path / "found").code == 7


def test_sound_images_pass_even_strictly(cli: Cli, tmp_path: Path) -> None:
    root = scenes(tmp_path / "photos", {"cat": 12, "dog": 12})
    result = cli("check", root, "--strict", "--json")
    assert result.code == 0, result.out
    assert json.loads(result.out)["is_sound"]


def test_the_same_pixels_with_two_labels_are_a_conflict_whatever_the_file(tmp_path: Path) -> None:
    root = scenes(tmp_path / "photos", {"cat": 10, "dog": 10})
    Image.open(root / "cat" / "03.png").save(root / "dog" / "again.bmp")
    found = rg.check(root).of("label-conflict")
    assert found is not None
    assert {item.path for item in found.items} == {"cat/03.png", "dog/again.bmp"}
    assert {item.group for item in found.items} == {0}


def test_classes_of_few_images_and_of_none(tmp_path: Path) -> None:
    root = scenes(tmp_path / "photos", {"cat": 90, "dog": 4})
    found = rg.check(root)
    few, uneven = found.of("few-images"), found.of("uneven")
    assert few is not None
    assert "'dog'" in few.text
    assert uneven is not None
    assert found.splits["train"]["cat"] > 50


def test_what_cannot_be_trained_on_is_checked_all_the_same(tmp_path: Path) -> None:
    root = scenes(tmp_path / "photos", {"cat": 3})
    found = rg.check(root)
    refused = found.of("not-trainable")
    assert refused is not None
    assert refused.level == "error"
    assert found.splits == {"test": {"cat": 3}}
    one = scenes(tmp_path / "one", {"cat": 1})
    assert rg.check(one).num_images == {"test": 1}
    same = photos(tmp_path / "same", {"red": 1})
    for number in range(4):
        (same / "red" / f"copy{number}.png").write_bytes((same / "red" / "000.png").read_bytes())
    assert sum(rg.check(same).num_images.values()) == 5
