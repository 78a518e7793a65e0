"""The frame of a page: title, style and footer around what a report says; it opens offline."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from regraft import commit
from regraft.report.html.language import in_chosen_language
from regraft.report.html.markup import PAGE_MARK, Html, html, package_text
from regraft.version import __version__

__all__ = ["page", "write_page"]

_NOTHING = Html("")


def page(
    *,
    title: str,
    name: str,
    verdict: Html,
    sections: Html,
    links: Html = _NOTHING,
    gaps: Html = _NOTHING,
    version: str = __version__,
) -> Html:
    """Return a whole page.

    Args:
        title: The window's.
        name: The heading.
        verdict: What stands below it, in short.
        sections: The rest.
        links: To the sections.
        gaps: What could not be shown.
        version: Of the regraft that made what is shown.
    """
    style = package_text("style.css")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    whole = html(
        package_text("page.html"),
        title=title,
        name=name,
        style=style,
        style_digest=digest,
        links=links,
        verdict=verdict,
        gaps=gaps,
        sections=sections,
        version=version,
    )
    return in_chosen_language(whole)


def write_page(path: str | Path, text: Html) -> Path:
    """Write a page to a file, which may be an earlier page of regraft, and return its path.

    Raises:
        StorageError: It cannot be written, or something else is there.
    """
    path = Path(path)
    commit.require_replaceable(path, PAGE_MARK)
    commit.write_text(path, text)
    return path
