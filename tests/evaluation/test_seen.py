"""Images that a run was trained on are told, and counted apart: the figures are of those that it has not seen."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.conftest import COLOURS, Cli, photo

import regraft as rg
from regraft.errors import DataError, SettingsError
from regraft.run.folder import RunFolder


@pytest.fixture(params=["contents", "files"])
def run(request: pytest.FixtureRequest, tiny_run: Path, tmp_path: Path) -> RunFolder:
    """A run that remembers its images, and one of an earlier version, which does not."""
    copy = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    if request.param == "files":
        forget(copy)
    return copy


def forget(run: RunFolder, contents: object = None) -> None:
    """Take the record of contents out of a run, or put another one in."""
    record = json.loads(run.splits.read_text())
    del record["contents"]
    run.splits.write_text(json.dumps(record if contents is None else {**record, "contents": contents}))


def rows_of(run: RunFolder, split: str) -> list[tuple[str, str]]:
    record = json.loads(run.splits.read_text())
    return [(os.path.join(record["root"], path), name) for path, name in record["splits"][split]]


def copied(rows: list[tuple[str, str]], root: Path) -> None:
    for number, (path, name) in enumerate(rows):
        target = root / name / f"{path[-20:].replace(os.sep, '-')}-{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def new_photos(root: Path, num: int) -> None:
    for name, colour in COLOURS.items():
        for number in range(num):
            photo(root / name / f"new-{number}.png", colour, 500 + number)


def test_images_of_the_training_are_counted_apart(run: RunFolder, cli: Cli, tmp_path: Path) -> None:
    new_photos(tmp_path / "new", 2)
    new_photos(tmp_path / "mixed", 2)
    train, val = rows_of(run, "train"), rows_of(run, "val")
    copied([*train, val[0]], tmp_path / "mixed")
    measures = rg.evaluate(run, tmp_path / "mixed")
    assert measures["num_images"] == 6
    assert {key: measures["seen"][key] for key in ("train", "val")} == {"train": len(train), "val": 1}
    assert measures["seen"]["measures"]["num_images"] == len(train) + 1
    alone = rg.evaluate(run, tmp_path / "new")
    assert measures["top1"] == alone["top1"]
    assert measures["confusion"] == alone["confusion"]
    assert measures["notes"][-1].startswith(f"{len(train) + 1} of {len(train) + 7} images are in the run's training")
    rows = [json.loads(line) for line in (run.predictions / "mixed.jsonl").read_text().splitlines()]
    assert sorted(str(row["seen"]) for row in rows) == ["None"] * 6 + ["train"] * len(train) + ["val"]

    lines = cli("evaluate", run.path, tmp_path / "mixed").out.splitlines()
    assert lines[0].startswith("accuracy (mixed): ")
    assert " of 6 images, 95 % interval " in lines[0]
    assert any(line.startswith("accuracy (mixed, seen in training): ") for line in lines[1:])


def test_only_images_of_the_training(run: RunFolder, cli: Cli, tmp_path: Path) -> None:
    copied(rows_of(run, "train"), tmp_path / "photos")
    measures = rg.evaluate(run, tmp_path / "photos")
    assert measures["label"] == "photos, seen in training"
    assert measures["notes"][-1].startswith("All ")
    result = cli("evaluate", run.path, tmp_path / "photos")
    assert result.out.splitlines()[0].startswith("accuracy (photos, seen in training): ")
    assert "has memorized" in result.out


def test_new_images_are_new_and_the_test_split_is_not_seen(run: RunFolder, tmp_path: Path) -> None:
    copied(rows_of(run, "test"), tmp_path / "photos")
    measures = rg.evaluate(run, tmp_path / "photos")
    assert measures["seen"] == {"train": 0, "val": 0, "measures": None}
    assert measures.get("notes", []) == []
    assert "seen" not in rg.evaluate(run)


def test_what_cannot_be_told_is_said(tiny_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    copied(rows_of(run, "train"), tmp_path / "photos")
    record = json.loads(run.splits.read_text())
    run.splits.write_text(json.dumps({**record, "root": str(tmp_path / "gone"), "source": str(tmp_path / "gone")}))
    assert rg.evaluate(run, tmp_path / "photos")["seen"]["train"] == len(record["splits"]["train"])
    forget(run)
    measures = rg.evaluate(run, tmp_path / "photos")
    lost = len(record["splits"]["train"]) + len(record["splits"]["val"])
    assert measures["seen"]["unknown"] == lost
    assert measures["notes"][-1].startswith(f"{lost} images of the run's training and validation splits are no longer")


@pytest.mark.parametrize("record", [[], {"train": 5}, {"train": "%"}, {"train": None}])
def test_a_damaged_record_is_an_error(record: object, tiny_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    forget(run, record)
    new_photos(tmp_path / "new", 1)
    with pytest.raises(DataError, match="record of its images' contents"):
        rg.evaluate(run, tmp_path / "new")


def test_options_that_would_have_no_effect_are_refused(tiny_run: Path, cli: Cli, tmp_path: Path) -> None:
    new_photos(tmp_path / "new", 1)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(SettingsError, match="together with other data"):
        rg.evaluate(tiny_run, tmp_path / "new", split="val")
    assert cli("evaluate", tiny_run, tmp_path / "new", "--split", "val").code == 2
    for option in ("--labels", "--names"):
        result = cli("evaluate", tiny_run, option, tmp_path / "names.txt")
        assert result.code == 2
        assert f"{option} was given" in result.err


def test_where_the_unseen_images_cannot_be_read_the_figures_say_whose_they_are(run: RunFolder, tmp_path: Path) -> None:
    copied(rows_of(run, "train"), tmp_path / "photos")
    (tmp_path / "photos" / "red" / "new.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    measures = rg.evaluate(run, tmp_path / "photos")
    assert measures["label"].endswith(", seen in training")
    assert measures["notes"][-1].startswith("All ")
    assert measures["num_errors"] == 1
