"""Tables, lists and folded parts of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from regraft.report.html.markup import Html, compact, html, join

__all__ = ["definitions", "folded", "listing", "table"]

MOST_LISTED = 500


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, most: int | None = None) -> Html:
    """Return a table; a column whose name begins with `#` holds numbers and is set flush right.

    Args:
        header: The columns' names.
        rows: The cells, row by row.
        most: How many rows to show; the others are counted.
    """
    css = [Html(' class="number"') if name.startswith("#") else Html("") for name in header]
    lines = [list(row) for row in rows]
    shown = lines[:most]
    more = html('<p class="note">and {:,} more</p>', len(lines) - len(shown)) if len(shown) < len(lines) else Html("")
    return html(
        '<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}',
        join(html("<th{}>{}</th>", style, name.removeprefix("#")) for style, name in zip(css, header, strict=True)),
        join(
            html("<tr>{}</tr>", join(html("<td{}>{}</td>", style, cell) for style, cell in zip(css, line, strict=True)))
            for line in shown
        ),
        more,
    )


def folded(summary: Any, content: Html, *, opened: bool = False) -> Html:
    """Return a part that is closed until somebody clicks on its summary."""
    return html("<details{}><summary>{}</summary>{}</details>", Html(" open") if opened else Html(""), summary, content)


def listing(items: Sequence[Any]) -> Html:
    """Return names and records one below the other, at most MOST_LISTED of them."""
    lines = join(html("<li>{}</li>", compact(item)) for item in items[:MOST_LISTED])
    more = html('<p class="note">and {:,} more</p>', len(items) - MOST_LISTED) if len(items) > MOST_LISTED else Html("")
    return html('<ul class="names">{}</ul>{}', lines, more)


def definitions(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """Return keys and values in two columns."""
    rows = join(html("<tr><th>{}</th><td>{}</td></tr>", key, value) for key, value in pairs)
    return html('<div class="scroll"><table class="definitions"><tbody>{}</tbody></table></div>', rows)
