"""Files of stores, through fsspec."""

from __future__ import annotations

from typing import Any

from regraft.data.files.remote.answer import Remote, RemoteError, TryAgainError, scheme_of
from regraft.errors import DataError

__all__ = ["cat", "file_system", "mark_of"]

_LOCAL = ("file", "local", "dir", "reference", "zip", "tar")
_MARKS = ("ETag", "etag", "md5Hash", "checksum", "oid", "LastModified", "last_modified", "updated", "mtime")


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it.

    Raises:
        DataError: It is not installed, or there is none for this scheme.
        RemoteError: The store cannot be reached, or not by an address alone.
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
    except (OSError, TypeError) as error:  # some connect at once, or want more than an address
        raise RemoteError(f"the store cannot be opened ({' '.join(str(error).split())[:120]})") from None
    return system, path


def cat(url: str, most: int) -> tuple[bytes, Remote]:
    """Return the bytes of a file, and what is said of it.

    Args:
        url: Its address.
        most: The largest size that is taken.

    Raises:
        RemoteError: It is not there, may not be read, or is too large.
        TryAgainError: It did not come, or not whole.
    """
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
    except RemoteError:
        raise
    except Exception as error:  # stores raise what their libraries do
        raise TryAgainError(f"the store does not answer ({' '.join(str(error).split())[:120]})") from None
    if len(data) != size:
        raise TryAgainError(f"{len(data):,} of {size:,} bytes came")
    return data, Remote(size, mark_of(told))


def mark_of(told: dict[str, Any]) -> str:
    """Return what changes with a file, of what a store says of it."""
    return str(next((told[key] for key in _MARKS if told.get(key)), ""))
