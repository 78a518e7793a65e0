"""Archives that are damaged, or that somebody made to harm: a sentence with the member's name, never a traceback."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.conftest import jpeg

import regraft as rg
from regraft.data.decode.image_file import read_file
from regraft.data.files import archives, gzip_stream
from regraft.data.readable import with_readable
from regraft.errors import DataError, RegraftError

GOOD = {f"{name}/{n}.jpg": jpeg(10 * n + len(name), 10, 12) for n in range(4) for name in ("cat", "horse")}


def zipped(path: Path, extra: dict[str, bytes] | None = None, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in {**GOOD, **(extra or {})}.items():
            file.writestr(name, content)
    return path


def tarred(path: Path, *extra: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in GOOD.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        rg.open_data(path)
    return str(caught.value)


def quarantine(path: Path) -> dict[str, str]:
    """The reasons by the names of the members; all good ones are still there."""
    data = with_readable(rg.open_data(path))
    assert sum(map(len, data.splits.values())) == len(GOOD) - sum(
        item.path.removeprefix(f"{path}/") in GOOD for item in data.quarantined
    )
    return {item.path.removeprefix(f"{path}/"): item.reason for item in data.quarantined}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.jpg", "leads out of its folder by '..'"),
        ("cat/../../evil.jpg", "leads out of its folder by '..'"),
        ("cat\\..\\..\\evil.jpg", "leads out of its folder by '..'"),
        ("/etc/evil.jpg", "is an absolute path"),
        ("C:\\evil.jpg", "is an absolute path"),
    ],
)
def test_names_that_lead_out_of_an_archive(tmp_path: Path, name: str, reason: str) -> None:
    for packed in (zipped(tmp_path / "a.zip", {name: b"x"}), tarred(tmp_path / "a.tar", member(name))):
        said = refusal(packed)
        assert f"the member {name!r} {reason}." in said
        assert "are not safe" in said
        assert read_file(str(packed / "cat" / "0.jpg")).startswith("cannot be read (The archive")  # type: ignore[arg-type]
    assert not list(tmp_path.parent.rglob("evil.jpg"))


def test_a_name_with_a_nul_byte(tmp_path: Path) -> None:
    packed = zipped(tmp_path / "a.zip", {"cat/xyz.jpg": b"x"})
    packed.write_bytes(packed.read_bytes().replace(b"cat/xyz.jpg", b"cat/x\0z.jpg"))
    assert "holds a NUL byte" in refusal(packed)


def test_many_bad_names_are_counted(tmp_path: Path) -> None:
    said = refusal(zipped(tmp_path / "a.zip", {f"/{n}.jpg": b"x" for n in range(50)}))
    assert "and 30 more." in said


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(1))
    packed = tarred(
        tmp_path / "a.tar",
        member("cat/soft.jpg", tarfile.SYMTYPE, str(secret)),
        member("cat/hard.jpg", tarfile.LNKTYPE, "horse/nothing.jpg"),
        member("cat/out.jpg", tarfile.LNKTYPE, "../secret.jpg"),
        member("cat/pipe.jpg", tarfile.FIFOTYPE),
    )
    found = quarantine(packed)
    assert set(found) == {"cat/soft.jpg", "cat/hard.jpg", "cat/out.jpg", "cat/pipe.jpg"}
    assert "links in archives are not followed" in found["cat/soft.jpg"]
    assert found["cat/pipe.jpg"] == "is a device or a pipe, not a file"
    link = zipfile.ZipInfo("cat/soft.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(zipped(tmp_path / "a.zip"), "a") as file:
        file.writestr(link, str(secret))
    assert list(quarantine(tmp_path / "a.zip")) == ["cat/soft.jpg"]


def test_names_that_stand_twice(tmp_path: Path) -> None:
    packed = zipped(tmp_path / "a.zip")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(packed, "a") as file:
        file.writestr("cat/0.jpg", jpeg(99))
    assert quarantine(packed) == {"cat/0.jpg": "stands in the archive more than once"}
    assert quarantine(tarred(tmp_path / "a.tar", member("./cat//0.jpg"))) == {
        "cat/0.jpg": "stands in the archive more than once"
    }


def test_a_file_that_is_a_folder_too(tmp_path: Path) -> None:
    packed = tarred(tmp_path / "a.tar", member("cat/0.jpg/inner.jpg"))
    data = with_readable(rg.open_data(packed))
    assert [item.path.removeprefix(f"{packed}/") for item in data.quarantined] == ["cat/0.jpg/inner.jpg"]
    assert sum(map(len, data.splits.values())) == len(GOOD) - 1
    assert any("1 member is a file and a folder at once" in line and "'cat/0.jpg'" in line for line in data.warnings)


def patched(path: Path, name: str, field: int, form: str, *values: int) -> Path:
    """Overwrite numbers of a member in the archive's list."""
    data = bytearray(path.read_bytes())
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    struct.pack_into(form, data, at + field, *values)
    path.write_bytes(data)
    return path


