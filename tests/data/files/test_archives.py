"""An archive gives what the folder gives that was packed into it: order, splits, checks, pixels."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.conftest import Plant, jpeg
from tests.data.files.packing import KINDS, pack

import regraft as rg
from regraft.data.cache.cache import PixelCache
from regraft.data.check import check
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.image_file import read_file
from regraft.data.files import access, archives
from regraft.data.files.disk_file import DiskFile
from regraft.data.inputs import list_inputs
from regraft.data.labels import label_names
from regraft.data.leaks import find_leaks
from regraft.data.readable import with_readable
from regraft.data.sources.walk import find_pictures

CLASSES = {
    "cat": 5,
    "dog/big": 4,
    "dog/small": 3,
    "Vögel": 4,
    "empty": 0,
    "cat/readme.txt": b"hello",
    ".hidden/a.jpg": b"x",
}
SPLIT = {"train/cat": 3, "train/dog": 3, "valid/cat": 2, "valid/dog": 2, "test/cat": 2, "test/dog": 2}
LIST = {
    "images": 6,
    "list.txt": b"".join(b"images/%03d.jpg %d\n" % (n, n % 2) for n in range(6)),
    "names.txt": b"cat\ndog\n",
}
LISTS = {
    "images": 6,
    "train.txt": b"".join(b"images/%03d.jpg %d\n" % (n, n % 2) for n in range(4)),
    "val.txt": b"images/004.jpg 0\nimages/005.jpg 1\n",
}
TABLE = {"images": 6, "labels.csv": b"id,breed\n" + b"".join(b"%03d,%s\n" % (n, b"ab"[n % 2 :][:1]) for n in range(6))}


def png(seed: int, high: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, high, (12, 16), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


MASKS = {
    **{f"images/{n}.jpg": jpeg(n, 12, 16) for n in range(6)},
    **{f"masks/{n}.png": png(n) for n in range(6)},
    "classes.txt": b"0 ground\n1 house\n2 tree\n",
}
VOC = {
    **{f"VOC2012/JPEGImages/{n}.jpg": jpeg(n, 12, 16) for n in range(4)},
    **{f"VOC2012/SegmentationClass/{n}.png": png(n) for n in range(4)},
    "VOC2012/ImageSets/Segmentation/train.txt": b"0\n1\n",
    "VOC2012/ImageSets/Segmentation/val.txt": b"2\n3\n",
}
COCO = {
    **{f"{split}2017/{n}.jpg": jpeg(n, 12, 16) for n in range(3) for split in ("train", "val")},
    **{
        f"annotations/instances_{split}2017.json": json.dumps(
            {
                "images": [{"id": n, "file_name": f"{n}.jpg", "height": 12, "width": 16} for n in range(3)],
                "categories": [{"id": 1, "name": "box"}],
                "annotations": [
                    {"image_id": n, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9 - n, 1, 9 - n]]}
                    for n in range(3)
                ],
            }
        ).encode()
        for split in ("train", "val")
    },
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "classes": CLASSES, "splits": SPLIT, "lists": LISTS, "table": TABLE, "masks": MASKS, "voc": VOC, "coco": COCO
}  # fmt: skip


def told(data: DataSet) -> dict[str, Any]:
    """All that a data set says, with paths as seen from its root."""
    root = data.root + os.sep

    def short(paths: Any) -> list[str]:
        assert all(path.startswith(root) for path in paths)
        return [path.removeprefix(root) for path in paths]

    return {
        "classes": data.class_names,
        "splits": {
            name: (short(split.paths), split.labels.tolist(), short(split.masks)) for name, split in data.splits.items()
        },
        "warnings": [text.replace(data.root, "ROOT") for text in data.warnings],
        "ignored": data.ignored,
        "origin": data.split_origin,
        "quarantined": [(item.path.removeprefix(root), item.reason) for item in data.quarantined],
        "findings": [finding.text.replace(data.root, "ROOT") for finding in check(data)],
        "fingerprint": data.fingerprint(),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_from_a_folder(plant: Plant, layout: str, kind: str) -> None:
    folder = plant(LAYOUTS[layout])
    packed = pack(folder, kind)
    whole = folder / "VOC2012" if layout == "voc" else folder  # the only folder of an archive is where it begins
    expected, found = (with_readable(rg.open_data(source, seed=3)) for source in (whole, packed))
    assert told(found) == told(expected)
    assert found.name == packed.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
    assert found.source == str(packed)
    program = PixelProgram((8, 8))
    for name, split in expected.splits.items():
        caches = [PixelCache(paths, program, budget_bytes=1 << 20) for paths in (split.paths, found.splits[name].paths)]
        assert caches[0].fingerprint() == caches[1].fingerprint()
        for mask, other in zip(split.masks, found.splits[name].masks, strict=True):
            assert expected.class_table is not None
            assert np.array_equal(rg.read_mask(mask, expected.class_table), rg.read_mask(other, expected.class_table))


def test_a_list_beside_an_archive_and_one_inside(plant: Plant) -> None:
    folder = plant(LIST)
    packed = pack(folder, ".zip")
    (folder.parent / "beside.txt").write_text("".join(f"{packed.name}/images/{n:03}.jpg {n % 2}\n" for n in range(6)))
    (folder.parent / "names.txt").write_text("cat\ndog\n")
    inside, beside = rg.open_data(packed / "list.txt"), rg.open_data(folder.parent / "beside.txt")
    expected = rg.open_data(folder / "list.txt")
    assert told(inside) == told(expected)
    assert list(beside.train.paths) == list(inside.train.paths)
    assert label_names(beside.train.labels, beside.class_names) == label_names(
        expected.train.labels, expected.class_names
    )
    named = rg.open_data(packed, labels="list.txt", names="names.txt")
    assert told(named)["splits"] == told(rg.open_data(folder, labels="list.txt", names="names.txt"))["splits"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_one_folder_begins_in_it(plant: Plant, kind: str) -> None:
    folder = plant({"cat": 3, "dog": 3})
    data = rg.open_data(pack(folder, kind, top="photos/all"))
    assert told(data)["splits"] == told(rg.open_data(folder))["splits"]
    assert data.root.endswith(f"photos{kind}/photos") or data.root.endswith("all")
    found, ignored = find_pictures(folder.with_name(f"photos{kind}"))
    assert (len(found), ignored) == (6, {})


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\:"), min_size=1, max_size=6
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 60)


@settings(max_examples=15)
@given(st.dictionaries(st.tuples(NAMES, NAMES), st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_order_and_bytes_of_any_names(files: dict[tuple[str, str], bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "photos")
        for (inner, name), content in files.items():
            (folder / inner).mkdir(parents=True, exist_ok=True)
            (folder / inner / f"{name}.jpg").write_bytes(content)
        names = [f"{inner}/{name}.jpg" for inner, name in files]
        expected, ignored = find_pictures(folder)
        for kind in KINDS:
            packed = pack(folder, kind, order=data.draw(st.permutations(names)))
            found, left = find_pictures(packed)
            assert [os.path.relpath(path, packed) for path in found] == [
                os.path.relpath(path, folder) for path in expected
            ]
            assert left == ignored
            assert [read_file(path) for path in found] == [read_file(path) for path in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_the_index_is_made_once_and_again_when_the_archive_changes(
    plant: Plant, kind: str, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plant({"cat": 3, "dog": 3})
    packed = pack(folder, kind)
    before = told(rg.open_data(packed))
    made: list[str] = []
    real = archives.Archive._listed
    monkeypatch.setattr(archives.Archive, "_listed", lambda *given: made.append("index") or real(*given))
    archives._KNOWN.clear()  # as in a new process
    assert told(rg.open_data(packed)) == before
    assert made == []
    (folder / "cat" / "003.jpg").write_bytes(jpeg(77))
    pack(folder, kind)
    os.utime(packed, (archives.time.time() - 5,) * 2)
    assert told(rg.open_data(packed)) == told(rg.open_data(folder))
    assert made == ["index"]
    name = archives._place(DiskFile.at(str(packed))).name
    assert [kept.name for kept in (cache_folder / "archives").glob(f"{name[:16]}-*")] == [name]
    path = str(packed / "cat" / "003.jpg")
    assert read_file(path) == jpeg(77)
    packed.unlink()
    assert read_file(path) == "does not exist"
    assert not access.exists(path)


def test_an_index_serves_where_its_cache_cannot_be_written(
    plant: Plant, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(plant({"cat": 3, "dog": 3}), "zip")
    before = told(rg.open_data(packed))

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(archives.os, "utime", refused)
    monkeypatch.setattr(archives.Archive, "_listed", refused)
    archives._KNOWN.clear()  # as in a new process
    assert told(rg.open_data(packed)) == before


def test_an_archive_inside_what_was_one(plant: Plant) -> None:
    """A folder takes the place of an archive, with an archive where that had a folder; and the other way round."""
    packed = pack(plant({"cat": 1, "dog": 1}), "zip")
    data = packed.read_bytes()
    path = packed / "cat" / "cat" / "000.jpg"
    assert not access.exists(path)
    assert access.is_folder(packed / "cat")
    assert access.state_of(packed / "cat" / "000.jpg").st_size > 0
    packed.unlink()
    packed.mkdir()
    (packed / "cat").write_bytes(data)
    assert access.names_in(packed / "cat") == ["cat", "dog"]
    assert access.is_folder(packed / "cat" / "cat")
    assert read_file(str(path)) == access.open_bytes(path).read()
    shutil.rmtree(packed)
    packed.write_bytes(data)
    assert access.state_of(packed / "cat" / "000.jpg").st_size > 0
    assert not access.exists(path)


def read_all(paths: list[str]) -> list[bytes | str]:
    return [read_file(path) for path in paths]


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_threads_and_processes_read_the_same_bytes(plant: Plant, kind: str) -> None:
    folder = plant({"cat": 12, "dog": 12})
    paths = find_pictures(pack(folder, kind))[0]
    expected = read_all(find_pictures(folder)[0])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read_file, paths * 4)) == expected * 4
    if "fork" in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(read_all, [paths, paths[::-1]]) == [expected, expected[::-1]]


def test_a_compressed_tar_is_read_from_near_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.data.files import gzip_stream

    monkeypatch.setattr(gzip_stream, "_SPACING", 1 << 16)
    monkeypatch.setattr(gzip_stream, "_SLICE", 1 << 14)
    monkeypatch.setattr(gzip_stream, "_MOST_POINTS", 16)
    rng = np.random.default_rng(0)
    contents = {f"a/{n:03}.jpg": rng.bytes(20_000) for n in range(200)}
    packed = tmp_path / "noise.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    archive = archives.archive_at(str(packed))
    assert archive is not None
    assert archive._stream is not None
    points = [point.place for point in archive._stream._points]
    assert points == sorted(points)
    assert 8 <= len(points) <= 16
    steps = []
    real = gzip_stream._Inflating._inflated
    monkeypatch.setattr(gzip_stream._Inflating, "_inflated", lambda self: steps.append(1) or real(self))
    for name in rng.permutation(list(contents)):
        assert read_file(str(packed / name)) == contents[name]
    whole = 4_100_000 / (1 << 14)
    assert (
        len(steps) < 200 * whole / 8
    )  # each is found from a place near it; from the start it would be half of `whole`


def test_several_gzip_members_make_one_archive(tmp_path: Path) -> None:
    import gzip

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for n in range(3):
            info = tarfile.TarInfo(f"a/{n}.jpg")
            info.size = 3000
            tar.addfile(info, io.BytesIO(bytes([n]) * 3000))
    data = plain.getvalue()
    packed = tmp_path / "parts.tar.gz"
    packed.write_bytes(gzip.compress(data[:2000]) + gzip.compress(data[2000:]) + bytes(512))
    assert [read_file(str(packed / f"a/{n}.jpg")) for n in range(3)] == [bytes([n]) * 3000 for n in range(3)]


def test_long_names_pax_and_old_tars(tmp_path: Path) -> None:
    name = "a" * 90 + "/" + "ä" * 90 + "/" + "b" * 70 + ".jpg"
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        packed = tmp_path / f"{number}.tar"
        with tarfile.open(packed, "w", format=form) as tar:
            info = tarfile.TarInfo("./" + name)
            info.size, info.mtime = 5, 1.5
            tar.addfile(info, io.BytesIO(b"12345"))
            again = tarfile.TarInfo("same.jpg")
            again.type, again.linkname = tarfile.LNKTYPE, "./" + name
            tar.addfile(again)
        assert read_file(str(packed / name)) == b"12345"
        assert read_file(str(packed / "same.jpg")) == b"12345"


def test_names_that_windows_wrote(tmp_path: Path) -> None:
    packed = tmp_path / "x.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for n in range(2):
            info = zipfile.ZipInfo("x")
            info.filename = f"cat\\{n}.jpg"
            file.writestr(info, jpeg(n))
    assert [os.path.relpath(path, packed) for path in find_pictures(packed)[0]] == ["cat/0.jpg", "cat/1.jpg"]
    assert read_file(str(packed / "cat" / "1.jpg")) == jpeg(1)


def test_names_in_an_encoding_that_nobody_tells_are_pointed_out(tmp_path: Path) -> None:
    for name, told in (("猫狗".encode("gbk"), True), ("Vögel".encode("cp437"), False), ("猫".encode(), False)):
        packed = tmp_path / "x.zip"
        with zipfile.ZipFile(packed, "w") as file:
            for n in range(2):
                for folder in ("Q" * len(name), "dog"):
                    file.writestr(f"{folder}/{n}.jpg", jpeg(n))
        packed.write_bytes(packed.read_bytes().replace(b"Q" * len(name), name))
        warnings = rg.open_data(packed, fractions=(1, 0, 0)).warnings
        assert any("in an encoding that the archive does not tell" in text for text in warnings) is told


def test_files_on_the_disk_take_their_own_way(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = plant({"cat": 2, "dog": 2})
    shutil.copy(pack(folder, ".zip"), folder / "cat" / "more.zip")
    monkeypatch.setattr(access, "archive_of", lambda path: pytest.fail(f"{path} was looked for in an archive"))
    data = rg.open_data(folder)
    assert data.ignored == {"not an image": 1}
    assert len(list_inputs(str(folder))[0]) == 4
    assert read_file(str(folder / "cat" / "nothing.jpg")) == "does not exist"


def test_leaks_are_found_across_splits(plant: Plant) -> None:
    folder = plant({**SPLIT, "valid/cat/copy.jpg": jpeg(1)})
    assert find_leaks(rg.open_data(pack(folder, ".zip"))) == find_leaks(rg.open_data(folder)) != []
