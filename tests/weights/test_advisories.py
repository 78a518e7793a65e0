"""Published weaknesses of loaders of weights, one test for each kind that could be regraft's (docs/security.md)."""

from __future__ import annotations

import ast
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regraft
from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.readers.hdf5 import hdf5_rewrite

h5py: Any = pytest.importorskip("h5py")
SOURCE = Path(regraft.__file__).parent
VALUES = np.arange(64, dtype="f4").reshape(8, 8)


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        _read_all(path)
    return str(caught.value)


def _read_all(path: Path) -> None:
    for tensor in read_weights(path):
        tensor.load()


def pth(path: Path, program: bytes, storage: bytes = bytes(16)) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + program)
        archive.writestr("x/data/0", storage)
    return path


def keras(path: Path, libver: str | None, fill: Callable[[Any], Any]) -> Path:
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"kernel:0"]
        fill(group)
    return path


# Pickles


@pytest.mark.parametrize(
    "program",
    [
        b"cpkgutil\nresolve_name\nX\x09\x00\x00\x00os:system\x85R.",
        b"censurepip\n_run_pip\n)R.",
        b"X\x02\x00\x00\x00osq\x000X\x06\x00\x00\x00systemq\x010h\x00h\x01\x93X\x04\x00\x00\x00true\x85R.",
        b"cbuiltins\ngetattr\n(cos\nenviron\nX\x04\x00\x00\x00copytR.",
        b"ctorch.hub\nload\n)R.",
        b"ctorch\nload\n)R.",
    ],
)
def test_names_that_block_lists_forget(tmp_path: Path, program: bytes) -> None:
    """picklescan#66: only a list of what is allowed holds; STACK_GLOBAL may take its words from the memo."""
    assert "calls" in refused(pth(tmp_path / "x.pth", program))


@pytest.mark.parametrize(
    "program", [b"](K\x00K\x01u.", b"]K\x00K\x01s.", b"(K\x01tK\x00K\x01s.", b"K\x07(K\x00K\x01u."]
)
def test_items_set_on_what_is_not_a_dict(tmp_path: Path, program: bytes) -> None:
    """CVE-2026-24747: SETITEM and SETITEMS on another object."""
    refused(pth(tmp_path / "x.pth", program))


def test_a_storage_of_another_size_than_it_says(tmp_path: Path) -> None:
    """CVE-2026-24747: the size of a storage is not that of its data."""
    identity = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xff\xff\xff\x00tQ"
    )
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + b"K\x00K\x04\x85K\x01\x85\x89}tR."
    assert "should hold" in refused(pth(tmp_path / "x.pth", program))


def test_nothing_unpickles() -> None:
    """CVE-2025-32434, CVE-2026-1839 and -28500: no part of regraft loads pickles, `rng_state.pth` of a run included."""
    forbidden = {"torch.load", "torch.hub.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"}
    called: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called.add(ast.unparse(node.func))
                assert not any(
                    keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False" for keyword in node.keywords
                ), path
    assert not called & forbidden
    assert "json.loads" in called


# HDF5


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize(
    "kind", ["scale-offset", "array", "compound", "reference", "variable length", "float of 3 bytes"]
)
def test_datasets_of_other_things_than_numbers(tmp_path: Path, kind: str, libver: str | None) -> None:
    """CVE-2025-44905 and -2308 (scale-offset), CVE-2025-2309 (conversion), CVE-2026-26197 (types of types)."""

    def fill(group: Any) -> None:
        if kind == "scale-offset":
            group.create_dataset("kernel:0", data=VALUES.astype("i4"), chunks=(8, 8), scaleoffset=0)
        elif kind == "compound":
            group.create_dataset("kernel:0", (4,), np.dtype([("a", "f4"), ("b", "i2")]))
        elif kind == "reference":
            group.create_dataset("kernel:0", (4,), h5py.ref_dtype)
        elif kind == "variable length":
            group.create_dataset("kernel:0", (4,), h5py.vlen_dtype("f4"))
        else:
            odd = h5py.h5t.IEEE_F32LE.copy()
            odd.set_fields(31, 20, 8, 0, 20)
            h5py.h5d.create(group.id, b"kernel:0", odd, h5py.h5s.create_simple((4,)))

    refused(keras(tmp_path / "w.h5", libver, fill))


