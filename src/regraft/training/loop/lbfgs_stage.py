"""A stage whose only trainable layer is linear, on fixed features: solved instead of descended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from regraft.errors import SettingsError
from regraft.settings.monitor import DEFAULT_MONITOR
from regraft.training.loop.choice import choose
from regraft.training.loop.stage_run import StageRun
from regraft.training.objective.few_photos import Choice, are_few, are_few_to_choose_by, choose_strength
from regraft.training.objective.lbfgs import STRENGTHS, Solution, solve_head
from regraft.training.objective.schedule import is_better
from regraft.wording import quantity

__all__ = ["solve"]

_NUM_WORSE = 2  # weaker regularisations in a row that do not lower the validation loss


def solve(run: StageRun) -> None:
    """Solve the head at ever weaker regularisation, while the validation loss falls; keep the best.

    Where photos are few, or validation images, the strength is chosen by cross-validation over the training images
    instead.

    The loss is the one at the best temperature, unless the raw one selects: weaker regularisation is surer of itself,
    which is not what makes it better or worse.
    """
    features, labels = run.source.matrix("train")
    head = run.program.is_linear
    if head is None:
        raise SettingsError("lbfgs needs one linear layer to solve.", "", "set `optimizer: adamw`")
    watched = "val_loss" if run.session.monitor == "val_loss" else DEFAULT_MONITOR
    worse, best_loss, best_state = 0, float("inf"), None
    for solution, facts in _solutions(run, features, labels, head.out_features):
        with torch.no_grad():
            head.weight.copy_(solution.weight)
            head.bias.copy_(solution.bias)
        run.engine.exchange([head.weight.detach(), head.bias.detach()], [(0, len(head.bias))])  # one solution for all
        values = {"train_loss": solution.train_loss, **run.validate()}
        run.progress.epoch += 1
        run.progress.step += 1
        run.record(values, lr={}, images_per_second=None, l2=solution.strength, **facts)
        run.session.checkpoints.raise_failure()
        run.session.checkpoints.stop_if_asked()
        worse = 0 if is_better(values[watched], best_loss, "min") else worse + 1
        if worse == 0:
            best_loss = values[watched]
        if run.progress.stage_best is not None and run.progress.stage_best.step == run.progress.step:
            best_state = (head.weight.detach().clone(), head.bias.detach().clone())
        if worse >= _NUM_WORSE or run.stop_requested():
            break
    if best_state is not None:
        with torch.no_grad():
            head.weight.copy_(best_state[0])
            head.bias.copy_(best_state[1])
    _call_this_step_best(run)


def _solutions(
    run: StageRun, features: Tensor, labels: Tensor, num_rows: int
) -> Iterator[tuple[Solution, dict[str, int]]]:
    """Yield heads to validate, and more to record of each; of few photos one, whose strength is known before."""
    loss = run.objective.loss
    num_classes, num_val = len(run.session.class_names), len(run.session.labels["val"])
    few = are_few(labels, num_classes)
    if run.objective.class_weights is not None or not (few or are_few_to_choose_by(labels, num_val)):
        num_problems = num_rows if run.objective.output == "multilabel" else 1
        for solution in solve_head(features, labels, num_rows, loss, num_problems=num_problems):
            yield solution, {}
        return
    seed, adjustment = run.session.seed, run.objective.adjustment
    groups = run.session.images.groups
    choice = run.engine.from_main(
        lambda: choose_strength(
            features, labels, num_rows, loss, seed=seed, adjustment=adjustment, few=few, groups=groups
        )
    )
    images = quantity(len(labels), "image")
    why = f"{images} of {num_classes} classes are few" if few else f"{quantity(num_val, 'validation image')} are few"
    run.sinks.line(f"{run.stage.name}: {_told(choice, why)}")
    for solution in solve_head(features, labels, num_rows, loss, strengths=[choice.strength]):
        yield solution, {"folds": choice.num_folds}


def _told(choice: Choice, why: str) -> str:
    few = f"{why}, so "
    if not choice.num_folds:
        return f"{few}l2 is {choice.strength:g}: with one image or group of each class there is nothing to choose it by"
    plain = max(STRENGTHS)  # the strongest of those that validation images choose from
    return (
        f"{few}the l2 is chosen by {choice.num_folds}-fold cross-validation over the training images instead of by "
        f"validation images: "
        f"{choice.strength:g} (loss {choice.losses[choice.best]:.4f}; with {plain:g} {choice.losses[plain]:.4f})"
    )


def _call_this_step_best(run: StageRun) -> None:
    """Point to the checkpoint of the chosen solution, the only one that is kept."""
    progress = run.progress
    chosen, step = progress.stage_best, progress.step
    if chosen is None:
        return
    progress.bests = [replace(best, step=step) if best.step == chosen.step else best for best in progress.bests]
    progress.best = choose(progress.bests, run.session.mode, run.session.plan.interpolated)
    progress.last = next((best for best in progress.bests if best.step == step), progress.last)
    progress.stage_best = replace(chosen, step=step)
