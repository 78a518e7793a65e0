"""Lists and tables as lines of text, whatever wrote them: encodings, line ends, and files that are no text at all."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from regraft.data.decode.sniff import known_format
from regraft.data.files import access
from regraft.data.sources.bad_rows import BadRows

__all__ = ["TextLines"]

_LONGEST_LINE = 1 << 20  # characters: tens of thousands of columns
_LARGEST_FILE = 1 << 30
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_STRANGERS = (
    (b"PK\x03\x04", "is a ZIP archive or a table of Excel; save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "is a table of Excel; save it as CSV"),
    (b"PAR1", "is a Parquet file; save it as CSV"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it"),
    (b"%PDF", "is a PDF document"),
)


class TextLines:
    """The lines of a file, with their ends, decoded: UTF-8 with or without a mark, UTF-16 and UTF-32 with one.

    Lines that cannot be read are told to `bad` and skipped.

    Attributes:
        number: The line that was given last, from 1.
        first: The first line that was given since `mark`.
    """

    def __init__(self, path: Path, bad: BadRows) -> None:
        self.path = path
        self.number = 0
        self.first: int | None = None
        self._bad = bad

    def mark(self) -> None:
        """Forget what was given, so that `first` will be the next line."""
        self.first = None

    def __iter__(self) -> Iterator[str]:
        reason, encoding = _look(self.path)
        if reason:
            self._bad.add(self.path, None, "files that are not a list", reason)
            return
        # Surrogates stand for what is no UTF-8, so that the row can be named; universal line ends stay as they are.
        errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
        with access.open_text(self.path, encoding, errors, newline="") as stream:
            while line := stream.readline(_LONGEST_LINE):
                self.number += 1
                if reason := self._fault(line, stream):
                    self._bad.add(self.path, self.number, "lines that cannot be read", reason)
                    continue
                self.first = self.first or self.number
                yield line

    def _fault(self, line: str, stream: IO[str]) -> str:
        if len(line) == _LONGEST_LINE and not line.endswith(("\n", "\r")):
            while (rest := stream.readline(_LONGEST_LINE)) and not rest.endswith(("\n", "\r")):
                pass
            return f"is longer than {_LONGEST_LINE:,} characters"
        if "\0" in line:
            return "holds a NUL byte, as damaged files do"
        if line.isascii():
            return ""
        bad = next((place for place, sign in enumerate(line) if sign == "�" or "\ud800" <= sign <= "\udfff"), None)
        if bad is None:
            return ""
        byte = f" (byte 0x{ord(line[bad]) - 0xDC00:02x})" if "\udc80" <= line[bad] <= "\udcff" else ""
        return f"is not in UTF-8: character {bad + 1}{byte}; save the file as UTF-8"


def _look(path: Path) -> tuple[str, str]:
    """Return why a file holds no lines (empty for one that does), and its encoding."""
    try:
        status = access.state_of(path)
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file", ""
        if status.st_size > _LARGEST_FILE:
            return f"has {status.st_size / 2**30:.1f} GiB, more than a list may have (1 GiB)", ""
        with access.open_bytes(path) as file:
            head = file.read(4096)
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})", ""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return "", encoding
    return _strange(head), "utf-8-sig"


def _strange(head: bytes) -> str:
    for start, reason in _STRANGERS:
        if head.startswith(start):
            return reason
    if kind := known_format(head[:32]):
        return f"is an image ({kind}), not a list of images"
    if b"\0" not in head:
        return ""
    if head[1:64:2].count(0) > 16 or head[0:64:2].count(0) > 16:
        return "is in UTF-16 without its mark; save it as UTF-8"
    # A single one is a damaged row, which is told with its number; binary files have them everywhere.
    return "is a binary file, not text" if head.count(0) > max(1, len(head) // 100) else ""
