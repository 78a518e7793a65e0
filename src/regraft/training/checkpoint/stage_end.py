"""Whether the stage that a run stands in is over, or goes on because its settings were changed since."""

from __future__ import annotations

from regraft.plan.length import Length
from regraft.settings.stage import Stage
from regraft.training.checkpoint.state import Progress
from regraft.training.objective.schedule import EarlyStoppingState

__all__ = ["has_epochs_left", "is_over"]


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
