"""What lies behind an address, in one file of the cache: names, sizes and marks of all files, and the lists among them.

That file is read as an archive, whose members are fetched when they are asked for.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from regraft import commit
from regraft.data.files.disk_file import DiskFile
from regraft.data.files.index import Index
from regraft.data.files.members import Members
from regraft.data.files.remote.answer import Remote, RemoteError, scheme_of
from regraft.data.files.remote.fetch import fetch, look
from regraft.data.files.remote.store import file_system, mark_of
from regraft.errors import DataError
from regraft.machine.cache_folder import cache_folder, private_folder
from regraft.machine.in_use import note_use

__all__ = ["MAGIC", "PARALLEL", "list_remote", "local_source", "mark_number", "read_listing", "url_of"]

MAGIC = b"regraft remote 1\n"
PARALLEL = 32
_FRESH_SECONDS = 86_400.0
_LISTS = (".txt", ".csv", ".tsv", ".lst")
_TEXTS = (*_LISTS, ".json", ".cls", ".yaml", ".yml")
_LARGEST_TEXT = 1 << 26
_IMAGE = re.compile(r"^(.*\.(?:jpe?g|jpe|jfif|png|webp|bmp|tiff?|gif|avif|heic|heif))(?=$|[\s,;\"'])", re.IGNORECASE)
_log = logging.getLogger("regraft")


def local_source(url: str) -> Path:
    """Return the path under which what lies behind an address is read: its listing, made or renewed now.

    Where the address cannot be reached, the last listing serves.

    Args:
        url: A list or table over HTTP, or a folder of a store such as `s3://bucket/photos`.

    Raises:
        DataError: It cannot be listed.
    """
    url = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*):/+", r"\1://", url)  # a path object makes one stroke of two
    is_list, parts = scheme_of(url) in ("http", "https"), _parts(url)
    if is_list and not parts.path.lower().endswith(_LISTS):
        raise DataError(
            f"{url!r} is an address of no list.",
            "a list or a table over HTTP (.txt, .csv), whose rows are paths beside it, or a folder of s3://, gs://, hf://",
            "download it, and give the file",
        )
    name = re.sub(r"[^\w.-]+", "-", parts.path.rstrip("/").rpartition("/")[2] or parts.hostname or "images")
    key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    place = private_folder(private_folder(cache_folder() / "remote") / key) / f"{os.path.splitext(name)[0]}.remote"
    note_use(place.parent)  # listing may take minutes
    before = _before(place)
    try:
        listing = _of_list(url, before) if is_list else _of_store(url, before)
    except RemoteError as error:
        if before is None:
            raise DataError(f"{url!r} cannot be read: {error}.", "", "check the address and the connection") from None
        _log.warning("%s cannot be reached (%s): its listing of the last time is used.", url, error)
        listing = before
    if listing is not before:
        commit.write_bytes(place, MAGIC + json.dumps(listing).encode("ascii"))
    return place / parts.path.rpartition("/")[2] if is_list else place


def read_listing(file: DiskFile) -> dict[str, Any]:
    """Return a listing.

    Raises:
        DataError: It is damaged.
    """
    data = file.read(0, file.size)
    try:
        values = json.loads(data.removeprefix(MAGIC))
        return {"base": str(values["base"]), "files": list(values["files"]), "texts": dict(values["texts"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{file.path!r} is damaged.", "", "remove it: `regraft cache clear`") from None


def list_remote(file: DiskFile) -> Index:
    """Return the index of a listing; the mark of a file, as a number, stands in the place of its packed size.

    Raises:
        DataError: It is damaged.
    """
    members = Members("remote")
    for number, (path, size, mark) in enumerate(read_listing(file)["files"]):
        members.add_file(path, number, size, packed=mark_number(mark or path))
    return members.index()


def mark_number(mark: str) -> int:
    """Return a mark as a time of long ago, in nanoseconds, which changes with it."""
    return int.from_bytes(hashlib.sha256(mark.encode("utf-8", "surrogatepass")).digest()[:8], "big") % 10**18


def url_of(base: str, path: str) -> str:
    """Return the address of a listed file."""
    return base + (quote(path) if scheme_of(base) in ("http", "https") else path)


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise DataError(f"{url!r} is no valid address ({error}).", "", "check the address") from None


def _before(place: Path) -> dict[str, Any] | None:
    try:
        return read_listing(DiskFile.at(os.fspath(place))) | {"age": time.time() - place.stat().st_mtime}
    except (OSError, DataError):
        return None


def _of_list(url: str, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the listing of a list over HTTP: the images that it names, each of which is looked at."""
    data, told = fetch(url, _LARGEST_TEXT)
    text, name = data.decode("utf-8-sig", "replace"), urlsplit(url).path.rpartition("/")[2]
    if before is not None and before["texts"].get(name) == text and before["age"] < _FRESH_SECONDS:
        return before
    base = urljoin(url, ".")
    names = list(dict.fromkeys(_inside(base, written) for written in _images_in(text, name)))
    files: list[tuple[str, int, str]] = [(name, len(data), told.mark)]
    with ThreadPoolExecutor(PARALLEL, "regraft-look") as pool:
        looked = pool.map(lambda path: _looked_at(url_of(base, path)), filter(None, names))
        for path, found in zip(filter(None, names), looked, strict=True):
            if found is not None:
                files.append((path, found.size, found.mark))
    return {"base": base, "files": files, "texts": {name: text}}


