"""Parquet and Arrow tables with images in a column give what a list of the same images gives."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import Cli
from tests.data.conftest import jpeg

import regraft as rg
from regraft.data.cache.cache import PixelCache
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.image_file import read_file
from regraft.data.files import arrow_tables
from regraft.data.inputs import list_inputs
from regraft.data.labels import label_names
from regraft.data.readable import with_readable
from regraft.errors import DataError, RegraftError

PHOTOS = [jpeg(number, 8, 10) for number in range(12)]
NAMES = ("dog", "cat")
FORMS = ("plain.parquet", "stream.arrow", "file.arrow")


def features(names: Sequence[str] = NAMES, **more: Any) -> dict[bytes, bytes]:
    """What Hugging Face's library writes into the schema."""
    told = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}, **more}
    return {b"huggingface": json.dumps({"info": {"features": told}}).encode()}


def table(
    photos: Sequence[bytes | None] = PHOTOS, labels: Sequence[Any] | None = None, meta: dict[bytes, bytes] | None = None
) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(photos)], kind)
    values = pa.array([n % 2 for n in range(len(photos))] if labels is None else list(labels))
    made = pa.table({"image": images, "label": values})
    return made.replace_schema_metadata(features() if meta is None else meta)


def written(path: Path, rows: pa.Table, *, group: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=group)
        return path
    make = pa.ipc.new_file if "file" in path.name else pa.ipc.new_stream
    with pa.OSFile(os.fspath(path), "wb") as file, make(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=group)
    os.utime(path, (1_600_000_000,) * 2)
    return path


def listed(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """The same images as files, in a list."""
    folder.mkdir()
    for number, data in enumerate(PHOTOS):
        (folder / f"{number:08}.png").write_bytes(data)
    (folder / "list.txt").write_text("".join(f"{n:08}.png {n % 2}\n" for n in range(12)))
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names))
    return folder / "list.txt"


def told(data: DataSet) -> dict[str, Any]:
    names = {name: label_names(split.labels, data.class_names) for name, split in data.splits.items()}
    rows = {
        name: [(os.path.basename(path), label) for path, label in zip(split.paths, names[name], strict=True)]
        for name, split in data.splits.items()
    }
    program = PixelProgram((8, 8))
    marks = {name: PixelCache(split.paths, program).fingerprint() for name, split in data.splits.items()}
    return {"rows": rows, "classes": data.class_names, "pixels": marks, "origin": data.split_origin}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_the_list_of_its_rows(tmp_path: Path, form: str) -> None:
    source = written(tmp_path / form, table())
    expected = rg.open_data(listed(tmp_path / "photos"), seed=4)
    found = with_readable(rg.open_data(source, seed=4))
    assert told(found) == told(expected)
    assert found.name == form.rpartition(".")[0]
    assert found.class_names == NAMES, "ClassLabel says the order"
    assert not found.quarantined
    paths = list_inputs(os.fspath(source))[0]
    assert [read_file(str(path)) for path in reversed(paths)] == PHOTOS[::-1]
    again = DataSet.from_dict(json.loads(json.dumps(found.to_dict())))
    assert list(again.train.paths) == list(found.train.paths)


def test_labels_that_are_words_lists_or_numbers_without_names(tmp_path: Path) -> None:
    words = written(tmp_path / "words.parquet", table(labels=["ant", "bee"] * 6, meta={}))
    assert rg.open_data(words).class_names == ("ant", "bee")
    many = written(tmp_path / "many.parquet", table(labels=[[], ["a"], ["a", "b"]] * 4, meta={}))
    assert rg.open_data(many, fractions=(1, 0, 0)).multilabel
    numbers = written(tmp_path / "numbers.parquet", table(meta={}))
    assert rg.open_data(numbers).class_names == ("0", "1")
    (tmp_path / "mine.txt").write_text("ant\nbee\n")
    assert rg.open_data(numbers, names=tmp_path / "mine.txt").class_names == ("ant", "bee")
    plain = pa.table({"img": pa.array(PHOTOS, pa.large_binary()), "target": pa.array(["x", "y"] * 6)})
    for form in FORMS:
        assert rg.open_data(written(tmp_path / f"large-{form}", plain)).class_names == ("x", "y")
    several = {"label": {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "List"}}
    lists = written(tmp_path / "lists.parquet", table(labels=[[0], [0, 1], [1]] * 4, meta=features(**several)))
    assert rg.open_data(lists, fractions=(1, 0, 0)).class_names == NAMES