def test_lies_about_sizes_and_sums(tmp_path: Path) -> None:
    zeros = {"cat/x.jpg": jpeg(5) + bytes(10_000)}
    size = len(zeros["cat/x.jpg"])
    packed = zipped(tmp_path / "small.zip", zeros)
    assert quarantine(patched(packed, "cat/x.jpg", 24, "<L", 100)) == {
        "cat/x.jpg": "is longer than the 100 bytes that the archive says"
    }
    packed = zipped(tmp_path / "large.zip", zeros)
    assert quarantine(patched(packed, "cat/x.jpg", 24, "<L", size + 7)) == {"cat/x.jpg": "is cut off"}
    packed = zipped(tmp_path / "sum.zip", zeros)
    assert "checksum" in quarantine(patched(packed, "cat/x.jpg", 16, "<L", 1))["cat/x.jpg"]
    packed = zipped(tmp_path / "huge.zip", zeros)
    assert "would grow" in quarantine(patched(packed, "cat/x.jpg", 24, "<L", 3_000_000_000))["cat/x.jpg"]
    packed = zipped(tmp_path / "stored.zip", zeros, zipfile.ZIP_STORED)
    assert "contradict" in quarantine(patched(packed, "cat/x.jpg", 24, "<L", 5))["cat/x.jpg"]
    packed = zipped(tmp_path / "place.zip", zeros)
    at = packed.read_bytes().index(b"cat/x.jpg")
    packed.write_bytes(packed.read_bytes()[: at - 30] + b"XX" + packed.read_bytes()[at - 28 :])
    assert "header" in quarantine(packed)["cat/x.jpg"]
    packed = zipped(tmp_path / "name.zip", zeros)
    packed.write_bytes(packed.read_bytes().replace(b"cat/x.jpg", b"cat/y.jpg", 1))
    assert "another name" in quarantine(packed)["cat/x.jpg"]
    packed = zipped(tmp_path / "far.zip", zeros)
    assert "overlaps" in quarantine(patched(packed, "cat/x.jpg", 20, "<L", 60_000))["cat/x.jpg"]


def test_a_member_of_more_than_the_limit(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", member("cat/huge.bmp"))
    data = bytearray(path.read_bytes())
    at = data.index(b"cat/huge.bmp")
    info = member("cat/huge.bmp", size=3 << 29)
    data[at : at + 512] = info.tobuf(tarfile.GNU_FORMAT)
    with path.open("wb") as file:  # the disk keeps no zeros
        file.write(data[: at + 512])
        file.truncate(at + 512 + (3 << 29) + 1024)
    assert quarantine(path) == {"cat/huge.bmp": "has 1.5 GiB, more than the limit of 1 GiB"}


def test_bombs(tmp_path: Path) -> None:
    packed = tmp_path / "bomb.zip"
    zipped(packed, {"cat/bomb.bmp": b"BM" + bytes(80_000_000)})
    assert "no image is packed that small" in quarantine(packed)["cat/bomb.bmp"]
    # One core of zeros that many members share, each with a header before it inside the one before.
    data = zipped(tmp_path / "shared.zip", {"cat/a.jpg": bytes(99), "cat/b.jpg": bytes(99)}).read_bytes()
    first, second = data.index(b"cat/a.jpg") - 30, data.index(b"cat/b.jpg") - 30
    shared = patched(tmp_path / "shared.zip", "cat/b.jpg", 42, "<L", first)
    assert second > first
    assert set(quarantine(shared).values()) == {"overlaps another part of the archive"}


def test_a_compressed_tar_that_grows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "_BOMB_BYTES", 1 << 23)
    packed = tmp_path / "a.tar.gz"
    plain = tarred(tmp_path / "a.tar", member("cat/zeros.jpg", size=30_000_000)).read_bytes()
    packed.write_bytes(gzip.compress(plain))
    assert "grows from" in refusal(packed)
    monkeypatch.setattr(gzip_stream, "_BOMB_BYTES", 1 << 40)
    monkeypatch.setattr(gzip_stream, "_LARGEST", 1 << 23)
    archives._KNOWN.clear()
    assert "`gunzip -k a.tar.gz`" in refusal(packed)


