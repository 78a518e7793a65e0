"""A run that goes on: where it stands, its settings held against those that it began with, its records cut to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft import commit
from regraft.data.cache.cache import PixelCache
from regraft.errors import DataError, SettingsError
from regraft.plan.length import length_of
from regraft.run.changes import (
    Changes,
    RunPosition,
    accepted_recipe,
    changed_environment,
    differences,
    record_change,
    require_allowed,
)
from regraft.run.folder import RunFolder
from regraft.run.records import cut_metrics
from regraft.settings.stage import Stage
from regraft.training.checkpoint.records import environment, recipe_text
from regraft.training.checkpoint.saver import latest_checkpoint, settle
from regraft.training.checkpoint.stage_end import has_epochs_left, reopened
from regraft.training.checkpoint.state import Progress, read_progress
from regraft.wording import quantity

__all__ = ["Resumption", "look_up", "require_same_images", "take_up"]


@dataclass(frozen=True)
class Resumption:
    """A run that may go on, once its images are known to be the same: nothing is written yet.

    Attributes:
        progress: Where it stands.
        changes: In what they differ from the run's.
    """

    progress: Progress
    changes: Changes


def look_up(run: RunFolder, recipe: Mapping[str, Any], allow_change: Sequence[str], num_images: int) -> Resumption:
    """Return the progress at the newest intact checkpoint, and the changed settings; writes nothing.

    Args:
        run: The run folder, locked.
        recipe: The resolved settings to go on with.
        allow_change: Keys of settings that may differ from the run's.
        num_images: Training images.

    Raises:
        SettingsError: Settings differ that nobody allowed, or that cannot.
        StorageError: No checkpoint is whole.
    """
    _require_trained(run)
    batch_size = recipe["data"]["batch_size"]  # of stages that do not say
    progress = read_progress(latest_checkpoint(run))
    before = run.settings() if not progress.recipe or accepted_recipe(run) else progress.recipe
    changes = differences(before, recipe)
    position = RunPosition(progress.stage, progress.stage_started, progress.stage_ended)
    require_allowed(run, changes, allow_change, position, [stage["name"] for stage in before["stages"]])
    values = recipe["stages"][progress.stage]
    stage = Stage(**values)
    _move_to_batch(progress, images_per_step(values, batch_size), num_images)
    _require_a_length(run, progress, changes, stage, num_images, batch_size)
    length = length_of(stage, num_images, stage.batch_size or batch_size)
    if progress.stage_ended and has_epochs_left(stage, progress, length):
        progress = reopened(run, progress, stage)
    progress.recipe = dict(recipe)
    return Resumption(progress, changes)


def _require_trained(run: RunFolder) -> None:
    """Refuse a run whose classes were added without training: it has no checkpoint to go on from.

    Raises:
        SettingsError: It is one.
    """
    if run.additions.exists() and not run.checkpoint_steps():
        raise SettingsError(
            f"The run {str(run.path)!r} was made by add-class, not trained, so it cannot be trained further.",
            "a run that `regraft train` made",
            "train the one that the classes were added to, or a new run on all images",
        )


def take_up(run: RunFolder, found: Resumption, say: Callable[[str], None]) -> None:
    """Record the resumption: note an allowed change, and cut records back to the checkpoint.

    Args:
        run: The run folder, locked.
        found: What `look_up` gave; its images are the same.
        say: What tells people a line.

    Raises:
        StorageError: A record cannot be written.
    """
    run.sweep()
    progress = found.progress
    if found.changes:
        text = recipe_text(progress.recipe)
        record_change(run, "asked", progress.step, found.changes, recipe=text)
        commit.write_text(run.recipe, text)
        for key, (old, new) in found.changes.items():
            say(f"{key}: {old} → {new}")
    _tell_environment(run, progress, say)
    cut_metrics(run.metrics, progress.metrics_bytes)
    settle(run, progress)


def _require_a_length(
    run: RunFolder, progress: Progress, changes: Changes, stage: Stage, num_images: int, batch_size: int
) -> None:
    """Refuse another length of a stage that has begun where it is less than what was done, or would do nothing.

    Raises:
        SettingsError: It is.
    """
    asked = {f"stages.{progress.stage}.{key}": key for key in ("epochs", "steps", "early_stopping")}
    lines = {key: pair for key, pair in changes.items() if any(key == a or key.startswith(f"{a}.") for a in asked)}
    if not lines or not progress.stage_started:
        return
    length = length_of(stage, num_images, stage.batch_size or batch_size)
    done = progress.epoch * length.steps_per_epoch + progress.batch
    reason, trained = "", quantity(progress.epoch, "epoch")
    if stage.optimizer != "lbfgs" and length.steps < done:
        reason = f"the stage {stage.name!r} has trained {trained} ({quantity(done, 'step')}), which are not undone"
    elif progress.stage_ended and not has_epochs_left(stage, progress, length):
        reason = f"the stage {stage.name!r} has ended after {trained}, so the change would do nothing"
    if reason:
        raise SettingsError(
            f"The run {str(run.path)!r} cannot be resumed with these changes.",
            "a stage that has begun can only be extended beyond what it has already trained",
            "take them back, add a further stage, or train a new run",
            details=[f"{key}: {pair[0]} in the run, {pair[1]} now; {reason}" for key, pair in lines.items()],
        )


def images_per_step(stage: Mapping[str, Any], batch_size: int) -> int:
    """Return the number of images whose gradients make one optimizer step."""
    return int(stage.get("batch_size") or batch_size) * int(stage.get("accumulate") or 1)


def _move_to_batch(progress: Progress, per_step: int, num_images: int) -> None:
    """Count, inside an epoch, the images that were seen in steps of another size.

    Raises:
        SettingsError: They are no whole number of such steps.
    """
    if progress.images_per_step in (0, per_step) or progress.batch == 0:
        return
    seen = progress.num_images
    if seen % per_step and seen < num_images:
        raise SettingsError(
            f"The run stands inside an epoch, after {quantity(seen, 'image')}: no whole number of steps of {per_step}.",
            f"each image is seen once in an epoch; until now a step had {quantity(progress.images_per_step, 'image')}",
            f"choose a batch size that divides {seen}, or let the run come to the end of the epoch first",
        )
    progress.batch = -(-seen // per_step)


def _tell_environment(run: RunFolder, progress: Progress, say: Callable[[str], None]) -> None:
    changes = changed_environment(run, environment())
    if not changes:
        return
    said = ", ".join(f"{key} {old} → {new}" for key, (old, new) in changes.items())
    say(f"environment changed ({said}); resuming is not bit-exact")
    record_change(run, "environment", progress.step, changes)


def require_same_images(progress: Progress, pixels: Mapping[str, PixelCache]) -> None:
    """Compare the images with those that the run began with; writes nothing.

    Raises:
        DataError: Other images.
    """
    fingerprint = "-".join(pixels[name].fingerprint()[:16] for name in ("train", "val"))
    progress.fingerprint = progress.fingerprint or fingerprint
    if progress.fingerprint != fingerprint:
        raise DataError(
            "The training or validation images have changed since this run began.",
            "a resumed run needs the same images, so that it ends in the same result",
            "put the files back, or train again into a new folder",
        )
