"""`evaluate`: how good a run's model is on a labelled split; every unreadable image is a row with an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from regraft import commit
from regraft.data.labels import Labels, label_names
from regraft.errors import DataError, SettingsError
from regraft.evaluate.binary import binary_metrics
from regraft.evaluate.mask_split import measure_masks
from regraft.evaluate.masks import MaskPredictor
from regraft.evaluate.metrics import classification_metrics
from regraft.evaluate.multilabel import multilabel_metrics
from regraft.evaluate.predict import Prediction, Predictor
from regraft.evaluate.rows import MaskRows, other_mask_rows, other_rows, own_mask_rows, own_rows
from regraft.models.folder import load_model
from regraft.models.numerics import Numerics, choose_numerics
from regraft.models.outputs import output_of
from regraft.run.folder import RunFolder, open_run

__all__ = ["SELECTION_LABEL", "evaluate"]

SELECTION_LABEL = "validation, also used for selection"


def evaluate(
    run: RunFolder | str | Path,
    data: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    names: str | Path | None = None,
    masks: str | Path | None = None,
    class_table: str | Path | Sequence[Any] | None = None,
    ignore: object = None,
    split: str | None = None,
    model: nn.Module | None = None,
    numerics: Numerics | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a run's model and write the rows and the measures to the run's predictions/.

    Args:
        run: A run folder.
        data: Labelled images, any source that `open_data` takes, with one or more of the model's classes; where it
            has splits, its test split. None takes the run's test split, or its validation split when there is none
            (then `used_for_selection` is true and `label` says so).
        labels: As for `open_data`.
        names: As for `open_data`.
        masks: As for `open_data`.
        class_table: As for `open_data`; masks of `data` that come without one are read by the run's own.
        ignore: As for `open_data`.
        split: One of the run's own splits (train, val, test) instead.
        model: The module itself, for a run that trained a module of the user's own.
        numerics: Device, precision, layout, threads; None takes the run's, as far as this machine has them.
        progress: Called with (images done, images in all).

    Returns:
        The measures of `classification_metrics`, `binary_metrics`, `multilabel_metrics` or `measure_masks`, with
        `split`, `label`, `used_for_selection`, `output` and `num_errors`.

    Raises:
        SettingsError: There is no run, or it has no model yet; or masks are described where none are read.
        DataError: The images have classes that the model does not know, or none can be read.
    """
    run = run if isinstance(run, RunFolder) else open_run(run)
    loaded = load_model(run.path, model=model)
    names_pixels = output_of(loaded) == "segmentation"
    said = {"masks": masks, "class_table": class_table, "ignore": ignore}
    _require_masks(said, run, data, names_pixels=names_pixels)
    if names_pixels:
        of_masks = MaskPredictor(loaded, numerics or stored_numerics(run))
        known = of_masks.class_names
        masked = (
            own_mask_rows(run, known, split=split)
            if data is None
            else other_mask_rows(data, run, known, names=names, **said)
        )
        return _evaluate_masks(run, of_masks, masked, progress)
    predictor = Predictor(loaded, numerics or stored_numerics(run))
    multilabel = predictor.output == "multilabel"
    if data is None:
        name, paths, truths, selection = own_rows(run, predictor.class_names, multilabel=multilabel, split=split)
    else:
        chosen = other_rows(data, run, predictor.class_names, multilabel=multilabel, labels=labels, names=names)
        name, paths, truths, selection = chosen
    predictions = []
    for prediction in predictor.predict(paths):
        predictions.append(prediction)
        progress(len(predictions), len(paths))
    measures = _measure(predictions, truths, predictor, name)
    label = SELECTION_LABEL if selection else name
    measures = {
        "split": name,
        "label": label,
        "used_for_selection": selection,
        "output": predictor.output,
        **measures,
    }
    rows = [
        {**prediction.to_dict(), "label": truth}
        for prediction, truth in zip(predictions, label_names(truths, predictor.class_names), strict=True)
    ]
    run.predictions.mkdir(exist_ok=True)
    commit.write_text(run.predictions / f"{name}.jsonl", "".join(commit.as_json(row) + "\n" for row in rows))
    commit.write_json(run.predictions / f"{name}.json", measures)
    return measures


def _require_masks(said: Mapping[str, object], run: RunFolder, data: str | Path | None, *, names_pixels: bool) -> None:
    """Raise where masks are described and none of another source are read."""
    given = [f"--{name.replace('_', '-')}" for name, value in said.items() if value is not None]
    if given and (data is None or not names_pixels):
        why = "the run's own masks are measured as it has read them" if names_pixels else "its model names whole images"
        raise SettingsError(
            f"{' and '.join(given)} was given for {str(run.path)!r}, and {why}.",
            "These options describe the masks of other images, for a run on images with masks.",
            f"Leave {'them' if len(given) > 1 else 'it'} out"
            + (f", or name the other images: `regraft evaluate {run.path} IMAGES`." if names_pixels else "."),
        )


def _evaluate_masks(
    run: RunFolder, predictor: MaskPredictor, rows: MaskRows, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    measures = {
        "split": rows.name,
        "label": SELECTION_LABEL if rows.selected_by else rows.name,
        "used_for_selection": rows.selected_by,
        "output": "segmentation",
        **measure_masks(predictor, rows, run.predictions, progress),
    }
    commit.write_json(run.predictions / f"{rows.name}.json", measures)
    return measures


def stored_numerics(run: RunFolder) -> Numerics:
    """What the run was trained with; what this machine chooses, where it lacks that."""
    stored = run.settings().get("numerics") or {}
    known = {key: stored[key] for key in ("device", "precision", "threads", "channels_last") if key in stored}
    try:
        return choose_numerics(**known)
    except (SettingsError, TypeError):
        return choose_numerics()


def _softmax_metrics(
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    class_names: Sequence[str],
    thresholds: Mapping[str, float],
) -> dict[str, Any]:
    return classification_metrics(probabilities, labels, class_names)


_METRICS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "softmax": _softmax_metrics,
    "binary": binary_metrics,
    "multilabel": multilabel_metrics,
}


def _measure(predictions: Sequence[Prediction], labels: Labels, predictor: Predictor, name: str) -> dict[str, Any]:
    good = [row for row, prediction in enumerate(predictions) if prediction.error is None]
    if not good:
        raise DataError(
            f"None of the {len(predictions)} images of {name!r} can be read.",
            "Expected at least one readable image.",
            "Check the files; predictions/ was not written.",
        )
    probabilities = np.array([list(predictions[row].probabilities.values()) for row in good])
    measures = _METRICS[predictor.output](probabilities, labels[good], predictor.class_names, predictor.thresholds)
    return {**measures, "num_errors": len(predictions) - len(good)}
