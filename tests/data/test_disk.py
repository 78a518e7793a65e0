"""The cache on the disk: the same pixels as without it, nothing read twice, unspoilt by damage and kills."""

from __future__ import annotations

import builtins
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.data.cache import append_log, room, store
from regraft.data.cache.cache import PixelCache
from regraft.data.cache.disk import DiskCache, DiskRows
from regraft.data.cache.loader import batch_bounds, batches
from regraft.data.dataset import DataSet
from regraft.data.decode import decode
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode_all import decode_all
from regraft.data.open import open_data

Plant = Callable[[Mapping[str, int | bytes]], Path]
PROGRAM = PixelProgram((12, 16))
OLD = 1_500_000_000
HTML = b"<!DOCTYPE html><html></html>"
TREE: dict[str, int | bytes] = {"train/cat": 9, "train/dog": 9, "val/cat": 3, "val/dog": 3, "train/cat/bad.png": HTML}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def age(root: Path) -> None:
    """Make files old enough for their hashes to be remembered."""
    for path in root.rglob("*"):
        os.utime(path, (OLD, OLD))


@pytest.fixture
def data(plant: Plant) -> DataSet:
    root = plant(TREE)
    age(root)
    return open_data(root)


def rows_file(folder: Path) -> Path:
    (path,) = folder.glob("pixels/*/rows.bin")
    return path


def pixels(caches: Mapping[str, PixelCache]) -> dict[str, np.ndarray]:
    """All rows of each split, as training takes them: in batches, by several threads."""
    found = {}
    for name, cache in caches.items():
        given = batches(cache, np.zeros(len(cache), np.int64), np.arange(len(cache)), batch_bounds(len(cache), 5))
        found[name] = np.concatenate([batch.images for batch in given])
    return found


