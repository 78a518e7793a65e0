"""A comparison of two runs as one HTML file: who is better, by class, and the images that one alone gets right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.report.html.markup import Html, html, join
from regraft.report.html.page import page, write_page
from regraft.report.html.tables import listing, table
from regraft.report.html.thumbnail import thumbnail
from regraft.wording import number, percent, quantity

__all__ = ["write_comparison"]

_MOST_FLIPS = 24  # of each run


def write_comparison(path: str | Path, found: Mapping[str, Any]) -> Path:
    """Write what `Comparison.to_dict` gives to an HTML file that opens offline.

    Raises:
        StorageError: It cannot be written.
    """
    whole = page(
        title="regraft compare",
        name=" against ".join(found["runs"]),
        verdict=html("<p><strong>{}</strong></p>", found["verdict"]),
        sections=html(
            '<section id="comparison"><h2>Together</h2>{}{}<h2>By class</h2>{}<h2>Images that one alone gets right</h2>'
            "{}</section>",
            _together(found),
            listing(found["notes"]) if found["notes"] else "",
            _by_class(found),
            _flips(found),
        ),
    )
    return write_page(path, whole)


def _together(found: Mapping[str, Any]) -> Html:
    paired, loss, errors = found["paired"], found["loss"], found["calibration"]
    rows = [
        ("accuracy", *map(percent, found["accuracy"]), _signed(paired["difference"], paired["interval"])),
        ("loss, nats", *map(number, loss["each"]), _plain(loss["difference"], loss["interval"])),
        (
            "calibration error (ECE)",
            *map(percent, errors["each"]),
            _points(errors["difference"], errors.get("interval")),
        ),
        ("right alone", f"{paired['only_first']:,}", f"{paired['only_second']:,}", ""),
        ("ms an image, here and now", *(number(cost["ms"]) for cost in found["cost"]), ""),
        ("MB of weights", *(number(cost["mb"]) for cost in found["cost"]), ""),
    ]
    return html(
        '{}<p class="note">{}, the same for both. In brackets: 95 % intervals. A difference whose interval holds 0 may '
        "be none; the test behind p (McNemar) looks at the images that one alone gets right. Equal means that the "
        "difference is smaller than {}, as two one-sided tests at 5 % say.</p>",
        table(("", *(f"#{name}" for name in found["runs"]), "#difference, second less first"), rows),
        quantity(found["num_images"], "image"),
        percent(paired["margin"]),
    )


def _signed(difference: float, interval: Sequence[float]) -> str:
    return f"{100 * difference:+.2f} points ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"


def _points(difference: float, interval: Sequence[float] | None) -> str:
    around = "" if interval is None else f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
    return f"{100 * difference:+.1f} points{around}"


def _plain(difference: float, interval: Sequence[float] | None) -> str:
    around = "" if interval is None else f" ({interval[0]:+.4f} to {interval[1]:+.4f})"
    return f"{difference:+.4f}{around}"


def _by_class(found: Mapping[str, Any]) -> Html:
    rows = [
        (
            row["name"],
            f"{row['support']:,}",
            *map(percent, row["recall"]),
            _signed(row["difference"], row["interval"]),
            f"{row['p']:.3g}",
        )
        for row in sorted(found["per_class"], key=lambda row: row["difference"])
    ]
    header = ("class", "#images", *(f"#recall of {name}" for name in found["runs"]), "#difference", "#p, corrected")
    return table(header, rows, most=200)


def _flips(found: Mapping[str, Any]) -> Html:
    blocks = []
    for place, name in enumerate(found["runs"]):
        flips = [flip for flip in found["flips"] if flip["right"] == place]
        shown = join(_figure(flip, found["runs"]) for flip in flips[:_MOST_FLIPS])
        blocks.append(
            html(
                "<h3>Only {} is right <small>({} of {:,}, the surest mistakes of the other first)</small></h3>"
                '<div class="pictures">{}</div>',
                name,
                min(len(flips), _MOST_FLIPS),
                len(flips),
                shown,
            )
            if flips
            else html("<h3>Only {} is right</h3><p>No image.</p>", name)
        )
    return join(blocks)


def _figure(flip: Mapping[str, Any], runs: Sequence[str]) -> Html:
    wrong = 1 - flip["right"]
    return html(
        '<figure>{}<figcaption><span class="truth">{}</span><span class="taken">{}: {} ({})</span>'
        '<span class="path">{}</span></figcaption></figure>',
        thumbnail(Path(flip["path"]), flip["path"]),
        flip["label"],
        runs[wrong],
        flip["predictions"][wrong],
        percent(flip["probabilities"][wrong]),
        flip["path"],
    )
