"""Sealed exports of runs in the cache: made once, found by the contents of the model. Finding one needs no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from regraft import commit
from regraft.errors import RegraftError
from regraft.exports.formats import require_exportable
from regraft.exports.running.session import SealedSession
from regraft.exports.seal import FORMAT
from regraft.machine.cache_folder import cache_folder, private_folder
from regraft.machine.in_use import hold_to_the_end
from regraft.models.store.find import find_model_folder
from regraft.run.folds_folder import fold_runs

__all__ = ["found_export", "made_export"]

_MOST_FILES = 20
_FILES = ("config.json", "model.safetensors", "trust.safetensors", "probes.safetensors")
_WRITING = threading.Lock()  # what is swept away is of other processes, never of another thread
_PACKAGES = ("regraft", "onnxruntime", "torch", "timm", "numpy", "pillow")


def found_export(run: str | Path, threads: int | None) -> SealedSession | None:
    """Return the export of a run that is in the cache, opened; None where there is none, or none that is whole."""
    try:
        folder = _folder()
        if next(folder.glob("*.onnx"), None) is None:
            return None
        return _opened(folder / _name(run), threads)
    except (RegraftError, OSError):
        return None


def made_export(run: str | Path, threads: int | None) -> SealedSession:
    """Return the export of a run, opened: from the cache, or made, proven and put there.

    Two processes may make it at once: either file is whole, and the last one stays. What a process that was killed
    has left of it goes.

    Raises:
        SettingsError: There is no model, it cannot be exported, or packages are not installed.
        WeightsError: The export does not say what the run says.
        StorageError: The cache cannot be written to.
    """
    require_exportable(run, "cached.onnx", None, None, new=False)
    path = _folder() / _name(run)
    with contextlib.suppress(RegraftError, OSError):
        session = _opened(path, threads)
        if session is not None:
            return session
    from regraft.exports.sealed_run import sealed_run

    private_folder(path.parent)
    data = sealed_run(run, f"the export of {run}").data
    with _WRITING:
        commit.sweep(path.parent)
        commit.write_bytes(path, data)
    _remove_oldest(path.parent)
    return SealedSession(data, threads=threads, name=str(path))  # another process may just have replaced the file


def _opened(path: Path, threads: int | None) -> SealedSession | None:
    if not path.is_file():
        return None
    private_folder(path.parent)
    session = SealedSession(path, threads=threads)
    hold_to_the_end(path)
    with contextlib.suppress(OSError):
        os.utime(path)  # was used now
    return session


def _folder() -> Path:
    return cache_folder() / "exports"


def _name(run: str | Path) -> str:
    """Return a name that changes with the contents of the model and with the versions that compute it."""
    digest = hashlib.sha256(f"seal {FORMAT}\n".encode())
    for package in _PACKAGES:
        digest.update(f"{package} {_version(package)}\n".encode())
    for path in fold_runs(run) or [Path(run)]:
        folder = find_model_folder(path)
        for name in _FILES:
            file = folder / name
            if file.is_file():
                with file.open("rb") as stream:
                    digest.update(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"{digest.hexdigest()[:32]}.onnx"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _remove_oldest(folder: Path) -> None:
    """Keep the files that were used last."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.onnx"), key=lambda file: -file.stat().st_mtime)
        for file in files[_MOST_FILES:]:
            file.unlink(missing_ok=True)
