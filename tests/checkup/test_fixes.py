"""A split without leaks, and lists of what to leave out: tables that training reads. No image is touched."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.checkup.test_faults import scene, scenes
from tests.conftest import Cli

import regraft as rg
from regraft.data.groups.units import grouped_split, units_of


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Four of the test images are mirrored training images."""
    root = scenes(
        tmp_path / "photos", {f"{split}/{name}": 12 for split in ("train", "val", "test") for name in ("a", "b")}
    )
    for name in ("a", "b"):
        for number in (0, 1):
            image = Image.open(root / "train" / name / f"{number:02}.png")
            ImageOps.mirror(image).save(root / "test" / name / f"copy{number}.png")
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_new_split_has_no_leak_and_trains(cli: Cli, leaky: Path, tmp_path: Path) -> None:
    before = sorted(path.read_bytes() for path in leaky.rglob("*.png"))
    out = tmp_path / "found"
    result = cli("check", leaky, "--model", "none", "--fix", "split", "--out", out)
    assert result.code == 0, result.err
    assert "4 of 28 test images have a near copy in train" in result.out
    again = rg.check(out / "split.csv", model="none")
    assert again.of("leak-test-train") is None
    assert again.of("near-duplicates") is not None, "the copies are still there, together"
    counts = Counter((row["split"], row["label"]) for row in rows(out / "split.csv"))
    assert sum(counts.values()) == 76
    for split in ("train", "val", "test"):
        assert abs(counts[split, "a"] - counts[split, "b"]) <= 2
        assert counts[split, "a"] >= 10
    assert sorted(path.read_bytes() for path in leaky.rglob("*.png")) == before


def test_lists_of_what_to_leave_out_and_a_table_of_the_rest(cli: Cli, leaky: Path, tmp_path: Path) -> None:
    (leaky / "train" / "a" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "found"
    assert cli("check", leaky, "--model", "none", "--fix", "quarantine", "--out", out).code == 0
    assert (out / "quarantine" / "unreadable.txt").read_text() == "train/a/bad.png\n"
    leaked = (out / "quarantine" / "leak-test-train.txt").read_text().split()
    assert sorted(leaked) == [f"test/{name}/copy{number}.png" for name in "ab" for number in (0, 1)]
    kept = rg.check(out / "kept.csv", model="none")
    assert kept.is_sound
    assert sum(kept.num_images.values()) == 72
    assert (leaky / "train" / "a" / "bad.png").exists()


def test_groups_by_column_folder_and_pattern_stay_together(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    lines = ["file,label,patient"]
    for number in range(48):
        scene(number, (64, 64)).save(folder / f"p{number // 4:02}_{number % 4}.png")
        lines.append(f"scans/p{number // 4:02}_{number % 4}.png,{'ab'[number // 4 % 2]},P{number // 4}")
    (tmp_path / "scans.csv").write_text("\n".join(lines))
    found = rg.check(tmp_path / "scans.csv", model="none")
    for group in ("patient",):
        (tmp_path / "split.csv").write_text(found.split_table(group))
        placed = {(Path(row["path"]).name[:3], row["split"]) for row in rows(tmp_path / "split.csv")}
        assert len(placed) == 12, "each patient is in one split"
        assert {split for _, split in placed} == {"train", "val", "test"}
    with pytest.raises(rg.SettingsError, match="no column 'patent'; did you mean 'patient'"):
        found.split_table("patent")
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for number in range(48):
        scene(number, (64, 64)).save(tmp_path / "photos" / "ab"[number // 4 % 2] / f"drive{number // 4}_{number}.png")
    of_folder = rg.check(tmp_path / "photos", model="none")
    (tmp_path / "split.csv").write_text(of_folder.split_table(r"drive\d+_"))
    assert len({(Path(row["path"]).name.split("_")[0], row["split"]) for row in rows(tmp_path / "split.csv")}) == 12
    with pytest.raises(rg.SettingsError, match="No path holds the group"):
        of_folder.split_table("patient")
    with pytest.raises(rg.SettingsError, match="not a regular expression"):
        of_folder.split_table("(")


def test_units_are_never_divided_and_classes_are_divided_alike() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 2000)
    units = units_of(2000, [np.arange(start, start + 5) for start in range(0, 1000, 5)])
    part = grouped_split(units, labels, (0.7, 0.15, 0.15), seed=3)
    for unit in np.unique(units):
        assert len(set(part[units == unit])) == 1
    for label in range(4):
        shares = np.bincount(part[labels == label], minlength=3) / (labels == label).sum()
        np.testing.assert_allclose(shares, (0.7, 0.15, 0.15), atol=0.01)
    assert (grouped_split(units, labels, (0.7, 0.15, 0.15), seed=3) == part).all()
    assert (grouped_split(units, labels, (0.7, 0.15, 0.15), seed=4) != part).any()


def test_wrong_options_are_refused_before_anything_is_read(cli: Cli, tmp_path: Path) -> None:
    for options in (["--fix", "everything"], ["--fix", "split"], ["--group", "folder"], ["--resize", "stretch"]):
        result = cli("check", tmp_path / "nowhere", *options)
        assert result.code == 2, (options, result.err)
