"""Atomic writes: the only way anything reaches the disk for good.

A file is written beside its final name, flushed to the disk, and renamed. A folder is the same, with a
`manifest.json` (size and SHA-256 of every file) written last: a folder without a manifest that fits does not exist.
Files that grow (`metrics.jsonl`, `log.txt`) are appended a line at a time, and cut back on resume.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from regraft.errors import RegraftError, StorageError

__all__ = [
    "MANIFEST",
    "append_bytes",
    "append_line",
    "as_json",
    "cut",
    "damage",
    "folder",
    "is_temporary",
    "new_file",
    "remove",
    "remove_file",
    "require_free",
    "require_replaceable",
    "require_space",
    "storage_errors",
    "sweep",
    "sync",
    "write_bytes",
    "write_json",
    "write_new",
    "write_text",
]

MANIFEST = "manifest.json"
_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?P<kind>tmp|trash|gone)-(?P<pid>\d+)-[0-9a-f]{8}$")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as Rust's libraries say it
_HEAD_BYTES = 1 << 17
_UMASK = os.umask(0o022)  # asked for once, and put back: it belongs to the process, not to a thread
os.umask(_UMASK)
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "the folder may not be written to",
    errno.EPERM: "the folder may not be written to",
    errno.EIO: "the disk reports an input/output error",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "there is a folder of that name",
    errno.EEXIST: "there is a file of that name",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ELOOP: "its links lead in a circle",
    errno.ENOENT: "its folder is no longer there",
}


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file `path` by `data`, or leave it as it was.

    Raises:
        StorageError: The disk is full, read-only or damaged.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path, "tmp")
        try:
            _write_synced(temporary, data)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_new(path: Path, data: bytes) -> None:
    """Write the file `path`, which must not be there yet.

    Raises:
        StorageError: There is something of that name; or the disk is full, read-only or damaged.
    """
    with new_file(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that must not be there yet: yields a stream whose bytes get the name `path` at the end.

    An exception inside leaves nothing behind.

    Raises:
        StorageError: There is something of that name; or the disk is full, read-only or damaged.
    """
    require_free(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path, "tmp")
        try:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            _name_new(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def require_free(path: Path) -> None:
    """Raise StorageError when there is something at `path`: commands write over no file."""
    if os.path.lexists(path):
        raise StorageError(
            f"There is something at {str(path)!r} already.",
            "a new name: nothing is overwritten",
            "choose another name, or remove it",
        )


def require_replaceable(path: Path, mark: bytes) -> None:
    """Raise StorageError when there is a file at `path` without the mark that this kind of file has near its start."""
    with storage_errors(path):
        if os.path.lexists(path) and not (path.is_file() and mark in _head(path)):
            require_free(path)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` by `text` in UTF-8. Raises StorageError like `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace the file `path` by `value` as indented JSON. Raises StorageError like `write_bytes`."""
    write_text(path, as_json(value, indent=2) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append one line to a file of this folder alone, as `append_bytes` does. Raises StorageError."""
    append_bytes(path, (line + "\n").encode("utf-8"))


def sync(path: Path) -> None:
    """Flush to the disk what was appended to a file, where there is one. Raises StorageError."""
    with storage_errors(path), contextlib.suppress(FileNotFoundError), path.open("rb+") as stream:
        os.fsync(stream.fileno())


def append_bytes(path: Path, data: bytes) -> int:
    """Append to a file that grows and return its size afterwards.

    Nothing outside the folder is written to: a link is refused, and a file that has a second name is copied first.

    Raises:
        StorageError: It is a link; or the disk is full, read-only or damaged.
    """
    with storage_errors(path):
        _part_with_namesakes(path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o666), "ab") as stream:
            stream.write(data)
            return stream.tell()


def cut(path: Path, num_bytes: int) -> None:
    """Cut a file of this folder alone to its first bytes, where it is longer. Raises StorageError."""
    with storage_errors(path):
        if path.exists() and path.stat().st_size > num_bytes:
            _part_with_namesakes(path)
            os.truncate(path, num_bytes)


