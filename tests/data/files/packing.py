"""Folders packed into archives of every kind that is read in place."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

KINDS = (".zip", "-packed.zip", ".tar", ".tar.gz")
OLD = 1_600_000_000  # seconds: an index of a file this old is kept in the cache


def pack(folder: Path, kind: str, *, top: str = "", order: Sequence[str] | None = None) -> Path:
    """An archive beside a folder, with its files in this order, below the folder `top` inside."""
    files = order or sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return pack_files({name: folder / name for name in files}, folder.with_name(folder.name + kind), top)


def pack_files(files: Mapping[str, Path], target: Path, top: str = "") -> Path:
    inside = {(f"{top}/{name}" if top else name): path for name, path in files.items()}
    if target.name.endswith(".zip"):
        method = zipfile.ZIP_DEFLATED if "-packed" in target.name else zipfile.ZIP_STORED
        with zipfile.ZipFile(target, "w", method) as packed:
            for name, path in inside.items():
                packed.write(path, name)
    else:
        with tarfile.open(target, "w:gz" if target.name.endswith(".gz") else "w") as tar:
            for name, path in inside.items():
                tar.add(path, name, recursive=False)
    os.utime(target, (OLD, OLD))
    return target
