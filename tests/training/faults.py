"""A disk that fails at the n-th of the calls that change it, and what has to hold of a run afterwards."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from regraft import commit
from regraft.models.store import folder as model_folder
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from regraft.training.checkpoint import saver

CALLS = ("fsync", "rename", "replace", "mkdir", "truncate")


class FailingDisk:
    """Lets the disk fail at the n-th write, fsync, rename, mkdir or truncation below a folder, by any thread.

    Args:
        patch: What undoes it.
        root: Files elsewhere do not count.
        fail_at: Which call fails, from 1.
        code: The error number.
        for_good: Whether all calls after it fail too, as on a disk that stays full.
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, root: Path, fail_at: int, code: int = errno.ENOSPC, *, for_good: bool = False
    ) -> None:
        self.root, self.fail_at, self.code, self.for_good = str(root), fail_at, code, for_good
        self.count = 0
        self.failed_at: list[str] = []
        self._lock = threading.Lock()
        self._renamed = _Renamed()
        for name in CALLS:
            patch.setattr(os, name, self._wrapped(getattr(os, name), name))
        patch.setattr(io, "open", self._opened(io.open))  # what Path.open calls
        for module in (saver, model_folder):
            patch.setattr(module, "save_file", self._library(module.save_file))

    @property
    def has_failed(self) -> bool:
        return bool(self.failed_at)

    def _fails(self, name: str) -> bool:
        with self._lock:
            self.count += 1
            fails = self.count == self.fail_at or (self.for_good and self.count > self.fail_at)
            if fails:
                self.failed_at.append(name)
            return fails

    def _meet(self, name: str) -> None:
        if self._fails(name):
            raise OSError(self.code, os.strerror(self.code))

    def _wrapped(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(target: Any, *rest: Any, **options: Any) -> Any:
            place = Path(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target))
            if str(place).startswith(self.root):
                # A folder is flushed for the sake of what was renamed in it last.
                self._meet(f"{name} {self._renamed.name if name == 'fsync' and place.is_dir() else place.name}")
                self._renamed.name = place.name if name in ("rename", "replace") else self._renamed.name
            return real(target, *rest, **options)

        return call

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            stream = real(file, mode, *rest, **options)
            if isinstance(file, int) or not str(file).startswith(self.root) or not set(mode) & set("wax+"):
                return stream
            return _Stream(stream, lambda: self._meet(f"write {Path(file).name}"))

        return call

    def _library(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """safetensors writes by itself; on a full disk it leaves a torn temporary file and an error of its own."""

        def call(tensors: Any, file: Path, *rest: Any, **options: Any) -> Any:
            if str(file).startswith(self.root) and self._fails(f"write {Path(file).name}"):
                Path(file).with_name(".tmpAbCdEf").write_bytes(b"torn")
                raise SafetensorError(f"Error while serializing: I/O error: failure (os error {self.code})")
            return real(tensors, file, *rest, **options)

        return call


class _Renamed(threading.local):
    """What each thread renamed last."""

    name = "nothing"


class _Stream:
    """A file opened for writing; `before_write` may raise, after half of the data has reached the file."""

    def __init__(self, stream: Any, before_write: Callable[[], None]) -> None:
        self._stream, self._before_write = stream, before_write

    def write(self, data: Any) -> Any:
        try:
            self._before_write()
        except OSError:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()
            raise
        return self._stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Stream:
        self._stream.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._stream.__exit__(*error)


def result(run: RunFolder) -> dict[str, Any]:
    """All that has to be equal in a run that was stopped and in one that was not."""
    timing = ("seconds", "images_per_second", "data_wait")
    return {
        "weights": hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest(),
        "config": (run.model / "config.json").read_text(),
        "metrics": [
            {key: value for key, value in row.items() if key not in timing} for row in read_metrics(run.metrics)
        ],
        "audit": run.read(run.audit),
        "best": run.read(run.best),
        "last": run.read(run.last),
        "networks": run.read(run.networks),
        "checkpoints": sorted(path.name for path in run.checkpoints.iterdir()),
        "recipe": run.settings(),
        "splits": run.read(run.splits),
    }


def temporary(run: RunFolder) -> list[str]:
    """What is left of unfinished writes."""
    return [str(path.relative_to(run.path)) for path in run.path.rglob(".*")]


def require_consistent(run: RunFolder) -> None:
    """Nothing that bears its final name is half written, and the pointers point to whole checkpoints.

    A disk that fails for good may fail while a folder is replaced, between two renames: sweeping, with which every
    start begins, gives it its name back.
    """
    run.sweep()
    for step in run.checkpoint_steps():
        assert commit.damage(run.checkpoint(step)) is None
    for step in run.lone_weights_steps():
        assert commit.damage(run.lone_weights(step)) is None
    for pointer in (run.last, run.best):
        target = run.read(pointer)
        assert target is None or commit.damage(run.checkpoints / target["checkpoint"]) is None
    networks = run.read(run.networks) or {"stages": [], "last": None}
    for network in (*networks["stages"], *filter(None, [networks["last"]])):
        assert commit.damage(run.weights(network["step"]), only=["model.safetensors"]) is None
    if run.model.exists():
        assert commit.damage(run.model) is None
    for path in run.path.glob("*.json"):
        json.loads(path.read_text())
