"""`regraft cache`: what it holds by data set, clearing it, and what a living process keeps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import Cli, photos

import regraft as rg
from regraft.data.cache.room import make_room
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode_all import decode_all
from regraft.machine import in_use

needs_locks = pytest.mark.skipif(os.name == "nt", reason="Windows has no shared locks, and keeps open files itself")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the decoded images of two data sets, an export and an index."""
    root = tmp_path / "cache"
    monkeypatch.setenv("REGRAFT_CACHE", str(root))
    for name, num in (("one", 6), ("two", 8)):
        photos(tmp_path / name, {"cat": num, "dog": num})
        decode_all(rg.open_data(tmp_path / name), PixelProgram((8, 8)), cache="disk")
    for path in (root / "exports" / "a.onnx", root / "archives" / "b.index"):
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
    return root


def test_it_is_listed_by_data_set(cli: Cli, cached: Path, tmp_path: Path) -> None:
    result = cli("cache")
    assert result.code == 0, result.err
    assert f"cache: {cached}, " in result.out
    assert "decoded images 8x8 squash: 16 images" in result.out, "of which the other data set has 12"
    assert f"{tmp_path / 'one'}: 12 images" in result.out
    assert f"{tmp_path / 'two'}: 16 images" in result.out
    assert "exports: 1 file" in result.out
    found = json.loads(cli("cache", "--json").out)
    assert found["num_bytes"] == rg.list_cache().num_bytes > 16 * 8 * 8 * 3
    assert {item["kind"] for item in found["items"]} >= {"decoded images", "exports", "indexes of archives"}


@needs_locks
def test_clearing_leaves_nothing_and_a_dry_run_everything(cli: Cli, cached: Path) -> None:
    before = sorted(cached.rglob("*"))
    result = cli("cache", "clear", "--dry-run")
    assert "would be removed from: " in result.out
    assert sorted(cached.rglob("*")) == before
    assert cli("cache", "clear", "--older", "1d").out.count("\n") == 1
    old = time.time() - 40 * 86400
    os.utime(cached / "exports" / "a.onnx", (old, old))
    assert "exports: 1 file" in cli("cache", "clear", "--older", "30d").out
    assert not (cached / "exports" / "a.onnx").exists()
    result = cli("cache", "clear")
    assert result.code == 0, result.err
    assert [path for path in cached.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert rg.list_cache().items == ()


@needs_locks
def test_what_a_living_process_uses_is_kept(cli: Cli, cached: Path, tmp_path: Path) -> None:
    code = (
        "import sys, regraft as rg\n"
        "from regraft.data.decode.decode import PixelProgram\n"
        "from regraft.data.decode_all import decode_all\n"
        f"held = decode_all(rg.open_data({str(tmp_path / 'one')!r}), PixelProgram((8, 8)), cache='disk')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert ", in use" in cli("cache").out
        result = cli("cache", "clear")
        assert "kept, in use: decoded images 8x8 squash" in result.out
        stores = [path for path in (cached / "pixels").iterdir() if path.is_dir()]
        assert len(stores) == 1
        os.utime(stores[0] / "store.json", (0, 0))
        make_room(cached / "pixels", cached / "pixels" / "own", 1 << 60, share=0.5)
        assert (stores[0] / "rows.bin").exists()
        process.kill()
    assert "decoded images" in cli("cache", "clear").out
    assert not stores[0].exists()


@needs_locks
def test_what_a_run_on_an_archive_or_an_address_goes_by_is_kept(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is needed every day: without its listing a data set that is far away cannot be opened offline."""
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    photos(tmp_path / "pets", {"cat": 2, "dog": 2})
    shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets")
    os.utime(tmp_path / "pets.zip", (1_600_000_000,) * 2)
    code = (
        "import sys, fsspec, regraft as rg\n"
        "store = fsspec.filesystem('memory')\n"
        f"store.put({str(tmp_path / 'pets')!r}, 'memory://pets', recursive=True)\n"
        f"held = rg.open_data({str(tmp_path / 'pets.zip')!r}), rg.open_data('memory://pets')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        items = {item.kind: item for item in rg.list_cache().items}
        assert set(items) == {"indexes of archives", "listings of addresses"}
        assert all(item.in_use for item in items.values())
        assert items["listings of addresses"].what == "pets"
        result = cli("cache", "clear")
        assert result.out.count("kept, in use: ") == 2
        process.kill()
    old = Path(items["listings of addresses"].path)
    for file in old.iterdir():
        os.utime(file, (0, 0))
    (old / "used.lock").touch()  # listed long ago, used today
    assert "addresses" not in cli("cache", "clear", "--older", "1d", "--dry-run").out
    assert cli("cache", "clear").code == 0
    assert rg.list_cache().items == ()


@needs_locks
def test_looking_whether_something_is_used_lets_nobody_lose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    marker = tmp_path / in_use.MARKER
    marker.touch()
    with marker.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        monkeypatch.setattr(in_use.time, "sleep", lambda _: looking.close())
        in_use.note_use(tmp_path)
    assert in_use.is_held(marker)


def test_an_empty_cache_and_wrong_words(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "none"))
    assert cli("cache").out == f"cache: {tmp_path / 'none'}, 0.0 kB\n"
    assert cli("cache", "clear").code == 0
    for words in (["clean"], ["--dry-run"], ["--older", "1d"], ["clear", "--older", "soon"]):
        assert cli("cache", *words).code == 2, words
    assert cli("cache", "clear", "--older", "3x").err.count("a duration") == 1
