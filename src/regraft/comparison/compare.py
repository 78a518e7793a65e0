"""`compare`: two runs on the same images, paired: who is better, where they differ, what each costs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.comparison.comparison import Comparison
from regraft.comparison.paired import holm, paired_shares
from regraft.compute.numerics import Numerics
from regraft.errors import DataError, SettingsError
from regraft.evaluation.evaluate import stored_numerics
from regraft.evaluation.labelled_rows import Rows, other_rows, own_rows
from regraft.evaluation.predict import Predictor
from regraft.evaluation.results.prediction import Prediction
from regraft.evaluation.seen import content_digests, seen_images
from regraft.evaluation.trust.intervals import mean_interval
from regraft.evaluation.trust.reliability import calibration_error, error_difference
from regraft.models.store.folder import find_model_folder, load_model
from regraft.run.folder import RunFolder, open_run
from regraft.wording import quantity

__all__ = ["Comparison", "compare"]

DEFAULT_MARGIN = 0.01
_OUTPUTS = ("softmax", "binary")
_SMALLEST = float(np.finfo(np.float32).tiny)


def compare(
    first: RunFolder | str | Path,
    second: RunFolder | str | Path,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    margin: float = DEFAULT_MARGIN,
    numerics: Numerics | None = None,
) -> Comparison:
    """Compare two runs that name the same classes on the same images.

    Args:
        first: A finished run.
        second: Another.
        data: Labelled images, any source that `open_data` takes; None takes the first run's test split, or its
            validation split where it has none. Images that the other run has trained or validated on, by the bytes of
            their files, are left out, and so are copies.
        split: Another split of the first run.
        margin: Up to which difference of accuracies the two count as equal.
        numerics: Device, precision, threads; None takes the first run's.

    Returns:
        Its `measures` have `num_images`, `num_left_out`, `notes`, `accuracy` of both, `paired` (of `paired_shares`),
        `loss`, `calibration` (differences, second - first, with 95 % intervals of a paired bootstrap), `per_class`,
        `cost` (milliseconds an image, megabytes of weights) and `flips`, the images that one alone gets right.

    Raises:
        SettingsError: There is no such run, or one names something else than one class for each image.
        DataError: Their classes differ, or no image is left.
    """
    if not 0 < margin < 1:
        raise SettingsError(f"The margin is {margin:g}.", "a difference of accuracies between 0 and 1", "0.01")
    runs = [run if isinstance(run, RunFolder) else open_run(run) for run in (first, second)]
    if runs[0].path.resolve() == runs[1].path.resolve():
        raise SettingsError(f"{str(runs[0].path)!r} was given twice.", "two runs", "name another run")
    numerics = numerics or stored_numerics(runs[0])
    predictors = [Predictor(load_model(run.path), numerics) for run in runs]
    _require_alike(runs, predictors)
    rows = _rows(runs[0], data, split, predictors[0].class_names)
    kept, notes = _kept(runs, rows, split)
    paths = [rows.paths[row] for row in kept]
    found, seconds = zip(*(_predicted(predictor, paths) for predictor in predictors), strict=True)
    good = [row for row in range(len(paths)) if all(each[row].error is None for each in found)]
    if len(good) < len(paths):
        notes.append(f"{quantity(len(paths) - len(good), 'image')} could not be read")
    if not good:
        raise DataError("No image is left to compare on.", "images that neither run has seen", "name others: DATA")
    names, labels = predictors[0].class_names, rows.labels[kept][good]
    shares = [
        np.array([[each[row].probabilities[name] for name in names] for row in good], np.float64) for each in found
    ]
    named = [np.array([names.index(str(each[row].prediction)) for row in good]) for each in found]
    measures = {
        "num_images": len(good),
        "num_left_out": len(rows.paths) - len(good),
        "notes": notes,
        "accuracy": [float((answers == labels).mean()) for answers in named],
        "paired": paired_shares(named[0] == labels, named[1] == labels, margin),
        **_drawn(shares, labels),
        "per_class": _per_class(named, labels, names),
        "cost": [_cost(run, second_ / max(len(paths), 1)) for run, second_ in zip(runs, seconds, strict=True)],
        "flips": _flips([paths[row] for row in good], found, good, labels, names),
    }
    titles = [run.path.resolve().name for run in runs]
    told = (titles[0], titles[1]) if titles[0] != titles[1] else (str(runs[0].path), str(runs[1].path))
    return Comparison(told, rows.name, measures)


def _require_alike(runs: Sequence[RunFolder], predictors: Sequence[Predictor]) -> None:
    for run, predictor in zip(runs, predictors, strict=True):
        if predictor.output not in _OUTPUTS:
            raise SettingsError(
                f"{str(run.path)!r} gives images several labels.",
                "two runs that give each image one class",
                "evaluate them one by one",
            )
    first, second = (set(predictor.class_names) for predictor in predictors)
    if first != second:
        raise DataError(
            f"The runs name different classes: {', '.join(map(repr, sorted(first ^ second)))} is known to one alone.",
            "two runs of the same classes",
            "evaluate them one by one",
        )


def _rows(run: RunFolder, data: str | Path | None, split: str | None, names: Sequence[str]) -> Rows:
    if data is None:
        return own_rows(run, names, multilabel=False, split=split)
    if split is not None:
        raise SettingsError(
            f"The split {split!r} was given together with other data, {os.fspath(data)!r}.",
            "one or the other: --split names a part of the first run's own data",
            "leave --split out",
        )
    return other_rows(data, run, names, multilabel=False)


def _kept(runs: Sequence[RunFolder], rows: Rows, split: str | None) -> tuple[npt.NDArray[np.intp], list[str]]:
    """Return the images that neither run has seen, each content once, and what was left out, as sentences."""
    notes = []
    keep = np.ones(len(rows.paths), bool)
    own = 0 if rows.seen is None else None  # the first run's own split is what it is
    for place, run in enumerate(runs):
        if place == own:
            continue
        seen = seen_images(run, rows.paths)
        if not seen.unseen.all():
            num = int((~seen.unseen).sum())
            notes.append(f"{quantity(num, 'image')} left out that {run.path.name} was trained or validated on")
        keep &= seen.unseen
    digests = content_digests(rows.paths)
    first_of: dict[object, int] = {}
    copies = 0
    for row in np.flatnonzero(keep).tolist():
        if digests[row] and first_of.setdefault(digests[row], row) != row:
            keep[row] = False
            copies += 1
    if copies:
        notes.append(f"{quantity(copies, 'image')} left out that {'is' if copies == 1 else 'are'} the copy of another")
    if rows.selected_by:
        notes.append(f"these images chose the network of {runs[0].path.name}, which favours it")
    return np.flatnonzero(keep), notes


def _predicted(predictor: Predictor, paths: Sequence[str]) -> tuple[list[Prediction], float]:
    began = time.perf_counter()
    return list(predictor.predict(paths)), time.perf_counter() - began


def _drawn(shares: Sequence[npt.NDArray[np.float64]], labels: npt.NDArray[np.integer]) -> dict[str, Any]:
    """Return the differences of loss and calibration error, with intervals of a paired bootstrap."""
    rows = np.arange(len(labels))
    nats = [-np.log(np.maximum(each[rows, labels], _SMALLEST)) for each in shares]
    gained = nats[1] - nats[0]
    limits = list(mean_interval(gained))
    errors = [calibration_error(each.max(1), each.argmax(1) == labels) for each in shares]
    further, around = error_difference(shares[0], shares[1], labels)
    return {
        "loss": {"each": [float(each.mean()) for each in nats], "difference": float(gained.mean()), "interval": limits},
        "calibration": {"each": errors, "difference": further, "interval": around},
    }


def _per_class(
    named: Sequence[npt.NDArray[np.intp]], labels: npt.NDArray[np.integer], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the difference of the classes' recalls; p-values are corrected for the number of classes."""
    found = []
    for place, name in enumerate(names):
        own = labels == place
        if own.any():
            right = [answers[own] == place for answers in named]
            paired = paired_shares(right[0], right[1], DEFAULT_MARGIN)
            recalls = [float(each.mean()) for each in right]
            found.append({"name": name, "support": int(own.sum()), "recall": recalls, **paired})
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p"] = p
    return found


def _cost(run: RunFolder, seconds: float) -> dict[str, float]:
    weights = find_model_folder(run.path) / "model.safetensors"
    return {"ms": round(1000 * seconds, 3), "mb": round(weights.stat().st_size / 1e6, 3)}


def _flips(
    paths: Sequence[str],
    found: Sequence[Sequence[Prediction]],
    good: Sequence[int],
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the images that one network alone gets right, the surest mistakes first."""
    flips = []
    for path, row, label in zip(paths, good, labels.tolist(), strict=True):
        said = [each[row] for each in found]
        right = [each.prediction == names[label] for each in said]
        if right[0] != right[1]:
            flips.append(
                {
                    "path": path,
                    "label": names[label],
                    "right": 0 if right[0] else 1,
                    "predictions": [each.prediction for each in said],
                    "probabilities": [each.probability for each in said],
                }
            )
    return sorted(flips, key=lambda flip: -(flip["probabilities"][1 - flip["right"]] or 0.0))