def test_encrypted_members_and_other_methods(tmp_path: Path) -> None:
    packed = zipped(tmp_path / "a.zip")
    assert "is encrypted" in quarantine(patched(packed, "cat/0.jpg", 8, "<H", 1))["cat/0.jpg"]
    packed = zipped(tmp_path / "b.zip")
    assert "LZMA" in quarantine(patched(packed, "cat/0.jpg", 10, "<H", 14))["cat/0.jpg"]
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_BZIP2) as file:
        for name, content in GOOD.items():
            file.writestr(name, content)
    assert quarantine(tmp_path / "c.zip") == {}


def test_archives_that_are_cut_off(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    assert "is cut off" in refusal(tmp_path / "cut.zip")
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    assert "`unzip -t half.zip`" in refusal(tmp_path / "half.zip")
    (tmp_path / "before.zip").write_bytes(b"PK\x03\x04" + b"#!/bin/sh" * 9 + whole)
    assert quarantine(tmp_path / "before.zip") == {}
    whole = tarred(tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: 512 + 100])
    assert "is cut off in the member 'cat/0.jpg'" in refusal(tmp_path / "cut.tar")
    (tmp_path / "header.tar").write_bytes(whole[: 1024 + 512 + 77])
    assert "is cut off" in refusal(tmp_path / "header.tar")
    end = len(whole.rstrip(b"\0"))
    (tmp_path / "open.tar").write_bytes(whole[: -(-end // 512) * 512])
    data = rg.open_data(tmp_path / "open.tar")
    assert any("no end mark" in text for text in data.warnings)
    whole = tarred(tmp_path / "a.tar.gz", mode="w:gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:-40])
    assert "is cut off" in refusal(tmp_path / "cut.tar.gz")
    (tmp_path / "bad.tar.gz").write_bytes(whole[:-6] + b"\1\2\3\4\5\6")
    assert "`gzip -t bad.tar.gz`" in refusal(tmp_path / "bad.tar.gz")


def test_kinds_that_are_not_read_in_place(tmp_path: Path) -> None:
    for mode, command in (("w:bz2", "bunzip2 -k"), ("w:xz", "xz -dk")):
        path = tarred(tmp_path / f"a.tar.{mode[2:]}", mode=mode)
        assert f"`{command} {path.name}`" in refusal(path)


SEEDS: dict[str, Callable[[Path], Path]] = {
    "a.zip": zipped,
    "a.tar": tarred,
    "a.tar.gz": lambda path: tarred(path, mode="w:gz"),
}


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_never_ends_in_a_traceback(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = SEEDS[name](tmp_path / name)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(RegraftError):
        with_readable(rg.open_data(path))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_inside_a_compressed_tar(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(zlib.decompress(tarred(tmp_path / "a.tar.gz", mode="w:gz").read_bytes(), 31))
    for _ in range(data.draw(st.integers(1, 3))):
        at = 512 * data.draw(st.integers(0, len(content) // 512 - 1)) + data.draw(st.integers(0, 350))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "b.tar.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    with contextlib.suppress(RegraftError):
        with_readable(rg.open_data(path))
