"""`evaluate`: how good a run's model is on a labelled split; every unreadable image is a row with an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from regraft import commit
from regraft.data.dataset import DataSet, open_data
from regraft.data.labels import Labels, label_names, renumbered
from regraft.data.sources.folder import list_folder
from regraft.errors import DataError, SettingsError
from regraft.evaluate.metrics import classification_metrics
from regraft.evaluate.predict import Prediction, Predictor
from regraft.models.folder import load_model
from regraft.models.numerics import Numerics, choose_numerics
from regraft.run.folder import RunFolder, open_run

__all__ = ["SELECTION_LABEL", "evaluate"]

SELECTION_LABEL = "validation, also used for selection"


def evaluate(
    run: RunFolder | str | Path,
    data: str | Path | None = None,
    *,
    model: nn.Module | None = None,
    numerics: Numerics | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a run's model and write the rows and the measures to the run's predictions/.

    Args:
        run: A run folder.
        data: A folder of labelled images; None takes the run's test split, or its validation split when there is
            none (then `used_for_selection` is true and `label` says so).
        model: The module itself, for a run that trained a module of the user's own.
        numerics: Device, precision, layout, threads; None takes the run's, as far as this machine has them.
        progress: Called with (images done, images in all).

    Returns:
        The measures of `classification_metrics`, with `split`, `label`, `used_for_selection` and `num_errors`.

    Raises:
        SettingsError: There is no run, or it has no model yet.
        DataError: The images have classes that the model does not know, or none can be read.
    """
    run = run if isinstance(run, RunFolder) else open_run(run)
    predictor = Predictor(load_model(run.path, model=model), numerics or stored_numerics(run))
    name, paths, labels, selection = _rows(run, data, predictor.class_names)
    predictions = []
    for prediction in predictor.predict(paths):
        predictions.append(prediction)
        progress(len(predictions), len(paths))
    measures = _measure(predictions, labels, predictor.class_names, name)
    label = SELECTION_LABEL if selection else name
    measures = {"split": name, "label": label, "used_for_selection": selection, **measures}
    rows = [
        {**prediction.to_dict(), "label": truth}
        for prediction, truth in zip(predictions, label_names(labels, predictor.class_names), strict=True)
    ]
    run.predictions.mkdir(exist_ok=True)
    commit.write_text(run.predictions / f"{name}.jsonl", "".join(commit.as_json(row) + "\n" for row in rows))
    commit.write_json(run.predictions / f"{name}.json", measures)
    return measures


def stored_numerics(run: RunFolder) -> Numerics:
    """What the run was trained with; what this machine chooses, where it lacks that."""
    stored = run.settings().get("numerics") or {}
    known = {key: stored[key] for key in ("device", "precision", "threads", "channels_last") if key in stored}
    try:
        return choose_numerics(**known)
    except (SettingsError, TypeError):
        return choose_numerics()


def _rows(run: RunFolder, data: str | Path | None, class_names: Sequence[str]) -> tuple[str, list[str], Labels, bool]:
    """Name, paths, labels (positions in the model's class names) and whether the rows chose the model."""
    if data is None:
        dataset = DataSet.from_dict(run.read(run.splits))
        name = "test" if dataset.test is not None else "val"
        split = dataset.splits[name]
        quarantined = [item.path for item in dataset.quarantined if item.split == name]
        if quarantined:
            raise_if_none_left(split.paths, name)
        return name, split.paths, _by_name(split.labels, dataset.class_names, class_names, dataset.root), name == "val"
    dataset = open_data(data) if _has_splits(Path(data)) else _whole(Path(data))
    name = next(name for name in ("test", "val", "train") if name in dataset.splits)
    split = dataset.splits[name]
    return (
        _other_name(Path(data)),
        split.paths,
        _by_name(split.labels, dataset.class_names, class_names, str(data)),
        False,
    )


def _other_name(data: Path) -> str:
    """A name for the measures on other photos, which never replace those on the run's own splits."""
    name = data.expanduser().resolve().name or "root"
    return f"other-{name}" if name.lower() in ("train", "val", "test") else name


def raise_if_none_left(paths: Sequence[str], name: str) -> None:
    """Raise DataError when a split has no image left."""
    if not paths:
        raise DataError(f"The {name} split has no readable image left.", "Expected one.", "Put the files back.")


def _has_splits(root: Path) -> bool:
    return "" not in list_folder(root.expanduser().absolute()).rows


def _whole(root: Path) -> DataSet:
    """A folder of classes as one split, undivided."""
    return open_data(root, fractions=(1.0, 0.0, 0.0))


def _by_name(labels: Labels, names: Sequence[str], class_names: Sequence[str], root: str) -> Labels:
    """Labels into `names` as labels into the model's `class_names`."""
    unknown = sorted(set(names) - set(class_names))
    if unknown:
        raise DataError(
            f"{root!r} has classes that the model does not know: {', '.join(map(repr, unknown))}.",
            f"The model knows: {', '.join(map(repr, class_names))}.",
            "Rename the folders, or leave these classes out.",
        )
    table = np.array([list(class_names).index(name) for name in names], dtype=np.int64)
    return renumbered(labels, table, len(class_names))


def _measure(
    predictions: Sequence[Prediction], labels: Labels, class_names: Sequence[str], name: str
) -> dict[str, Any]:
    good = [row for row, prediction in enumerate(predictions) if prediction.error is None]
    if not good:
        raise DataError(
            f"None of the {len(predictions)} images of {name!r} can be read.",
            "Expected at least one readable image.",
            "Check the files; predictions/ was not written.",
        )
    probabilities = np.array([list(predictions[row].probabilities.values()) for row in good])
    measures = classification_metrics(probabilities, labels[good], list(class_names))
    return {**measures, "num_errors": len(predictions) - len(good)}
