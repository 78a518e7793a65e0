"""Notices what was changed in a sealed file after it was written: hashes over its network and over its metadata.

They protect from accidents, such as metadata edited by hand or a graph that another tool has rewritten. Who changes a
file on purpose can change the hashes as well.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path

from regraft.errors import StorageError
from regraft.weights.readers.protobuf import VARINT, fields

__all__ = ["GUARD", "guarded", "metadata_sha256", "network_sha256", "require_unchanged"]

GUARD = "guard"
_METADATA = 14  # the number of `metadata_props` in ONNX's ModelProto


def guarded(texts: Mapping[str, str], network: str) -> dict[str, str]:
    """Return metadata with what notices changes.

    Args:
        texts: The metadata, by key.
        network: From `network_sha256`, or a hash of another kind of file.
    """
    noted = {"network": network, "metadata": metadata_sha256(texts), "keys": _by_key(texts)}
    return {**texts, GUARD: json.dumps(noted)}


def require_unchanged(texts: Mapping[str, str], network: str, name: str) -> None:
    """Raise where a file is not as it was written; keys that others have added to its metadata are left alone.

    Args:
        texts: Its metadata, by key.
        network: As `guarded` was given it, of the file as it is.
        name: The file's, for errors.

    Raises:
        StorageError: It was changed, and what of it.
    """
    try:
        noted = json.loads(texts[GUARD])
        keys = {str(key): str(digest) for key, digest in noted["keys"].items()}
        wanted, known = str(noted["network"]), {key: texts[key] for key in keys if key in texts}
        whole = str(noted["metadata"])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise _changed(name, "the guard of its metadata") from None
    now = _by_key(known)
    changed = [f"`{key}` of its metadata" for key, digest in keys.items() if now.get(key) != digest]
    if wanted != network:
        changed.insert(0, "its network")
    if not changed and metadata_sha256(known) != whole:
        changed.append("the guard of its metadata")
    if changed:
        raise _changed(name, " and ".join(changed))


def network_sha256(file: Path | bytes) -> str:
    """Return the hash of an .onnx file without its metadata.

    Raises:
        ValueError: It is not a whole protobuf message.
    """
    if isinstance(file, bytes):
        return _without_metadata(memoryview(file))
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = memoryview(mapped)
        try:
            return _without_metadata(data)
        finally:
            data.release()


def metadata_sha256(texts: Mapping[str, str]) -> str:
    """Return the hash of metadata in their canonical form: JSON with sorted keys and without spaces."""
    return _sha256(json.dumps({key: _canonical(text) for key, text in texts.items()}, sort_keys=True))


def _by_key(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: _sha256(_canonical(text))[:16] for key, text in texts.items()}


def _canonical(text: str) -> str:
    try:
        return json.dumps(json.loads(text), separators=(",", ":"))  # of thresholds and names the order counts
    except ValueError:
        return text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _without_metadata(data: memoryview) -> str:
    digest = hashlib.sha256()
    for number, kind, start, end in fields(data):
        if number == _METADATA:
            continue
        if kind == VARINT:
            digest.update(f"{number}={start};".encode())
            continue
        digest.update(f"{number}:{end - start};".encode())
        with data[start:end] as part:
            digest.update(part)
    return digest.hexdigest()


def _changed(name: str, what: str) -> StorageError:
    return StorageError(
        f"{name!r} was changed after it was written: {what}.",
        "the file as `regraft export` wrote it",
        "export it again, or restore it from a copy",
    )
