"""One predicted image in the report: its thumbnails, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regraft.report.evidence import Record, part
from regraft.report.gallery.doubts import Doubts
from regraft.report.html.markup import Html, html, join
from regraft.report.html.thumbnail import thumbnail
from regraft.report.predictions.rows import slips
from regraft.wording import percent

__all__ = ["correct_picture", "wrong_picture"]


def wrong_picture(row: Record, root: str, doubts: Doubts) -> Html:
    """Return an image with its true class and the one that it was taken for, marked where its label is in doubt.

    Args:
        row: Of predictions/.
        root: The data set's folder.
        doubts: The labels that are in doubt.
    """
    truth, taken = _told_labels(row) if isinstance(row.get("labels"), list) else _told_class(row)
    return _figure(
        row,
        root,
        html(
            '<span class="truth">{}</span><span class="taken">{}</span>{}',
            truth,
            taken,
            doubts.mark(Path(root, str(row.get("path", "")))),
        ),
    )


def correct_picture(row: Record, root: str) -> Html:
    """Return an image with its class, as for `wrong_picture`."""
    named = row.get("labels")
    names = [str(name) for name in named] if isinstance(named, list) else [str(row.get("prediction"))]
    shares = part(row, "probabilities")
    text = ", ".join(f"{name} ({percent(shares.get(name))})" for name in names) or "no label"
    return _figure(row, root, html('<span class="truth">{}</span>', text))


def _figure(row: Record, root: str, caption: Html) -> Html:
    path = str(row.get("path", ""))
    thumbnails = [thumbnail(Path(root, path), path)]
    return html(
        '<figure>{}<figcaption>{}<span class="path">{}</span></figcaption></figure>',
        join(thumbnails),
        caption,
        _below(path, root),
    )


def _told_class(row: Record) -> tuple[Any, str]:
    return row.get("label"), f"taken for {row.get('prediction')} ({percent(row.get('probability'))})"


def _told_labels(row: Record) -> tuple[str, str]:
    """Return the true labels of an image, and its wrong and missed ones with their probabilities, as text."""
    shares, (extra, missed) = part(row, "probabilities"), slips(row)
    wrong = [(word, name) for word, names in (("named", extra), ("missed", missed)) for name in names]
    told_as = "; ".join(f"{word} {name} ({percent(shares.get(name))})" for word, name in wrong)
    return ", ".join(map(str, row["label"])) or "no label", told_as


def _below(path: str, root: str) -> str:
    """Return the path from the data set's folder on, where it lies in it."""
    return path.removeprefix(f"{root}/") if root else path