def test_shards_with_splits(tmp_path: Path) -> None:
    for number in range(2):
        written(tmp_path / "data" / f"train-{number:05}-of-00002.parquet", table(PHOTOS[number * 4 : number * 4 + 4]))
    written(tmp_path / "data" / "validation-00000-of-00001.parquet", table(PHOTOS[8:]))
    written(tmp_path / "data" / "test-00000-of-00001.parquet", table(PHOTOS[8:], labels=[-1] * 4))
    data = rg.open_data(tmp_path / "data")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4}
    assert "test-00000-of-00001.parquet has no labels and was left out." in data.warnings
    written(tmp_path / "data" / "validation-00000-of-00001.parquet", table(PHOTOS[8:], meta=features(("a", "b"))))
    with pytest.raises(DataError, match="classes of other names"):
        rg.open_data(tmp_path / "data")


def save_to_disk(folder: Path, parts: Sequence[pa.Table]) -> Path:
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        written(folder / name, part)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def test_folders_that_the_library_saved(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "one", [table(PHOTOS[:6]), table(PHOTOS[6:])])
    assert len(rg.open_data(tmp_path / "one", fractions=(1, 0, 0)).train) == 12
    save_to_disk(tmp_path / "many" / "train", [table(PHOTOS[:4]), table(PHOTOS[4:8])])
    save_to_disk(tmp_path / "many" / "validation", [table(PHOTOS[8:])])
    (tmp_path / "many" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    data = rg.open_data(tmp_path / "many")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4}
    (tmp_path / "many" / "dataset_dict.json").write_text('{"splits": ["train", "odd"]}')
    with pytest.raises(DataError, match="splits that are called 'odd'"):
        rg.open_data(tmp_path / "many")


def test_a_second_column_of_images_holds_masks(tmp_path: Path) -> None:
    def png(seed: int) -> bytes:
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 3, (8, 10), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    masks = [{"bytes": png(n), "path": None} for n in range(12)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = table().drop_columns(["label"]).append_column("annotation", pa.array(masks, kind))
    meta = features(annotation={"_type": "Image"})
    data = rg.open_data(written(tmp_path / "scenes.parquet", rows.replace_schema_metadata(meta)))
    assert data.segmentation
    assert data.class_table is not None
    mask = rg.read_mask(data.train.masks[0], data.class_table)
    place = int(Path(data.train.masks[0]).stem)
    assert np.array_equal(mask, np.array(Image.open(io.BytesIO(masks[place]["bytes"]))))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_an_image_are_quarantined_by_number(tmp_path: Path, form: str) -> None:
    photos: list[bytes | None] = [*PHOTOS, None, b"no image", b""]
    data = with_readable(rg.open_data(written(tmp_path / form, table(photos))))
    assert {int(Path(item.path).stem): item.reason for item in data.quarantined} == {
        12: "is empty in the table",
        13: "is not an image in one of the formats JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF",
        14: "is empty",
    }


def test_tables_that_cannot_be_used_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            rg.open_data(path)
        return str(caught.value)

    paths = pa.table({"path": ["a.jpg"], "label": [1]})
    assert "has no column of images; its columns are path, label" in refusal(written(tmp_path / "a.parquet", paths))
    unlabelled = table().drop_columns(["label"])
    assert "has no column of a name such as label" in refusal(written(tmp_path / "b.parquet", unlabelled))
    whole = written(tmp_path / "c.parquet", table()).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-9])
    assert "cannot be read as a table" in refusal(tmp_path / "cut.parquet")
    packed = pa.ipc.IpcWriteOptions(compression="lz4")
    rows = table()
    with (
        pa.OSFile(str(tmp_path / "d.arrow"), "wb") as file,
        pa.ipc.new_stream(file, rows.schema, options=packed) as out,
    ):
        out.write_table(rows)
    assert "is compressed inside" in refusal(tmp_path / "d.arrow")
    monkeypatch.setattr(arrow_tables, "_LARGEST_GROUP", 100)
    assert "row_group_size=100" in refusal(written(tmp_path / "e.parquet", table()))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'regraft[hf]'" in refusal(written_bytes(tmp_path / "f.parquet", whole))


