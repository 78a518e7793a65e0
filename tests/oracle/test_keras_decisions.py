"""Early stopping, plateau and best checkpoint decide as Keras's callbacks, value by value."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.settings.monitor import EarlyStopping, Plateau
from regraft.training.checkpoint.state import Best
from regraft.training.loop.choice import better_epoch
from regraft.training.objective.schedule import EarlyStoppingState, PlateauState

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="Keras is not installed: `uv sync --group oracle`")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

# On a grid, so that ties are exact: Keras compares in single precision.
VALUES = st.one_of(st.integers(-8, 8).map(lambda n: n / 4), st.sampled_from([float("nan"), float("inf")]))
SEQUENCES = st.lists(VALUES, min_size=1, max_size=25)
DELTAS = st.sampled_from([0.0, 0.25, 0.5])


class Model:
    """As much of a Keras model as the callbacks touch; its weights are the number of the epoch."""

    def __init__(self, rate: float = 1.0) -> None:
        self.stop_training = False
        self.optimizer = type("Optimizer", (), {"learning_rate": keras.Variable(rate)})()
        self.weights = 0
        self.saved: list[int] = []

    def get_weights(self) -> int:
        return self.weights

    def set_weights(self, weights: int) -> None:
        self.weights = weights

    def save(self, path: str, overwrite: bool = True) -> None:
        self.saved.append(self.weights)


def play(callback: Any, model: Model, values: list[float]) -> list[float]:
    """Show the callback epoch after epoch until it stops; returns the learning rate after each."""
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, value in enumerate(values):
        model.weights = epoch
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {"val_loss": value})
        rates.append(float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)))
        if model.stop_training:
            break
    callback.on_train_end()
    return rates


@settings(max_examples=200, deadline=None)
@given(
    values=SEQUENCES,
    mode=st.sampled_from(["min", "max"]),
    patience=st.integers(0, 4),
    min_delta=DELTAS,
    start=st.integers(0, 3),
    baseline=st.one_of(st.none(), st.integers(-4, 4).map(lambda n: n / 4)),
)
def test_early_stopping(
    values: list[float], mode: str, patience: int, min_delta: float, start: int, baseline: float | None
) -> None:
    theirs = keras.callbacks.EarlyStopping(
        monitor="val_loss",
        mode=mode,
        patience=patience,
        min_delta=min_delta,
        baseline=baseline,
        restore_best_weights=True,
        start_from_epoch=start,
    )
    model = Model()
    epochs = len(play(theirs, model, values))
    rule = EarlyStopping(
        "val_loss",
        mode=mode,
        patience=patience,
        min_delta=min_delta,
        start_from_epoch=start,
        baseline=baseline,
        restore_best=True,
    )
    state, best, seen = EarlyStoppingState(), None, 0
    for epoch, value in enumerate(values):
        seen += 1
        done = state.should_stop(rule, value)
        best = epoch if state.improved else best
        if done:
            break
    assert seen == epochs
    if best is not None:
        assert best == model.weights, "the weights that Keras restores"


@settings(max_examples=200, deadline=None)
@given(
    values=SEQUENCES,
    mode=st.sampled_from(["min", "max"]),
    factor=st.sampled_from([0.1, 0.5, 0.9]),
    patience=st.integers(0, 4),
    min_delta=DELTAS,
    cooldown=st.integers(0, 3),
    min_lr=st.sampled_from([0.0, 0.003, 0.3]),
)
def test_plateau(
    values: list[float], mode: str, factor: float, patience: int, min_delta: float, cooldown: int, min_lr: float
) -> None:
    theirs = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss",
        mode=mode,
        factor=factor,
        patience=patience,
        min_delta=min_delta,
        cooldown=cooldown,
        min_lr=min_lr,
    )
    expected = play(theirs, Model(rate=1.0), values)
    rule = Plateau(
        "val_loss", mode=mode, factor=factor, patience=patience, min_delta=min_delta, cooldown=cooldown, min_lr=min_lr
    )
    state, rates = PlateauState(), []
    for value in values:
        state.update(rule, value, 1.0)
        rates.append(max(state.scale, min_lr))
    assert rates == pytest.approx(expected, rel=1e-5)


@settings(max_examples=200, deadline=None)
@given(values=SEQUENCES.filter(lambda values: values[0] == values[0]), mode=st.sampled_from(["min", "max"]))
def test_best_checkpoint(values: list[float], mode: str) -> None:
    theirs = keras.callbacks.ModelCheckpoint("x.keras", monitor="val_loss", mode=mode, save_best_only=True)
    model = Model()
    theirs.set_model(model)
    best, saved = None, []
    for epoch, value in enumerate(values):
        model.weights = epoch
        theirs.on_epoch_begin(epoch)
        theirs.on_epoch_end(epoch, {"val_loss": value})
        before, best = best, better_epoch(best, Best(epoch, "a", epoch, value), mode)
        if best is not before:
            saved.append(epoch)
    assert saved == model.saved


def test_a_nan_that_comes_first_is_the_best_for_keras_alone() -> None:
    """Keras never saves again after it; regraft takes the first epoch that has a value."""
    theirs = keras.callbacks.ModelCheckpoint("x.keras", monitor="val_loss", mode="min", save_best_only=True)
    model = Model()
    theirs.set_model(model)
    best = None
    for epoch, value in enumerate([float("nan"), 2.0, 1.0]):
        model.weights = epoch
        theirs.on_epoch_begin(epoch)
        theirs.on_epoch_end(epoch, {"val_loss": value})
        best = better_epoch(best, Best(epoch, "a", epoch, value), "min")
    assert model.saved == [0]
    assert best is not None
    assert best.epoch == 2