def _of_store(url: str, before: dict[str, Any] | None) -> dict[str, Any]:
    system, root = file_system(url)
    try:
        found = system.find(root, detail=True)
    except FileNotFoundError:
        found = {}
    except PermissionError as error:
        raise DataError(f"{url!r} may not be read ({' '.join(str(error).split())[:120]}).") from None
    except Exception as error:  # stores raise what their libraries do
        raise RemoteError(" ".join(str(error).split())[:120]) from None
    system.invalidate_cache()  # or each file would be as it was listed, whatever became of it
    start = root.rstrip("/") + "/"
    rows = [
        (path.removeprefix(start), int(told.get("size") or 0), mark_of(told))
        for path, told in sorted(found.items())
        if path.startswith(start) and told.get("type", "file") == "file"
    ]
    if not rows:
        raise DataError(f"{url!r} holds no files.", "a folder of images", "check the address")
    base = url.rstrip("/") + "/"
    wanted = [row for row in rows if row[0].lower().endswith(_TEXTS) and row[1] <= _LARGEST_TEXT]
    with ThreadPoolExecutor(PARALLEL, "regraft-look") as pool:
        contents = pool.map(lambda row: fetch(url_of(base, row[0]), _LARGEST_TEXT)[0], wanted)
        texts = {row[0]: data.decode("utf-8", "surrogateescape") for row, data in zip(wanted, contents, strict=True)}
    listing = {"base": base, "files": [list(row) for row in rows], "texts": texts}
    is_same = before is not None and all(before[key] == listing[key] for key in listing)
    return before if before is not None and is_same else listing


def _looked_at(url: str) -> Remote | None:
    """Return what a server says of a file; None where it has none."""
    try:
        return look(url)
    except RemoteError as error:
        if error.is_gone:
            return None
        raise


def _inside(base: str, written: str) -> str:
    """Return the path of an image as seen from its list; empty for one on another server, which the list will tell."""
    written = written.replace("\\", "/")
    if re.match(r"[a-z]+://", written, re.IGNORECASE):
        return written.removeprefix(base) if written.startswith(base) else ""
    return os.path.normpath(written).replace(os.sep, "/")


def _images_in(text: str, name: str) -> Iterator[str]:
    if name.lower().endswith((".csv", ".tsv")):
        first = text.partition("\n")[0]
        rows = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count))
        yield from (cell.strip() for row in rows for cell in row if _IMAGE.fullmatch(cell.strip()))
        return
    for line in text.splitlines():
        match = _IMAGE.match(line.strip())
        if match:
            yield match[1]
