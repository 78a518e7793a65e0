"""The measures of a cross-validation as one: each image counts once, by the model that did not train on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from regraft import commit
from regraft.errors import DataError, StorageError
from regraft.evaluation.measuring.pixel_counts import PixelCounts, mask_metrics, pixel_counts, with_intervals
from regraft.evaluation.metrics.pixels import pixel_metrics
from regraft.evaluation.trust.intervals import label_intervals
from regraft.evaluation.trust.reliability import reliability
from regraft.models.describe.calibration import Calibration
from regraft.run.folds_folder import FoldsFolder
from regraft.run.invocation import typed_path
from regraft.run.stored import stored_text

__all__ = ["OUT_OF_FOLD", "pooled_measures"]

OUT_OF_FOLD = "out-of-fold"
_LABEL = "out of fold: each image by the model that did not train on it"

Metrics = Mapping[str, Callable[..., dict[str, Any]]]


def pooled_measures(folds: FoldsFolder, metrics: Metrics) -> dict[str, Any]:
    """Compute the metrics over the rows of all folds, and write them beside (`predictions/out-of-fold.json`).

    Args:
        folds: A finished cross-validation.
        metrics: By kind of output: probabilities (N, C), labels, class names and thresholds to measures.

    Raises:
        DataError: It is not finished, or no image could be read.
        StorageError: Its records are damaged.
    """
    configs = [folds.read(run.model / "config.json") for run in folds.runs]
    measured = [folds.read(run.predictions / "val.json") for run in folds.runs]
    if not all(configs) or not all(measured):
        raise DataError(
            f"The cross-validation {str(folds.path)!r} is not finished.",
            "a model and its metrics in each fold",
            f"`regraft resume {typed_path(folds.path)}` to continue it",
        )
    output = str(measured[0].get("output", "softmax"))
    try:
        made = (
            _of_masks(folds, measured)
            if output == "segmentation"
            else _of_labels(folds, configs, measured, metrics[output])
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StorageError(
            f"The records of the cross-validation {str(folds.path)!r} cannot be understood ({error}).",
            "the records that regraft wrote",
            "restore the folder from a copy, or train again",
        ) from error
    selected = {"split": OUT_OF_FOLD, "label": _LABEL, "used_for_selection": True, "output": output}
    measures = {**selected, **made, "num_errors": sum(int(item.get("num_errors", 0)) for item in measured)}
    commit.write_json(folds.predictions / f"{OUT_OF_FOLD}.json", measures)
    return measures


def _of_labels(
    folds: FoldsFolder, configs: Sequence[Any], measured: Sequence[Any], metric: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    names = [str(name) for name in measured[0]["class_names"]] if "class_names" in measured[0] else []
    names = names or [str(row["name"]) for row in measured[0]["per_class"]]
    text = stored_text(folds.predictions / f"{OUT_OF_FOLD}.jsonl")
    rows = [row for row in map(json.loads, filter(None, text.split("\n"))) if row.get("probabilities")]
    if not rows:
        raise DataError("No image of the cross-validation could be read.", "one", "check the files")
    probabilities = np.array([[float(row["probabilities"][name]) for name in names] for row in rows])
    if isinstance(rows[0]["label"], list):
        labels = np.array([[name in row["label"] for name in names] for row in rows], np.uint8)
    else:
        labels = np.array([names.index(row["label"]) for row in rows], np.int64)
    own = [_thresholds(config["regraft"]) for config in configs]
    thresholds = {name: sum(float(values[name]) for values in own) / len(own) for name in own[0]}
    found = metric(probabilities, labels, names, thresholds)
    output = str(measured[0].get("output", "softmax"))
    told = {"told": reliability(output, probabilities, labels)}
    return {**label_intervals(output, found, probabilities, labels), "calibration": told}


def _thresholds(section: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the thresholds of a fold's probabilities, which are calibrated where its model is."""
    thresholds: Mapping[str, float] = section.get("thresholds", {})
    calibration = section.get("calibration")
    if calibration is None or not thresholds:
        return thresholds
    return Calibration.from_dict(calibration, len(thresholds)).thresholds(thresholds)


def _of_masks(folds: FoldsFolder, measured: Sequence[Any]) -> dict[str, Any]:
    """Compute from what was counted of each image; folds of older versions have the counts of all together."""
    names = [str(name) for name in measured[0]["class_names"]]
    confusion = np.sum([np.array(item["confusion"], np.int64) for item in measured], axis=0)
    total = sum(int(item["num_images"]) for item in measured)
    kept = [own for run in folds.runs if (own := pixel_counts(run.pixel_counts("val"))) is not None]
    if len(kept) == len(measured):
        counts = PixelCounts.joined(kept)
        if len(counts.nats) != total:
            raise ValueError(f"counts of {len(counts.nats)} images, metrics of {total}")
        return with_intervals(mask_metrics(confusion, counts, names), counts)
    return {
        **pixel_metrics(confusion, names),
        "num_images": total,
        "num_pixels": int(confusion.sum()),
        "confusion": confusion.tolist(),
        "class_names": names,
    }
