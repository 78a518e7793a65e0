"""What is said before a plan runs: settings that cannot act in time, and rules that watch a metric the wrong way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.training.tiny import tiny_network

import regraft as rg
from regraft.plan.run_warnings import run_warnings
from regraft.training.objective.schedule import EarlyStoppingState, PlateauState


def warnings_of(*stages: rg.Stage, monitor: str = "val_loss", mode: str | None = None, num: int = 40) -> list[str]:
    return list(run_warnings(rg.make_plan(tiny_network(), stages), monitor, mode, num, 4))


def descended(**settings: object) -> rg.Stage:
    return rg.Stage("all", **{"train": "all", "optimizer": "sgd", "epochs": 20, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(("monitor", "mode"), [("val_top1", "min"), ("val_loss", "max"), ("train_loss", "max")])
def test_a_mode_against_the_direction_of_the_metric_warns(monitor: str, mode: str) -> None:
    right = "max" if mode == "min" else "min"
    assert "so the worst epoch is kept" in warnings_of(descended(), monitor=monitor, mode=mode)[0]
    assert warnings_of(descended(), monitor=monitor, mode=right) == warnings_of(descended(), monitor=monitor) == []
    for rule in (rg.EarlyStopping(monitor, mode), rg.Plateau(monitor, mode)):
        key = "plateau" if isinstance(rule, rg.Plateau) else "early_stopping"
        (told,) = warnings_of(descended(**{key: rule}))
        assert f"{key}.monitor {monitor}" in told
        assert f"set it to {right}" in told
        assert warnings_of(descended(**{key: replace(rule, mode=right)})) == []


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
@pytest.mark.parametrize("patience", [0, 1, 2, 4])
@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("baseline", [None, 0.5])
def test_a_patience_that_cannot_end_is_told_exactly_then(
    epochs: int, patience: int, start: int, baseline: float | None
) -> None:
    """The rules themselves decide: values that only get worse, which no patience survives longer than."""
    stopping = rg.EarlyStopping(patience=patience, start_from_epoch=start, baseline=baseline)
    state, plateau = EarlyStoppingState(), PlateauState()
    stops = [state.should_stop(stopping, 1.0 + epoch) for epoch in range(epochs)]
    lowers = [plateau.update(rg.Plateau(patience=patience), 1.0 + epoch, 0.1) for epoch in range(epochs)]
    told = "\n".join(
        warnings_of(descended(epochs=epochs, early_stopping=stopping, plateau=rg.Plateau(patience=patience)))
    )
    assert ("early_stopping has no effect" in told) == (not any(stops[:-1]))
    assert ("plateau has no effect" in told) == (not any(lowers[:-1]))
    in_steps = descended(epochs=None, steps=10 * epochs, early_stopping=stopping)
    assert ("early_stopping has no effect" in "\n".join(warnings_of(in_steps))) == (not any(stops[:-1]))


def test_what_begins_after_the_end_of_a_stage_is_told() -> None:
    assert warnings_of(descended(schedule=rg.Schedule("step", every=20), warmup_epochs=20)) == [
        "stage 'all': schedule step has no effect: its first milestone does not come before epoch 20 ends the stage",
        "stage 'all': the warm-up of 200 steps is as long as the stage (200 steps): the rate never reaches lr",
    ]
    assert warnings_of(descended(schedule=rg.Schedule("step", milestones=(19, 40)), warmup_epochs=19)) == []


def test_balanced_weights_and_balanced_sampling_together_are_told() -> None:
    (told,) = warnings_of(descended(class_weights="balanced", sampling="balanced"))
    assert "both correct class imbalance" in told
    assert warnings_of(descended(class_weights="balanced")) == warnings_of(descended(sampling="balanced")) == []
