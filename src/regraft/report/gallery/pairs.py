"""The most confused pairs of classes: their errors side by side, each with the training images most like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regraft.report.evidence import Evaluated, Evidence, Record, part, parts
from regraft.report.gallery.doubts import Doubts
from regraft.report.gallery.picture import wrong_picture
from regraft.report.html.markup import Html, html, join
from regraft.report.html.thumbnail import thumbnail
from regraft.report.predictions.chosen import Confusion
from regraft.wording import is_number, quantity

__all__ = ["confused_pairs"]

_SIDE = 96  # pixels of a training image
_MOST_NEAREST = 2  # of each class
_NOT_LOOKED_FOR = "they were not looked for when this split was evaluated; `regraft evaluate` does it"
_OF_FOLDS = "this is a cross-validation, and each of its models has features of its own"


def confused_pairs(result: Evaluated, evidence: Evidence, doubts: Doubts) -> Html:
    """Return the pairs of classes with the most errors; nothing for a split where no class was taken for another."""
    if not result.confused:
        return Html("")
    root = str(evidence.splits.get("source") or "")
    blocks = [_pair(both, result, root, doubts) for both in result.confused]
    return html(
        '<h4>Most confused classes <small>(the surest errors of each)</small></h4><p class="note">{} {}</p>{}',
        _origin(result.nearest, is_folds=bool(evidence.folds)),
        doubts.note(result.split),
        join(blocks),
    )


def _origin(nearest: Record, *, is_folds: bool) -> str:
    """Return what the small images are, or why there are none."""
    num, whole = nearest.get("num_kept"), nearest.get("num_training_images")
    if not isinstance(num, int) or not isinstance(whole, int):
        reason = nearest.get("reason") or (_OF_FOLDS if is_folds else _NOT_LOOKED_FOR)
        return f"The training images most like each error are not shown: {reason}."
    among = quantity(whole, "training image") if num >= whole else f"{num:,} of the {whole:,} training images"
    return (
        f"Beside each error: the images most like it to the network among {among}, of the class that it was taken for "
        "and of its own; below them the cosine similarity of their features."
    )


def _pair(both: tuple[Confusion, Confusion], result: Evaluated, root: str, doubts: Doubts) -> Html:
    first, second = both
    return html(
        '<h5>{} and {} <small>{}</small></h5><div class="pair">{}</div>',
        first.truth,
        first.taken,
        quantity(first.num + second.num, "error"),
        join(_direction(found, result, root, doubts) for found in both if found.num),
    )


def _direction(found: Confusion, result: Evaluated, root: str, doubts: Doubts) -> Html:
    supports = {row.get("name"): row.get("support") for row in parts(result.metrics, "per_class")}
    support = supports.get(found.truth)
    of_all = f" of {support:,}" if isinstance(support, int) and support >= found.num else ""
    return html(
        '<div><p class="direction">{}{} {} taken for {}</p>{}</div>',
        f"{found.num:,}",
        of_all,
        html("<strong>{}</strong>", found.truth),
        html("<strong>{}</strong>", found.taken),
        join(_error(row, result.nearest, root, doubts) for row in found.rows),
    )


def _error(row: Record, nearest: Record, root: str, doubts: Doubts) -> Html:
    found = part(part(nearest, "images"), str(row.get("path", "")))
    beside = Html("")
    if found:
        classes = (("taken", row.get("prediction")), ("true", row.get("label")))
        beside = html(
            '<div class="nearest">{}</div>',
            join(_of_class(found.get(key), name, root, doubts) for key, name in classes),
        )
    return html('<div class="error">{}{}</div>', wrong_picture(row, root, doubts), beside)


def _of_class(images: Any, name: Any, root: str, doubts: Doubts) -> Html:
    """Return the training images of one class that are nearest to an error."""
    pairs = [
        (str(pair[0]), float(pair[1]))
        for pair in (images if isinstance(images, list) else ())
        if isinstance(pair, list) and len(pair) == 2 and is_number(pair[1])
    ]
    pictures = join(_training_image(path, similarity, root, doubts) for path, similarity in pairs[:_MOST_NEAREST])
    text = html('<p class="note">no training image of this class is kept</p>')
    return html(
        "<div><p>training: {}</p>{}</div>", name, html('<div class="near">{}</div>', pictures) if pairs else text
    )


def _training_image(path: str, similarity: float, root: str, doubts: Doubts) -> Html:
    file = Path(root, path)
    return html(
        "<figure>{}<figcaption>{}{}</figcaption></figure>",
        thumbnail(file, path, side=_SIDE),
        f"{similarity:.2f}",
        doubts.mark(file),
    )
