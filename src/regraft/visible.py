"""Text from files (names of classes, files and layers) made safe to show: what steers a terminal, deceives the eye or a
spreadsheet is spelt out. The one place for the terminal, the log, CSV tables and, with markup escaped, HTML."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

__all__ = ["cell", "one_line", "visible"]

# Right-to-left overrides, isolates and marks: they reorder what a reader sees (Unicode Standard Annex 9).
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, line and paragraph separators
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # full-width forms too: spreadsheets read them alike
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def visible(text: str, *, keep: str = "") -> str:
    """Return the text with control characters, ANSI escapes, bidi marks and lone surrogates spelt out, as in `\\x1b`.

    Args:
        text: Any text, for example a file name.
        keep: Characters to leave as they are, for example "\\n" in a block of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelt(char) if _is_hidden(char) and char not in keep else char for char in text)


def cell(value: Any) -> Any:
    """Return a value for a cell of a CSV table: a text that a spreadsheet would take for a formula gets an apostrophe
    first.

    Numbers, also those that are a text (a class called -1), stay as they are.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def one_line(text: str) -> str:
    """Return a text that neither breaks the line nor the columns; the bytes of a name that is not UTF-8 stay what
    they are.
    """
    return "".join(sign if "\udc80" <= sign <= "\udcff" else visible(sign) for sign in text)


def _is_hidden(char: str) -> bool:
    return char in _BIDI or unicodedata.category(char) in _HIDDEN_CATEGORIES


def _spelt(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
