"""The time that is left: told within a quarter from a tenth of a stage on, by the pace of each kind of work."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

import regraft as rg
from regraft.models.describe.inputs import Normaliser
from regraft.training.loop.session import Session
from regraft.training.loop.sinks import Sinks
from regraft.training.progress.phases import DECODING, Phase, Work
from regraft.training.progress.remaining import Remaining
from tests.training.conftest import small_model

FORWARD = 1.0  # seconds of an image, on the clock of these tests
FEW = 0.01  # of a head on kept features
TRAIN, VALIDATE, LATER = Phase("all", "train"), Phase("all", "validate"), Phase("last", "train")


class Told(NamedTuple):
    at: float
    left: float


class Stages(NamedTuple):
    """What a run said of the time that is left, and when each of its stages began and ended."""

    told: list[Told]
    began: dict[str, float]
    ended: dict[str, float]

    def within(self, stage: str) -> Iterator[Told]:
        """Yield what was said from a tenth of a stage on."""
        first = self.began[stage] + 0.1 * (self.ended[stage] - self.began[stage])
        yield from (told for told in self.told if first <= told.at < self.ended[stage])

    @property
    def end(self) -> float:
        return max(self.ended.values())


@pytest.fixture
def run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stages]:
    """Trains on a clock that only images move: each that enters the network a second, its gradients `backward`."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], strftime=time.strftime)
    monkeypatch.setattr("regraft.training.loop.sinks.time", clock)
    real_normalise, real_line, real_advance = Normaliser.__call__, Sinks.line, Session.advance
    told: list[Told] = []
    began: dict[str, float] = {}
    ended: dict[str, float] = {}

    def normalise(self: Normaliser, pixels: torch.Tensor) -> torch.Tensor:
        now[0] += FORWARD * len(pixels)
        return real_normalise(self, pixels)

    def line(self: Sinks, text: str, **settings: Any) -> None:
        found = re.search(r"about (\d+):(\d\d) remaining", text)
        if found:
            told.append(Told(now[0], 60 * int(found[1]) + int(found[2])))
        real_line(self, text, **settings)

    def advance(self: Session, stage: rg.Stage, *settings: Any) -> None:
        began.setdefault(stage.name, self.sinks._told_at)
        real_advance(self, stage, *settings)
        ended[stage.name] = now[0]

    def train(stages: list[rg.Stage], *, backward: float, **settings: Any) -> Stages:
        from regraft.training.loop import gradient_stage

        real_step = gradient_stage.training_step

        def step(engine: Any, program: Any, batches: Any, *rest: Any) -> float:
            def each() -> Iterator[Any]:
                for features, targets, factor in batches:
                    is_whole = features[0].shape[1:] == (3, 32, 32)
                    now[0] += (backward if is_whole else FEW) * len(targets)
                    yield features, targets, factor

            return real_step(engine, program, each(), *rest)

        monkeypatch.setattr(gradient_stage, "training_step", step)
        monkeypatch.setattr(Normaliser, "__call__", normalise)
        monkeypatch.setattr(Sinks, "line", line)
        monkeypatch.setattr(Session, "advance", advance)
        data = rg.open_data(photos)
        model = small_model(data.class_names)
        rg.train(model, rg.make_plan(model, stages), data, out=tmp_path / "run", seed=1, **settings)
        return Stages(told, began, ended)

    return train


def everything(**settings: Any) -> rg.Stage:
    return rg.Stage("all", train="all", optimizer="sgd", lr=1e-4, batch_size=2, **settings)


def require_close(stages: Stages, name: str, *, fewest: int = 5) -> None:
    said = list(stages.within(name))
    assert len(said) >= fewest, stages
    for told in said:
        left = stages.end - told.at
        assert told.left == pytest.approx(left, rel=0.25, abs=2), (name, told, left)


@pytest.mark.parametrize("backward", [2.0, 6.0, 0.5])
def test_training_all_layers_goes_at_its_own_pace(run: Callable[..., Stages], backward: float) -> None:
    """A pass of the frozen part before it says little: here a step takes up to seven times as long."""
    stages = run([rg.Stage("head", optimizer="lbfgs"), everything(epochs=4)], backward=backward)
    require_close(stages, "all")


def test_stages_to_come_are_told_by_what_their_images_cost(run: Callable[..., Stages]) -> None:
    """Where gradients take twice as long as the pass, what is left of the whole run is known in the first stage."""
    stages = run([rg.Stage("head", optimizer="lbfgs"), everything(epochs=4, interpolate=True)], backward=2.0)
    require_close(stages, "head", fewest=1)
    require_close(stages, "all")


@pytest.mark.parametrize("feature_cache", ["auto", "off"])
def test_a_head_whose_features_are_kept_takes_one_pass(run: Callable[..., Stages], feature_cache: str) -> None:
    head = rg.Stage("head", optimizer="sgd", lr=1e-3, epochs=6, batch_size=2)
    stages = run([head, everything(epochs=3)], backward=2.0, feature_cache=feature_cache)
    require_close(stages, "all")
    for told in stages.within("head"):
        assert told.left == pytest.approx(stages.end - told.at, rel=0.25), told


def test_what_has_begun_goes_on_at_its_pace_and_the_rest_by_its_cost() -> None:
    left = Remaining({DECODING: Work(10, 1), TRAIN: Work(100, 3), VALIDATE: Work(50, 1), LATER: Work(10, 3)})
    assert left.seconds() is None
    left.advance(DECODING, 10, 1.0)
    assert left.seconds() == pytest.approx(0.1 * (300 + 50 + 30)), "nothing else is known"
    left.advance(TRAIN, 50, 300.0)
    assert left.seconds() == pytest.approx(50 * 6 + 50 * 2 + 10 * 6)
    left.advance(VALIDATE, 10, 5.0)
    both = 305 / 160  # seconds of a forward pass, by all that passed
    assert left.seconds() == pytest.approx(50 * 6 + 40 * 0.5 + 10 * 3 * both)
    assert left.end("all") == 90
    assert left.seconds() == pytest.approx(10 * 3 * both)
    assert left.skip(LATER, 4) == 4
    assert left.advance(LATER, 10, 10.0) == 4, "more than was planned"
    assert left.seconds() == 0


def test_a_pace_that_changes_is_forgotten() -> None:
    left = Remaining({TRAIN: Work(100, 3)})
    for _ in range(20):
        left.advance(TRAIN, 1, 10.0)
    for _ in range(60):
        left.advance(TRAIN, 1, 1.0)
    assert left.seconds() == pytest.approx(20, rel=0.5)
