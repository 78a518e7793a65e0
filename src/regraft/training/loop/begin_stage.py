"""Begin a stage: take over weights, freeze, build the optimizer, restore what a resumed stage had."""

from __future__ import annotations

from torch.optim import Optimizer

from regraft.compute.program import SplitProgram, split_program
from regraft.data.labels import are_multilabel
from regraft.models.describe.outputs import output_of
from regraft.plan.freezing.audit import Snapshot
from regraft.plan.freezing.freeze import Freeze, freeze
from regraft.plan.length import length_of
from regraft.settings.stage import Stage
from regraft.training.checkpoint.stage_end import is_over
from regraft.training.checkpoint.state import carry_over, group_values, load_weights, restore, start_tensors
from regraft.training.features.feature_pass import Keeping
from regraft.training.features.features import FeatureSource
from regraft.training.features.lookahead import Wanted, look_ahead
from regraft.training.features.variation import Variation
from regraft.training.loop.checkpoints import StageState
from regraft.training.loop.session import Session
from regraft.training.loop.stage_run import StageRun
from regraft.training.objective.average import Average
from regraft.training.objective.objective import Objective, build_objective, logit_adjustment, loss_weights
from regraft.training.objective.optim import build_optimizer
from regraft.wording import quantity

__all__ = ["begin_stage"]

_SOLUTIONS = 10  # at least so many heads are solved and validated


def begin_stage(session: Session, stage: Stage) -> StageRun:
    """Return a stage's run, complete: frozen, with its optimizer and its batches, at the step that the progress says.

    Raises:
        SettingsError: Several processes cannot share its batches, or their batch norms.
        RegraftError: A callback has failed.
    """
    progress, model = session.progress, session.model
    engine = session.use_engine_of(stage)
    batch_size = stage.batch_size or session.options.batch_size
    engine.require_shareable(batch_size)
    objective = _objective(session, stage)
    state = _state(session, stage)
    engine.require_still_norms(model.train(), stage.name)
    program = split_program(model)
    if stage.optimizer != "lbfgs":
        program = engine.parallel(program)
    source = _source(session, stage, state.frozen, objective, program)
    progress.images_per_step = batch_size * stage.accumulate
    run = StageRun(session, stage, state, objective, program, source)
    for line in (_announcement(run), *source.kept.notes()):
        session.sinks.line(line)
    session.sinks.status("running", stage=stage.name, step=progress.step)
    session.callbacks.tell("on_stage_start", run)
    session.checkpoints.raise_failure()
    return run


def _objective(session: Session, stage: Stage) -> Objective:
    images, engine = session.images, session.engine
    masks, threads = images.pixels["train"].masks, engine.numerics.threads
    weights = loss_weights(stage, images.class_names, images.labels["train"], masks, threads=threads)
    output = output_of(session.model)
    adjustment = logit_adjustment(stage, output, images.class_names, images.labels["train"])
    return build_objective(stage, output, weights, num_processes=engine.num_processes, adjustment=adjustment)


def _state(session: Session, stage: Stage) -> StageState:
    """Return the state of the stage: carried over from the stage before, or restored from the checkpoint."""
    progress, model = session.progress, session.model
    resumed = progress.stage_started
    if not resumed:
        _take_over_weights(session, stage)
    if not progress.stop_requested:
        progress.stage_done = is_over(stage, progress)  # its rule may have been changed
    frozen = freeze(model, stage.selectors, bn=stage.bn, trained=progress.trained_layers)
    progress.stage_layers = sorted(frozen.layers)
    session.engine.place(model)
    optimizer = session.engine.optimizer(build_optimizer(model, stage))
    groups = group_values(optimizer)
    snapshot, average = (_restored if resumed else _started)(session, stage, frozen, optimizer)
    return StageState(frozen, optimizer, groups, snapshot, average)


