"""A whole run: its stages one after the other, from wherever the saved progress says."""

from __future__ import annotations

from regraft.errors import SettingsError
from regraft.plan.length import length_of
from regraft.plan.stages import Stage
from regraft.train.descend import descend
from regraft.train.session import Session
from regraft.train.solve import solve
from regraft.train.stage_run import StageRun, is_over
from regraft.train.state import Best, load_weights

__all__ = ["run_stages", "stage_work"]


def run_stages(session: Session) -> Best:
    """Carry out what is left of the plan; returns the best epoch, whose weights the model then has.

    Raises:
        StoppedError: A signal came; the state is saved.
        DivergedError: A loss or a gradient is not finite.
        StorageError: A checkpoint could not be written.
    """
    while (stage := _next_stage(session)) is not None:
        run = StageRun(session, stage)
        run.begin()
        (solve if run.is_solved else descend)(run)
        run.finish()
    session.wait_for_disk()
    best = session.progress.best
    if best is None:
        raise SettingsError(
            f"No epoch of this run has a finite {session.monitor}.",
            "At least one epoch with a finite value is needed to choose the best by.",
            "Lower the learning rate and train again.",
        )
    load_weights(session.run_folder.checkpoint(best.step), session.model)
    return best


def _next_stage(session: Session) -> Stage | None:
    """The stage to go on with or to begin; None when the last one has ended."""
    progress, stages = session.progress, session.plan.stages
    if progress.stage_ended and _has_become_longer(stages[progress.stage], session):
        progress.stage_ended = False
        progress.start_step = progress.step  # what its audit counts from: the checkpoint that it began with is gone
    if progress.stage_ended:
        if progress.stage + 1 >= len(stages):
            return None
        progress.enter_next_stage()
    return stages[progress.stage]


def _has_become_longer(stage: Stage, session: Session) -> bool:
    """Whether a stage that has ended has epochs left, because its length or its early stopping was changed since."""
    progress = session.progress
    if stage.optimizer == "lbfgs" or progress.stop_requested:
        return False
    length = length_of(stage, len(session.labels["train"]), stage.batch_size or session.batch_size)
    return progress.epoch < length.epochs and not is_over(stage, progress)


def stage_work(stage: Stage, num_train: int, num_val: int, batch_size: int) -> float:
    """The work of a stage, in images that pass once through the network.

    Args:
        num_train: Images to train on.
        num_val: Images to validate on.
        batch_size: Of stages that do not say.
    """
    if stage.optimizer == "lbfgs":
        return float(num_train + num_val)
    length = length_of(stage, num_train, stage.batch_size or batch_size)
    return length.steps / length.steps_per_epoch * num_train + length.epochs * num_val
