"""A checkup as one HTML file: each issue with its images to go through, and a list to copy."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from regraft.data.decode.decode import PixelProgram, decode
from regraft.errors import RegraftError
from regraft.report.html.markup import Html, block, html, join
from regraft.report.html.page import page, write_page
from regraft.report.html.tables import folded, table
from regraft.wording import quantity

__all__ = ["issues_of", "write_checkup"]

_MOST_PICTURES = 60  # of one issue
_MOST_CLASSES = 60
_SIDE = 176
_THUMBNAIL = PixelProgram(size=(_SIDE, _SIDE), resize="pad", background=(128, 128, 128))
_QUALITY = 78
_BADGES = {"error": "bad", "warning": "bad", "note": "none"}

Record = Mapping[str, Any]


def write_checkup(path: str | Path, found: Record) -> Path:
    """Write what `Checkup.to_dict` says to an HTML file that opens offline, with thumbnails of the images.

    Raises:
        StorageError: It cannot be written.
    """
    whole = page(
        title=f"{found['data']}: regraft check",
        name=f"Checkup of {found['data']}",
        verdict=_verdict(found),
        links=join(html('<a href="#{}">{}</a>', _key(at, issue), issue["title"]) for at, issue in _listed(found)),
        sections=html("{}{}{}", _counts(found), issues_of(found), _not_computed(found)),
    )
    return write_page(path, whole)


def issues_of(found: Record) -> Html:
    """Return a section for each issue: what it is, its images, and the list of their paths."""
    return join(_section(at, issue, Path(found["root"])) for at, issue in _listed(found))


def _listed(found: Record) -> Iterator[tuple[int, Record]]:
    yield from enumerate(found["issues"])


def _key(at: int, issue: Record) -> str:
    return f"issue-{at}-{issue['kind']}"


def _verdict(found: Record) -> Html:
    levels = [issue["level"] for issue in found["issues"]]
    said = [quantity(levels.count(level), level) for level in ("error", "warning", "note") if level in levels]
    total = sum(found["num_images"].values())
    return html(
        '<p class="headline"><span class="label">{}: <strong>{}</strong></span></p>',
        quantity(total, "image"),
        ", ".join(said) or "nothing found",
    )


def _counts(found: Record) -> Html:
    splits, names = found["splits"], list(dict.fromkeys(name for counts in found["splits"].values() for name in counts))
    rows: list[Sequence[Any]] = [
        (name, *(f"{counts.get(name, 0):,}" for counts in splits.values())) for name in names[:_MOST_CLASSES]
    ]
    rows.append(("all", *(f"{found['num_images'][split]:,}" for split in splits)))
    more = html('<p class="note">and {:,} more classes</p>', len(names) - _MOST_CLASSES)
    return html(
        '<section id="counts"><h2>Images by class</h2>{}{}</section>',
        table(("class", *(f"#{split}" for split in splits)), rows),
        more if len(names) > _MOST_CLASSES else Html(""),
    )


def _section(at: int, issue: Record, root: Path) -> Html:
    items = issue["items"]
    return html(
        '<section id="{}"><h2>{} <span class="badge {}">{}</span></h2><p>{}</p>{}{}</section>',
        _key(at, issue),
        issue["title"],
        _BADGES[issue["level"]],
        issue["level"],
        issue["text"],
        _gallery(items, root) if items else Html(""),
        _list(items) if items else Html(""),
    )


def _gallery(items: Sequence[Record], root: Path) -> Html:
    shown = list(items[:_MOST_PICTURES])
    if len(items) > len(shown) and shown[-1]["group"] is not None:
        cut = items[len(shown)]["group"]
        shown = [item for item in shown if item["group"] != cut] or shown  # whole groups
    parts = []
    for number, members in _by_group(shown):
        title = html("<h3>Group {}</h3>", number) if number is not None else Html("")
        pictures = join(_picture(item, root) for item in members)
        parts.append(html('{}<div class="pictures">{}</div>', title, pictures))
    more = html('<p class="note">{:,} of {:,} are shown; the list has them all.</p>', len(shown), len(items))
    return html("{}{}", join(parts), more if len(shown) < len(items) else Html(""))


def _by_group(items: Sequence[Record]) -> list[tuple[int | None, list[Record]]]:
    groups: dict[int | None, list[Record]] = {}
    for item in items:
        groups.setdefault(item["group"], []).append(item)
    return list(groups.items())


def _picture(item: Record, root: Path) -> Html:
    suggestion = html('<span class="taken">perhaps {}</span>', item["suggestion"]) if item["suggestion"] else Html("")
    return html(
        '<figure>{}<figcaption><span class="truth">{}</span>{}<span>{}</span><span class="path">{}</span>'
        "</figcaption></figure>",
        _thumbnail(root / item["path"], item["path"]),
        ", ".join(word for word in (item["label"], item["split"]) if word),
        suggestion,
        item["detail"],
        item["path"],
    )


def _list(items: Sequence[Record]) -> Html:
    lines = "\n".join(dict.fromkeys(item["path"] for item in items))
    return folded(f"The {quantity(len(items), 'path')}, to copy", html("<pre>{}</pre>", block(lines)))


def _thumbnail(file: Path, path: str) -> Html:
    try:
        pixels = decode(file, _THUMBNAIL)
    except (RegraftError, OSError, ValueError):
        return html('<div class="no-picture">image not found or not readable</div>')
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return html('<img src="data:image/jpeg;base64,{}" width="{}" height="{}" alt="{}">', data, _SIDE, _SIDE, path)


def _not_computed(found: Record) -> Html:
    if not found["not_computed"]:
        return Html("")
    lines = join(html("<li>{}</li>", text) for text in found["not_computed"])
    return html('<section id="not-computed"><h2>Not computed</h2><ul>{}</ul></section>', lines)
