"""`tta: auto`: the views that a run's own validation images ask for, asked once and written to the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from regraft.errors import SettingsError
from regraft.evaluation.labelled_rows import own_rows
from regraft.evaluation.tta.choice import Rows, choose_views, learnt_mirrored, stored_choice, write_choice
from regraft.models.describe.info import ModelInfo
from regraft.models.describe.views import Views
from regraft.models.store.unfinished import named_epoch
from regraft.run.folder import RunFolder, open_run
from regraft.run.folds_folder import fold_runs
from regraft.run.invocation import typed_path

__all__ = ["validated_run", "views_asked_for"]

_log = logging.getLogger("regraft")


def views_asked_for(
    path: str | Path,
    info: ModelInfo,
    predicted: Callable[[Sequence[str]], Rows],
    *,
    checkpoint: str | None,
    precision: str,
) -> Views | None:
    """Return the views that a run's validation images ask for, None for the image alone, and log why.

    Args:
        path: The run's folder.
        info: What is known of its model.
        predicted: Gives for each of these images the probabilities of all views (`multi`), None where it has none.
        checkpoint: Of the run, another network than the chosen one.
        precision: What it computes in.

    Raises:
        SettingsError: It is no run with validation images that its model did not train on.
        DataError: None of them can be read.
    """
    run = validated_run(path, "`auto` chooses views by a run's validation images", "views")
    step = named_epoch(path, checkpoint).step if checkpoint else int((run.read(run.best) or {}).get("step", 0))
    choice = stored_choice(run, step=step, precision=precision)
    if choice is None:
        rows = own_rows(run, info.class_names or (), multilabel=info.output == "multilabel", split="val")
        _log.info("tta auto: looking at the run's %d validation images in all views", len(rows.paths))
        mirrored = learnt_mirrored(run)
        choice = choose_views(
            predicted(rows.paths), rows.labels, info.output, mirrored=mirrored, step=step, precision=precision
        )
        write_choice(run, choice)
    _log.info("tta auto: %s", choice.reason)
    return choice.views


def validated_run(path: str | Path, why: str, what: str) -> RunFolder:
    """Return the run in a folder, whose validation images its model did not train on.

    Args:
        path: The folder.
        why: Why it has to be a run, in a few words.
        what: What the images choose.

    Raises:
        SettingsError: It is a cross-validation, or something else.
    """
    if fold_runs(path):
        raise SettingsError(
            f"{str(path)!r} is a cross-validation, and each of its images was trained on by some of its networks.",
            f"validation images that none of them trained on, to choose {what} by",
            f"`--tta flip`, or one fold: `regraft predict {typed_path(Path(path) / 'fold-1')} IMAGES --tta auto`",
        )
    if not RunFolder(Path(path)).recipe.is_file():
        raise SettingsError(
            f"{str(path)!r} is not a run, and {why}.",
            "the folder that `regraft train` wrote",
            "name the run, or the views, as `--tta flip`",
        )
    return open_run(path)