def decoded(data: DataSet, cache: Any = "disk", **settings: Any) -> tuple[DataSet, dict[str, np.ndarray], list[str]]:
    said: list[str] = []
    checked, caches = decode_all(data, PROGRAM, cache=cache, say=said.append, **settings)
    return checked, pixels(caches), said


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every path that is opened from now on, by whatever function."""
    paths: list[str] = []
    real_open, real_os_open = builtins.open, os.open

    def note(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            paths.append(str(path))
            return real(path, *arguments, **options)

        return call

    monkeypatch.setattr(builtins, "open", note(real_open))
    monkeypatch.setattr(os, "open", note(real_os_open))
    return paths


@pytest.mark.parametrize("threads", [1, 3])
def test_every_cache_gives_the_same_pixels_cold_and_warm(data: DataSet, threads: int) -> None:
    expected, truth, _ = decoded(data, "ram")
    for mode in ("off", "disk", "disk", "auto"):
        checked, found, _ = decoded(data, mode, threads=threads)
        assert same(found, truth), mode
        assert checked.to_dict() == expected.to_dict()


def test_a_warm_start_opens_no_photo_and_decodes_nothing(
    data: DataSet, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, truth, said = decoded(data)
    assert "24 of them on the disk" in said[-1]
    assert "(24 decoded now)" in said[-1]
    assert any(path.endswith(".jpg") for path in opened)
    opened.clear()
    monkeypatch.setattr(decode, "_pixels", None)
    again, found, said = decoded(data)
    assert "(0 decoded now)" in said[-1]
    assert same(found, truth)
    assert not [path for path in opened if path.startswith(data.root)]
    assert again.quarantined == checked.quarantined
    assert [item.reason for item in again.quarantined] == ["is an HTML page"]


def test_a_copied_data_set_is_read_but_not_decoded_again(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, truth, _ = decoded(data)
    shutil.copytree(data.root, tmp_path / "copy")
    os.remove(tmp_path / "copy" / "train" / "cat" / "bad.png")
    monkeypatch.setattr(decode, "_pixels", None)
    assert same(decoded(open_data(tmp_path / "copy"))[1], truth)


def test_a_file_that_changed_is_decoded_again_even_when_its_size_and_time_are_the_old_ones(data: DataSet) -> None:
    path = Path(data.train.paths[0])
    other = Path(data.train.paths[-1]).read_bytes()
    path.write_bytes(path.read_bytes() + bytes(8 + max(0, len(other) - path.stat().st_size)))
    os.utime(path, (OLD, OLD))
    _, before, _ = decoded(data)
    path.write_bytes(other + bytes(path.stat().st_size - len(other)))
    os.utime(path, (OLD, OLD))
    _, after, _ = decoded(data)
    assert not np.array_equal(before["train"][0], after["train"][0])
    assert same(after, decoded(data, "off")[1])


def test_a_file_just_written_is_not_trusted_by_its_time(data: DataSet) -> None:
    path = Path(data.train.paths[0])
    path.write_bytes(path.read_bytes())
    decoded(data)
    rows = DiskRows(DiskCache(PROGRAM), data.train.paths)
    assert rows.missing.tolist() == [0]


def test_other_programs_and_other_decoders_have_rows_of_their_own(
    data: DataSet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded(data)
    decode_all(data, PixelProgram((12, 16), "pad"), cache="disk")
    monkeypatch.setattr(store.PIL, "__version__", "99.0")
    _, _, said = decoded(data)
    assert "(24 decoded now)" in said[-1]
    assert len(list(folder.glob("pixels/*/rows.bin"))) == 3


def test_sizes_made_of_one_stored_size_share_their_rows(data: DataSet, folder: Path) -> None:
    large, small = (PixelProgram(size, stored=(20, 24)) for size in ((12, 16), (6, 8)))
    _, caches = decode_all(data, large, cache="disk")
    assert len(list(folder.glob("pixels/*/rows.bin"))) == 1
    assert rows_file(folder).stat().st_size == 24 * 20 * 24 * 3
    view = caches["train"].sized((6, 8))
    assert caches["train"].sized((12, 16)) is caches["train"]
    for program, cache in ((large, caches["train"]), (small, view)):
        found = pixels({"train": cache})["train"]
        truth = np.stack([decode.decode(path, program) for path in cache.paths])
        np.testing.assert_array_equal(found, truth)
    with pytest.raises(ValueError, match="nothing larger is stored"):
        decode_all(data, PROGRAM, cache="ram")[1]["train"].sized((6, 8))


# Damage


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("damage", ["bit", "zeros", "swapped", "short", "empty", "gone", "longer"])
def test_damaged_rows_are_decoded_again_and_mended(data: DataSet, folder: Path, damage: str) -> None:
    _, truth, _ = decoded(data)
    path = rows_file(folder)
    good = path.read_bytes()
    row = 12 * 16 * 3
    bad = {
        "zeros": bytes(len(good)),
        "swapped": good[row : 2 * row] + good[:row] + good[2 * row :],
        "short": good[: 5 * row + 7],
        "empty": b"",
        "longer": good + b"x" * (row + 1),
    }
    if damage == "bit":
        flip(path, 3 * row + 5)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(bad[damage])
    assert same(decoded(data)[1], truth)
    _, found, said = decoded(data)
    assert same(found, truth)
    assert "(0 decoded now)" in said[-1]


def test_damaged_index_records_do_not_exist(data: DataSet, folder: Path) -> None:
    _, truth, _ = decoded(data)
    (index,) = folder.glob("pixels/*/rows.index")
    size = index.stat().st_size
    for position in range(3, size, 97):
        flip(index, position)
    with index.open("ab") as file:
        file.write(b"cut off")
    assert same(decoded(data)[1], truth)
    assert same(decoded(data)[1], truth)
    assert index.stat().st_size % 64 == 0


@pytest.mark.parametrize("name", ["files.hashes", "*/unreadable.jsonl"])
def test_damaged_notes_are_made_again(data: DataSet, folder: Path, name: str) -> None:
    checked, truth, _ = decoded(data)
    (path,) = folder.glob(f"pixels/{name}")
    for position in range(0, path.stat().st_size, 11):
        flip(path, position)
    again, found, _ = decoded(data)
    assert same(found, truth)
    assert again.quarantined == checked.quarantined


@pytest.mark.parametrize("header", ["", "{}", "[" * 100_000, '{"format": "another"}', None])
def test_a_foreign_store_is_removed(data: DataSet, folder: Path, header: str | None) -> None:
    _, truth, _ = decoded(data)
    (path,) = folder.glob("pixels/*/store.json")
    if header is None:
        path.unlink()
    else:
        path.write_text(header)
    rows_file(folder).write_bytes(bytes(24 * 12 * 16 * 3))
    _, found, said = decoded(data)
    assert same(found, truth)
    assert "(24 decoded now)" in said[-1]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_something_else_of_the_store_s_name_is_replaced_and_nothing_behind_a_link_touched(
    data: DataSet, folder: Path, tmp_path: Path, kind: str
) -> None:
    decoded(data)
    place = rows_file(folder).parent
    shutil.rmtree(place)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "letter").write_text("dear")
    if kind == "link":
        place.symlink_to(victim)
    else:
        place.write_text("no folder")
    assert "24 of them on the disk" in decoded(data)[2][-1]
    assert [path.name for path in victim.iterdir()] == ["letter"]
    assert not place.is_symlink()


def test_a_cache_that_others_may_write_to_is_not_used(data: DataSet, folder: Path) -> None:
    (folder / "pixels").mkdir(parents=True)
    (folder / "pixels").chmod(0o777)
    _, found, said = decoded(data)
    assert "is not this user's alone" in said[0]
    assert same(found, decoded(data, "ram")[1])
    assert list((folder / "pixels").iterdir()) == []


@pytest.mark.parametrize("where", ["file", "nowhere"])
def test_a_folder_that_cannot_be_made_costs_only_the_cache(
    data: DataSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "file") if where == "file" else "/proc/nowhere")
    _, found, said = decoded(data)
    assert said[0].startswith("cache: the disk is not used")
    assert same(found, decoded(data, "ram")[1])


# Space


def test_a_nearly_full_disk_is_left_alone(data: DataSet, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=store.RESERVE_BYTES))
    _, found, said = decoded(data, budget_bytes=0)
    assert "too much for the disk" in said[0]
    assert "decoded again for each batch" in said[-1]
    assert not list(folder.glob("pixels/*/rows.bin"))
    assert same(found, decoded(data, "ram")[1])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("fail_at", [1, 2, 3, 4, 6, 9])
def test_a_disk_that_fails_while_rows_are_written_ends_the_writing_only(
    data: DataSet, monkeypatch: pytest.MonkeyPatch, fail_at: int, code: int
) -> None:
    truth = decoded(data, "ram")[1]
    count = 0
    real = append_log.write_all

    def write_all(file: Any, content: Any) -> None:
        nonlocal count
        count += 1
        if count == fail_at:
            half = memoryview(content).cast("B")
            real(file, half[: len(half) // 2])
            raise OSError(code, os.strerror(code))
        real(file, content)

    monkeypatch.setattr("regraft.data.cache.cache._CHUNK", 4)
    for module in (append_log, store):
        monkeypatch.setattr(module, "write_all", write_all)
    _, found, said = decoded(data, budget_bytes=0)
    assert same(found, truth)
    assert "could not be written" in said[-1]
    monkeypatch.undo()
    assert same(decoded(data)[1], truth)


def test_a_full_disk_in_the_middle_keeps_what_was_committed(data: DataSet, folder: Path, tmp_path: Path) -> None:
    """The kernel itself refuses to let a file grow (RLIMIT_FSIZE), in a process of its own."""
    program = (
        "import resource, sys\n"
        "from regraft.data.cache import cache\n"
        "from regraft.data.decode_all import decode_all\n"
        "from regraft.data.open import open_data\n"
        "from regraft.data.decode.decode import PixelProgram\n"
        "cache._CHUNK = 4\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "said = []\n"
        "_, caches = decode_all(open_data(sys.argv[1]), PixelProgram((12, 16)), cache='disk', say=said.append)\n"
        "print([int(c.row(n).sum()) for c in caches.values() for n in range(len(c))])\n"
        "print(said[-1])\n"
    )
    result = subprocess.run([sys.executable, "-c", program, data.root], capture_output=True, text=True, check=True)
    sums, said = result.stdout.splitlines()
    _, truth, _ = decoded(data, "ram")
    assert json.loads(sums) == [int(row.sum()) for rows in truth.values() for row in rows]
    assert "larger than this system allows" in said
    rows = {name: DiskRows(DiskCache(PROGRAM), split.paths) for name, split in data.splits.items()}
    assert 0 < sum(found.num_kept for found in rows.values()) < 24
    assert same(decoded(data)[1], truth)


def test_the_store_unused_for_longest_makes_room(data: DataSet, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [PixelProgram((20, 20 + number)) for number in range(3)]
    for number, program in enumerate(programs):
        decode_all(data, program, cache="disk")
        header = max(folder.glob("pixels/*/store.json"), key=lambda path: path.stat().st_mtime)
        os.utime(header, (OLD + number, OLD + number))
    used = sum(path.stat().st_size for path in folder.glob("pixels/*/*"))
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(room, "RESERVE_BYTES", 0)
    monkeypatch.setattr(store, "RESERVE_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(used * 1.05)))
    said = decoded(data)[2]
    assert "24 of them on the disk" in said[-1]
    left = [json.loads(path.read_text())["program"]["size"] for path in folder.glob("pixels/*/store.json")]
    assert [20, 20] not in left
    assert [12, 16] in left
    assert [20, 22] in left


def test_auto_takes_memory_for_a_small_set_and_never_more_than_its_share_of_the_disk(
    data: DataSet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "in memory" in decoded(data, "auto")[2][-1]
    assert not folder.exists()
    monkeypatch.setattr("regraft.data.decode_all._SMALL_BYTES", 0)
    assert "on the disk" in decoded(data, "auto")[2][-1]
    assert "on the disk" in decoded(data, "auto", budget_bytes=0)[2][-1]
    shutil.rmtree(folder)
    usage = shutil.disk_usage(folder.parent)
    room = store.RESERVE_BYTES + 100_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=room))
    monkeypatch.setattr("regraft.data.decode_all._ROOMY", 1e-6)
    assert "in memory" in decoded(data, "auto")[2][-1]
    assert "on the disk" in decoded(data, "auto", budget_bytes=0)[2][-1]


def test_a_store_that_another_process_removes_meanwhile_costs_only_the_cache(data: DataSet, folder: Path) -> None:
    _, truth, _ = decoded(data)
    _, caches = decode_all(data, PROGRAM, cache="disk")
    shutil.rmtree(folder)
    assert same(pixels(caches), truth)

    def remove(done: int, total: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    assert same(decoded(data, progress=remove)[1], truth)


# Kills and company

BUILD = (
    "import sys\n"
    "from regraft.data.cache import cache\n"
    "from regraft.data.decode_all import decode_all\n"
    "from regraft.data.open import open_data\n"
    "from regraft.data.decode.decode import PixelProgram\n"
    "cache._CHUNK = 2\n"
    "_, caches = decode_all(open_data(sys.argv[1]), PixelProgram((96, 128)), cache='disk', threads=2,\n"
    "    progress=lambda done, total: print(done, flush=True), say=print)\n"
)


def build(root: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILD, root], stdout=subprocess.PIPE, text=True)


def test_two_processes_that_fill_one_cache_keep_each_row_once(plant: Plant, folder: Path) -> None:
    root = plant({"train/cat": 30, "train/dog": 30, "val/cat": 5, "val/dog": 5})
    both = [build(str(root)) for _ in range(2)]
    for process in both:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert "70 of them on the disk" in out
    assert rows_file(folder).stat().st_size == 70 * 96 * 128 * 3
    data = open_data(root)
    _, caches = decode_all(data, PixelProgram((96, 128)), cache="disk")
    assert same(pixels(caches), pixels(decode_all(data, PixelProgram((96, 128)), cache="ram")[1]))


@pytest.mark.crash
@pytest.mark.timeout(900)
def test_killed_builds_leave_whole_rows_and_go_on(plant: Plant, folder: Path) -> None:
    root = plant({"train/cat": 60, "train/dog": 60, "val/cat": 10, "val/dog": 10})
    age(root)
    moments = random.Random("kill")
    data = open_data(root)
    program = PixelProgram((96, 128))
    truth = pixels(decode_all(data, program, cache="ram")[1])
    kept = 0
    for _ in range(25):
        process = build(str(root))
        assert process.stdout is not None
        process.stdout.readline()  # it decodes now
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        rows = [DiskRows(DiskCache(program), split.paths) for split in data.splits.values()]
        now = sum(found.num_kept for found in rows)
        assert now >= kept, "a committed row is gone"
        kept = now
        if kept == 140:
            shutil.rmtree(folder)
            kept = 0
    _, caches = decode_all(data, program, cache="disk")
    assert same(pixels(caches), truth)
