"""Heat maps of a few images of a split: where the network found what speaks for the class that it named."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from regraft.report.evidence import Evaluated, Record, part
from regraft.report.html.markup import Html, html, join
from regraft.wording import is_number, percent

__all__ = ["heat_maps"]

_NOTE = (
    "Where in the image the network found what speaks for the class that it named: yellow most, grey nothing. A map "
    "shows what was used, not that it was right to use it, nor what would change the answer; each is scaled to its own "
    "hottest place."
)
_JPEG = b"\xff\xd8\xff"
_LARGEST = 1 << 20  # letters of an image
_SAME = 1e-3  # between probabilities


def heat_maps(result: Evaluated) -> Html:
    """Return the heat maps of the worst errors and of a few right ones; nothing where none are kept of these."""
    images = part(result.heat, "images")
    wrong, right = ([_figure(row, part(images, str(row.get("path")))) for row in rows] for rows in _rows(result))
    figures = [figure for figure in (*wrong, *right) if figure]
    if not figures:
        return Html("")
    return html(
        '<h4>Heat maps <small>(the worst errors, then some that are right)</small></h4><p class="note">{}</p>'
        '<div class="heat">{}</div>',
        _NOTE,
        join(figures),
    )


def _rows(result: Evaluated) -> tuple[list[Record], list[Record]]:
    return result.worst, result.right


def _figure(row: Record, kept: Record) -> Html:
    """Return a map as a figure; nothing where it is of another prediction than the row's."""
    image, name = _jpeg(kept.get("jpeg")), kept.get("class")
    if not image or kept.get("prediction") != row.get("prediction") or not _is_same(row, kept):
        return Html("")
    truth = row.get("label")
    told = ", ".join(map(str, truth)) if isinstance(truth, list) else str(truth)
    alt = f"{row.get('path')}, and where it speaks for {name}"
    return html(
        '<figure><img src="data:image/jpeg;base64,{}" alt="{}"><figcaption><span class="truth">{}</span>'
        '<span class="{}">why {} ({})</span></figcaption></figure>',
        image,
        alt,
        told or "no label",
        "" if name == truth or (isinstance(truth, list) and name in truth) else "taken",
        name,
        percent(kept.get("probability")),
    )


def _is_same(row: Record, kept: Record) -> bool:
    value: Any = kept.get("probability")
    now: Any = part(row, "probabilities").get(str(kept.get("class")))
    return is_number(value) and is_number(now) and abs(value - now) <= _SAME


def _jpeg(text: Any) -> str:
    """Return the letters of an image that is one; empty for anything else."""
    if not isinstance(text, str) or len(text) > _LARGEST:
        return ""
    try:
        return text if base64.b64decode(text, validate=True).startswith(_JPEG) else ""
    except (binascii.Error, ValueError):
        return ""