def _part_with_namesakes(path: Path) -> None:
    """Replace a file with several hard links (as of a backup) by a copy of its own; refuse a symbolic link."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) or not stat.S_ISREG(found.st_mode):
            raise StorageError(
                f"{str(path)!r} is not a plain file.",
                "a run is written to files of its own; what a link leads to is left alone",
                "take the link away, or choose another place with --out",
            )
        if found.st_nlink > 1:
            write_bytes(path, path.read_bytes())


@contextlib.contextmanager
def folder(final: Path) -> Iterator[Path]:
    """Write a whole folder with one commit point: yields a temporary folder that becomes `final` at the end.

    Everything the caller writes into the yielded folder (also through libraries) is hashed into `manifest.json`,
    flushed and renamed. An exception inside leaves nothing behind; a folder that was at `final` is replaced last.
    What a killed process left of the same folder is removed first.

    Raises:
        StorageError: The disk is full, read-only or damaged.
    """
    with storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        sweep(final.parent, final.name)
        temporary = _beside(final, "tmp")
        temporary.mkdir()
        try:
            yield temporary
            _seal(temporary)
            _take_place(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def damage(path: Path, *, hashes: bool = True, only: Sequence[str] | None = None) -> str | None:
    """Return the reason why a committed folder is damaged, as text; None when it is intact.

    Args:
        path: A folder that `folder` wrote.
        hashes: Read every file and compare its SHA-256; otherwise compare sizes only.
        only: Look at these files alone.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        expected = {name: (int(recorded["bytes"]), str(recorded["sha256"])) for name, recorded in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return f"{path.name}/{MANIFEST} is missing or unreadable"
    outside = next((name for name in expected if not _is_inside(name)), None)
    if outside is not None:
        return f"{path.name}/{MANIFEST} names {outside[:200]!r}, which is outside"
    for name in expected if only is None else only:
        if name not in expected:
            return f"{path.name}/{MANIFEST} does not list {name}"
        reason = _file_damage(path / name, *expected[name], hashes=hashes)
        if reason is not None:
            return f"{path.name}/{name} {reason}"
    return None


def _is_inside(name: str) -> bool:
    """Return whether a name in a manifest, with `/` between its parts, is that of a file below the folder."""
    return all(part not in ("", ".", "..") and "\\" not in part and ":" not in part for part in name.split("/"))


def _file_damage(file: Path, num_bytes: int, sha256: str, *, hashes: bool) -> str | None:
    try:
        if not file.is_file():
            return "is missing"
        if file.stat().st_size != num_bytes:
            return f"has {file.stat().st_size} bytes instead of {num_bytes}"
        if hashes and _sha256(file) != sha256:
            return "has changed since it was written"
    except (OSError, ValueError) as error:  # ValueError: a name with a zero in it
        return f"cannot be read ({error})"
    return None


def remove(path: Path) -> None:
    """Remove a committed folder so that no moment shows half of it."""
    with storage_errors(path):
        gone = _beside(path, "gone")
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def remove_file(path: Path) -> None:
    """Remove a file, where there is one. Raises StorageError."""
    with storage_errors(path):
        path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Return whether a file or folder of this name is one that a write has not finished, or was about to remove."""
    return _LEFTOVER.match(name) is not None


def sweep(path: Path, only: str | None = None) -> None:
    """Remove what killed processes left in the folder `path`: temporary names whose process is gone.

    A folder that was being replaced when the process died gets its name back.

    Args:
        path: The folder.
        only: Sweep what was to become this name alone; None sweeps all.
    """
    for leftover in list(path.iterdir()) if path.is_dir() else ():
        match = _LEFTOVER.match(leftover.name)
        if match is None or (int(match["pid"]) != os.getpid() and _alive(int(match["pid"]))):
            continue
        if only not in (None, match["name"]):
            continue
        original = path / match["name"]
        with storage_errors(leftover):
            if match["kind"] == "trash" and not original.exists() and damage(leftover, hashes=False) is None:
                os.rename(leftover, original)
            else:
                _discard(leftover)


def require_space(path: Path, num_bytes: int) -> None:
    """Raise StorageError when the disk that holds `path` has less than `num_bytes` free."""
    existing = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    with storage_errors(path):
        free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise StorageError(
            f"There are {free / 1e6:,.0f} MB free on the disk of {str(path)!r}.",
            f"this run needs about {num_bytes / 1e6:,.0f} MB for its checkpoints and its model",
            "free some space, or choose another place with --out",
        )


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what a full or failing disk raises, in Python and in libraries, into StorageError.

    A full disk is no OSError in torch (RuntimeError) and in safetensors (SafetensorError): such an error counts as
    the disk's when it carries an errno down its chain, or names one in its text.
    """
    try:
        yield
    except RegraftError:
        raise
    except Exception as error:
        reason = _storage_reason(error, path)
        if reason is None:
            raise
        raise StorageError(
            f"{str(path)!r} could not be written: {reason}.",
            "a folder that may be written to, with room for all that is written there",
            "free some space, or choose another place; what was written before is still whole",
        ) from error


def _storage_reason(error: BaseException | None, path: Path) -> str | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REASONS:
            return _REASONS[error.errno]
        text = str(error)
        number = _OS_ERROR.search(text)
        if number is not None and int(number[1]) in _REASONS:
            return _REASONS[int(number[1])]
        if "No space left" in text:
            return _REASONS[errno.ENOSPC]
        if "inline_container.cc" in text:  # torch names no errno
            return _REASONS[errno.EFBIG if _has_room(path) else errno.ENOSPC]
        error = error.__cause__ or error.__context__
    return None


def _has_room(path: Path) -> bool:
    """Return whether the disk that a file was to be written to has room, so that the file itself met a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
    except (ImportError, OSError, StopIteration):
        return False
    return limit != resource.RLIM_INFINITY and free > limit


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return `value` as JSON that can be written as UTF-8, whatever bytes the file names in it are made of.

    Python holds bytes that are no UTF-8 as lone surrogates; `\\uDCxx` in JSON gives them back.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False)
    return text


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


def _name_new(temporary: Path, path: Path) -> None:
    """Give a file its name, unless something has got it meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        require_free(path)
        raise
    except OSError:  # a file system without links
        require_free(path)
        os.rename(temporary, path)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _seal(path: Path) -> None:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    entries = {}
    for file in files:
        with contextlib.suppress(PermissionError):  # not every file system has permissions
            file.chmod(0o666 & ~_UMASK)  # safetensors makes files that only their owner may read
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
        entries[file.relative_to(path).as_posix()] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    _write_synced(path / MANIFEST, as_json({"version": 1, "files": entries}, indent=2).encode("utf-8"))
    _sync_folder(path)


def _take_place(temporary: Path, final: Path) -> None:
    """Rename `temporary` to `final`; what was there goes last, or comes back when the second rename fails."""
    trash = _beside(final, "trash")
    replaces = os.path.lexists(final)
    if replaces:
        os.rename(final, trash)
    try:
        os.rename(temporary, final)
    except BaseException:
        if replaces:
            os.rename(trash, final)
        raise
    _sync_folder(final.parent)
    if replaces:
        _discard(trash)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_folder(path: Path) -> None:
    # Windows has no handle for a folder; there the rename itself is what the system gives.
    with contextlib.suppress(PermissionError, NotADirectoryError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # OverflowError: no process has such a number
        return False
    except OSError:
        return True
    return True
