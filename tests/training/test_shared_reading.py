"""Images in shards and archives, read by several processes: each its share, and the same run as in one."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.training.test_processes import distance, launch, trained

EPOCHS = 4


def packed(photos: Path, target: Path) -> Path:
    """The 32 photos as four shards of WebDataset (their split is drawn), or as one .zip."""
    files = sorted(photos.rglob("*.png"))
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(photos))
        return target
    target.mkdir()
    for number in range(4):
        with tarfile.open(target / f"data-{number:03}.tar", "w") as tar:
            for place, file in enumerate(files[number::4]):
                key, label = f"{number}-{place:04}", target / "label"
                label.write_text(file.parent.name)
                tar.add(file, f"{key}.png")
                tar.add(label, f"{key}.cls")
        label.unlink()
    return target / "data-{000..003}.tar"


def reads(notes: Path, rank: int, run: Path, splits: tuple[str, ...]) -> Counter[str]:
    """How often a process has read each image of these splits."""
    stored = json.loads((run / "splits.json").read_text())
    known = {row[0] for name in splits for row in stored["splits"][name]}
    names = notes.with_name(f"{notes.name}-{rank}").read_text().splitlines()
    return Counter(name for name in (os.path.relpath(name, stored["root"]) for name in names) if name in known)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "cache"), [("shards", "ram"), ("photos.zip", "disk"), ("shards", "off")])
def test_each_process_reads_its_share(
    kind: str, cache: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = packed(photos, tmp_path / kind)
    monkeypatch.setenv("WORKER_CACHE", cache)
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache-one"))
    one = trained(1, source, tmp_path / "one", "groupnorm")
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache-two"))
    monkeypatch.setenv("WORKER_READS", str(tmp_path / "reads"))
    two = trained(2, source, tmp_path / "two", "groupnorm")
    print(f"{kind}, {cache}: weights after training differ by {distance(one, two):.2g}")
    assert distance(one, two) <= 1e-6
    splits = ("train",) if cache == "off" else ("train", "val")  # at the end, the main process looks at some others
    first, second = (reads(tmp_path / "reads", rank, tmp_path / "two", splits) for rank in (0, 1))
    if cache != "off":
        assert not first.keys() & second.keys(), "no image is read by both"
        assert set((first + second).values()) == {1}, "and none of them twice"
        assert abs(first.total() - second.total()) <= 2
        return
    assert set((first + second).values()) == {EPOCHS + 1}, "all are looked at once before the first epoch"
    assert abs(first.total() - second.total()) <= (EPOCHS + 1) * 2


@pytest.mark.slow
def test_what_one_process_finds_unreadable_all_leave_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = packed(photos, tmp_path / "photos.zip")
    with zipfile.ZipFile(source, "a") as archive:
        for split, number in (("train", 1), ("val", 2)):
            archive.writestr(f"{split}/dark/broken.png", b"\x89PNG\r\n\x1a\n" + bytes(number))
    losses = {}
    for num in (1, 2):
        monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / f"cache-{num}"))
        losses[num] = trained(num, source, tmp_path / f"run-{num}", "groupnorm")
        assert (tmp_path / f"run-{num}" / "splits.json").read_text().count("broken.png") == 2
    assert distance(losses[1], losses[2]) <= 1e-6


@pytest.mark.slow
def test_a_launcher_of_one_process_shares_nothing(photos: Path, tmp_path: Path) -> None:
    """What a launcher tells of this machine counts only where the run has several processes."""
    (ended,) = launch(1, photos, tmp_path / "run", "groupnorm")
    assert ended.returncode == 0, ended.stderr
