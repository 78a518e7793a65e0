"""A stage whose only trainable layer is linear, on fixed features: solved instead of descended."""

from __future__ import annotations

from dataclasses import replace

import torch

from regraft.errors import SettingsError
from regraft.settings.monitor import DEFAULT_MONITOR
from regraft.training.loop.choice import choose
from regraft.training.loop.stage_run import StageRun
from regraft.training.objective.lbfgs import solve_head
from regraft.training.objective.schedule import is_better

__all__ = ["solve"]

_NUM_WORSE = 2  # weaker regularisations in a row that do not lower the validation loss


def solve(run: StageRun) -> None:
    """Solve the head at ever weaker regularisation, while the validation loss falls; keep the best.

    The loss is the one at the best temperature, unless the raw one selects: weaker regularisation is surer of itself,
    which is not what makes it better or worse.
    """
    features, labels = run.source.matrix("train")
    head = run.program.is_linear
    if head is None:
        raise SettingsError("lbfgs needs one linear layer to solve.", "", "set `optimizer: adamw`")
    watched = "val_loss" if run.session.monitor == "val_loss" else DEFAULT_MONITOR
    worse, best_loss, best_state = 0, float("inf"), None
    num_problems = head.out_features if run.objective.output == "multilabel" else 1
    for solution in solve_head(features, labels, head.out_features, run.objective.loss, num_problems=num_problems):
        with torch.no_grad():
            head.weight.copy_(solution.weight)
            head.bias.copy_(solution.bias)
        run.engine.exchange([head.weight.detach(), head.bias.detach()], [(0, len(head.bias))])  # one solution for all
        values = {"train_loss": solution.train_loss, **run.validate()}
        run.progress.epoch += 1
        run.progress.step += 1
        run.record(values, lr={}, images_per_second=None, l2=solution.strength)
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
