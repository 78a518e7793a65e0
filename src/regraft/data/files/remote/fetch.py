"""One file behind an address, with retries and time limits: HTTP by the standard library, all else by fsspec."""

from __future__ import annotations

import http.client
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from regraft.errors import DataError

__all__ = ["Remote", "RemoteError", "fetch", "file_system", "look", "scheme_of"]

Result = TypeVar("Result")

_ATTEMPTS = 6
_WAIT_SECONDS, _LONGEST_WAIT = 0.5, 30.0
_SILENT_SECONDS = 20.0  # that a server may send nothing
_SLOWEST = 20_000  # bytes per second; what comes slower is a stall
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_CHUNK = 1 << 18
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/+", re.IGNORECASE)
_LOCAL = ("file", "local", "dir", "reference", "zip", "tar")
_REQUEST = {"User-Agent": "regraft", "Accept-Encoding": "identity"}


class RemoteError(Exception):
    """A file cannot be had: what a server, or the way to it, said last."""


@dataclass(frozen=True)
class Remote:
    """What a server says of a file.

    Attributes:
        size: Its size in bytes; -1 where it is not said.
        mark: Its entity tag, checksum or time, whatever changes with it; empty where nothing is said.
    """

    size: int
    mark: str


def scheme_of(url: str) -> str:
    """Return the scheme of an address, in small letters."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def fetch(url: str, most: int) -> tuple[bytes, Remote]:
    """Return the bytes of a file and what is said of it, after as many attempts as it takes.

    Args:
        url: Its address.
        most: The largest size that is taken.

    Raises:
        RemoteError: It is not there, may not be read, is too large, or does not come.
    """
    if scheme_of(url) in ("http", "https"):
        return _tried(lambda: _get(url, most))
    return _tried(lambda: _cat(url, most))


def look(url: str) -> Remote:
    """Return what a server says of a file over HTTP, without its bytes.

    Raises:
        RemoteError: It is not there, may not be read, or no answer comes.
    """
    return _tried(lambda: _head(url))


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it.

    Raises:
        DataError: It is not installed, or there is none for this scheme.
    """
    try:
        import fsspec
    except ImportError:
        raise DataError(
            f"{url!r} is read through fsspec, which is not installed.", "", "pip install 'regraft[remote]'"
        ) from None
    scheme = scheme_of(url)
    if "::" in url or scheme in _LOCAL:
        raise DataError(f"{url!r} is not an address of images.", "s3://, gs://, hf://, https:// or another store")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{url!r} cannot be opened ({' '.join(str(error).split())}).",
            "",
            f"install what reads {scheme}:// addresses",
        ) from None
    return system, path


def _tried(work: Callable[[], Result]) -> Result:
    for attempt in range(_ATTEMPTS):
        try:
            return work()
        except _TryAgainError as error:
            if attempt + 1 == _ATTEMPTS:
                raise RemoteError(f"{error} ({_ATTEMPTS} attempts)") from None
            wait = error.wait if error.wait is not None else _WAIT_SECONDS * 2**attempt * (0.5 + random.random())
            time.sleep(min(wait, _LONGEST_WAIT))
    raise RemoteError("was not tried")


class _TryAgainError(Exception):
    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _opened(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=_SILENT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _AGAIN:
                after = error.headers.get("Retry-After", "")
                raise _TryAgainError(
                    f"the server answers {error.code}", float(after) if after.isdigit() else None
                ) from None
            raise RemoteError(f"the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(f"the server does not answer ({getattr(error, 'reason', None) or error})") from None
    except ValueError as error:
        raise RemoteError(f"the address is not valid ({error})") from None


def _get(url: str, most: int) -> tuple[bytes, Remote]:
    began, parts, num_bytes = time.monotonic(), [], 0
    with _opened(urllib.request.Request(url, headers=_REQUEST)) as answer:
        told = _told(answer)
        try:
            while part := answer.read(_CHUNK):
                parts.append(part)
                num_bytes += len(part)
                if num_bytes > most:
                    raise RemoteError(f"has more than the limit of {most / 2**30:.0f} GiB")
                if time.monotonic() - began > _SILENT_SECONDS + num_bytes / _SLOWEST:
                    raise _TryAgainError("the server stalls")
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgainError(f"the connection breaks off ({type(error).__name__})") from None
    if told.size >= 0 and num_bytes != told.size:
        raise _TryAgainError(f"{num_bytes:,} of {told.size:,} bytes came")
    return b"".join(parts), Remote(num_bytes, told.mark)


def _head(url: str) -> Remote:
    try:
        with _opened(urllib.request.Request(url, headers=_REQUEST, method="HEAD")) as answer:
            return _told(answer)
    except RemoteError as error:
        if "405" not in str(error) and "501" not in str(error):
            raise
    with _opened(urllib.request.Request(url, headers={**_REQUEST, "Range": "bytes=0-0"})) as answer:
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return Remote(int(whole) if whole.isdigit() else _told(answer).size, _told(answer).mark)


def _told(answer: Any) -> Remote:
    size = answer.headers.get("Content-Length") or ""
    mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return Remote(int(size) if size.isdigit() else -1, mark)


def _cat(url: str, most: int) -> tuple[bytes, Remote]:
    system, path = file_system(url)
    try:
        told = system.info(path)
        size = int(told.get("size") or 0)
        if size > most:
            raise RemoteError(f"has {size / 2**30:.1f} GiB, more than the limit of {most / 2**30:.0f} GiB")
        data: bytes = system.cat_file(path)
    except FileNotFoundError:
        raise RemoteError("does not exist") from None
    except PermissionError as error:
        raise RemoteError(f"may not be read ({' '.join(str(error).split())[:120]})") from None
    except (OSError, TimeoutError) as error:
        raise _TryAgainError(f"the store does not answer ({' '.join(str(error).split())[:120]})") from None
    if len(data) != size:
        raise _TryAgainError(f"{len(data):,} of {size:,} bytes came")
    return data, Remote(size, mark_of(told))


def mark_of(told: dict[str, Any]) -> str:
    """Return what changes with a file, of what a store says of it."""
    keys = (
        "ETag",
        "etag",
        "md5Hash",
        "checksum",
        "oid",
        "LastModified",
        "last_modified",
        "updated",
        "mtime",
    )
    return str(next((told[key] for key in keys if told.get(key)), ""))
