"""How good whole-image predictions of a split are, with its rows in predictions/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft import commit
from regraft.data.labels import Labels, label_names
from regraft.errors import DataError
from regraft.evaluation.labelled_rows import Rows
from regraft.evaluation.metrics.binary import binary_metrics
from regraft.evaluation.metrics.metrics import classification_metrics
from regraft.evaluation.metrics.multilabel import multilabel_metrics
from regraft.evaluation.predict import Observed, Predictor
from regraft.evaluation.seen import Seen
from regraft.evaluation.trust.account import calibration_account
from regraft.evaluation.trust.intervals import label_intervals
from regraft.evaluation.trust.nearest import Nearest
from regraft.evaluation.trust.slices import slice_figures
from regraft.evaluation.tta.choice import gain_of, losses_of
from regraft.wording import quantity

__all__ = ["METRICS", "measure_images"]


_Of = tuple[str, tuple[str, Sequence[str]] | None]  # a split's name, what it is sliced by, and the slice of each image


def measure_images(
    predictor: Predictor,
    rows: Rows,
    folder: Path,
    progress: Callable[[int, int], None],
    slices: tuple[str, Sequence[str]] | None = None,
    nearest: Nearest | None = None,
) -> tuple[dict[str, Any], Seen | None]:
    """Measure the predictions for images and write one row for each to the folder.

    Args:
        predictor: Predicts them.
        rows: The images.
        folder: Gets NAME.jsonl.
        progress: Called with (images done, images in all).
        slices: What the images are sliced by, and the slice of each.
        nearest: Looks at each error on the way.

    Returns:
        The measures, with their intervals and those of slices, and of other data what the run has seen of the images
        that could be read.

    Raises:
        DataError: None can be read.
    """
    observed: list[Observed] = []
    truths = label_names(rows.labels, predictor.class_names)
    for seen_image, truth in zip(predictor.observe(rows.paths), truths, strict=True):
        if nearest is not None:
            nearest.look(seen_image.prediction, seen_image.features, truth)
        observed.append(seen_image._replace(features=None))
        progress(len(observed), len(rows.paths))
    predictions = [each.prediction for each in observed]
    seen = rows.seen
    counted = None if seen is None else seen.among([prediction.error is None for prediction in predictions])
    measures = _measured_apart(observed, rows.labels, predictor, (rows.name, slices), counted)
    if predictor.tta is not None:
        measures |= {"tta": _of_views([each.views for each in observed], rows.labels, predictor)}
    lines = [
        {**prediction.to_dict(), "label": truth, **({} if seen is None else {"seen": seen.splits[row] or None})}
        for row, (prediction, truth) in enumerate(zip(predictions, truths, strict=True))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    commit.write_text(folder / f"{rows.name}.jsonl", "".join(commit.as_json(line) + "\n" for line in lines))
    return measures, counted


def _of_views(views: Sequence[npt.NDArray[np.floating] | None], labels: Labels, predictor: Predictor) -> dict[str, Any]:
    """Return what the views of each image change against the image alone, over all images that could be read."""
    good = [row for row, of_image in enumerate(views) if of_image is not None]
    found = np.stack([of_image for of_image in views if of_image is not None])
    losses = [losses_of(each, labels[good], predictor.output) for each in (found[:, 0], found.mean(1))]
    alone = METRICS[predictor.output](found[:, 0], labels[good], predictor.class_names, predictor.thresholds)
    return {"views": predictor.tta, "num_views": found.shape[1], "gain": asdict(gain_of(*losses)), "alone": alone}


def _softmax_metrics(
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    class_names: Sequence[str],
    thresholds: Mapping[str, float],
) -> dict[str, Any]:
    return classification_metrics(probabilities, labels, class_names)


METRICS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "softmax": _softmax_metrics,
    "binary": binary_metrics,
    "multilabel": multilabel_metrics,
}


def _measured_apart(
    observed: Sequence[Observed], labels: Labels, predictor: Predictor, of: _Of, seen: Seen | None
) -> dict[str, Any]:
    """Return the metrics of the images that the run has not seen, with those of the others beside them.

    Args:
        of: The split's name, and its slices.
        seen: Of the images that could be read; None where that is not asked.
    """
    if seen is None:
        return _measure(observed, labels, predictor, of)
    readable = np.flatnonzero([each.prediction.error is None for each in observed])

    def measured(places: npt.NDArray[np.intp]) -> dict[str, Any]:
        own = None if of[1] is None else (of[1][0], [of[1][1][row] for row in places.tolist()])
        return _measure([observed[row] for row in places.tolist()], labels[places], predictor, (of[0], own))

    if not len(readable):
        return _measure(observed, labels, predictor, of)  # which says so
    of_seen = None if seen.unseen.all() else measured(readable[~seen.unseen])
    main = of_seen if of_seen is not None and not seen.unseen.any() else measured(readable[seen.unseen])
    return {
        **main,
        "notes": [*main.get("notes", ()), *seen.notes()],
        "num_errors": len(observed) - len(readable),
        "seen": {**seen.to_dict(), "measures": of_seen},
    }


def _measure(observed: Sequence[Observed], labels: Labels, predictor: Predictor, of: _Of) -> dict[str, Any]:
    good = [row for row, each in enumerate(observed) if each.prediction.error is None]
    if not good:
        raise DataError(
            f"None of the {quantity(len(observed), 'image')} of {of[0]!r} can be read.",
            "at least one readable image",
            "check the files; predictions/ was not written",
        )
    probabilities = np.array([list(observed[row].prediction.probabilities.values()) for row in good])
    logits = np.array([observed[row].logits for row in good])
    measures = METRICS[predictor.output](probabilities, labels[good], predictor.class_names, predictor.thresholds)
    measures = label_intervals(predictor.output, measures, probabilities, labels[good])
    if of[1] is not None:
        by, names = of[1]
        right = _are_right([observed[row] for row in good], labels[good], predictor.class_names)
        measures["slices"] = {by: slice_figures([names[row] for row in good], right)}
    measures["calibration"] = calibration_account(predictor, logits, probabilities, labels[good])
    return {**measures, "num_errors": len(observed) - len(good)}


def _are_right(observed: Sequence[Observed], labels: Labels, class_names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether each image got its class, or all its labels and no other."""
    right = []
    for each, truth in zip(observed, label_names(labels, class_names), strict=True):
        named = each.prediction.labels
        right.append(each.prediction.prediction == truth if named is None else set(named) == set(truth))
    return np.array(right)
