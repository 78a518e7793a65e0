"""A split of images with masks, measured image by image at the masks' own size; the worst are kept for the eye."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft import commit
from regraft.data.class_table import IGNORED
from regraft.errors import DataError
from regraft.evaluation.labelled_rows import MaskRows
from regraft.evaluation.mask_files import mask_png
from regraft.evaluation.masks import MaskPredictor
from regraft.evaluation.measuring.pixel_counts import PixelCounts, keep_pixel_counts, mask_metrics, with_intervals
from regraft.evaluation.metrics.pixels import BoundaryCounts, mask_confusion, pixel_metrics
from regraft.evaluation.seen import Seen
from regraft.evaluation.trust.pixel_reliability import PixelReliability
from regraft.models.describe.calibration import Calibration
from regraft.models.segment.tiles import Strip
from regraft.wording import quantity

__all__ = ["measure_masks"]

Mask = npt.NDArray[np.uint8]
_NUM_WORST = 12
_SMALLEST = float(np.finfo(np.float32).tiny)  # a probability that a softmax rounded to 0 costs 87 nats, not infinity


@dataclass(order=True)
class _Kept:
    """The mask of one of the worst images."""

    better_by: float
    row: int
    mask: Mask = field(compare=False)


def measure_masks(
    predictor: MaskPredictor,
    rows: MaskRows,
    folder: Path,
    progress: Callable[[int, int], None],
    counts: Path | None = None,
) -> tuple[dict[str, Any], Seen | None]:
    """Measure images with masks, and write their rows (NAME.jsonl) and the worst masks (NAME-masks/).

    Args:
        predictor: The model.
        rows: The images and their masks.
        folder: The run's predictions/.
        progress: Called with (images done, images in all).
        counts: Where what was counted of each image is kept; None keeps nothing.

    Returns:
        `num_images`, `num_pixels`, `loss` (mean over the pixels that count, in nats), what `pixel_metrics` gives,
        `boundary_f1` (mean over classes, and of each in `per_class`), `confusion`, `class_names`, `calibration` (how
        far the probabilities of some pixels, evenly over each image, are off; where the network is calibrated also
        `raw` without the temperature, unless they are means of two views), `num_errors`; of
        other data `seen` and `notes`, as `evaluate` has them. And which of the measured images the run has seen.

    Raises:
        DataError: Not one image can be read together with its mask.
    """
    calibration, is_one_view = predictor.calibration, predictor.tta is None
    parts = {name: _Split(predictor.class_names, calibration, is_one_view) for name in ("unseen", "seen")}
    records: list[dict[str, Any]] = []
    for (path, size, strips), mask in zip(predictor.strips(rows.paths), rows.masks, strict=True):
        row = len(records)
        seen_in = "" if rows.seen is None else rows.seen.splits[row]
        records.append(parts["seen" if seen_in else "unseen"].take(row, path, size, strips, rows.truth(mask)))
        records[-1]["mask"] = mask
        if rows.seen is not None:
            records[-1]["seen"] = seen_in or None
        progress(len(records), len(rows.paths))
    split = parts["unseen" if parts["unseen"].num_images else "seen"]
    if not split.num_images:
        raise DataError(
            f"None of the {quantity(len(records), 'image')} of {rows.name!r} can be read with its mask.",
            "at least one readable image with a mask of its size",
            "check the files; predictions/ was not written",
            details=[f"{record['path']}: {record['error']}" for record in records[:5]],
        )
    _write_worst(split.worst, records, folder, rows.name, predictor.palette)
    commit.write_text(folder / f"{rows.name}.jsonl", "".join(commit.as_json(record) + "\n" for record in records))
    num_errors = len(records) - sum(part.num_images for part in parts.values())
    measures = {**split.measures(), "num_errors": num_errors}
    if counts is not None:
        keep_pixel_counts(counts, split.images)
    if rows.seen is None:
        return measures, None
    counted = rows.seen.among([record.get("error") is None for record in records])
    of_seen = parts["seen"].measures() if parts["seen"].num_images else None
    return {**measures, "notes": counted.notes(), "seen": {**counted.to_dict(), "measures": of_seen}}, counted


class _Split:
    """Counts over the images of a split."""

    def __init__(self, class_names: Sequence[str], calibration: Calibration | None, is_one_view: bool) -> None:
        self.class_names, self.calibration = class_names, calibration
        is_known = calibration is not None and is_one_view and len(calibration.temperatures) == 1
        self.reliability = PixelReliability(calibration.temperatures[0] if calibration and is_known else None)
        self.counts = np.zeros((len(class_names), len(class_names)), np.int64)
        self.boundaries = BoundaryCounts(len(class_names))
        self.images = PixelCounts()
        self.worst: list[_Kept] = []

    @property
    def num_images(self) -> int:
        return len(self.images.nats)

    def take(self, row: int, path: str, size: tuple[int, int], strips: Any, truth: Mask | str) -> dict[str, Any]:
        """Measure one image; its row."""
        reason = strips if isinstance(strips, str) else truth if isinstance(truth, str) else None
        if reason is None and not isinstance(truth, str) and truth.shape != size:
            reason = f"has {size[1]} x {size[0]} pixels, and its mask {truth.shape[1]} x {truth.shape[0]}"
        if reason is not None or isinstance(truth, str):
            return {"path": path, "miou": None, "pixel_accuracy": None, "prediction": None, "error": reason}
        self.reliability.begin()
        mask, nats = _read(strips, truth, self.reliability)
        counts = mask_confusion(truth, mask, len(self.class_names))
        self.counts += counts
        self.images.append(counts, self.boundaries.update(truth, mask), nats)
        own = pixel_metrics(counts, self.class_names)
        if own["miou"] is not None:
            kept = _Kept(-own["miou"], row, mask)
            (heapq.heappush if len(self.worst) < _NUM_WORST else heapq.heappushpop)(self.worst, kept)
        return {
            "path": path,
            "miou": own["miou"],
            "pixel_accuracy": own["pixel_accuracy"],
            "prediction": None,
            "error": None,
        }

    def measures(self) -> dict[str, Any]:
        """Return the metrics over all images, as plain data."""
        measured = mask_metrics(self.counts, self.images, self.class_names)
        if measured["num_pixels"]:
            fitted = {} if self.calibration is None else self.calibration.to_dict()
            measured["calibration"] = {**self.reliability.compute(), **fitted}
        return with_intervals(measured, self.images)


def _read(strips: Any, truth: Mask, reliability: PixelReliability) -> tuple[Mask, float]:
    """Return the named classes (H, W), and the sum of the pixels' negative log-likelihoods in nats.

    Args:
        strips: Probabilities from the top down.
        truth: The mask.
        reliability: Takes them along.
    """
    mask, nats = np.empty(truth.shape, np.uint8), 0.0
    strip: Strip
    for strip in strips:
        reliability.take(strip, truth)
        places = strip.probabilities.argmax(0).numpy()
        here = slice(strip.top, strip.top + len(places))
        mask[here] = places
        counted = truth[here] != IGNORED
        right = np.where(counted, truth[here], 0)[None]
        likelihoods = np.take_along_axis(strip.probabilities.numpy(), right.astype(np.int64), axis=0)[0][counted]
        nats -= float(np.log(np.maximum(likelihoods.astype(np.float64), _SMALLEST)).sum())
    return mask, nats


def _write_worst(worst: Sequence[_Kept], records: list[dict[str, Any]], folder: Path, name: str, palette: Mask) -> None:
    """Write the masks of the worst images as files; their rows name them."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-masks"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for kept in worst:
        file = place / f"{kept.row:06}.png"
        commit.write_bytes(file, mask_png(kept.mask, palette))
        records[kept.row]["prediction"] = f"{place.name}/{file.name}"
