"""`evaluate`: how good a run's model is on a labelled split; every unreadable image is a row with an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from regraft import commit
from regraft.compute.numerics import Numerics, choose_numerics
from regraft.errors import SettingsError
from regraft.evaluation.labelled_rows import MaskRows, Rows, other_mask_rows, other_rows, own_mask_rows, own_rows
from regraft.evaluation.masks import MaskPredictor
from regraft.evaluation.measuring.images import METRICS, measure_images
from regraft.evaluation.measuring.masks import measure_masks
from regraft.evaluation.measuring.requests import require_effect, require_masks, require_no_slices, require_out_of_fold
from regraft.evaluation.out_of_fold import pooled_measures
from regraft.evaluation.predict import Asked, Predictor, views_for
from regraft.evaluation.rounding import rounding_note
from regraft.evaluation.seen import SEEN_LABEL, Seen
from regraft.evaluation.trust.nearest import KnownImages, Nearest, known_images
from regraft.evaluation.trust.slices import slices_of
from regraft.models.describe.outputs import output_of
from regraft.models.segment.tiles import TTA
from regraft.models.store.folder import load_model
from regraft.models.store.unfinished import named_epoch
from regraft.run.folder import RunFolder, open_run
from regraft.run.folds_folder import FoldsFolder, open_folds
from regraft.run.order import require_run_first

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
    slice_by: str | None = None,
    checkpoint: str | None = None,
    tta: Asked | None = None,
    model: nn.Module | None = None,
    numerics: Numerics | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluate a run's model and write the rows and the metrics to the run's predictions/.

    Args:
        run: A run folder, or that of a cross-validation: its models together (the mean of their probabilities) on a
            test split or on `data`, else each image by the model that did not train on it.
        data: Labelled images, any source that `open_data` takes, with one or more of the model's classes; where it
            has splits, its test split. None takes the run's test split, or its validation split when there is none
            (then `used_for_selection` is true and `label` says so).
        labels: As for `open_data`.
        names: As for `open_data`.
        masks: As for `open_data`.
        class_table: As for `open_data`; masks of `data` that come without one are read by the run's own.
        ignore: As for `open_data`.
        split: One of the run's own splits (train, val, test) instead.
        slice_by: Also measure parts of the images apart: `folder`, `size` or `brightness`, or a column of the table
            that they come from.
        checkpoint: Measure another network than the one that the run has chosen, as for `load_model`; its rows and
            measures go to a folder of its own in predictions/.
        tta: Test-time augmentation, as for `predict` (for masks `flip` alone); its rows and measures go to a folder
            of its own in predictions/, and `tta` in them has the views, the measures of the images alone, and by how
            much the views lower the loss at the best temperature, with a 95 % interval (paired bootstrap).
        model: The module itself, for a run that trained a module of the user's own.
        numerics: Device, precision, layout, threads; None takes the run's, as far as this machine has them.
        progress: Called with (images done, images in all).

    Images of other data that are in the run's training or validation split, by the bytes of their files, say little
    about new ones: the measures are those of the others, and `seen` has the counts (`train`, `val`) and the `measures`
    of the seen ones. Where the run has seen all of them, the measures are theirs, and `notes` says so.

    Returns:
        The measures of `classification_metrics`, `binary_metrics`, `multilabel_metrics` or `measure_masks`, with
        `split`, `label`, `used_for_selection`, `output` and `num_errors`; of another network also `checkpoint`.
        `intervals` has the 95 % intervals of the measures, and so has each row of `per_class`; `calibration` says how
        far probabilities are off; `slices` has the share of right answers in each slice.

    Raises:
        SettingsError: There is no run, or it has no model yet; or masks are described where none are read, or a split
            of the run is named beside other data.
        DataError: The images have classes that the model does not know, or none can be read.
    """
    if not isinstance(run, RunFolder):
        require_run_first("evaluate", run, [data])
    run = run if isinstance(run, RunFolder) else open_folds(run) or open_run(run)
    if isinstance(run, FoldsFolder) and data is None and split != "test" and (split or not _has_test(run)):
        require_out_of_fold(run, split, checkpoint, tta, slice_by)
        return pooled_measures(run, METRICS)
    loaded = load_model(run.path, model=model, checkpoint=checkpoint)
    names_pixels = output_of(loaded) == "segmentation"
    of_masks = {"masks": masks, "class_table": class_table, "ignore": ignore}
    of_labels = {"labels": labels, "names": names}
    require_effect(split, of_labels, run, data, names_pixels=names_pixels)
    require_masks(of_masks, run, data, names_pixels=names_pixels)
    numerics = numerics or stored_numerics(run)
    request = _Request(run, loaded, data, split, checkpoint, tta, numerics, progress)
    if names_pixels:
        require_no_slices(slice_by, run)
        return _of_masks(request, {"names": names, **of_masks})
    return _of_images(request, of_labels, slice_by)


@dataclass(frozen=True)
class _Request:
    """What is measured, and how, for images with labels and for images with masks."""

    run: RunFolder
    model: nn.Module
    data: str | Path | None
    split: str | None
    checkpoint: str | None
    tta: Asked | None
    numerics: Numerics
    progress: Callable[[int, int], None]

    @property
    def folder(self) -> Path:
        """Where rows and metrics go: those of other networks and of several views have folders of their own."""
        own = self.run.predictions
        own = own if self.checkpoint is None else own / _folder_name(self.run, self.checkpoint)
        return own if self.tta is None else own / f"tta-{self.tta}"

    def notes(self) -> list[str]:
        return _precision_notes(self.run, self.model, self.numerics, own=self.data is None, checkpoint=self.checkpoint)

    def facts(self) -> dict[str, Any]:
        facts = {"output": output_of(self.model)}
        return facts if self.checkpoint is None else {**facts, "checkpoint": self.checkpoint}


