"""Annotations of COCO as masks: polygons and run lengths of one image, drawn into one number for each pixel.

A mask that is no file is named `annotations.json#17`: the annotations of the image 17; or, of a label tool's export,
`export.json#3:1,4:480x640`: the third image, the numbers of its classes in string order, its height and width. Format:
cocodataset.org, "Data format", and the run lengths of its API (`common/maskApi.c`).
"""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft import commit
from regraft.data.decode.image_file import MAX_PIXELS, read_file
from regraft.data.decode.sniff import RefusedError
from regraft.data.files import access
from regraft.data.masks.shapes import FORMS, drawn_form
from regraft.data.masks.tool_masks import Objects, fetch_of_tool

__all__ = ["REST", "coco_codes", "coco_size", "fetch_annotations", "is_annotated", "reference", "segments_of"]

REST = 65535  # the number of pixels that no annotation covers
_FAR = 1e6  # pixels; no image is as large
_MARK = b'{"coco_mask":'
_PARSING = threading.Lock()

Codes = npt.NDArray[np.uint16]


def reference(path: str, image_id: int) -> str:
    """Return the name of the mask of one image."""
    return f"{path}#{image_id}"


def is_annotated(data: bytes) -> bool:
    """Return whether these are the annotations of one image, as `fetch_annotations` gives them."""
    return data.startswith(_MARK)


def fetch_annotations(path: str) -> bytes | str | None:
    """Return the annotations of one image as bytes, or the reason why there are none; None for an ordinary file."""
    found = fetch_of_tool(path)
    if isinstance(found, Objects):
        return commit.as_json({"coco_mask": found.size, "segments": found.segments, "in_order": True}).encode()
    if found is not None:
        return found
    file, _, number = path.rpartition("#")
    if not file.lower().endswith(".json") or not number.isdecimal():
        return None
    try:
        status = access.state_of(file)
    except OSError:
        return "does not exist"
    with _PARSING:
        drawn = segments_of(file, status.st_mtime_ns, status.st_size)
    return drawn if isinstance(drawn, str) else drawn.get(int(number), f"has no image {number}")


@lru_cache(maxsize=4)
def segments_of(file: str, mtime: int, size: int) -> dict[int, bytes] | str:
    """Return the annotations of every image of a file, each as bytes; read once for each state of the file.

    Args:
        file: The JSON file.
        mtime: Its last change, in nanoseconds.
        size: Its size in bytes.
    """
    data = read_file(file)
    if isinstance(data, str):
        return data
    try:
        values = json.loads(data)
        drawn: dict[int, list[Any]] = {int(image["id"]): [] for image in values["images"]}
        for item in values["annotations"]:
            if item.get("segmentation") and int(item["image_id"]) in drawn:
                drawn[int(item["image_id"])].append([int(item["category_id"]), item["segmentation"]])
        sides = {int(image["id"]): [int(image["height"]), int(image["width"])] for image in values["images"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"is not a COCO annotation file ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    return {
        number: commit.as_json({"coco_mask": sides[number], "segments": segments}).encode()
        for number, segments in drawn.items()
    }


def coco_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the image of these annotations."""
    height, width = json.loads(data)["coco_mask"]
    return int(width), int(height)


def coco_codes(data: bytes) -> Codes | str:
    """Return the category of each pixel, uint16 (H, W); of objects that overlap the smaller one, REST where there is
    none.

    Returns:
        The mask, or the reason as text why there is none.
    """
    try:
        return _drawn(json.loads(data))
    except RefusedError as refused:
        return str(refused)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        return f"has an annotation that cannot be drawn ({type(error).__name__}: {' '.join(str(error).split())[:120]})"


def _drawn(fields: dict[str, Any]) -> Codes:
    height, width = fields["coco_mask"]
    if not 0 < height * width <= MAX_PIXELS or min(height, width) < 1:
        raise RefusedError(f"is said to have {width} x {height} pixels")
    shapes = [(category, _shape(segmentation, height, width)) for category, segmentation in fields["segments"]]
    if not fields.get("in_order"):
        shapes.sort(key=lambda pair: -int(pair[1].sum()))
    mask = np.full((height, width), REST, dtype=np.uint16)
    for category, shape in shapes:
        if not 0 <= category < REST:
            raise RefusedError(f"has the category {category}; it is from 0 to {REST - 1}")
        mask[shape] = category
    return mask


def _shape(segmentation: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of one annotation, bool (H, W)."""
    if isinstance(segmentation, dict) and not segmentation.keys().isdisjoint(FORMS):
        return drawn_form(segmentation, height, width)
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise RefusedError(f"has run lengths for {segmentation['size']} in an image of {[height, width]}")
        return _from_runs(segmentation["counts"], height, width)
    covered = np.zeros((height, width), dtype=bool)
    for polygon in segmentation:
        corners = np.asarray(polygon, dtype=np.float64)
        if corners.ndim != 1 or len(corners) % 2 or len(corners) < 6 or not np.isfinite(corners).all():
            raise RefusedError("has a polygon that is not a list of at least three corners (x, y)")
        covered |= _inside(np.clip(corners.reshape(-1, 2), -_FAR, _FAR), height, width)
    return covered


def _inside(corners: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels whose middle lies inside a polygon, bool (H, W), by the even-odd rule; the first goes from 0
    to 1.
    """
    crossings = np.zeros((height, width + 1), dtype=np.int64)
    middles = np.arange(height) + 0.5
    for (x, y), (to_x, to_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.flatnonzero((y <= middles) != (to_y <= middles))
        crossed = x + (middles[rows] - y) * ((to_x - x) / (to_y - y)) if len(rows) else rows
        crossings[rows, np.clip(np.ceil(crossed - 0.5), 0, width).astype(np.int64)] += 1
    odd: npt.NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return odd


def _from_runs(counts: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return lengths of runs of 0 and 1 in turn, down the columns."""
    lengths = np.array(_numbers(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise RefusedError(f"has run lengths that do not add up to {height * width} pixels")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T


def _numbers(text: str) -> list[int]:
    """Return the run lengths in a text: five bits a sign, counted from 48, the sixth says that more follow.

    From the fourth on they are differences to the number before the last one.
    """
    numbers: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii"):
        chunk = byte - 48
        if not 0 <= chunk < 64 or shift > 30:
            raise RefusedError("has compressed run lengths that cannot be read")
        value |= (chunk & 0x1F) << shift
        shift += 5
        if not chunk & 0x20:
            value -= (chunk >> 4 & 1) << shift  # the sign
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    if shift:
        raise RefusedError("has compressed run lengths that are cut off")
    return numbers
