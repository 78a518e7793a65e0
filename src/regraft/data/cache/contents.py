"""What regraft's cache holds: decoded images by data set, exports, indexes, listings; and clearing it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.errors import SettingsError, StorageError
from regraft.machine.cache_folder import cache_folder
from regraft.machine.in_use import MARKER, is_held
from regraft.settings.duration import seconds_of
from regraft.summary import Summary
from regraft.visible import visible
from regraft.wording import duration, quantity

__all__ = ["CacheContents", "CacheItem", "CachedData", "clear_cache", "list_cache", "note_data"]

_IMAGES = "decoded images"
_LISTINGS = "listings of addresses"
_KINDS = {"exports": "exports", "archives": "indexes of archives", "numerics": "measured numerics"}
_RECORD_BYTES = 64  # of one row in rows.index


@dataclass(frozen=True)
class CachedData:
    """A data set whose images a part of the cache holds.

    Attributes:
        path: Its root.
        num_images: How many of its images were decoded for it.
        last_used: When, in seconds since 1970.
    """

    path: str
    num_images: int
    last_used: float


@dataclass(frozen=True)
class CacheItem:
    """One part of the cache, which can be removed alone.

    Attributes:
        kind: `decoded images`, `exports`, `indexes of archives`, `listings of addresses`, `measured numerics`, or
            `other`.
        path: The file or folder.
        what: What decoded images were made for, such as `224x224 squash`; else its name.
        num_bytes: Its size.
        last_used: When it was last used, in seconds since 1970.
        in_use: Whether a living process uses it.
        num_images: Decoded images that it holds.
        data: The data sets that it was used for.
    """

    kind: str
    path: str
    what: str
    num_bytes: int
    last_used: float
    in_use: bool = False
    num_images: int = 0
    data: tuple[CachedData, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        data = [{"path": item.path, "images": item.num_images, "last_used": item.last_used} for item in self.data]
        fields = {"kind": self.kind, "path": self.path, "what": self.what, "num_bytes": self.num_bytes}
        return {**fields, "last_used": self.last_used, "in_use": self.in_use, "images": self.num_images, "data": data}


@dataclass(frozen=True, repr=False)
class CacheContents(Summary):
    """Parts of the cache: all of them, or those that were removed.

    Attributes:
        folder: Where the cache is.
        items: Its parts.
        kept: Parts that were to be removed and are in use.
        removed: What was done with the items: `no`, `yes`, or `would be`.
    """

    folder: str
    items: tuple[CacheItem, ...]
    kept: tuple[CacheItem, ...] = ()
    removed: str = "no"

    @property
    def num_bytes(self) -> int:
        """The size of all items."""
        return sum(item.num_bytes for item in self.items)

    def facts(self) -> dict[str, object]:
        """Return where the cache is, its size, and how many parts it has."""
        return {"folder": self.folder, "size": _size(self.num_bytes), "items": len(self.items)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        whole = {"folder": self.folder, "num_bytes": self.num_bytes, "removed": self.removed}
        parts = {"items": self.items, "kept": self.kept}
        return {**whole, **{name: [item.to_dict() for item in items] for name, items in parts.items()}}

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """Return lines for people: where the cache is, its size, and each part."""
        said = {"no": "cache", "yes": "removed from", "would be": "would be removed from"}[self.removed]
        lines = [f"{said}: {self.folder}, {_size(self.num_bytes)}"]
        for item in self.items:
            if item.kind == _IMAGES:
                lines.append(f"  {_IMAGES} {item.what}: {quantity(item.num_images, 'image')}, {_told(item)}")
                lines += [f"    {_of_data(item, data)}" for data in item.data]
        for kind in sorted({item.kind for item in self.items} - {_IMAGES}):
            own = [item for item in self.items if item.kind == kind]
            newest = max(own, key=lambda item: item.last_used)
            whole = replace(newest, num_bytes=sum(item.num_bytes for item in own))
            lines.append(f"  {kind}: {quantity(len(own), 'file')}, {_told(whole)}")
        lines += [f"  kept, in use: {item.kind} {item.what}, {_size(item.num_bytes)}" for item in self.kept]
        return "\n".join(lines)


def list_cache() -> CacheContents:
    """Return what the cache holds: decoded images by pixel program and data set, exports, indexes of archives."""
    folder = cache_folder()
    return CacheContents(os.fspath(folder), tuple(_items(folder)))


def clear_cache(older: str | None = None, *, dry_run: bool = False) -> CacheContents:
    """Remove what the cache holds, and return it; what a living process uses stays.

    Args:
        older: Only what was not used for so long, such as `30d` or `12h`; None takes all.
        dry_run: Whether to remove nothing.

    Raises:
        SettingsError: `older` is no duration.
        StorageError: Something cannot be removed.
    """
    least = 0.0 if older is None else _seconds(older)
    folder, now = cache_folder(), time.time()
    chosen = [item for item in _items(folder) if now - item.last_used >= least]
    kept = tuple(item for item in chosen if item.in_use)
    gone = []
    for item in chosen:
        if not item.in_use and (dry_run or _remove(Path(item.path))):
            gone.append(item)
    return CacheContents(os.fspath(folder), tuple(gone), kept, "would be" if dry_run else "yes")


def note_data(store: Path, root: str, num_images: int) -> None:
    """Note in a store of decoded images which data set uses it now."""
    name = hashlib.sha256(root.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    with contextlib.suppress(StorageError):
        commit.write_json(store / f"data-{name}.json", {"path": root, "images": num_images})


def _items(folder: Path) -> Iterator[CacheItem]:
    stores = sorted(path for path in _inside(folder / "pixels") if path.is_dir())
    found = [_store(path) for path in stores if not commit.is_temporary(path.name)]
    yield from found
    used = any(item.in_use for item in found)
    for path in _inside(folder / "pixels"):
        if path.is_file() and path.suffix != ".lock":
            yield _file("other", path, in_use=used)  # the hashes of files, which every store goes by
    for name, kind in _KINDS.items():
        held = is_held(folder / name / MARKER)
        own = (path for path in _inside(folder / name) if path.is_file() and path.name != MARKER)
        yield from (_file(kind, path, in_use=held) for path in own)
    yield from (_listing(path) for path in _inside(folder / "remote") if path.is_dir())
    known = {"pixels", "features", "remote", *_KINDS}  # features are files without a name, which go with their process
    for path in _inside(folder):
        if path.name not in known:
            files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
            yield from (_file("other", file) for file in files)


def _store(path: Path) -> CacheItem:
    header = path / "store.json"
    data = []
    for file in sorted(path.glob("data-*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            fields = json.loads(file.read_text(encoding="utf-8"))
            data.append(CachedData(str(fields["path"]), int(fields["images"]), file.stat().st_mtime))
    num_bytes = sum(_bytes(file) for file in _inside(path))
    num_images = _bytes(path / "rows.index") // _RECORD_BYTES
    used = max([_time(header), *(item.last_used for item in data)])
    order = tuple(sorted(data, key=lambda item: -item.last_used))
    return CacheItem(_IMAGES, os.fspath(path), _program(header), num_bytes, used, is_held(header), num_images, order)


def _listing(path: Path) -> CacheItem:
    files = [file for file in _inside(path) if file.name != MARKER]
    what = next((file.stem for file in files), path.name)
    used = max(map(_time, (path / MARKER, *files)))
    return CacheItem(_LISTINGS, os.fspath(path), what, sum(map(_bytes, files)), used, is_held(path / MARKER))


def _program(header: Path) -> str:
    """Return for what size, and how, a store's images were decoded."""
    try:
        program = json.loads(header.read_text(encoding="utf-8"))["program"]
        kind = "masks " if "mask" in program else ""
        program = program.get("mask", program)
        return f"{kind}{program['size'][0]}x{program['size'][1]} {program['resize']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "damaged"


