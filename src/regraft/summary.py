"""How the library's records show themselves: one line in a console, a small table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from regraft.visible import visible

__all__ = ["Summary"]


class Summary:
    """Shows a record by a few facts instead of by all its fields.

    A dataclass that derives from it is declared with `repr=False` and says its facts.
    """

    def facts(self) -> Mapping[str, object]:
        """Return the facts that tell one record from another, by name, in order."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.facts().items())
        return f"{type(self).__name__}({shown})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{_text(name)}</th><td style='text-align:left'>{_text(value)}</td></tr>"
            for name, value in self.facts().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def _text(value: object) -> str:
    """Return text from names of files and classes, safe within HTML."""
    return escape(visible(str(value)))