@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_chunk_that_says_another_size(tmp_path: Path, value: int) -> None:
    """CVE-2025-44904: the stored size of a chunk is believed."""
    path = keras(
        tmp_path / "w.h5", None, lambda g: g.create_dataset("kernel:0", data=VALUES, chunks=(8, 8), compression="gzip")
    )
    whole = path.read_bytes()
    at = whole.index(b"TREE\x01") + 24
    path.write_bytes(whole[:at] + struct.pack("<I", value) + whole[at + 4 :])
    refused(path)


@pytest.mark.parametrize("place", [b"TREE\x00", b"SNOD", b"HEAP"])
def test_structures_that_hold_themselves_or_lie(tmp_path: Path, place: bytes) -> None:
    """CVE-2026-17572 and -17573, CVE-2025-2915, -6269, -6750, -7069: lists, caches, free space and their lengths."""
    path = keras(tmp_path / "w.h5", None, lambda group: group.create_dataset("kernel:0", data=VALUES))
    whole = path.read_bytes()
    start = whole.index(place)
    for at in range(4, 40, 3):
        for value in (b"\xff" * 8, bytes(8), struct.pack("<Q", start)):
            path.write_bytes(whole[: start + at] + value + whole[start + at + 8 :])
            try:
                _read_all(path)
            except WeightsError:
                continue


@pytest.mark.skipif(sys.platform == "win32", reason="the process dies of SIGSEGV, which Windows does not send")
def test_a_library_that_crashes_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About 30 advisories of HDF5 2.0: newer layouts are read in a process of their own, which may die."""
    path = keras(tmp_path / "w.h5", "latest", lambda group: group.create_dataset("kernel:0", data=VALUES))
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    monkeypatch.setattr(hdf5_rewrite, "_in_child", lambda *_: subprocess.run(crash, capture_output=True, check=False))
    assert "stopped with -11" in refused(path)


# Keras and ONNX


def test_a_config_with_code_is_data(tmp_path: Path) -> None:
    """CVE-2025-1550, -8747, -9905, -9906: lambdas, modules and functions in a configuration; `.h5` included."""
    hostile = {
        "class_name": "Lambda",
        "module": "os",
        "registered_name": "system",
        "config": {"name": "x", "function": {"class_name": "__lambda__", "config": {"code": "4wAAAA=="}}},
    }
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [hostile]}}
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"d"]
        group.create_group("d").attrs["weight_names"] = [b"kernel:0"]
        group["d"]["kernel:0"] = VALUES
    (tensor,) = read_weights(tmp_path / "w.h5")
    assert np.array_equal(tensor.load(), VALUES)


def _onnx(**entries: str) -> bytes:
    def blob(field: int, value: bytes) -> bytes:
        return bytes([field << 3 | 2, len(value)]) + value

    pairs = b"".join(blob(13, blob(1, key.encode()) + blob(2, value.encode())) for key, value in entries.items())
    tensor = b"\x08\x04\x10\x01" + blob(8, b"w") + pairs + b"\x70\x01"
    node = blob(1, b"x") + blob(1, b"w") + blob(2, b"y") + blob(4, b"Conv")
    return b"\x08\x08" + blob(2, b"t") + blob(7, blob(1, node) + blob(5, tensor))


@pytest.mark.parametrize("key", ["__class__", "_beside", "source", "__dict__", "read"])
def test_keys_of_external_data_set_nothing(tmp_path: Path, key: str) -> None:
    """CVE-2026-34445: every key became an attribute of an object."""
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (tmp_path / "w.onnx").write_bytes(_onnx(location="w.bin", **{key: "x"}))
    assert read_weights(tmp_path / "w.onnx").tensors["w"].load().tolist() == [0] * 4


@pytest.mark.parametrize("how", ["../secret", "link", "hard", "/etc/passwd", "folder/secret"])
def test_external_data_stays_beside_the_file(tmp_path: Path, how: str) -> None:
    """CVE-2026-34446, -27489, CVE-2025-51480: `..`, links and hard links."""
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    (model / "link").symlink_to(tmp_path / "secret")
    (model / "folder").symlink_to(tmp_path)
    (model / "hard").hardlink_to(tmp_path / "secret")
    (model / "w.onnx").write_bytes(_onnx(location=how))
    refused(model / "w.onnx")


def test_a_file_that_scanners_skip_is_read_all_the_same(tmp_path: Path) -> None:
    """agent-bom PR#3326 (small files are not scanned), pickles under other names: the content alone decides."""
    stream = io.BytesIO()
    pickle.dump({"a": print}, stream)
    for name in ("w.safetensors", "w.h5", "w.onnx", "w"):
        (tmp_path / name).write_bytes(stream.getvalue())
        refused(tmp_path / name)
