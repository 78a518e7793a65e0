"""One stage of a run: begun (frozen, with its optimizer), watched epoch by epoch, saved, audited at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from regraft import commit
from regraft.data.labels import are_multilabel
from regraft.data.mix import Mix
from regraft.data.pairs import class_pixels
from regraft.errors import DivergedError
from regraft.evaluate.measure import Measure, measure_for
from regraft.models.outputs import output_of
from regraft.models.program import split_program
from regraft.plan.audit import Snapshot
from regraft.plan.freeze import Freeze, freeze
from regraft.plan.length import image_work, length_of
from regraft.plan.losses import loss_terms
from regraft.plan.stages import Stage
from regraft.run.records import finite
from regraft.train.ahead import Wanted, look_ahead
from regraft.train.average import Average
from regraft.train.balance import class_weights, pixel_weights
from regraft.train.features import FeatureSource
from regraft.train.losses import build_loss, build_weigh
from regraft.train.optim import build_optimizer, set_rates
from regraft.train.schedule import EarlyStoppingState, PlateauState, is_better
from regraft.train.session import Session
from regraft.train.sizes import size_of
from regraft.train.state import Best, Progress, carry_over, group_values, load_weights, restore, start_tensors
from regraft.train.step import evaluate

__all__ = ["StageRun", "better_epoch", "is_over"]

_SAVE_SECONDS = 600.0
_MAX_SKIPPED = 20
_SOLUTIONS = 10  # at least so many heads are solved and validated


class StageRun:
    """One stage, from wherever the saved progress says.

    Args:
        session: The run.
        stage: What to do.

    Attributes:
        model: The model.
        optimizer: Over exactly what trains.
        program: The model, cut where its frozen part ends.
        source: Batches, as features at the end of the frozen part.
        output: What the model's logits mean.
        loss: What is minimised.
        measure: What the last validation took, once there was one.
        length: How many steps and epochs it takes at most.
    """

    def __init__(self, session: Session, stage: Stage) -> None:
        self.session, self.stage, self.progress = session, stage, session.progress
        session.engine = session.engine_of(stage.precision)
        self.model, self.engine, self.sinks = session.model, session.engine, session.sinks
        self.batch_size = stage.batch_size or session.batch_size
        self.num_images = len(session.labels["train"])
        self.engine.share(self.batch_size)
        self.length = length_of(stage, self.num_images, self.batch_size)
        self._image_work = image_work(stage, size_of(self.model))
        self.output = output_of(self.model)
        self.weights = self._class_weights()
        self.loss = build_loss(
            self.output,
            terms=loss_terms(stage.loss),
            label_smoothing=stage.label_smoothing,
            class_weights=self.weights,
        )
        self.weigh = build_weigh(self.output, self.weights, num_parts=stage.accumulate * self.engine.num_processes)
        self.average: Average | None = None
        self.measure: Measure | None = None
        self.saved_at = self.epoch_began = time.monotonic()
        self.has_saved = False
        self.num_skipped = 0

    @property
    def is_solved(self) -> bool:
        """Whether the stage is solved by L-BFGS instead of descended."""
        return self.stage.optimizer == "lbfgs"

    @property
    def num_steps(self) -> int:
        """Steps in the epoch that is going on: where a stage is so many steps long, its last epoch may be shorter."""
        done = self.progress.epoch * self.length.steps_per_epoch
        return min(self.length.steps_per_epoch, self.length.steps - done)

    def _class_weights(self) -> Tensor | None:
        wanted, names = self.stage.class_weights, self.session.class_names
        masks = self.session.pixels["train"].masks
        if masks is None:
            return class_weights(wanted, names, self.session.labels["train"])
        return pixel_weights(wanted, names, lambda: class_pixels(masks, len(names), self.engine.numerics.threads))

    def begin(self) -> None:
        """Take over weights, freeze, build the optimizer, restore what a resumed stage had."""
        resumed = self.progress.stage_started
        if not resumed:
            self._take_over_weights()
        if not self.progress.stop_requested:
            self.progress.stage_done = is_over(self.stage, self.progress)  # its rule may have been changed
        self.frozen = self._freeze()
        self.optimizer = self.engine.optimizer(build_optimizer(self.model, self.stage))
        self.groups = group_values(self.optimizer)
        self.snapshot = self._resume() if resumed else self._start()
        self.engine.require_still_norms(self.model.train(), self.stage.name)
        self.program = split_program(self.model)
        if not self.is_solved:
            self.program = self.engine.parallel(self.program)
        self.session.shelf.begin(self.progress.stage)
        self.source = self._source()
        self.progress.images_per_step = self.batch_size * self.stage.accumulate
        self.sinks.line(self._announcement())
        for line in self.source.notes():
            self.sinks.line(line)
        self.sinks.status("running", stage=self.stage.name, step=self.progress.step)
        self.session.callbacks.tell("on_stage_start", self)
        self.session.raise_failure()

    def _take_over_weights(self) -> None:
        """A stage starts from the best, or the last, state of the stage before."""
        best = self.progress.stage_best
        self.progress.start_step = self.progress.step
        if best is not None and (self.stage.start == "best" or self._before_restores_best()):
            self.progress.start_step = best.step
            self.session.wait_for_disk()
            load_weights(self.session.run_folder.checkpoint(best.step), self.model)
        self.progress.stage_best = None
        self.progress.early_stopping = self.progress.plateau = None

    def _before_restores_best(self) -> bool:
        rule = self.session.plan.stages[self.progress.stage - 1].early_stopping
        return rule is not None and rule.restore_best

    def _carry_over(self) -> None:
        """Parameters that trained before, by an optimizer of the same kind, keep its moments."""
        place = self.progress.stage
        if place == 0 or self.is_solved or self.session.plan.stages[place - 1].optimizer != self.stage.optimizer:
            return
        self.session.wait_for_disk()
        num = carry_over(self.session.run_folder.checkpoint(self.progress.start_step), self.optimizer)
        if num:
            self.sinks.line(f"{self.stage.name}: {num} tensors go on with their optimizer state")

    def _freeze(self) -> Freeze:
        frozen = freeze(self.model, self.stage.selectors, bn=self.stage.bn, trained=self.progress.trained_layers)
        self.progress.stage_layers = sorted(frozen.layers)
        self.engine.place(self.model)
        return frozen

    def _start(self) -> Snapshot:
        self._carry_over()
        snapshot = Snapshot.take(self.model, self.frozen)
        self.progress.digests = snapshot.digests
        self.progress.stage_started = True
        if self.stage.ema is not None:
            self.average = Average(self.model, self.frozen, self.stage.ema)
        return snapshot

    def _resume(self) -> Snapshot:
        folder, progress = self.session.run_folder, self.progress
        starts = start_tensors(folder.checkpoint(progress.start_step), self.model, self.frozen.trainable)
        extra, _ = restore(folder.checkpoint(progress.step), self.model, self.optimizer)
        self.engine.restore_scaler(progress.scaler)
        if self.stage.ema is not None:
            self.average = Average(self.model, self.frozen, self.stage.ema)
            self.average.restore_weights(extra)
        return Snapshot(self.frozen, progress.digests, starts)

    def _source(self) -> FeatureSource:
        stage, session = self.stage, self.session
        labels = session.labels["train"]
        alone = self.weights is not None and not stage.mixes and not are_multilabel(labels)
        return FeatureSource(
            self.model,
            self.program,
            {name: cache.sized(stage.size or cache.program.size) for name, cache in session.pixels.items()},
            session.labels,
            session.normaliser,
            self.engine.numerics,
            augment=stage.augment,
            mix=Mix(stage.mixup, stage.cutmix, len(session.class_names)) if stage.mixes else None,
            row_weights=self.weights.double().numpy()[labels] if alone and self.weights is not None else None,
            seed=session.seed,
            repeats=stage.sampling == "balanced",
            engine=self.engine,
            stage=self.progress.stage,
            epochs=_SOLUTIONS if self.is_solved else self.length.epochs,
            shelf=self.session.shelf,
            mode=self.session.feature_cache,
            ahead=self._look_ahead,
            check=self._on_feature_batch,
            say=self.sinks.line,
        )

    def _look_ahead(self) -> list[Wanted]:
        """What later stages will want of the photos."""
        trained = {*self.progress.trained_layers, *self.frozen.layers}
        return look_ahead(self.model, self.session.plan.stages, self.progress.stage, self.program, trained)

    def _on_feature_batch(self, units: float) -> None:
        if self.is_solved:
            self.advance(units, "features")
        if self.engine.num_processes == 1:  # several stop together, at the end of the pass
            self.stop_if_asked()

    def advance(self, num_images: float, doing: str, loss: float | None = None) -> None:
        """Take in images that passed through the network."""
        self.sinks.advance(self._image_work * num_images, f"{self.stage.name} {doing}", loss)

    # Epochs

    @property
    def step(self) -> int:
        """The number of the stage's next step, from 0."""
        return self.progress.epoch * self.length.steps_per_epoch + self.progress.batch

    def set_rates(self) -> dict[str, float]:
        """Set the learning rates of the next step, and return them by group."""
        scale = self.progress.plateau["scale"] if self.progress.plateau else 1.0
        return set_rates(self.optimizer, self.stage, self.step, self.length, scale=scale)

    def validate(self) -> dict[str, float]:
        """The measures of the validation split, with the prefix `val_`."""
        self.model.eval()
        measure = self.measure = measure_for(self.output, self.session.class_names)
        with self.average.applied() if self.average is not None else nullcontext():
            batches = self.source.evaluation("val")
            values = evaluate(self.engine, self.program, batches, measure, self._stop_in_validation)
        return {f"val_{name}": value for name, value in values.items()}

    def record(self, values: Mapping[str, float], **facts: Any) -> None:
        """Take in an epoch's measures: the best so far, the line in metrics.jsonl.

        Args:
            values: `train_loss` and the measures of the validation split.
            facts: What else stands in the line.
        """
        progress = self.progress
        value = values[self.session.monitor]
        epoch = Best(progress.step, self.stage.name, progress.epoch, value)
        rule = self.stage.early_stopping
        if rule is None or not rule.restore_best or self.is_solved:
            progress.stage_best = better_epoch(progress.stage_best, epoch, self.session.mode)
        if better_epoch(progress.best, epoch, self.session.mode) is epoch:
            thresholds = self.measure.thresholds() if self.measure is not None else {}
            progress.best = replace(epoch, thresholds=thresholds)
        record = {
            "stage": self.stage.name,
            "stage_index": progress.stage,
            "epoch": progress.epoch,
            "epochs": None if self.is_solved else self.length.epochs,
            "step": progress.step,
            **values,
            **facts,
            "seconds": round(time.monotonic() - self.epoch_began, 3),
        }
        progress.metrics_bytes = self.sinks.epoch(record)
        self.session.callbacks.tell("on_epoch_end", self, record)
        self.epoch_began = time.monotonic()

    def watch(self, values: Mapping[str, float]) -> None:
        """Early stopping and the plateau rule, each with its own metric."""
        progress, stage = self.progress, self.stage
        if stage.plateau is not None:
            plateau = PlateauState(**progress.plateau) if progress.plateau else PlateauState()
            if plateau.update(stage.plateau, values[stage.plateau.monitor], stage.learning_rate):
                self.sinks.line(f"{stage.name}: {stage.plateau.monitor} stands still, rate x {stage.plateau.factor}")
            progress.plateau = asdict(plateau)
        if stage.early_stopping is not None:
            rule = stage.early_stopping
            state = EarlyStoppingState(**(progress.early_stopping or {}))
            progress.stage_done = state.should_stop(rule, values[rule.monitor])
            progress.early_stopping = asdict(state)
            if rule.restore_best and state.improved:
                progress.stage_best = Best(progress.step, stage.name, progress.epoch, values[rule.monitor])
            if progress.stage_done and progress.epoch < self.length.epochs:
                self.sinks.line(f"{stage.name}: {rule.monitor} has not improved for {rule.patience} epochs, stage ends")
        if self.stop_requested():
            progress.stage_done = True
            if progress.epoch < self.length.epochs:
                self.sinks.line(f"{stage.name}: a callback asked for the end of the stage")

    def request_stop(self) -> None:
        """Let the stage end with the epoch that is going on (called between epochs: with the next one).

        The wish is part of the saved state: a run that is killed after it and resumed ends the stage at the same step.
        """
        self.progress.stop_requested = True

    def stop_requested(self) -> bool:
        """Whether a callback has asked for the end of the stage; all processes ask at the same place."""
        self.progress.stop_requested = self.engine.any(self.progress.stop_requested)
        return self.progress.stop_requested

    def require_steps_taken(self) -> None:
        """Look at whether loss scaling (fp16) let the optimizer step.

        Raises:
            DivergedError: It has not for many steps in a row.
        """
        self.num_skipped = self.num_skipped + 1 if self.engine.skipped(self.optimizer) else 0
        if self.num_skipped >= _MAX_SKIPPED:
            raise DivergedError(
                f"The gradient was not finite in {self.num_skipped} steps in a row, up to {self.where()}.",
                "In fp16 a step is skipped now and then, until the loss scale is low enough.",
                "Lower the learning rate, set `clip_norm: 1.0`, or compute in bf16 or fp32.",
            )

    # The end, and the disk

    def finish(self) -> None:
        """Audit the stage, write the audit, and save that it has ended.

        Raises:
            AuditError: Something frozen moved, or the optimizer held something else than what trains.
        """
        progress = self.progress
        if self.average is not None:
            self.average.settle()
            self.average = None
        audit = self.snapshot.audit(self.model, self.optimizer, progress.gradient_norms, stage=self.stage.name)
        folder = self.session.run_folder
        stages = (folder.read(folder.audit) or {"stages": []})["stages"]
        if self.engine.is_main:
            commit.write_json(folder.audit, {"stages": [*stages[: progress.stage], finite(audit.to_dict())]})
        audit.raise_if_violated()
        if not self.is_solved:
            left = self.length.epochs - progress.epoch
            self.sinks.skip(self._image_work * left * (self.num_images + len(self.session.labels["val"])))
        self.sinks.line(
            f"{self.stage.name}: audit ok, {len(audit.frozen)} frozen tensors byte-identical, "
            f"{len(audit.trainable)} trained"
        )
        self.sinks.tell_bottleneck(self.stage.name)
        self.session.callbacks.tell("on_stage_end", self)
        progress.stage_ended = True
        self.snapshot.starts.clear()
        self.save()

    def save_between_steps(self) -> None:
        """Inside an epoch: save when asked to stop, at every `save_steps`, and after a long time without."""
        every = self.session.save_steps
        due = every is not None and self.progress.step % every == 0
        session = self.session
        late = time.monotonic() - self.saved_at > _SAVE_SECONDS
        lost, stop = session.saver.look(), session.stop.requested
        flags = self.engine.sum(due, late, stop, lost, session.callbacks.has_failed)
        due, late, asked, lost, failed = (num > 0 for num in flags)
        if lost:
            session.wait_for_disk()
        if due or late or asked or failed:
            self.save()
        if asked:
            raise self.session.stopped()

    def save(self) -> None:
        """Begin a checkpoint of this moment.

        Raises:
            RegraftError: A callback has failed; its error waited for the state to be saved.
        """
        self.progress.scaler = self.engine.scaler_state()
        self.progress.callbacks = self.session.callbacks.state()
        saver, average = self.session.saver, self.average
        kept = {} if average is None else {"weights": average.averages, "extra": average.weights}
        self.engine.from_main(lambda: saver.save(self.model, self.optimizer, self.progress, groups=self.groups, **kept))
        self.saved_at, self.has_saved = time.monotonic(), True
        self.session.raise_failure()

    def _stop_in_validation(self) -> None:
        """A stop between the last step of an epoch and its record: the epoch's steps are saved, validation is not."""
        asked = self.session.stop_requested()
        if asked and not self.is_solved:
            self.save()
        if asked:
            raise self.session.stopped()

    def stop_if_asked(self) -> None:
        """Raise StoppedError when a signal has come."""
        if self.session.stop_requested():
            raise self.session.stopped()

    def where(self) -> str:
        """The place of the next step, for error messages."""
        return f"stage {self.stage.name!r}, epoch {self.progress.epoch + 1}, step {self.progress.step + 1}"

    def _announcement(self) -> str:
        num = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        how = "solved by lbfgs" if self.is_solved else f"{self.stage.optimizer}, at most {self.length.epochs} epochs"
        return (
            f"stage {self.stage.name}: {', '.join(self.stage.selectors)} trains ({len(self.frozen.trainable)} tensors, "
            f"{num:,} parameters), {how}"
        )


def better_epoch(best: Best | None, epoch: Best, mode: str) -> Best | None:
    """The better of the best epoch so far and a new one, as Keras's ModelCheckpoint(save_best_only=True) decides.

    Ties keep the earlier one. Unlike there, an epoch whose value is NaN is never the best, not even the first.
    """
    if math.isnan(epoch.value):
        return best
    return epoch if is_better(epoch.value, best.value if best is not None else None, mode) else best


def is_over(stage: Stage, progress: Progress) -> bool:
    """Whether early stopping, as the stage has it now, ends it where it stands."""
    rule, state = stage.early_stopping, progress.early_stopping
    return rule is not None and state is not None and EarlyStoppingState(**state).is_over(rule)
