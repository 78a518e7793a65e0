"""The training loop: stages, epochs, steps; saved at step boundaries, audited at stage ends, resumable anywhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from regraft import commit
from regraft.data.cache import PixelCache
from regraft.data.random import permutation
from regraft.errors import SettingsError, StoppedError
from regraft.models.inputs import Normaliser
from regraft.models.program import SplitProgram, split_program
from regraft.plan.audit import Snapshot
from regraft.plan.freeze import Freeze, freeze
from regraft.plan.stages import Plan, Stage
from regraft.run.folder import RunFolder
from regraft.run.records import finite
from regraft.train.engine import Engine
from regraft.train.features import FeatureSource
from regraft.train.lbfgs import solve_head
from regraft.train.optim import build_optimizer, set_rates
from regraft.train.schedule import EarlyStoppingState, PlateauState, is_better, rate_factor
from regraft.train.sinks import Sinks
from regraft.train.state import Best, Progress, load_weights, restore, save
from regraft.train.step import Evaluation, evaluate, seed_step, training_step
from regraft.train.stop import StopFlag

__all__ = ["Loop", "stage_work", "stopped"]

Indices = npt.NDArray[np.int64]
_EPOCHS_PER_STAGE = 1_000_000  # keeps the counters of different stages apart
_SAVE_SECONDS = 600.0


@dataclass
class Loop:
    """One run of a plan over a data set whose pixels are decoded; `run()` is the whole of it.

    Attributes:
        model: The adapted model; it is trained in place.
        plan: The stages.
        run_folder: Where everything is written.
        pixels: Decoded images by split; `train` and `val` are needed.
        labels: Their labels by split.
        normaliser: Pixels -> network input.
        engine: Device, autocast, loss scaling.
        sinks: Where news goes.
        stop: The signal flag.
        seed: Of order, augmentation and dropout.
        batch_size: Of stages that do not say.
        monitor: The metric of an epoch that selects the best.
        mode: `min` or `max`.
        save_steps: Save at every so many steps as well; None saves at epoch ends and every ten minutes.
        progress: Where the run stands.
    """

    model: nn.Module
    plan: Plan
    run_folder: RunFolder
    pixels: Mapping[str, PixelCache]
    labels: Mapping[str, Indices]
    normaliser: Normaliser
    engine: Engine
    sinks: Sinks
    stop: StopFlag
    seed: int
    batch_size: int
    monitor: str
    mode: str
    save_steps: int | None = None
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Best:
        """Carry out what is left of the plan; returns the best epoch, whose weights the model then has.

        Raises:
            StoppedError: A signal came; the state is saved.
            DivergedError: A loss or a gradient is not finite.
            StorageError: A checkpoint could not be written.
        """
        while self.progress.stage < len(self.plan):
            _StageLoop(self, self.plan.stages[self.progress.stage]).run()
        best = self.progress.best
        if best is None:
            raise SettingsError(
                f"No epoch of this run has a finite {self.monitor}.",
                "At least one epoch with a finite value is needed to choose the best by.",
                "Lower the learning rate and train again.",
            )
        load_weights(self.run_folder.checkpoint(best.step), self.model)
        return best


class _StageLoop:
    """One stage of a run, from wherever the saved progress says."""

    def __init__(self, loop: Loop, stage: Stage) -> None:
        self.loop, self.stage, self.progress = loop, stage, loop.progress
        self.model, self.engine, self.sinks = loop.model, loop.engine, loop.sinks
        self.batch_size = stage.batch_size or loop.batch_size
        self.order_size = len(loop.labels["train"])
        self.steps_per_epoch = -(-self.order_size // self.batch_size)
        self.gradient_norms: dict[str, float] = {}
        self.saved_at = self.epoch_began = time.monotonic()

    def run(self) -> None:
        resumed = self.progress.stage_started
        if not resumed:
            self._take_over_weights()
        self.frozen = self._freeze()
        self.optimizer = self.engine.optimizer(build_optimizer(self.model, self.stage))
        self.snapshot = self._snapshot(resumed)
        self.program = split_program(self.model)
        self.source = self._source(self.program)
        self.sinks.line(self._announcement())
        self.sinks.status("running", stage=self.stage.name, step=self.progress.step)
        if self.stage.optimizer == "lbfgs":
            self._solve()
        else:
            self._descend()
        self._finish()

    def _take_over_weights(self) -> None:
        """A stage starts from the best, or the last, state of the stage before."""
        best = self.progress.stage_best
        if self.stage.start == "best" and best is not None:
            load_weights(self.loop.run_folder.checkpoint(best.step), self.model)
        self.progress.stage_best = None
        self.progress.early_stopping = self.progress.plateau = None

    def _freeze(self) -> Freeze:
        frozen = freeze(self.model, self.stage.selectors, bn=self.stage.bn, trained=self.progress.trained_layers)
        self.engine.place(self.model)
        return frozen

    def _snapshot(self, resumed: bool) -> Snapshot:
        if not resumed:
            snapshot = Snapshot.take(self.model, self.frozen)
            self.progress.digests = snapshot.digests
            self.progress.stage_started = True
            return snapshot
        path = self.loop.run_folder.checkpoint(self.progress.step)
        starts, _ = restore(path, self.model, self.optimizer)
        return Snapshot(self.frozen, self.progress.digests, starts)

    def _source(self, program: SplitProgram) -> FeatureSource:
        return FeatureSource(
            program,
            self.loop.pixels,
            self.loop.labels,
            self.loop.normaliser,
            self.engine.numerics,
            augment=self.stage.augment,
            seed=self.loop.seed,
            check=self._on_feature_batch,
        )

    def _on_feature_batch(self, units: float) -> None:
        if self.stage.optimizer == "lbfgs":
            self.sinks.advance(units, f"{self.stage.name}: features")
        self._stop_if_asked()

    # Gradient descent

    def _descend(self) -> None:
        while self.progress.epoch < self.stage.epochs and not self.progress.stage_done:
            self._epoch()

    def _epoch(self) -> None:
        progress, started, first = self.progress, time.monotonic(), self.progress.num_images
        order_epoch = progress.stage * _EPOCHS_PER_STAGE + progress.epoch
        order = permutation(self.loop.seed, order_epoch, self.order_size)
        batches = self.source.training(order, epoch=order_epoch, batch_size=self.batch_size, start_batch=progress.batch)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.model.train()
        rates: dict[str, float] = {}
        for features, labels in batches:
            rates = set_rates(self.optimizer, self._rate_factor())
            seed_step(self.loop.seed, progress.step)
            loss = training_step(
                self.engine, self.program, features, labels, self.stage, parameters, self.optimizer, self._where
            )
            progress.step += 1
            progress.batch += 1
            progress.num_images += len(labels)
            progress.loss_sum += loss * len(labels)
            self.sinks.advance(len(labels), f"{self.stage.name} {progress.epoch + 1}/{self.stage.epochs}")
            self._save_between_steps()
        self._note_gradients()
        speed = (progress.num_images - first) / max(time.monotonic() - started, 1e-9)
        self._end_epoch(progress.loss_sum / max(progress.num_images, 1), rates, speed)

    def _rate_factor(self) -> float:
        step = self.progress.epoch * self.steps_per_epoch + self.progress.batch
        scale = self.progress.plateau["scale"] if self.progress.plateau else 1.0
        return rate_factor(self.stage, step, self.steps_per_epoch) * scale

    def _note_gradients(self) -> None:
        self.gradient_norms = {
            name: float(parameter.grad.norm())
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def _end_epoch(self, train_loss: float, rates: dict[str, float], speed: float) -> None:
        result = self._validate()
        progress = self.progress
        progress.epoch, progress.batch, progress.loss_sum, progress.num_images = progress.epoch + 1, 0, 0.0, 0
        self._record(train_loss, result, rates, speed)
        values = {"train_loss": train_loss, "val_loss": result.loss, "val_top1": result.top1}
        self._watch(values)
        self._save()

    def _watch(self, values: dict[str, float]) -> None:
        """Early stopping and the plateau rule, each with its own metric."""
        progress, stage = self.progress, self.stage
        if stage.plateau is not None:
            plateau = PlateauState(**progress.plateau) if progress.plateau else PlateauState.start(stage.plateau)
            if plateau.update(stage.plateau, values[stage.plateau.monitor], stage.learning_rate):
                self.sinks.line(f"{stage.name}: {stage.plateau.monitor} stands still, rate x {stage.plateau.factor}")
            progress.plateau = asdict(plateau)
        if stage.early_stopping is not None:
            rule = stage.early_stopping
            state = EarlyStoppingState(**progress.early_stopping) if progress.early_stopping else None
            state = state or EarlyStoppingState.start(rule)
            progress.stage_done = state.should_stop(rule, values[rule.monitor])
            progress.early_stopping = asdict(state)
            if progress.stage_done and progress.epoch < stage.epochs:
                self.sinks.line(f"{stage.name}: {rule.monitor} has not improved for {rule.patience} epochs, stage ends")

    # The head solver

    def _solve(self) -> None:
        features, labels = self.source.matrix("train")
        head = self.program.is_linear
        if head is None:
            raise SettingsError("lbfgs needs one linear layer to solve.", "", "Set `optimizer: adamw`.")
        solutions = solve_head(features, labels, head.out_features, label_smoothing=self.stage.label_smoothing)
        worse, best_loss, best_state = 0, float("inf"), None
        for solution in solutions:
            with torch.no_grad():
                head.weight.copy_(solution.weight)
                head.bias.copy_(solution.bias)
            result = self._validate()
            self.progress.epoch += 1
            self.progress.step += 1
            self._record(solution.train_loss, result, {}, None, l2=solution.strength)
            self._stop_if_asked()
            worse = 0 if is_better(result.loss, best_loss, "min") else worse + 1
            if worse == 0:
                best_loss = result.loss
            if self.progress.stage_best is not None and self.progress.stage_best.step == self.progress.step:
                best_state = (solution.weight, solution.bias)
            if worse >= 2:
                break
        if best_state is not None:
            with torch.no_grad():
                head.weight.copy_(best_state[0])
                head.bias.copy_(best_state[1])
        self._call_this_step_best()

    def _call_this_step_best(self) -> None:
        """Only the solution that was chosen is kept, so the checkpoint of this step is the one to point to."""
        progress = self.progress
        chosen = progress.stage_best
        if chosen is None:
            return
        if progress.best is not None and progress.best.step == chosen.step:
            progress.best = Best(progress.step, chosen.stage, chosen.epoch, chosen.value)
        progress.stage_best = Best(progress.step, chosen.stage, chosen.epoch, chosen.value)

    # What both share

    def _validate(self) -> Evaluation:
        self.model.eval()
        return evaluate(self.engine, self.program, self.source.evaluation("val"), self._stop_in_validation)

    def _record(
        self, train_loss: float, result: Evaluation, rates: dict[str, float], speed: float | None, **more: float
    ) -> None:
        progress = self.progress
        values = {"train_loss": train_loss, "val_loss": result.loss, "val_top1": result.top1}
        value = values[self.loop.monitor]
        epoch = Best(progress.step, self.stage.name, progress.epoch, value)
        if progress.stage_best is None or is_better(value, progress.stage_best.value, self.loop.mode):
            progress.stage_best = epoch if value == value else progress.stage_best
        if progress.best is None or is_better(value, progress.best.value, self.loop.mode):
            progress.best = epoch if value == value else progress.best
        progress.metrics_bytes = self.sinks.epoch(
            {
                "stage": self.stage.name,
                "stage_index": progress.stage,
                "epoch": progress.epoch,
                "epochs": self.stage.epochs,
                "step": progress.step,
                **values,
                "lr": rates,
                "images_per_second": speed,
                "seconds": round(time.monotonic() - self.epoch_began, 3),
                **more,
            }
        )
        self.epoch_began = time.monotonic()
        if speed is not None:
            self.sinks.advance(len(self.loop.labels["val"]), self.stage.name)

    def _finish(self) -> None:
        progress = self.progress
        audit = self.snapshot.audit(self.model, self.optimizer, self.gradient_norms, stage=self.stage.name)
        stages = (self.loop.run_folder.read(self.loop.run_folder.audit) or {"stages": []})["stages"]
        commit.write_json(self.loop.run_folder.audit, {"stages": [*stages[: progress.stage], finite(audit.to_dict())]})
        audit.raise_if_violated()
        if self.stage.optimizer != "lbfgs":
            left = self.stage.epochs - progress.epoch
            self.sinks.skip(left * (self.order_size + len(self.loop.labels["val"])))
        self.sinks.line(
            f"{self.stage.name}: audit ok, {len(audit.frozen)} frozen tensors byte-identical, "
            f"{len(audit.trainable)} trained"
        )
        progress.trained_layers = sorted({*progress.trained_layers, *self.frozen.layers})
        progress.stage, progress.epoch, progress.batch = progress.stage + 1, 0, 0
        progress.stage_started = progress.stage_done = False
        progress.digests = {}
        self.snapshot.starts.clear()
        self._save()

    def _save_between_steps(self) -> None:
        """Inside an epoch: save when asked to stop, at every `save_steps`, and after a long time without."""
        every = self.loop.save_steps
        due = every is not None and self.progress.step % every == 0
        if due or time.monotonic() - self.saved_at > _SAVE_SECONDS or self.loop.stop.requested:
            self._save()
        self._stop_if_asked()

    def _save(self) -> None:
        save(self.loop.run_folder, self.model, self.optimizer, self.progress, self.snapshot.starts)
        self.saved_at = time.monotonic()

    def _stop_in_validation(self) -> None:
        """A stop between the last step of an epoch and its record: the epoch's steps are saved, validation is not."""
        if self.loop.stop.requested and self.stage.optimizer != "lbfgs":
            self._save()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.loop.stop.requested:
            raise stopped(self.loop.run_folder, self.loop.stop)

    def _where(self) -> str:
        return f"stage {self.stage.name!r}, epoch {self.progress.epoch + 1}, step {self.progress.step + 1}"

    def _announcement(self) -> str:
        num = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        how = "solved by lbfgs" if self.stage.optimizer == "lbfgs" else f"{self.stage.optimizer}, at most"
        epochs = "" if self.stage.optimizer == "lbfgs" else f" {self.stage.epochs} epochs"
        return (
            f"stage {self.stage.name}: {', '.join(self.stage.selectors)} trains ({len(self.frozen.trainable)} tensors, "
            f"{num:,} parameters), {how}{epochs}"
        )


def stage_work(stage: Stage, num_images: int) -> float:
    """The work of a stage, in images that pass once through the network; `num_images` to train on and to validate."""
    return float(num_images if stage.optimizer == "lbfgs" else stage.epochs * num_images)


def stopped(run: RunFolder, stop: StopFlag) -> StoppedError:
    """The error that ends a run on a signal, with the command to go on."""
    return StoppedError(
        f"Stopped by {'SIGTERM' if stop.exit_code == 143 else 'Ctrl-C'}; the state of {str(run.path)!r} is saved.",
        "Nothing is lost.",
        f"Type `regraft resume {run.path}` to go on to the same result.",
        exit_code=stop.exit_code,
    )
