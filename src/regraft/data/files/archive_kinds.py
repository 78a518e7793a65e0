"""Which files are archives that are read in place, by their first bytes."""

from __future__ import annotations

import os
import stat
import zlib

from regraft.data.files.arrow_tables import is_arrow, is_parquet
from regraft.data.files.gzip_stream import is_gzip
from regraft.data.files.index import Kind
from regraft.data.files.remote.listing import MAGIC
from regraft.data.files.tar_archive import BLOCK, is_tar
from regraft.data.files.zip_archive import is_zip

__all__ = ["archive_kind", "archive_stem", "is_table_of_images"]

# ZIP archives too, which other programs keep one thing in.
_DOCUMENTS = (
    *(".xlsx", ".xlsm", ".ods", ".docx", ".odt", ".pptx", ".odp", ".csv", ".tsv", ".txt", ".epub", ".jar", ".apk"),
    *(".npz", ".pt", ".pth", ".ckpt", ".bin", ".keras", ".safetensors", ".pkl", ".onnx", ".mar", ".whl", ".mlpackage"),
)
_OFFICE = b"[Content_Types].xml"  # the first member of a table of Excel, whatever its file is called
_ENDS = (".tar.gz", ".tgz", ".tar", ".zip", ".parquet", ".arrow", ".remote")
_HEAD = 1 << 12


def archive_kind(path: str) -> Kind | None:
    """Return what kind of archive a file is; None for any other file, and where nothing can be read."""
    if path.lower().endswith(_DOCUMENTS):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return None
    if is_zip(head):
        return None if head[30:].startswith(_OFFICE) else "zip"
    if is_tar(head[:BLOCK]):
        return "tar"
    if head.startswith(MAGIC):
        return "remote"
    if is_parquet(head):
        return "parquet"
    if is_arrow(head, path):
        return "arrow"
    return "tar.gz" if is_gzip(head) and is_tar(_first_block(head)) else None


def is_table_of_images(path: str) -> bool:
    """Return whether a file is a table that may hold images: Parquet, or Arrow."""
    return archive_kind(path) in ("parquet", "arrow")


def archive_stem(name: str) -> str:
    """Return the name of an archive without the end that says what it is."""
    end = next((end for end in _ENDS if name.lower().endswith(end)), os.path.splitext(name)[1])
    return name[: len(name) - len(end)] or name


def _first_block(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, BLOCK)
    except zlib.error:
        return b""
