"""Files over HTTP, on connections that are kept: a new one costs two or three ways there and back, and a slow start."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from regraft.data.files.remote.answer import Remote, RemoteError, TryAgainError

__all__ = ["get", "head"]

_SILENT_SECONDS = 20.0  # that a server may send nothing
_SLOWEST = 20_000  # bytes per second; what comes slower is a stall
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_NO_HEAD = (405, 501)
_WITH_FILE = (200, 203)
_PART, _NO_SUCH_PART = 206, 416
_GONE = (404, 410)
_ONE_EACH: dict[int, threading.Lock] = {}  # by process: a lock that is held does not open in a fork
_HEADERS = {"User-Agent": "regraft", "Accept-Encoding": "identity"}


def get(url: str, most: int, *, kept: bool = True) -> tuple[bytes, Remote]:
    """Return the bytes of a file, and what is said of it.

    Args:
        url: Its address.
        most: The largest size that is taken.
        kept: Whether a connection may serve that is open already, of which the server may know no longer.

    Raises:
        RemoteError: It is not there, may not be read, or is too large.
        TryAgainError: It did not come, or not whole.
    """
    data = bytearray()
    with _answer("GET", url, kept=kept) as answer:
        began, told = time.monotonic(), _told(answer)
        for part in answer.iter_bytes():  # as it comes: what waits for more is not seen to stall
            data += part
            if len(data) > most:
                raise RemoteError(f"has more than the limit of {most / 2**30:.0f} GiB")
            if time.monotonic() - began > _SILENT_SECONDS + len(data) / _SLOWEST:
                raise TryAgainError("the server stalls")
    if told.size >= 0 and len(data) != told.size:
        raise TryAgainError(f"{len(data):,} of {told.size:,} bytes came")
    return bytes(data), Remote(len(data), told.mark)


def head(url: str, *, kept: bool = True) -> Remote:
    """Return what a server says of a file, without its bytes.

    Args:
        url: Its address.
        kept: As for `get`.

    Raises:
        RemoteError: It is not there, or may not be read.
        TryAgainError: No answer came.
    """
    with _answer("HEAD", url, also=_NO_HEAD, kept=kept) as answer:
        if answer.status_code not in _NO_HEAD:
            return _told(answer)
    with _answer("GET", url, {"Range": "bytes=0-0"}, also=(_PART, _NO_SUCH_PART), kept=kept) as answer:
        if answer.status_code == _NO_SUCH_PART:
            return Remote(0, _told(answer).mark)  # an empty file has no first byte
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return Remote(int(whole) if whole.isdigit() else _told(answer).size, _told(answer).mark)


@functools.lru_cache(maxsize=2)
def _client(process: int, kept: bool) -> httpx2.Client:
    """Return the connections of one process, those that are kept or the others; its parent's are not its own."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64 if kept else 0, keepalive_expiry=15.0)
    return httpx2.Client(headers=_HEADERS, limits=limits, timeout=None, follow_redirects=True)


def _own_client(kept: bool) -> httpx2.Client:
    try:
        # without a lock, threads that begin together make a client each: seconds for 32 of them
        with _ONE_EACH.setdefault(os.getpid(), threading.Lock()):
            return _client(os.getpid(), kept)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:  # of what HTTP_PROXY and its kin name
        raise RemoteError(f"the proxy that the environment names cannot be used ({error})") from None
    except OSError as error:  # of what SSL_CERT_FILE and its kin name
        raise RemoteError(f"the certificates that the environment names cannot be read ({error})") from None


@contextmanager
def _answer(
    method: str, url: str, headers: dict[str, str] | None = None, *, also: tuple[int, ...] = (), kept: bool
) -> Iterator[httpx2.Response]:
    client = _own_client(kept)
    try:
        with client.stream(method, url, headers=headers, timeout=_SILENT_SECONDS) as answer:
            if answer.status_code not in (*_WITH_FILE, *also):
                _refuse(answer)
            yield answer
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise TryAgainError(f"the server does not answer ({error or type(error).__name__})") from None
    except httpx2.UnsupportedProtocol:
        raise RemoteError("the server sends to an address that is none of HTTP") from None
    except httpx2.TooManyRedirects:
        raise RemoteError("the server sends from one address to the next, without end") from None
    except httpx2.TransportError as error:
        raise TryAgainError(f"the connection breaks off ({type(error).__name__})") from None
    except (httpx2.InvalidURL, ValueError) as error:
        raise RemoteError(f"the address is not valid ({error})") from None
    except httpx2.HTTPError as error:
        raise RemoteError(f"cannot be asked for ({error})") from None


def _refuse(answer: httpx2.Response) -> None:
    code = answer.status_code
    if code not in _AGAIN:
        raise RemoteError(f"the server answers {code} {answer.reason_phrase}".rstrip(), is_gone=code in _GONE)
    after = answer.headers.get("Retry-After", "")
    raise TryAgainError(f"the server answers {code}", float(after) if after.isdecimal() else None)


def _told(answer: httpx2.Response) -> Remote:
    is_packed = answer.headers.get("Content-Encoding", "identity") != "identity"  # though nobody asked for that
    size = "" if is_packed else answer.headers.get("Content-Length", "")
    mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return Remote(int(size) if size.isdecimal() else -1, mark)
