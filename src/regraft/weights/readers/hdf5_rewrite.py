"""HDF5 files in the newer layout, written again in the classic one by h5py, in a process of their own.

Files of `libver="latest"` or with tracked order are rare among weights. The HDF5 library may crash on a damaged one, so
it works in a child process with bounded memory and time, and the result is read like every other file. This module is
also the program of that process, so it imports nothing of regraft at the top.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.errors import WeightsError

__all__ = ["rewritten"]

_SECONDS = 300


def rewritten(path: Path, start: int, length: int) -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """A classic copy of an HDF5 file, and the folder that lives as long as it is needed.

    Raises:
        WeightsError: h5py is missing, or the file is damaged or leads out of itself.
    """
    from regraft.errors import WeightsError

    if importlib.util.find_spec("h5py") is None:
        raise WeightsError(
            f"{str(path)!r} is in the newer HDF5 layout, and the package that reads it (h5py) is not installed.",
            "Files as Keras writes them by default are read without it.",
            'Type: pip install "h5py>=3.14"',
        )
    folder = tempfile.TemporaryDirectory(prefix="regraft-hdf5-")
    target = Path(folder.name) / "classic.h5"
    command = [sys.executable, "-I", str(Path(__file__)), str(path.absolute()), str(start), str(length), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, cwd=folder.name)
    except subprocess.TimeoutExpired as error:
        raise _failed(path, f"the HDF5 library did not finish in {_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _failed(path, lines[-1][:200] if lines else f"the HDF5 library stopped with {done.returncode}")
    return target, folder


def _failed(path: Path, why: str) -> WeightsError:
    from regraft.errors import WeightsError

    return WeightsError(
        f"{str(path)!r} is cut short, damaged or refused: {why}.",
        "A whole HDF5 file with nothing but its own groups and datasets was expected.",
        "Download or copy it again, and compare its size with the original's.",
    )


def _limit(length: int) -> None:
    """Bound the memory of this process."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    bound = 4 * 2**30 + 4 * length
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def _copy(h5py: Any, source: Any, target: Any, budget: list[int]) -> None:
    """Copy attributes, groups and datasets, over hard links only."""
    for name, value in source.attrs.items():
        if isinstance(value, h5py.Empty):
            continue
        target.attrs[name] = value
    for name in source:
        budget[0] -= 1
        if budget[0] < 0:
            raise SystemExit("it has too many objects, or goes in a circle")
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
    if declared > 1000 * stored or budget[1] < 0:
        raise SystemExit(f"{name!r} declares {declared} bytes and holds {stored}")
    if item.shape is not None:
        target.create_dataset(name, data=item[()])


def _main(path: str, start: str, length: str, target: str) -> None:
    _limit(int(length))
    import io

    import h5py

    with open(path, "rb") as stream:
        stream.seek(int(start))
        content = io.BytesIO(stream.read(int(length)))
    try:
        with h5py.File(content, "r") as source, h5py.File(target, "w", libver=("earliest", "v108")) as copy:
            _copy(h5py, source, copy, [500_000, int(length)])
    except Exception as error:
        raise SystemExit(str(error) or type(error).__name__) from error


if __name__ == "__main__":
    _main(*sys.argv[1:])
