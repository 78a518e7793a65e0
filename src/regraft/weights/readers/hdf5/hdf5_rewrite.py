"""HDF5 files in the newer layout, written again in the classic one by h5py, in a process of their own.

Files of `libver="latest"` or with tracked order are rare among weights. The HDF5 library may crash on a damaged one, or
be made to do worse, so it works in a child process: two open files (the one it reads, the one it writes), an empty
environment, bounded memory and time, and no right to anything else (`hdf5_sandbox`). What it wrote is read like every
other file. This module is also the program of that process, so it imports nothing of regraft at the top.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.errors import WeightsError

__all__ = ["rewritten"]

_SECONDS = 300
_SLAB = 2**25  # bytes of a large dataset that are copied at a time


def rewritten(path: Path, start: int, length: int) -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """Return a classic copy of an HDF5 file, and the folder that lives as long as it is needed.

    Raises:
        WeightsError: The file is damaged or leads out of itself.
    """
    folder = tempfile.TemporaryDirectory(prefix="regraft-hdf5-")
    target = Path(folder.name) / "classic.h5"
    try:
        with path.open("rb") as source, target.open("x+b") as copy:
            done = _in_child(source, start, length, copy, folder.name)
    except OSError as error:
        raise _failed(path, (error.strerror or type(error).__name__).lower()) from error
    except subprocess.TimeoutExpired as error:
        raise _failed(path, f"the HDF5 library did not finish in {_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _failed(path, lines[-1][:200] if lines else f"the HDF5 library stopped with {done.returncode}")
    return target, folder


def _in_child(
    source: IO[bytes], start: int, length: int, copy: IO[bytes], folder: str
) -> subprocess.CompletedProcess[bytes]:
    """Run this module as a program that has these two files and nothing else."""
    if sys.platform == "win32":  # files are passed by name there
        files, passed = (source.name, copy.name), ()
    else:
        files, passed = (str(source.fileno()), str(copy.fileno())), (source.fileno(), copy.fileno())
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-I", str(Path(__file__)), files[0], str(start), str(length), files[1]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        pass_fds=passed,
    )


def _failed(path: Path, why: str) -> WeightsError:
    from regraft.errors import WeightsError

    return WeightsError(
        f"{str(path)!r} is truncated, damaged or refused: {why}.",
        "a whole HDF5 file with nothing but its own groups and datasets",
        "download or copy it again, and compare its size with the original's",
    )


def _copy(h5py: Any, source: Any, target: Any, budget: list[int]) -> None:
    """Copy attributes, groups and datasets, over hard links only."""
    for name, value in source.attrs.items():
        if isinstance(value, h5py.Empty):
            continue
        target.attrs[name] = value
    for name in source:
        budget[0] -= 1
        if budget[0] < 0:
            raise SystemExit("it has too many objects, or contains a cycle")
        if not isinstance(source.get(name, getlink=True), h5py.HardLink):
            raise SystemExit(f"{name!r} is a link, and may lead out of the file")
        item = source[name]
        if isinstance(item, h5py.Group):
            _copy(h5py, item, target.create_group(name), budget)
        elif isinstance(item, h5py.Dataset):
            _copy_dataset(h5py, name, item, target, budget)


def _copy_dataset(h5py: Any, name: str, item: Any, target: Any, budget: list[int]) -> None:
    plist = item.id.get_create_plist()
    if item.is_virtual or item.external is not None or plist.get_external_count():
        raise SystemExit(f"{name!r} takes its values from another file")
    for index in range(plist.get_nfilters()):
        if plist.get_filter(index)[0] not in (1, 2, 3, 32000):
            raise SystemExit(f"{name!r} needs an HDF5 filter plug-in")
    declared, stored = item.size * item.dtype.itemsize if item.shape is not None else 0, item.id.get_storage_size()
    budget[1] -= stored
    if declared > max(100 * stored, 16 * 2**20 if stored else 0) or declared > 192 * 2**20 + 4 * budget[2]:
        raise SystemExit(f"{name!r} declares {declared} bytes and holds {stored} (a decompression bomb)")
    if budget[1] < 0:
        raise SystemExit(f"{name!r} declares {declared} bytes and holds {stored}")
    chunk = math.prod(item.chunks or ()) * item.dtype.itemsize
    if chunk > 192 * 2**20 + budget[2]:
        raise SystemExit(f"{name!r} has pieces of {chunk} bytes")
    if item.shape is None:
        return
    if declared < 2 * _SLAB:
        target.create_dataset(name, data=item[()])
        return
    copy = target.create_dataset(name, item.shape, item.dtype)
    for slab in _slabs(item):
        copy[slab] = item[slab]


def _slabs(item: Any) -> Iterator[tuple[slice, ...]]:
    """Yield a large dataset in parts along its longest axis; each touches whole pieces, so that none is inflated
    twice.
    """
    axis = max(range(item.ndim), key=item.shape.__getitem__)
    length, piece = item.shape[axis], item.chunks[axis] if item.chunks else 1
    rows = max(piece, _SLAB * length // (item.size * item.dtype.itemsize) // piece * piece)
    for start in range(0, length, rows):
        yield (*(slice(None),) * axis, slice(start, start + rows))


class _Part:
    """A part of an open file, with what h5py asks of a file."""

    def __init__(self, stream: IO[bytes], start: int, length: int) -> None:
        self._stream, self._start, self._length, self._at = stream, start, length, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(0, self._length - self._at)]
        self._stream.seek(self._start + self._at)
        count = self._stream.readinto(wanted)  # type: ignore[attr-defined]
        self._at += count
        return int(count)

    def read(self, size: int = -1) -> bytes:
        content = bytearray(self._length - self._at if size < 0 else size)
        return bytes(content[: self.readinto(content)])


def _sandbox() -> Any:
    """Return the module beside this one, by its path: an isolated Python does not look there."""
    spec = importlib.util.spec_from_file_location("hdf5_sandbox", Path(__file__).with_name("hdf5_sandbox.py"))
    if spec is None or spec.loader is None:
        raise SystemExit("a part of regraft is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _warm_up(h5py: Any) -> None:
    """Copy a small file of every kind in memory: Python imports some of what that needs only when it is used first."""
    import codecs
    import io

    for encoding in ("ascii", "latin-1", "utf-8", "idna", "utf-16", "utf-32"):
        codecs.lookup(encoding)
    first, second = io.BytesIO(), io.BytesIO()
    with h5py.File(first, "w", libver="latest", track_order=True) as file:
        file.attrs["text"], file.attrs["bytes"], file.attrs["number"] = "ä", b"a", 1
        file.attrs["texts"], file.attrs["empty"] = ["a", "ä"], h5py.Empty("f4")
        file.attrs["fixed"] = [b"a", b"bc"]
        group = file.create_group("group")
        group.create_dataset("plain", data=[1.0])
        group.create_dataset("flag", data=[True])
        group.create_dataset("texts", data=["a", "ä"])
        group.create_dataset("empty", data=h5py.Empty("f4"))
        group.create_dataset(
            "packed", data=[[1, 2]] * 9, chunks=(2, 2), compression="gzip", shuffle=True, fletcher32=True
        )
        group.create_dataset("lzf", data=[1] * 9, compression="lzf")
    with h5py.File(first, "r") as source, h5py.File(second, "w", libver=("earliest", "v108")) as copy:
        _copy(h5py, source, copy, [100, 2**20, 2**20])
    try:
        h5py.File(io.BytesIO(b"?" * 4096), "r")
    except OSError as error:
        str(error)


def _main(source_file: str, start: str, length: str, target_file: str) -> None:
    sandbox, num_bytes = _sandbox(), int(length)
    sandbox.leave_network()
    import h5py

    stream = open(int(source_file) if source_file.isdigit() else source_file, "rb")  # noqa: SIM115
    content = _Part(stream, int(start), num_bytes)
    target = open(int(target_file) if target_file.isdigit() else target_file, "r+b", buffering=0)  # noqa: SIM115
    _warm_up(h5py)
    sandbox.limit(memory=2 * 2**30 + 6 * num_bytes, seconds=_SECONDS, file_bytes=512 * 2**20 + 8 * num_bytes)
    sandbox.drop_rights()
    try:
        with target, h5py.File(content, "r") as source, h5py.File(target, "w", libver=("earliest", "v108")) as copy:
            _copy(h5py, source, copy, [500_000, num_bytes, num_bytes])
    except Exception as error:
        raise SystemExit(str(error) or type(error).__name__) from error


if __name__ == "__main__":
    _main(*sys.argv[1:])