def _file(kind: str, path: Path, *, in_use: bool = False) -> CacheItem:
    held = in_use or is_held(path)
    return CacheItem(kind, os.fspath(path), path.name, _bytes(path), _time(path), held)


def _remove(path: Path) -> bool:
    """Remove a part unless a process has begun to use it; return whether it is gone."""
    if path.is_dir():
        if is_held(path / "store.json") or is_held(path / MARKER):
            return False
        commit.remove(path)
    elif is_held(path) or is_held(path.parent / MARKER):
        return False
    else:
        commit.remove_file(path)
    return True


def _inside(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return ()


def _bytes(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _time(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _seconds(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise SettingsError(f"older {text!r} {error}.", next_step="`--older 30d` or `--older 12h`") from None


def _of_data(item: CacheItem, data: CachedData) -> str:
    share = min(1.0, data.num_images / item.num_images) if item.num_images else 0.0
    size = _size(round(share * item.num_bytes))
    return f"{visible(data.path)}: {quantity(data.num_images, 'image')}, {size}, used {_ago(data.last_used)}"


def _told(item: CacheItem) -> str:
    return f"{_size(item.num_bytes)}, used {_ago(item.last_used)}{', in use' if item.in_use else ''}"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    return f"{seconds / 86400:.0f} days ago" if seconds >= 2 * 86400 else f"{duration(seconds)} ago"


def _size(num_bytes: int) -> str:
    if num_bytes < 1e5:
        return f"{num_bytes / 1e3:,.1f} kB"
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
