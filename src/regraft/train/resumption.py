"""A run that goes on: where it stands, its settings held against those that it began with, its records cut to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regraft import commit
from regraft.data.cache import PixelCache
from regraft.errors import DataError, SettingsError
from regraft.run.changes import (
    Place,
    accepted_recipe,
    changed_environment,
    differences,
    record_change,
    require_allowed,
)
from regraft.run.folder import RunFolder
from regraft.run.records import cut_metrics
from regraft.train.records import environment, recipe_text
from regraft.train.saver import latest_checkpoint, settle
from regraft.train.state import Progress, read_progress

__all__ = ["require_same_images", "take_up"]


def take_up(
    run: RunFolder,
    recipe: Mapping[str, Any],
    *,
    allow_change: Sequence[str],
    num_images: int,
    batch_size: int,
    say: Callable[[str], None],
) -> Progress:
    """The newest whole checkpoint's place, after the settings were compared; an allowed change is recorded.

    Args:
        run: The run folder, locked.
        recipe: The resolved settings to go on with.
        allow_change: Keys of settings that may differ from the run's.
        num_images: Training images.
        batch_size: Of stages that do not say.
        say: What tells people a line.

    Raises:
        SettingsError: Settings differ that nobody allowed, or that cannot.
        StorageError: No checkpoint is whole, or a record cannot be written.
    """
    run.sweep()
    progress = read_progress(latest_checkpoint(run))
    before = run.settings() if not progress.recipe or accepted_recipe(run) else progress.recipe
    changes = differences(before, recipe)
    place = Place(progress.stage, progress.stage_started, progress.stage_ended)
    require_allowed(run, changes, allow_change, place, [stage["name"] for stage in before["stages"]])
    _require_raw_weights(progress, changes, recipe["stages"][progress.stage])
    _move_to_batch(progress, images_per_step(recipe["stages"][progress.stage], batch_size), num_images)
    if changes:
        text = recipe_text(recipe)
        record_change(run, "asked", progress.step, changes, recipe=text)
        commit.write_text(run.recipe, text)
        for key, (old, new) in changes.items():
            say(f"changed from here on: {key}, {old} before, {new} now")
    _tell_environment(run, progress, say)
    progress.recipe = dict(recipe)
    return progress


def _require_raw_weights(progress: Progress, changes: Mapping[str, Any], stage: Mapping[str, Any]) -> None:
    """Refuse to make a stage longer whose weights have given way to their average.

    Raises:
        SettingsError: It has ended, and it kept an average.
    """
    of_stage = [key for key in changes if key.startswith(f"stages.{progress.stage}.")]
    if of_stage and progress.stage_ended and stage.get("ema") is not None:
        raise SettingsError(
            f"The stage {stage['name']!r} has ended with the average of its weights (ema), and cannot be made longer.",
            "Expected a stage that goes on from its own weights.",
            f"Add a further stage: `--set 'stages.{progress.stage + 1}={{name: more, train: all}}'`.",
        )


def images_per_step(stage: Mapping[str, Any], batch_size: int) -> int:
    """Images whose gradients make one optimizer step."""
    return int(stage.get("batch_size") or batch_size) * int(stage.get("accumulate") or 1)


def _move_to_batch(progress: Progress, per_step: int, num_images: int) -> None:
    """Inside an epoch, count the images that were seen in steps of another size.

    Raises:
        SettingsError: They are no whole number of such steps.
    """
    if progress.images_per_step in (0, per_step) or progress.batch == 0:
        return
    seen = progress.num_images
    if seen % per_step and seen < num_images:
        raise SettingsError(
            f"The run stands inside an epoch, after {seen} images, which are no whole number of steps of {per_step}.",
            f"Each image is seen once in an epoch; until now a step had {progress.images_per_step} images.",
            f"Choose a batch size that divides {seen}, or let the run come to the end of the epoch first.",
        )
    progress.batch = -(-seen // per_step)


def _tell_environment(run: RunFolder, progress: Progress, say: Callable[[str], None]) -> None:
    changes = changed_environment(run, environment())
    if not changes:
        return
    said = ", ".join(f"{key} {new} (before: {old})" for key, (old, new) in changes.items())
    say(
        f"this is not what the run was computed with so far: {said}; it goes on in the same order, not to the same bits"
    )
    record_change(run, "environment", progress.step, changes)


def require_same_images(run: RunFolder, progress: Progress, pixels: Mapping[str, PixelCache]) -> None:
    """Hold the images against those that the run began with; then take back what was written after the checkpoint.

    Raises:
        DataError: Other images.
        StorageError: The records cannot be written.
    """
    fingerprint = "-".join(pixels[name].fingerprint()[:16] for name in ("train", "val"))
    progress.fingerprint = progress.fingerprint or fingerprint
    if progress.fingerprint != fingerprint:
        raise DataError(
            "The training or validation images have changed since this run began.",
            "A resumed run needs the same images, so that it ends in the same result.",
            "Put the files back, or train again into a new folder.",
        )
    cut_metrics(run.metrics, progress.metrics_bytes)
    settle(run, progress)