def _of_masks(request: _Request, described: Mapping[str, Any]) -> dict[str, Any]:
    """Measure and write a split of a run that names pixels, or other masks, described as for `open_data`."""
    run, notes = request.run, request.notes()
    predictor = MaskPredictor(request.model, request.numerics, tta=cast("TTA | None", request.tta))
    rows = (
        own_mask_rows(run, predictor.class_names, split=request.split)
        if request.data is None
        else other_mask_rows(request.data, run, predictor.class_names, **described)
    )
    is_fold = (run.settings().get("data") or {}).get("fold") is not None
    counts = run.pixel_counts(rows.name) if is_fold and rows.selected_by and request.folder == run.predictions else None
    measured, seen = measure_masks(predictor, rows, request.folder, request.progress, counts)
    views = {} if request.tta is None else {"tta": {"views": request.tta, "num_views": 2}}
    return _written(request.folder, rows, request.facts() | views | measured, seen, notes)


def _of_images(request: _Request, described: Mapping[str, Any], slice_by: str | None) -> dict[str, Any]:
    """Measure and write a split of a run that names images, or other images, described as for `open_data`."""
    run, notes = request.run, request.notes()
    images = _known_images(run, request.model) if request.checkpoint is None and request.tta is None else None
    views = views_for(run.path, request.model, request.numerics, request.tta, request.checkpoint)
    predictor = Predictor(request.model, request.numerics, tta=views, features=isinstance(images, KnownImages))
    nearest = None if images is None else Nearest(images, predictor.class_names)
    known, multilabel = predictor.class_names, predictor.output == "multilabel"
    rows = (
        own_rows(run, known, multilabel=multilabel, split=request.split)
        if request.data is None
        else other_rows(request.data, run, known, multilabel=multilabel, **described)
    )
    slices = None
    if slice_by is not None:
        source = described["labels"] or request.data or (run.read(run.splits) or {}).get("source")
        slices = (slice_by, slices_of(slice_by, rows.paths, source))
    measured, seen = measure_images(predictor, rows, request.folder, request.progress, slices, nearest)
    if nearest is not None:
        commit.write_json(run.nearest(rows.name), nearest.to_dict())
    found_none = {"tta": {"views": None, "num_views": 1}} if request.tta == "auto" else {}
    return _written(request.folder, rows, request.facts() | found_none | measured, seen, notes)


def _known_images(run: RunFolder, model: nn.Module) -> KnownImages | str | None:
    """Return the training images that errors are shown beside, or why there are none; None where classes are not
    confused, as labels are not, or where several networks predict.
    """
    if output_of(model) == "multilabel" or isinstance(run, FoldsFolder):
        return None
    return known_images(run.neighbours)


def _has_test(folds: FoldsFolder) -> bool:
    """Return whether a cross-validation has images that no fold has seen."""
    splits = (folds.read(folds.splits) or {}).get("splits")
    return isinstance(splits, dict) and bool(splits.get("test"))


def _folder_name(run: RunFolder, checkpoint: str) -> str:
    """Return the folder name of a checkpoint's metrics: its step, as the name of a stage may be anything."""
    first = run.runs[0] if isinstance(run, FoldsFolder) else run
    return f"step-{named_epoch(first.path, checkpoint).step:06d}"


def _label(name: str, seen: Seen | None) -> str:
    """Return the heading of the metrics: the split's name, with a note where the run has seen all of its images."""
    return name if seen is None or seen.unseen.any() else f"{name}{SEEN_LABEL}"


def _written(
    folder: Path, rows: Rows | MaskRows, measured: dict[str, Any], seen: Seen | None, notes: Sequence[str]
) -> dict[str, Any]:
    """Write the metrics with the source they belong to; return them."""
    measures = {
        "split": rows.name,
        "label": SELECTION_LABEL if rows.selected_by else _label(rows.name, seen),
        "used_for_selection": rows.selected_by,
        **_noted(measured, notes),
    }
    commit.write_json(folder / f"{rows.name}.json", measures)
    return measures


def stored_numerics(run: RunFolder) -> Numerics:
    """Return the device, precision and layout that the run computed with; this machine's where it lacks them.

    Runs of versions that knew one precision do not say what they were validated with; they are measured in fp32.
    """
    stored = run.settings().get("numerics") or {}
    known = {key: stored[key] for key in ("device", "precision", "threads", "channels_last") if key in stored}
    known["inference"] = stored.get("inference", "fp32")
    try:
        return choose_numerics(**known)
    except (SettingsError, TypeError):
        return choose_numerics()


def _precision_notes(
    run: RunFolder, model: nn.Module, numerics: Numerics, *, own: bool, checkpoint: str | None
) -> list[str]:
    """Return notes on the precision of these metrics, and of those that the run has stored."""
    note = rounding_note(run, model, numerics, checkpoint=checkpoint)
    if note:
        return [note]
    stored = run.settings().get("numerics") or {}
    precision = stored.get("precision", "fp32")
    if own and "inference" not in stored and precision != "fp32":
        return [f"the run's stored figures were computed in {precision}; these are those of fp32"]
    return []


def _noted(measures: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    return {**measures, "notes": [*measures.get("notes", ()), *notes]} if notes else measures