def written_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_never_ends_in_a_traceback(tmp_path: Path, form: str, data: st.DataObject) -> None:
    path = written(tmp_path / form, table())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(RegraftError):
        with_readable(rg.open_data(path))


def test_a_table_whose_columns_of_images_are_hidden_is_refused(tmp_path: Path) -> None:
    rows = table(meta={}).rename_columns([".image", "label"])
    with pytest.raises(DataError) as refused:
        rg.open_data(written(tmp_path / "stream.arrow", rows))
    assert "has no column of images" in str(refused.value)


def test_commands_on_a_table(cli: Cli, tmp_path: Path, tiny_run: Path) -> None:
    rows = written(tmp_path / "pets.parquet", table())
    found = cli("inspect", rows)
    assert found.code == 0, found.err
    assert "classes: 2" in found.out
    predicted = cli("predict", tiny_run, rows, "--threads", "1")
    assert predicted.code == 0, predicted.err
    assert "00000011.png" in predicted.out


def test_a_name_on_the_hub_is_opened_through_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is a stand-in: there is no hub here."""

    class Rows(NamedTuple):
        cache_files: list[dict[str, str]]

    parts = {
        "train": [written(tmp_path / "a.arrow", table(PHOTOS[:4])), written(tmp_path / "b.arrow", table(PHOTOS[4:8]))],
        "validation": [written(tmp_path / "c.arrow", table(PHOTOS[8:]))],
    }
    asked = []

    def load_dataset(name: str, config: str | None) -> dict[str, Rows]:
        asked.append((name, config))
        if name == "nothing":
            raise FileNotFoundError("no such data set")
        return {split: Rows([{"filename": str(path)} for path in paths]) for split, paths in parts.items()}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    for _ in range(2):
        data = rg.open_data("hf:owner/pets:small")
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4}
        assert (data.name, data.source, asked[-1]) == ("owner-pets", "hf:owner/pets:small", ("owner/pets", "small"))
        assert [read_file(path) for path in data.train.paths] == PHOTOS[:8]
    with pytest.raises(DataError, match="no such data set"):
        rg.open_data("hf:nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="is not installed"):
        rg.open_data("hf:owner/pets")


@pytest.mark.oracle
def test_what_the_library_itself_writes(tmp_path: Path) -> None:
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    rows = {"image": [{"bytes": data, "path": None} for data in PHOTOS], "label": [n % 2 for n in range(12)]}
    made = datasets.Dataset.from_dict(rows, features=kinds)
    made.to_parquet(tmp_path / "a.parquet")
    made.save_to_disk(tmp_path / "saved", num_shards=3)
    datasets.DatasetDict({"train": made, "validation": made}).save_to_disk(tmp_path / "divided")
    expected = told(rg.open_data(listed(tmp_path / "photos"), seed=4))
    assert told(rg.open_data(tmp_path / "a.parquet", seed=4)) == expected
    saved = rg.open_data(tmp_path / "saved", seed=4)
    assert told(saved)["pixels"] == expected["pixels"]
    assert [len(split) for split in rg.open_data(tmp_path / "divided").splits.values()] == [12, 12]
