"""Samples as WebDataset has them: an image and its label side by side, in one archive, in shards, or in a folder."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.data.conftest import jpeg

import regraft as rg
from regraft.data.dataset import DataSet
from regraft.data.inputs import list_inputs
from regraft.data.labels import label_names
from regraft.errors import DataError

SAMPLES: dict[str, bytes] = {}
for _number in range(12):
    SAMPLES |= {f"{_number:04}.jpg": jpeg(_number, 8, 8), f"{_number:04}.cls": str(_number % 2).encode()}


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def shards(root: Path, name: str = "data-{}.tar", num: int = 3, start: int = 0) -> Path:
    for place in range(num):
        keys = sorted(SAMPLES)[8 * place : 8 * place + 8]
        shard(root / name.format(f"{place + start:03}"), {key: SAMPLES[key] for key in keys})
    return root


def rows(data: DataSet) -> dict[str, list[tuple[str, Any]]]:
    names = {name: label_names(split.labels, data.class_names) for name, split in data.splits.items()}
    return {
        name: [(os.path.basename(path), label) for path, label in zip(split.paths, names[name], strict=True)]
        for name, split in data.splits.items()
    }


def test_one_archive_many_shards_and_a_folder_are_one_data_set(tmp_path: Path) -> None:
    """They divide as the list of the same images does."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in SAMPLES.items():
        (folder / name).write_bytes(content)
    (tmp_path / "list.txt").write_text("".join(f"folder/{n:04}.jpg {n % 2}\n" for n in range(12)))
    many = shards(tmp_path / "many")
    sources = [
        folder,
        shard(tmp_path / "one.tar", SAMPLES),
        many,
        f"{many}/data-{{000..002}}.tar",
        f"{many}/data-*.tar",
        f"{many}/data-{{000,001,002}}.tar",
    ]
    expected = rows(rg.open_data(tmp_path / "list.txt", seed=5))
    for source in sources:
        data = rg.open_data(source, seed=5)
        assert rows(data) == expected
        assert DataSet.from_dict(json.loads(json.dumps(data.to_dict()))).train.paths == data.train.paths
    assert [rg.open_data(source).name for source in sources] == ["folder", "one", "many", "data", "data", "data"]
    assert len(list_inputs(f"{many}/data-{{000..001}}.tar")[0]) == 8


def test_splits_by_the_names_of_shards_and_by_folders(tmp_path: Path) -> None:
    shards(shards(tmp_path / "a", "train-{}.tar", 2), "val-{}.tar", 1)
    shards(shards(tmp_path / "b", "train/{}.tar", 2), "validation/{}.tar", 1)
    for name in "ab":
        data = rg.open_data(tmp_path / name)
        assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 8, "val": 4}
        assert data.split_origin == "lists"


def test_names_for_numbers_and_labels_in_json(tmp_path: Path) -> None:
    files = {name: content for name, content in SAMPLES.items() if name.endswith(".jpg")}
    files |= {f"{n:04}.json": json.dumps({"width": 8, "label": ["cat", "dog"][n % 2]}).encode() for n in range(12)}
    assert rg.open_data(shard(tmp_path / "json.tar", files)).class_names == ("cat", "dog")
    shards(tmp_path / "many")
    (tmp_path / "many" / "names.txt").write_text("cow\nhen\n")
    assert rg.open_data(tmp_path / "many").class_names == ("cow", "hen")
    (tmp_path / "other.txt").write_text("ant\nbee\n")
    pattern = f"{tmp_path}/many/data-{{000..002}}.tar"
    assert rg.open_data(pattern, names=tmp_path / "other.txt").class_names == ("ant", "bee")
    lists = {name: content for name, content in files.items() if name.endswith(".jpg")}
    lists |= {f"{n:04}.json": json.dumps([["a"], ["a", "b"], []][n % 3]).encode() for n in range(12)}
    assert rg.open_data(shard(tmp_path / "many.tar", lists), fractions=(1, 0, 0)).multilabel


def refusal(source: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        rg.open_data(source)
    return str(caught.value)


def test_mistakes_are_told_at_once_by_name(tmp_path: Path) -> None:
    files = dict(SAMPLES)
    del files["0003.cls"], files["0002.cls"], files["0001.cls"]
    files["0002.json"] = b"{"
    files["0001.json"] = b'{"width": 3}'
    files = dict(sorted(files.items()))
    head = {f"0{n:03}a.{end}": SAMPLES[f"0000.{end}"] for n in range(30) for end in ("jpg", "cls")}
    said = refusal(shard(tmp_path / "a.tar", {**head, **{f"9{name}": data for name, data in files.items()}}))
    for text in (
        "90003.jpg: has no label beside it",
        "90002.json: cannot be read as a label",
        "90001.json: has no key",
    ):
        assert text in said
    texts = {name: content for name, content in SAMPLES.items() if name.endswith(".jpg")}
    texts |= {name.replace(".jpg", ".txt"): b"A photo of\n a cat" for name in texts}
    assert "a text and not a label" in refusal(shard(tmp_path / "b.tar", texts))
    shards(tmp_path / "many")
    said = refusal(f"{tmp_path}/many/data-{{000..009}}.tar")
    assert "7 archives of 'data-{000..009}.tar' are not there: 'data-003.tar'" in said
    assert "No archive fits" in refusal(f"{tmp_path}/many/other-*.tar")
