"""Whether the stage that a run stands in is over, or goes on because its settings were changed since."""

from __future__ import annotations

from regraft import commit
from regraft.errors import SettingsError
from regraft.plan.length import Length
from regraft.run.folder import RunFolder
from regraft.settings.stage import Stage
from regraft.training.checkpoint.state import Progress, holds_extra, read_progress
from regraft.training.objective.schedule import EarlyStoppingState

__all__ = ["has_epochs_left", "is_over", "reopened"]


def is_over(stage: Stage, progress: Progress) -> bool:
    """Return whether early stopping, as the stage has it now, ends it at this point."""
    rule, state = stage.early_stopping, progress.early_stopping
    return rule is not None and state is not None and EarlyStoppingState(**state).is_over(rule)


def has_epochs_left(stage: Stage, progress: Progress, length: Length) -> bool:
    """Return whether a stage that has ended has epochs left, because its length or its early stopping was changed
    since.
    """
    if stage.optimizer == "lbfgs" or progress.stop_requested:
        return False
    return progress.epoch < length.epochs and not is_over(stage, progress)


def reopened(run: RunFolder, progress: Progress, stage: Stage) -> Progress:
    """Return where a stage that has ended continues from: its last epoch, without the interpolation or soup after it.

    Args:
        run: The run folder.
        progress: At the end of the stage; may be edited in place.
        stage: The stage.

    Raises:
        SettingsError: The weights that training left are not on the disk.
    """
    trained = run.checkpoint(progress.trained_step)
    if commit.damage(trained) is not None or (stage.ema is not None and not holds_extra(trained)):
        raise SettingsError(
            f"The stage {stage.name!r} cannot be extended: its checkpoint {trained.name} is damaged, or of an earlier "
            "version of regraft, which kept no raw weights at a stage's end.",
            "the weights that its last epoch ended with",
            f"add a further stage: `--set 'stages.{progress.stage + 1}={{name: more, train: all}}'`",
        )
    if progress.is_merged:
        return read_progress(trained)
    progress.stage_ended = False
    if progress.bytes_before_interpolation:
        progress.metrics_bytes, progress.bytes_before_interpolation = progress.bytes_before_interpolation, 0
    else:
        progress.start_step = progress.step  # what its audit counts from: the checkpoint that it began with is gone
    return progress
