"""HTML from text that nobody can trust: every value is escaped, and marks that deceive the eye are made visible."""

from __future__ import annotations

import html as standard_html
import string
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from regraft.visible import visible

__all__ = ["PAGE_MARK", "Html", "block", "compact", "html", "join", "package_text"]

PAGE_MARK = b'<p class="brand">regraft'  # near the start of each page that regraft writes


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
    """Return the template, which the program wrote, with its `{}` and `{name}` filled in as `str.format` does,
    escaped.
    """
    return Html(_ESCAPER.vformat(template, args, values))


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """Return the parts one after the other, those that are not markup escaped."""
    return Html(html("{}", separator).join(html("{}", part) for part in parts))


def compact(value: Any) -> str:
    """Return a setting's value in one line, as people write it: lists in brackets, mappings as `key: value` pairs."""
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
    """Return text of several lines, for a <pre>: its line ends stay, all other controls are spelt out."""
    return join(text.expandtabs(4).splitlines(), Html("\n"))


def package_text(name: str) -> Html:
    """Return a template file that lies beside this module, as markup."""
    return Html(resources.files(__package__ or "regraft.report.html").joinpath(name).read_text(encoding="utf-8"))
