"""HTML from text that nobody can trust: every value is escaped, and marks that deceive the eye are made visible."""

from __future__ import annotations

import html as standard_html
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

__all__ = ["Html", "block", "compact", "html", "join", "package_text", "visible"]

# Right-to-left overrides, isolates and marks: they reorder what a reader sees (Unicode Standard Annex 9).
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, line and paragraph separators


class Html(str):
    """Text that is markup already and is inserted as it stands."""

    __slots__ = ()


class _Escaper(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Html):
            return value
        return standard_html.escape(visible(format(value, format_spec)))

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value = super().get_value(key, args, kwargs)
        return "" if value is None else value


_ESCAPER = _Escaper()


def html(template: str, /, *args: Any, **values: Any) -> Html:
    """The template, which the program wrote, with its `{}` and `{name}` filled in as `str.format` does, escaped."""
    return Html(_ESCAPER.vformat(template, args, values))


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """The parts one after the other, those that are not markup escaped."""
    return Html(html("{}", separator).join(html("{}", part) for part in parts))


def visible(text: str, *, keep: str = "") -> str:
    """The text with control characters, ANSI escapes, bidi marks and lone surrogates spelt out, as in `\\x1b`.

    Args:
        text: Any text, for example a file name.
        keep: Characters to leave as they are, for example "\\n" in a block of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelt(char) if _is_hidden(char) and char not in keep else char for char in text)


def compact(value: Any) -> str:
    """A setting's value in one line, as people write it: lists in brackets, mappings as `key: value` pairs."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {compact(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"[{compact(item)}]" if isinstance(item, list | tuple) else compact(item) for item in value)
    return str(value)


def block(text: str) -> Html:
    """Text of several lines, for a <pre>: its line ends stay, all other controls are spelt out."""
    return join(text.expandtabs(4).splitlines(), Html("\n"))


def package_text(name: str) -> Html:
    """A template file that lies beside this module, as markup."""
    return Html(resources.files(__package__ or "regraft.report").joinpath(name).read_text(encoding="utf-8"))


def _is_hidden(char: str) -> bool:
    return char in _BIDI or unicodedata.category(char) in _HIDDEN_CATEGORIES


def _spelt(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
