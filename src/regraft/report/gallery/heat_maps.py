"""Heat maps of a few images of a split: where the network found what speaks for the class that it named."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from regraft.report.evidence import Evaluated, Record, part, parts
from regraft.report.html.markup import Html, html, join
from regraft.wording import is_number, percent

__all__ = ["NUM_RIGHT", "NUM_WRONG", "heat_maps", "mask_heat_maps"]

_NOTE = (
    "Where in the image the network found what speaks for the class that it named: yellow most, grey nothing. A map "
    "shows what was used, not that it was right to use it, nor what would change the answer; each is scaled to its own "
    "hottest place."
)
_OF_MASKS = (
    "For the classes that most pixels of an image were given: where the network found what speaks for them, summed "
    "over these pixels. Yellow most, grey nothing; each map is scaled to its own hottest place."
)
NUM_WRONG, NUM_RIGHT = 8, 4  # maps that are kept of a split
_JPEG = b"\xff\xd8\xff"
_LARGEST = 1 << 20  # letters of an image
_SAME = 1e-3  # between probabilities


def heat_maps(result: Evaluated) -> Html:
    """Return the heat maps of the worst errors and of a few right ones; nothing where none are kept of these."""
    images = part(result.heat, "images")
    wrong, right = ([_figure(row, part(images, str(row.get("path")))) for row in rows] for rows in _rows(result))
    figures = [*[figure for figure in wrong if figure][:NUM_WRONG], *[figure for figure in right if figure][:NUM_RIGHT]]
    if not figures:
        return Html("")
    return html(
        '<h4>Heat maps <small>(the worst errors, then some that are right)</small></h4><p class="note">{}</p>'
        '<div class="heat">{}</div>',
        _NOTE,
        join(figures),
    )


def mask_heat_maps(result: Evaluated, root: str) -> Html:
    """Return the heat maps of the images with the lowest mean IoU, by class; nothing where none are kept of these.

    Args:
        result: Of the split.
        root: The data set's folder.
    """
    images = part(result.heat, "images")
    blocks = []
    for row in result.worst:
        kept = part(images, str(row.get("path")))
        if not kept or not is_number(kept.get("miou")) or abs(kept["miou"] - (row.get("miou") or 0)) > _SAME:
            continue
        figures = join(_of_class(str(row.get("path")), each) for each in parts(kept, "classes"))
        heading = html('<p class="path">{}</p>', str(row.get("path")).removeprefix(f"{root}/"))
        blocks.append(html('{}<div class="heat">{}</div>', heading, figures) if figures else Html(""))
    if not any(blocks):
        return Html("")
    return html(
        '<h4>Heat maps <small>(of the worst images)</small></h4><p class="note">{}</p>{}', _OF_MASKS, join(blocks)
    )


def _of_class(path: str, kept: Record) -> Html:
    image, name = _jpeg(kept.get("jpeg")), kept.get("class")
    if not image:
        return Html("")
    return html(
        '<figure><img src="data:image/jpeg;base64,{}" alt="{}"><figcaption><span class="truth">{}</span>'
        "<span>given with {} on average</span></figcaption></figure>",
        image,
        f"{path}, and where it speaks for {name}",
        name,
        percent(kept.get("probability")),
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
