"""Masks in the report: the IoU of each class, and of the worst images image, truth, prediction and error."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.data.class_table import IGNORED, ClassTable
from regraft.data.decode.decode import PixelProgram, decode
from regraft.data.masks.masks import read_mask
from regraft.errors import RegraftError
from regraft.report.evidence import Evaluated, Evidence, Record, part, parts
from regraft.report.html.charts import bar
from regraft.report.html.markup import Html, html, join
from regraft.report.html.tables import folded, table
from regraft.wording import is_number, number, percent

__all__ = ["mask_classes", "mask_pictures"]

Pixels = npt.NDArray[np.uint8]
_WIDTH = 240  # of an image, in pixels
_TALLEST = 2 * _WIDTH
_RIGHT, _WRONG, _IGNORED = (225, 232, 225), (190, 40, 30), (120, 120, 120)
_MOST_CLASSES = 60  # in one table
_SAFE = 8_000_000  # pixels of a prediction's file that are read


def mask_classes(metrics: Record) -> Html:
    """Return each class with its IoU as a bar, the worst first."""
    rows = parts(metrics, "per_class")
    if not rows:
        return Html("")
    rows.sort(key=lambda row: row["iou"] if is_number(row.get("iou")) else 2.0)
    header = ("class", "#IoU", "", "#boundary F1", "#precision", "#recall", "#share of the pixels")
    total = sum(row["support"] for row in rows if is_number(row.get("support"))) or 1
    made = [_class_row(row, total) for row in rows]
    title = "Per class, the lowest IoU first"
    if len(made) <= _MOST_CLASSES:
        return html("<h4>{}</h4>{}", title, table(header, made))
    shown = table(header, made[: _MOST_CLASSES // 2])
    return html("<h4>{}</h4>{}{}", title, shown, folded(f"All {len(made)} classes", table(header, made)))


def _class_row(row: Record, total: int) -> tuple[Any, ...]:
    iou = row.get("iou")
    return (
        row.get("name"),
        f"{iou:.3f}{_limits(row, 'iou')}" if is_number(iou) else "–",
        bar(float(iou or 0)) if is_number(iou) else "",
        number(row.get("boundary_f1")) + _limits(row, "boundary_f1"),
        percent(row.get("precision")) + _limits(row, "precision"),
        percent(row.get("recall")) + _limits(row, "recall"),
        percent(row["support"] / total) if is_number(row.get("support")) else "–",
    )


def _limits(row: Record, key: str) -> str:
    """Return the 95 % interval of a class's figure as text; empty where there is none."""
    limits = part(row, "intervals").get(key)
    if not isinstance(limits, list) or len(limits) != 2 or not all(map(is_number, limits)):
        return ""
    if key in ("precision", "recall"):
        return f" ({100 * limits[0]:.1f}–{100 * limits[1]:.1f}%)"
    return f" ({limits[0]:.3f}–{limits[1]:.3f})"


def mask_pictures(result: Evaluated, evidence: Evidence) -> Html:
    """Return the images with the lowest mean IoU: image, truth, prediction, and where they differ."""
    if not result.worst:
        return html("<h4>Worst images</h4><p>The predictions for single images were not recorded.</p>")
    table_of = _table_of(evidence)
    if table_of is None:
        return html("<h4>Worst images</h4><p>The class table of this run was not recorded.</p>")
    names = [str(name) for name in result.metrics.get("class_names") or table_of.names]
    rows = join(_row(row, table_of, names, evidence) for row in result.worst)
    return html(
        '<h4>Worst images <small>(the lowest mean IoU first)</small></h4>{}<div class="scroll"><table class="masks">'
        "<thead><tr><th>image</th><th>truth</th><th>prediction</th><th>error</th></tr></thead><tbody>{}</tbody></table>"
        '</div><p class="note">Error: red is wrong, grey counts for nothing.</p>',
        _legend(table_of),
        rows,
    )


def _table_of(evidence: Evidence) -> ClassTable | None:
    fields = part(evidence.splits, "class_table")
    try:
        return ClassTable.from_dict(fields) if fields else None
    except RegraftError:
        return None


def _legend(table_of: ClassTable) -> Html:
    """Return the colour of each class."""
    made = []
    for colour, name in zip(table_of.colours, table_of.names, strict=True):
        shade = "#{:02x}{:02x}{:02x}".format(*colour)
        made.append(
            html(
                '<span class="colour"><svg viewBox="0 0 12 12" width="12" height="12">'
                '<rect width="12" height="12" fill="{}"/></svg> {}</span>',
                shade,
                name,
            )
        )
    return html('<p class="note">{}</p>', join(made))


def _row(row: Record, table_of: ClassTable, names: list[str], evidence: Evidence) -> Html:
    path = str(row.get("path", ""))
    root = str(evidence.splits.get("source") or "")
    caption = html(
        '<tr><td colspan="4"><span class="truth">mean IoU {}</span> <span class="path">{}</span></td></tr>',
        number(row.get("miou")),
        path.removeprefix(f"{root}/") if root else path,
    )
    try:
        pictures = _pictures(Path(root, path), row, table_of, names, evidence.path / "predictions")
    except (RegraftError, OSError, ValueError, IndexError) as error:
        missing = f"not found or not readable ({type(error).__name__})"
        return html('{}<tr><td colspan="4"><div class="no-picture">{}</div></td></tr>', caption, missing)
    return html("{}<tr>{}</tr>", caption, join(html("<td>{}</td>", _inline(picture)) for picture in pictures))


def _pictures(
    image: Path, row: Record, table_of: ClassTable, names: list[str], predictions: Path
) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return image, truth, prediction and error, all of one size."""
    truth = read_mask(str(row["mask"]), table_of)
    size = _size(*truth.shape)
    truth = _small(truth, size)
    predicted = _small(_prediction(predictions / str(row["prediction"])), size)
    places = np.full(256, IGNORED, np.uint8)  # of the model's classes in the table
    for number_, name in enumerate(names[:255]):
        places[number_] = table_of.names.index(name) if name in table_of.names else IGNORED
    predicted = places[predicted]
    wrong = np.where((truth == predicted)[..., None], _RIGHT, _WRONG)
    error = np.where((truth == IGNORED)[..., None], _IGNORED, wrong).astype(np.uint8)
    pixels = decode(image, PixelProgram(size))
    return pixels, table_of.palette[truth], table_of.palette[predicted], error


def _prediction(file: Path) -> Pixels:
    """Return the class positions of a mask that `evaluate` wrote."""
    with Image.open(file, formats=["PNG"]) as image:
        if image.mode != "P" or image.width * image.height > 20 * _SAFE:
            raise ValueError("no mask that regraft wrote")
        return np.array(image)


def _size(height: int, width: int) -> tuple[int, int]:
    scale = min(_WIDTH / width, _TALLEST / height)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _small(mask: Pixels, size: tuple[int, int]) -> Pixels:
    return np.array(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _inline(pixels: Pixels) -> Html:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    height, width = pixels.shape[:2]
    return html('<img src="data:image/png;base64,{}" width="{}" height="{}" alt="">', data, width, height)
