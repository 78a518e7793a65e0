"""onnxruntime-web, which runs a model in a browser: one pinned package from the npm registry, kept in the cache."""

from __future__ import annotations

import base64
import hashlib
import logging
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from regraft import commit
from regraft.errors import SettingsError
from regraft.machine.cache_folder import cache_folder

__all__ = ["FILE", "PACKAGE", "VERSION", "WebRuntime", "web_runtime"]

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
FILE = f"{PACKAGE}-{VERSION}.tgz"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_SCRIPT = "package/dist/ort.wasm.bundle.min.mjs"
_BINARY = "package/dist/ort-wasm-simd-threaded.wasm"
_SECONDS = 900
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WebRuntime:
    """What a page needs of onnxruntime-web: its script, as a plain one that defines `ort`, and its WebAssembly."""

    script: bytes
    binary: bytes


def web_runtime(file: str | Path | None = None) -> WebRuntime:
    """Return onnxruntime-web: from a file, from the cache, or fetched once by npm, in this order.

    Args:
        file: The package, as `npm pack` writes it; it is kept in the cache. None takes the cache, or npm.

    Raises:
        SettingsError: The file is not this version of the package, or it cannot be fetched.
        StorageError: It cannot be kept.
    """
    kept = cache_folder() / FILE
    if file is not None:
        data = _read(Path(file))
        if data is None:
            raise SettingsError(
                f"{str(file)!r} is not {FILE} of the npm registry.", f"a file with {INTEGRITY}", _fetch()
            )
        if Path(file).absolute() != kept:
            commit.write_bytes(kept, data)
        return _unpacked(data)
    data = _read(kept)
    if data is None:
        data = _fetched(_npm)
        commit.write_bytes(kept, data)
    return _unpacked(data)


def _read(file: Path) -> bytes | None:
    """Return a file's bytes where they are the package."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode("ascii")
    return data if f"sha512-{digest}" == INTEGRITY else None


def _fetched(fetch: Callable[[Path], str]) -> bytes:
    _log.info("fetching %s %s from the npm registry, once: 33 MB", PACKAGE, VERSION)
    with tempfile.TemporaryDirectory() as folder:
        reason = fetch(Path(folder))
        data = _read(Path(folder) / FILE)
    if data is None:
        raise SettingsError(
            f"A page runs the model with {PACKAGE} {VERSION}, which could not be fetched: {reason}.",
            f"npm, which knows a registry; or the file {FILE}",
            _fetch(),
        )
    return data


def _npm(folder: Path) -> str:
    """Let npm fetch the package, from whichever registry it is set to, and return why not."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, cwd=folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if not done.returncode:
        return "npm gave another file"
    last = done.stderr.strip().splitlines()[-1:]
    return f"npm ended with {done.returncode}" + (f" ({last[0][:200]})" if last else "")


def _fetch() -> str:
    return f"`npm pack {PACKAGE}@{VERSION}` on a computer with npm, then `--runtime {FILE}`"


def _unpacked(data: bytes) -> WebRuntime:
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        parts = [archive.extractfile(name) for name in (_SCRIPT, _BINARY)]
        script, binary = (part.read() if part is not None else b"" for part in parts)
    return WebRuntime(_plain(script.decode("utf-8")).encode("utf-8"), binary)


def _plain(module: str) -> str:
    """Return a module as a plain script: a worker of a page that was opened as a file cannot load modules."""
    body, _, exports = module.rpartition("export{")
    pairs = [pair.split(" as ") for pair in exports.partition("}")[0].split(",")]
    defined = ",".join(f"{outer}:{inner}" for inner, outer in pairs)
    return f"{body.replace('import.meta.url', 'self.location.href')}self.ort={{{defined}}};\n"
