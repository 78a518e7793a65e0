"""A checkup as one HTML file: each issue with its images to go through, and a list to copy."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regraft.report.evidence import Evidence
from regraft.report.html.markup import Html, block, html, join
from regraft.report.html.page import page, write_page
from regraft.report.html.tables import folded, table
from regraft.report.html.thumbnail import thumbnail
from regraft.wording import percent, quantity

__all__ = ["checked", "write_checkup"]

_MOST_PICTURES = 60  # of one issue
_MOST_CLASSES = 60
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
        sections=html(
            "{}{}{}",
            _counts(found),
            join(_section(at, issue, Path(found["root"])) for at, issue in _listed(found)),
            _not_computed(found),
        ),
    )
    return write_page(path, whole)


def checked(evidence: Evidence) -> Html:
    """Return what a run found of its images on the way, and its score without the images that leaked."""
    if not evidence.check:
        return html(
            '<p class="absent">The images were not checked in this run; <code>regraft check</code> DATA does it.</p>'
        )
    issues = evidence.check["issues"]
    if not issues:
        return html("<p>No leak between splits was found, and no label that the other images contradict.</p>")
    root = Path(evidence.check["root"])
    parts = [
        html(
            "<h3>{}</h3><p>{}</p>{}", issue["title"], issue["text"], folded("The images", _images(issue["items"], root))
        )
        for issue in issues
    ]
    scores = join(html("<p>{}</p>", text) for text in _scores_without(evidence, issues))
    return html(
        '{}{}<p class="note">The short form of <code>regraft check</code>, from the features of the head.</p>',
        scores,
        join(parts),
    )


def _scores_without(evidence: Evidence, issues: Sequence[Record]) -> Iterator[str]:
    """Yield for each measured split its accuracy with and without the images that leaked."""
    for result in evidence.evaluated:
        kinds = (f"leak-{result.split}-train", f"leak-{result.split}-val")
        items = [item for issue in issues if issue["kind"] in kinds for item in issue["items"]]
        leaked = {item["path"] for item in items if item["split"] == result.split}
        found = score_without(evidence.path / "predictions" / f"{result.split}.jsonl", leaked) if leaked else None
        if found is not None:
            yield (
                f"Accuracy on {result.split}: {percent(found.whole, 2)} of {found.num:,} images; "
                f"{percent(found.rest, 2)} "
                f"of the {found.num_rest:,} that have no near copy in a split that was trained on or chosen by."
            )


class Scores(NamedTuple):
    """The share of images that were classified correctly, of all and of those that did not leak."""

    whole: float
    num: int
    rest: float
    num_rest: int


def score_without(predictions: Path, leaked: Collection[str]) -> Scores | None:
    """Return the accuracy of recorded predictions with and without some images; None where either has none.

    Args:
        predictions: The file of a split, a JSON object per line.
        leaked: Paths of images, as they are seen from the data set's root or whole.
    """
    right: dict[bool, list[bool]] = {True: [], False: []}
    for line in predictions.read_text(encoding="utf-8").splitlines() if predictions.is_file() else ():
        row = json.loads(line)
        if isinstance(row.get("label"), str) and row.get("prediction") is not None:
            path = str(row.get("path"))
            is_leaked = path in leaked or any(path.endswith(f"/{name}") for name in leaked)
            right[is_leaked].append(row["label"] == row["prediction"])
    rest, whole = right[False], [*right[False], *right[True]]
    if not rest:
        return None
    return Scores(sum(whole) / len(whole), len(whole), sum(rest) / len(rest), len(rest))


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
        '<section id="{}"><h2>{} <span class="badge {}">{}</span></h2><p>{}</p>{}</section>',
        _key(at, issue),
        issue["title"],
        _BADGES[issue["level"]],
        issue["level"],
        issue["text"],
        _images(items, root) if items else Html(""),
    )


def _images(items: Sequence[Record], root: Path) -> Html:
    return html("{}{}", _gallery(items, root), _list(items))


def _gallery(items: Sequence[Record], root: Path) -> Html:
    shown = list(items[:_MOST_PICTURES])
    if len(items) > len(shown) and shown[-1]["group"] is not None:
        cut = items[len(shown)]["group"]
        shown = [item for item in shown if item["group"] != cut] or shown  # whole groups
    parts = []
    for number, members in _by_group(shown):
        title = html("<h3>Group {}</h3>", number) if number is not None else Html("")
        pictures = join(_picture(item, root) for item in members)
        parts.append(html('{}<div class="pictures small">{}</div>', title, pictures))
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
        thumbnail(root / item["path"], item["path"]),
        ", ".join(word for word in (item["label"], item["split"]) if word),
        suggestion,
        item["detail"],
        item["path"],
    )


def _list(items: Sequence[Record]) -> Html:
    lines = "\n".join(dict.fromkeys(item["path"] for item in items))
    return folded(f"The {quantity(len(items), 'path')}, to copy", html("<pre>{}</pre>", block(lines)))


def _not_computed(found: Record) -> Html:
    if not found["not_computed"]:
        return Html("")
    lines = join(html("<li>{}</li>", text) for text in found["not_computed"])
    return html('<section id="not-computed"><h2>Not computed</h2><ul>{}</ul></section>', lines)
