"""A stage whose only trainable layer is linear, on fixed features: solved instead of descended."""

from __future__ import annotations

from dataclasses import replace

import torch

from regraft.errors import SettingsError
from regraft.train.lbfgs import solve_head
from regraft.train.schedule import is_better
from regraft.train.stage_run import StageRun

__all__ = ["solve"]

_NUM_WORSE = 2  # weaker regularisations in a row that do not lower the validation loss


def solve(run: StageRun) -> None:
    """Solve the head at ever weaker regularisation, while the validation loss falls; keep the best."""
    features, labels = run.source.matrix("train")
    head = run.program.is_linear
    if head is None:
        raise SettingsError("lbfgs needs one linear layer to solve.", "", "Set `optimizer: adamw`.")
    worse, best_loss, best_state = 0, float("inf"), None
    num_problems = head.out_features if run.output == "multilabel" else 1
    for solution in solve_head(features, labels, head.out_features, run.loss, num_problems=num_problems):
        with torch.no_grad():
            head.weight.copy_(solution.weight)
            head.bias.copy_(solution.bias)
        run.engine.exchange([head.weight.detach(), head.bias.detach()], [(0, len(head.bias))])  # one solution for all
        values = {"train_loss": solution.train_loss, **run.validate()}
        run.progress.epoch += 1
        run.progress.step += 1
        run.record(values, lr={}, images_per_second=None, l2=solution.strength)
        run.session.raise_failure()
        run.stop_if_asked()
        worse = 0 if is_better(values["val_loss"], best_loss, "min") else worse + 1
        if worse == 0:
            best_loss = values["val_loss"]
        if run.progress.stage_best is not None and run.progress.stage_best.step == run.progress.step:
            best_state = (head.weight.detach().clone(), head.bias.detach().clone())
        if worse >= _NUM_WORSE or run.stop_requested():
            break
    if best_state is not None:
        with torch.no_grad():
            head.weight.copy_(best_state[0])
            head.bias.copy_(best_state[1])
    _call_this_step_best(run)


def _call_this_step_best(run: StageRun) -> None:
    """Only the solution that was chosen is kept, so the checkpoint of this step is the one to point to."""
    progress = run.progress
    chosen = progress.stage_best
    if chosen is None:
        return
    if progress.best is not None and progress.best.step == chosen.step:
        progress.best = replace(progress.best, step=progress.step)
    progress.stage_best = replace(chosen, step=progress.step)