def _take_over_weights(session: Session, stage: Stage) -> None:
    """Start from the best, or the last, state of the stage before."""
    progress = session.progress
    best = progress.stage_best
    progress.start_step = progress.step
    if best is not None and (stage.start == "best" or _before_restores_best(session)):
        progress.start_step = best.step
        session.checkpoints.wait()
        load_weights(session.run_folder.checkpoint(best.step), session.model)
    progress.stage_best = None
    progress.early_stopping = progress.plateau = None


def _before_restores_best(session: Session) -> bool:
    rule = session.plan.stages[session.progress.stage - 1].early_stopping
    return rule is not None and rule.restore_best


def _started(session: Session, stage: Stage, frozen: Freeze, optimizer: Optimizer) -> tuple[Snapshot, Average | None]:
    _carry_over(session, stage, optimizer)
    snapshot = Snapshot.take(session.model, frozen)
    session.progress.digests = snapshot.digests
    session.progress.stage_started = True
    return snapshot, None if stage.ema is None else Average(session.model, frozen, stage.ema)


def _restored(session: Session, stage: Stage, frozen: Freeze, optimizer: Optimizer) -> tuple[Snapshot, Average | None]:
    run, progress, model = session.run_folder, session.progress, session.model
    starts = start_tensors(run.checkpoint(progress.start_step), model, frozen.trainable)
    extra, _ = restore(run.checkpoint(progress.step), model, optimizer)
    session.engine.restore_scaler(progress.scaler)
    snapshot = Snapshot(frozen, progress.digests, starts)
    if stage.ema is None:
        return snapshot, None
    average = Average(model, frozen, stage.ema)
    average.restore_weights(extra)
    return snapshot, average


def _carry_over(session: Session, stage: Stage, optimizer: Optimizer) -> None:
    """Carry over the moments of parameters that an optimizer of the same kind trained before."""
    place, stages = session.progress.stage, session.plan.stages
    if place == 0 or stage.optimizer == "lbfgs" or stages[place - 1].optimizer != stage.optimizer:
        return
    session.checkpoints.wait()
    num = carry_over(session.run_folder.checkpoint(session.progress.start_step), optimizer)
    if num:
        session.sinks.line(f"{stage.name}: optimizer state carried over for {quantity(num, 'tensor')}")


def _source(
    session: Session, stage: Stage, frozen: Freeze, objective: Objective, program: SplitProgram
) -> FeatureSource:
    """Return the stage's batches; what they keep lies in the run's feature store."""
    progress, options = session.progress, session.options
    labels, is_solved = session.labels["train"], stage.optimizer == "lbfgs"
    weights, row_weights = objective.class_weights, None
    if weights is not None and not stage.mixes and not are_multilabel(labels):
        row_weights = weights.double().numpy()[labels]
    length = length_of(stage, len(labels), stage.batch_size or options.batch_size)
    session.features.begin(progress.stage)

    def wanted_later() -> list[Wanted]:
        trained = {*progress.trained_layers, *frozen.layers}
        return look_ahead(session.model, session.plan.stages, progress.stage, program, trained)

    def check(num_images: float) -> None:
        session.advance(stage, "features", num_images, "features")
        if session.engine.num_processes == 1:  # several stop together, at the end of the pass
            session.checkpoints.stop_if_asked()

    keeping = Keeping(
        options.feature_cache,
        session.features,
        progress.stage,
        _SOLUTIONS if is_solved else length.epochs,
        wanted_later,
        check,
        session.sinks.line,
    )
    variation = Variation.of(stage, options.seed, len(session.class_names), row_weights)
    images = session.images.sized(stage.size, train=stage.train_size)
    return FeatureSource(session.model, program, images, session.engine, variation, keeping)


def _announcement(run: StageRun) -> str:
    stage, frozen = run.stage, run.frozen
    num = sum(parameter.numel() for parameter in run.model.parameters() if parameter.requires_grad)
    how = "fit with L-BFGS" if run.is_solved else f"{stage.optimizer}, at most {quantity(run.length.epochs, 'epoch')}"
    return (
        f"stage {stage.name}: training {', '.join(stage.selectors)}, {quantity(num, 'parameter')} in "
        f"{quantity(len(frozen.trainable), 'tensor')}; {how}"
    )
