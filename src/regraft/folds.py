"""Stratified cross-validation: one run for each fold, out-of-fold predictions, mean and standard deviation."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.assembly.choosing import is_open, with_network
from regraft.assembly.data import opened_recipe
from regraft.errors import DataError, SettingsError, StorageError
from regraft.evaluation.evaluate import evaluate
from regraft.pipeline import finish, resume, run_recipe
from regraft.recipe.recipe import Recipe, validate_recipe
from regraft.report.build import write_report
from regraft.run.folder import RunFolder, create_run, open_run
from regraft.run.folds_folder import FOLDS, fold_runs, is_folds, open_folds
from regraft.run.stored import stored_json, stored_text
from regraft.settings.duration import seconds_of
from regraft.training.callbacks import Callback
from regraft.wording import quantity

__all__ = ["Folds", "cross_validate", "read_folds", "resume_folds"]

_log = logging.getLogger("regraft")


@dataclass(frozen=True)
class Folds:
    """A finished cross-validation.

    Attributes:
        path: Its folder: `fold-1/` to `fold-K/` are run folders, `folds.json` has the measures,
            `predictions/out-of-fold.jsonl` a row for each image, predicted by the model that did not train on it,
            `predictions/out-of-fold.json` the measures of all these rows together, and `report.html` shows it all.
        runs: The runs.
        measures: For each measure a list `folds` of K values, their `mean` and their `sd` (of a sample, with K - 1);
            None where a fold has no such value.
    """

    path: Path
    runs: tuple[RunFolder, ...]
    measures: dict[str, dict[str, Any]]

    def render(self) -> str:
        """Return the metrics as a table for people."""
        width = max(map(len, self.measures))
        lines = [f"{quantity(len(self.runs), 'fold')} (each validated on images that its model did not train on)"]
        for name, values in self.measures.items():
            shown = "  ".join("   -  " if value is None else f"{value:.4f}" for value in values["folds"])
            spread = "" if values["mean"] is None else f"{values['mean']:.4f} ± {values['sd']:.4f}"
            lines.append(f"  {name:<{width}}  {spread:<17}  {shown}")
        return "\n".join(lines)


def cross_validate(
    recipe: Recipe | Mapping[str, Any],
    *,
    folds: int,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    show: bool = True,
) -> Folds:
    """Train and validate a recipe `folds` times, each time validating on another part of the images.

    Folds are stratified and a function of the recipe's seed. A test split stays out of all of them. Each run chooses
    its best epoch by its own fold, so the measures are slightly in favour of the models, as in every such set-up.

    Args:
        recipe: Checked settings, or plain data that is checked first.
        folds: How many, at least 2.
        out: The folder of all runs; None makes `runs/<data>-<n>`.
        callbacks: Who is told what happens in each of the runs (`rg.Callback`).
        show: Whether to write progress to stderr.

    Raises:
        RegraftError: Whatever a run raises; `resume_folds` goes on with the same folder.
    """
    recipe, _ = (recipe, None) if isinstance(recipe, Recipe) else opened_recipe(recipe)
    if recipe.data.fold is not None:
        raise SettingsError(
            f"The recipe is one fold itself (data.fold is {recipe.data.fold}).",
            "a cross-validation makes its own folds",
            "take data.fold out of the recipe",
        )
    spent = 0.0
    if is_open(recipe):  # chosen once, on the images of all folds
        began = time.perf_counter()
        recipe, reasons, _ = with_network(*opened_recipe(recipe), runs=folds)
        spent = time.perf_counter() - began
        for line in reasons:
            _log.info("%s", line)
    if recipe.budget is not None:
        share = (seconds_of(recipe.budget) - spent) / folds
        recipe = recipe.model_copy(update={"budget": f"{max(share, 0.001):.3f}s"})
        _log.info("budget: %.0f s for each of %d folds", share, folds)
    name = Path(recipe.data.source or "photos").name
    path = create_run(out, name).path
    commit.write_json(path / FOLDS, {"num_folds": folds, "recipe": recipe.model_dump(mode="json")})
    try:
        return _carry_on(path, recipe, folds, callbacks=callbacks, show=show)
    except (SettingsError, DataError):
        if not list(path.glob("fold-*/recipe.yaml")):
            commit.remove(path)  # nothing has begun that could be resumed
        raise


def read_folds(path: str | Path) -> Folds | None:
    """Return a finished cross-validation as it lies there; None where it is not finished, or something else.

    Raises:
        StorageError: Its record is damaged.
    """
    folder = open_folds(path)
    record = {} if folder is None else folder.read(folder.record) or {}
    if folder is None or not isinstance(record.get("measures"), dict):
        return None
    return Folds(folder.path, tuple(folder.runs), record["measures"])


def resume_folds(path: str | Path, *, callbacks: Sequence[Callback] = (), show: bool = True) -> Folds:
    """Resume a cross-validation that was stopped; finished folds are left as they are.

    Raises:
        SettingsError: There is none.
        StorageError: Its record is damaged.
    """
    path = Path(path)
    if not is_folds(path):
        raise SettingsError(
            f"{str(path)!r} is not a cross-validation (it has no {FOLDS}).",
            "the folder that `regraft train --folds K` wrote",
            "`regraft runs` to see what is there",
        )
    try:
        recipe, num_folds = validate_recipe(stored_json(path / FOLDS)["recipe"]), len(fold_runs(path))
    except (ValueError, KeyError, TypeError, SettingsError) as error:
        raise StorageError(
            f"{str(path / FOLDS)!r} cannot be read: {error}.",
            "the record that regraft wrote",
            "restore it from a copy, or begin again in a new folder",
        ) from error
    return _carry_on(path, recipe, num_folds, callbacks=callbacks, show=show)


def _carry_on(path: Path, recipe: Recipe, num_folds: int, *, callbacks: Sequence[Callback], show: bool) -> Folds:
    runs, measured = [], []
    for number in range(num_folds):
        folder = path / f"fold-{number + 1}"
        if show:
            _log.info("fold %d of %d: %s", number + 1, num_folds, folder)
        run = _run_fold(recipe, number, num_folds, folder, callbacks=callbacks, show=show)
        measured.append(finish(run, split="val").measures)
        runs.append(run)
    measures = _summary(measured)
    rows = [
        {**row, "fold": number + 1} for number, run in enumerate(runs) for row in _rows(run.predictions / "val.jsonl")
    ]
    (path / "predictions").mkdir(exist_ok=True)
    lines = "".join(commit.as_json(row) + "\n" for row in rows)
    commit.write_text(path / "predictions" / "out-of-fold.jsonl", lines)
    record = {"num_folds": num_folds, "recipe": recipe.model_dump(mode="json"), "measures": measures}
    commit.write_json(path / FOLDS, record)
    evaluate(path, split="val")
    write_report(path)
    return Folds(path, tuple(runs), measures)


def _run_fold(
    recipe: Recipe, number: int, num_folds: int, folder: Path, *, callbacks: Sequence[Callback], show: bool
) -> RunFolder:
    """Return the run of one fold: started, resumed, or left as it is."""
    if (folder / "recipe.yaml").is_file():
        return resume(open_run(folder), callbacks=callbacks, show=show)
    data = recipe.data.model_copy(update={"fold": (number, num_folds)})
    if folder.exists():
        commit.remove(folder)  # killed before it was a run
    return run_recipe(recipe.model_copy(update={"data": data}), out=folder, callbacks=callbacks, show=show)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stored_text(path).split("\n") if line]


def _summary(measured: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the summary over the folds of every metric that is a number."""
    names = [name for name, value in measured[0].items() if isinstance(value, float)]
    summary = {}
    for name in names:
        values = [measures.get(name) for measures in measured]
        known = [float(value) for value in values if value is not None]
        whole = len(known) == len(values)
        summary[name] = {
            "folds": values,
            "mean": statistics.fmean(known) if whole else None,
            "sd": statistics.stdev(known) if whole else None,
        }
    return summary
