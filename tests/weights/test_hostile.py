"""Hostile weight files from the front door, `read_weights`: refused in words, nothing run, nothing written, no memory.

Where each kind of hostile file is tested (the readers' own tests, or here):

| hostile input | test |
|---|---|
| .pth whose pickle calls something | readers/test_torch_pth.py::test_calls_nothing |
| pickle that safe loaders accept, sizes that lie | readers/test_torch_pth.py::test_refuses_tensors_larger_than_their_storage |
| file that fails a safe load so that a loader retries unsafely | here: test_no_second_unsafe_try |
| pickle under another suffix, rubbish behind it | here: test_a_pickle_under_any_name, test_rubbish_behind_a_pickle |
| zip: flag bits, another name in the local header, bad CRC | here: test_a_zip_that_contradicts_itself |
| compressed members, zip bombs | readers/test_torch_pth.py::test_refuses_compressed_members, test_npz.py::test_zip_bombs |
| tensor with stride 0 and a nominal size of terabytes | here: test_stride_zero |
| folder with a hostile `.metadata` pickle | here: test_a_distributed_checkpoint_is_not_unpickled |
| HDF5 external storage, external, soft and virtual links, linked groups | readers/test_keras_h5.py::test_links_and_foreign_bytes_are_refused, test_a_linked_group_is_refused |
| HDF5 shape bomb | readers/test_keras_h5.py::test_a_shape_bomb_is_refused_without_memory |
| .keras member that declares more than it holds | readers/test_keras_v3.py::test_archives_that_are_refused |
| .keras config that names modules, functions, paths, addresses; wrappers of other frameworks | readers/test_keras_v3.py::test_nothing_that_a_config_names_is_touched |
| Lambda layer in .h5 | readers/test_keras_h5.py::test_a_lambda_layer_is_only_read |
| archive members with `../`, absolute names, very many of them; tar | here: test_members_that_point_elsewhere, test_very_many_members, test_tar |
| ONNX external data elsewhere, over links | readers/test_onnx.py::test_external_data_elsewhere_is_refused, test_external_data_over_a_link_is_refused |
| safetensors headers | readers/test_safetensors.py::test_refuses_what_no_library_writes, test_refuses_a_header_that_is_not_there |
| npy headers, object arrays | readers/test_npy.py::test_hostile_programs, test_headers_that_declare_more_than_there_is, test_npz.py |
"""  # noqa: E501

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.errors import WeightsError
from regraft.weights.file import read_weights


class Call:
    """Pickles as a call of `os.mkdir`."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return tmp_path / "made-by-a-pickle"


def refused(path: Path) -> str:
    """The words of the refusal; memory stays small."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError) as caught:
            _read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.next_step
    return str(caught.value)


def _read_all(path: Path) -> None:
    for tensor in read_weights(path):
        tensor.load()


def state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4)}


@pytest.mark.parametrize("legacy", [False, True])
def test_no_second_unsafe_try(tmp_path: Path, made: Path, legacy: bool) -> None:
    content = {"state_dict": state(), "args": argparse.Namespace(lr=1.0), "hook": Call(made)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert "mkdir" in refused(tmp_path / "w.pth")
    assert not made.exists()


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".npy", ".npz", ".h5", ".keras", ".onnx", ".ckpt", ""])
@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_a_pickle_under_any_name(tmp_path: Path, made: Path, suffix: str, by: str) -> None:
    path = tmp_path / f"w{suffix}"
    if by == "torch":
        torch.save({"hook": Call(made)}, path)
    else:
        path.write_bytes(pickle.dumps({"hook": Call(made)}))
    refused(path)
    assert not made.exists()


def test_rubbish_behind_a_pickle(tmp_path: Path, made: Path) -> None:
    torch.save(state(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole + pickle.dumps(Call(made)))
    try:
        weights = read_weights(tmp_path / "w.pth")
        assert np.array_equal(weights.tensors["a.weight"].load(), state()["a.weight"].numpy())
    except WeightsError:
        pass
    assert not made.exists()


@pytest.mark.parametrize("how", ["crc", "flags", "local name"])
def test_a_zip_that_contradicts_itself(tmp_path: Path, how: str) -> None:
    path = tmp_path / "w.pth"
    torch.save(state(), path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = next(one for one in archive.infolist() if "/data/" in one.filename)
    if how == "local name":
        place = content.index(member.filename.encode())
        content[place : place + 2] = b"zz"
    else:
        entry = content.rindex(b"PK\x01\x02", 0, content.rindex(member.filename.encode()))
        place = entry + (16 if how == "crc" else 8)
        content[place] ^= 1
    path.write_bytes(bytes(content))
    try:
        values = read_weights(path).tensors["a.weight"].load()
    except WeightsError:
        return
    assert np.array_equal(values, state()["a.weight"].numpy())


def test_stride_zero(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size < 4096
    refused(tmp_path / "w.pth")


def test_a_distributed_checkpoint_is_not_unpickled(tmp_path: Path, made: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / ".metadata").write_bytes(pickle.dumps(Call(made)))
    (folder / "__0_0.distcp").write_bytes(b"\0" * 64)
    refused(folder)
    assert not made.exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/regraft-evil", "C:\\evil", "archive/../../evil"])
def test_members_that_point_elsewhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / "w.pth"
    path.parent.mkdir()
    torch.save(state(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"evil")
    before = sorted(tmp_path.rglob("*"))
    with contextlib.suppress(WeightsError):
        _read_all(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/regraft-evil").exists()


def test_very_many_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        for place in range(120_000):
            archive.writestr(f"{place}", b"")
    with pytest.raises(WeightsError, match="without a single array of numbers"):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE])
def test_tar(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "w.pth", "w") as archive:
        member = tarfile.TarInfo("../evil")
        member.type, member.linkname = kind, "/etc/hostname"
        archive.addfile(member, io.BytesIO())
    refused(tmp_path / "w.pth")
    assert not (tmp_path.parent / "evil").exists()
