"""Label Studio: its JSON and JSON-MIN exports, with choices for whole images and polygons, brushes and boxes.

Format: labelstud.io/guide/export, and HumanSignal/label-studio-converter for lengths in percent and the brush.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from regraft.data.tools.annotated import Annotated, Export, Shape, collected, ellipse, label_of, number, rectangle

__all__ = ["is_label_studio", "read_label_studio"]

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # what Label Studio puts before the name of an uploaded file
_AREAS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
_MINIMAL = {"annotation_id", "annotator", "lead_time", "created_at", "updated_at"}


def is_label_studio(values: Any) -> bool:
    """Return whether parsed JSON is an export of Label Studio."""
    first = values[0] if isinstance(values, list) and values else None
    if not isinstance(first, dict):
        return False
    return isinstance(first.get("data"), dict) or (bool(_MINIMAL & set(first)) and _address(first) != "")


def read_label_studio(values: Any) -> Export:
    """Return the images of an export; each task is one."""
    return collected(Export("Label Studio"), values, _image)


def _image(row: int, task: Any, flat: Counter[str]) -> Annotated:
    data = task["data"] if isinstance(task.get("data"), dict) else task
    address = _address(data)
    if not address:
        raise ValueError("its data name no image")
    names = _names(address, str(task.get("file_upload") or ""))
    results = list(_annotations(task))
    if not results:
        return Annotated(row, names)
    labels = [_labels(result) for result in results]
    if any(set(found) != set(labels[0]) for found in labels):
        shown = " and ".join(repr("|".join(found) or "nothing") for found in labels[:3])
        raise ValueError(f"its annotations disagree: {shown}; delete one, or mark the right one as ground truth")
    shapes = [shape for item in results[-1] for shape in _shapes(item, flat)]
    size = next((found for item in results[-1] if (found := _size(item)) is not None), None)
    several = any(len(item["value"]["choices"]) > 1 for item in results[0] if item.get("type") == "choices")
    return Annotated(row, names, labels[0], tuple(shapes), size, says_several=several)


def _address(data: dict[str, Any]) -> str:
    """Return the address of a task's image: that called image, else the first that looks like one."""
    texts = [(key, value) for key, value in data.items() if isinstance(value, str) and ("/" in value or "." in value)]
    texts.sort(key=lambda pair: pair[0].lower() not in ("image", "img", "photo", "picture", "url"))
    return texts[0][1] if texts else ""


def _names(address: str, upload: str) -> tuple[str, ...]:
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d", [""])[0]  # of local files: /data/local-files/?d=folder/name.jpg
    path = local or unquote(parts.path)
    base = [os.path.basename(name) for name in (path, upload) if name]
    plain = [match[1] for name in base if (match := _UPLOADED.fullmatch(name))]
    return tuple(dict.fromkeys([path.lstrip("/") if parts.scheme else path, *base, *plain]))


def _annotations(task: Any) -> Iterator[list[Any]]:
    """Yield the results of each annotation that counts: those marked as ground truth, else all that were submitted."""
    if not isinstance(task.get("data"), dict):
        yield _minimal(task)
        return
    given = task.get("annotations", task.get("completions")) or []
    given = [item for item in given if not item.get("was_cancelled")]
    true = [item for item in given if item.get("ground_truth")]
    for item in true or given:
        yield list(item["result"])


def _minimal(task: dict[str, Any]) -> list[Any]:
    """Return the results of a task of the JSON-MIN export, which has a key for each control."""
    results: list[Any] = []
    for key, value in task.items():
        if key in _MINIMAL or key in ("id", "image") or value == _address(task):
            continue
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            results.append({"type": "choices", "value": value})
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            kinds = [next((kind for kind in _AREAS if kind in item), "") for item in value]
            results += [{**item, "type": kind, "value": item} for kind, item in zip(kinds, value, strict=True) if kind]
        elif isinstance(value, str) and value and key not in ("comment", "text"):
            results.append({"type": "choices", "value": {"choices": [value]}})
    return results


def _labels(results: list[Any]) -> tuple[str, ...]:
    found = [choice for item in results if item.get("type") == "choices" for choice in item["value"]["choices"]]
    return tuple(sorted({label_of(choice) for choice in found}))


def _size(item: Any) -> tuple[int, int] | None:
    height, width = item.get("original_height"), item.get("original_width")
    return None if height is None or width is None else (int(height), int(width))


def _shapes(item: Any, flat: Counter[str]) -> Iterator[Shape]:
    kind = str(item.get("type"))
    if kind in ("keypointlabels", "keypoint", "vectorlabels"):
        flat["point"] += 1
    if kind not in _AREAS:
        return
    size, value = _size(item), item["value"]
    if size is None:
        raise ValueError("an object lacks original_height and original_width")
    high, wide = size[0] / 100, size[1] / 100
    for label in map(label_of, value[kind]):
        if kind == "polygonlabels":
            corners = [(number(x) * wide, number(y) * high) for x, y in value["points"]]
            yield Shape(label, [[length for corner in corners for length in corner]])
        elif kind == "brushlabels":
            yield Shape(label, {"brush": [int(byte) for byte in value["rle"]], "size": list(size)})
        else:
            x, y, turn = number(value["x"]) * wide, number(value["y"]) * high, number(value.get("rotation") or 0)
            if kind == "ellipselabels":
                yield Shape(
                    label, ellipse(x, y, number(value["radiusX"]) * wide, number(value["radiusY"]) * high, turn)
                )
            else:
                far = x + number(value["width"]) * wide, y + number(value["height"]) * high
                yield Shape(label, rectangle(x, y, *far, turn, "corner"), is_box=True)
