"""Groups of a data set: a column, a folder or a pattern says them; splits and folds keep them whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import Cli, photos

import regraft as rg
from regraft.data.dataset import DataSet
from regraft.ranking.probe import probe
from regraft.training.objective import few_photos
from regraft.training.objective.losses import build_loss


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of 12 animals, 4 of each; a table says which."""
    root = tmp_path_factory.mktemp("herd")
    photos(root / "photos", {"cow": 24, "goat": 24})
    paths = sorted(path.relative_to(root).as_posix() for path in (root / "photos").rglob("*.png"))
    rows = [f"{path};{path.split('/')[1]};A{place // 4}\n" for place, path in enumerate(paths)]
    (root / "herd.csv").write_text("file;species;animal\n" + "".join(rows), encoding="utf-16")
    return root


def animals(data: DataSet, split: str) -> set[int]:
    return {
        (place + (24 if "goat" in path else 0)) // 4
        for path in data.splits[split].paths
        for place in [int(Path(path).stem)]
    }


def test_a_column_keeps_the_photos_of_an_animal_together(herd: Path) -> None:
    data = rg.open_data(herd / "herd.csv", group="animal", seed=3)
    found = {split: animals(data, split) for split in data.splits}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 12
    assert all(count > 0 for split in data.splits for count in data.counts(split))
    assert data.num_groups == 12
    assert data.facts()["groups"] == 12
    again = DataSet.from_dict(json.loads(json.dumps(data.to_dict())))
    for split in data.splits:
        np.testing.assert_array_equal(again.splits[split].groups, data.splits[split].groups)
    assert rg.open_data(herd / "herd.csv", group="animal", seed=3).to_dict() == data.to_dict()


def test_every_fold_keeps_them_together(herd: Path) -> None:
    seen: list[int] = []
    for k in range(3):
        data = rg.open_data(herd / "herd.csv", group="animal", fold=(k, 3))
        assert not animals(data, "train") & animals(data, "val")
        assert data.counts("val").tolist() == [8, 8]
        seen += animals(data, "val")
    assert sorted(seen) == list(range(12))


def test_a_pattern_and_a_folder_do_as_well(cli: Cli, herd: Path, tmp_path: Path) -> None:
    data = rg.open_data(herd / "photos", group=r"/(\d\d)\d\.png")
    assert data.num_groups == 3
    photos(tmp_path / "a/cow", {"one": 4, "two": 4, "three": 4})
    photos(tmp_path / "a/goat", {"four": 4, "five": 4, "six": 4})
    result = cli("inspect", tmp_path / "a", "--group", "folder")
    assert result.code == 0, result.err
    assert "groups: 6" in result.out
    assert "val: 4 images" in result.out


def test_without_a_group_nothing_has_changed(herd: Path) -> None:
    data = rg.open_data(herd / "photos")
    assert data.num_groups is None
    assert "groups" not in data.to_dict()
    assert "group" not in data.options


def test_images_without_a_group_stand_for_themselves(herd: Path) -> None:
    data = rg.open_data(herd / "photos", group=r"goat/(00)\d")
    assert data.num_groups == 48 - 9
    assert "38 images have no group by 'goat/(00)\\\\d', and each stands for itself." in data.warnings


def test_splits_of_the_source_that_share_a_group_are_refused(cli: Cli, herd: Path) -> None:
    lines = (herd / "herd.csv").read_text(encoding="utf-16").splitlines()
    splits = ["train"] * 6 + ["val"] * 18 + ["train"] * 24
    rows = [f"{line};{split}" for line, split in zip(lines[1:], splits, strict=True)]
    (herd / "divided.csv").write_text("\n".join(["file;species;animal;split", *rows]))
    result = cli("inspect", herd / "divided.csv", "--group", "animal")
    assert result.code == 3
    assert "1 group by 'animal' is in several splits" in result.err
    assert "'A1': 2 in train, 2 in val" in result.err
    assert "--fix split --group 'animal'" in result.err


def test_a_group_that_says_nothing_is_refused(cli: Cli, herd: Path) -> None:
    for source, group, text in (
        ("herd.csv", "anmal", "no column 'anmal'; did you mean 'animal'?"),
        ("photos", "patient", "No path holds the group 'patient'"),
        ("photos", "(", "not a regular expression"),
        ("photos", "png", "All images belong to one group"),
    ):
        result = cli("inspect", herd / source, "--group", group)
        assert (result.code, text in result.err) == (2, True), result.err


@pytest.mark.slow
def test_what_picks_a_penalty_on_training_images_keeps_groups_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group's features are alike and its label is chance: whoever divides groups believes that they tell it."""
    monkeypatch.setattr(few_photos, "STRENGTHS_FOR_FEW", (0.03, 0.01))
    monkeypatch.setattr("regraft.ranking.probe._STRENGTHS", (1.0, 0.01))
    rng = np.random.default_rng(0)
    groups = np.arange(80) // 4
    labels = np.repeat(rng.permutation(20) % 2, 4).astype(np.int64)
    features = rng.normal(size=(20, 16))[groups] + 0.01 * rng.normal(size=(80, 16))
    given = torch.from_numpy(features), torch.from_numpy(labels)
    rows, whole = (
        few_photos.choose_strength(*given, 2, build_loss("softmax"), seed=0, groups=kept) for kept in (None, groups)
    )
    assert min(rows.losses.values()) < 0.4 < min(whole.losses.values())
    found = probe(features, labels, groups % 2, 2, groups=groups)
    loose = probe(features, labels, groups % 2, 2)
    assert np.mean(found.strengths) > np.mean(loose.strengths)
