"""Progress: what is the bottleneck is said where it matters, once in a stage."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from regraft.run.folder import RunFolder
from regraft.training.loop.sinks import Sinks


def record(stage: str, **facts: Any) -> dict[str, Any]:
    return {"stage": stage, "epoch": 1, "epochs": 9, "train_loss": 0.5, "val_loss": 0.4, "seconds": 10.0, **facts}


def test_much_waiting_is_said_once_in_a_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Sinks(RunFolder(tmp_path)) as sinks:
        for stage in ("head", "head", "top"):
            sinks.epoch(record(stage, data_wait=0.45))
    lines = capsys.readouterr().err.splitlines()
    hints = [line for line in lines if "spent waiting for images" in line]
    assert [line.partition(":")[0] for line in hints] == ["head", "top"]
    assert "head: 45% of the time spent waiting for images; `--cache ram`" in hints[0]
    assert all("data wait 45%" in line for line in lines if "epoch" in line)


@pytest.mark.parametrize("facts", [{"data_wait": 0.19}, {"data_wait": 0.9, "seconds": 1.0}, {"data_wait": None}, {}])
def test_little_waiting_is_not_said(facts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Sinks(RunFolder(tmp_path)) as sinks:
        sinks.epoch(record("head", **facts))
    assert "waiting for images" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.9, 0.3), ["head: data-loading bound (60% of the time spent waiting for images)"]),
        ((0.1, 0.02), ["head: compute bound (6% of the time spent waiting for images)"]),
        ((None, None), []),
    ],
)
def test_a_stage_ends_with_its_bottleneck(
    shares: tuple[float, float], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Sinks(RunFolder(tmp_path)) as sinks:
        for share in shares:
            sinks.epoch(record("head", data_wait=share))
        capsys.readouterr()
        sinks.tell_bottleneck("head")
        sinks.tell_bottleneck("top")
    assert capsys.readouterr().err.splitlines() == said


def test_waiting_for_images_is_measured(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a clock of the test's own, on which only loading takes time, all of an epoch is waiting."""
    import regraft.data.cache.loader
    from regraft.run.records import read_metrics
    from regraft.training.features import features
    from tests.training.test_train import run_small

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    real = regraft.data.cache.loader._finish

    def finish(*arguments: Any) -> Any:
        clock.now += 0.5
        return real(*arguments)

    monkeypatch.setattr(regraft.data.cache.loader, "_finish", finish)
    monkeypatch.setattr(features, "time", clock)

    from regraft.training.loop import gradient_stage

    monkeypatch.setattr(gradient_stage, "time", clock)
    run = run_small(photos, tmp_path / "run")
    head, _, top, _ = read_metrics(run.metrics)
    assert head["data_wait"] == 0, "its features are stored"
    assert top["data_wait"] == 1
    assert top["images_per_second"] == pytest.approx(20 / 1.5)


def test_work_counts_by_pixels_where_stages_have_sizes_of_their_own(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the pixels is a quarter of the work, or the time left would be wrong by as much."""
    import regraft as rg
    from tests.training.test_train import run_small

    seen: list[tuple[str, float, float]] = []
    real = Sinks.advance

    def advance(self: Sinks, units: float, doing: str, loss: float | None = None) -> None:
        real(self, units, doing, loss)
        seen.append((doing.split()[0], units, self.total - self.done))

    monkeypatch.setattr(Sinks, "advance", advance)
    common = {"train": "all", "optimizer": "sgd", "lr": 1e-3, "epochs": 2, "batch_size": 10, "bn": "train"}
    run_small(photos, tmp_path / "run", stages=[rg.Stage("small", image_size=16, **common), rg.Stage("full", **common)])
    work = {name: sum(units for doing, units, _ in seen if doing == name) for name in ("small", "full")}
    assert work["full"] == 2 * (20 + 12)
    assert work["small"] == pytest.approx(work["full"] / 4)
    assert seen[-1][2] == pytest.approx(0)


@pytest.mark.parametrize("steps", [3, 4, 7])
def test_a_resumed_run_has_what_is_left_before_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Killed inside the first stage, at its end, and inside the second: what was done is no work any more."""
    import regraft as rg
    from regraft import pipeline
    from tests.training.test_train import run_small
    from tests.training.tiny import Killed, kill_at_step

    left: list[float] = []
    real_advance = Sinks.advance

    def advance(self: Sinks, units: float, doing: str, loss: float | None = None) -> None:
        real_advance(self, units, doing, loss)
        left.append(self.total - self.done)

    common = {"train": "all", "optimizer": "sgd", "lr": 1e-3, "epochs": 2, "batch_size": 10, "bn": "train"}
    plan = [rg.Stage("first", **common), rg.Stage("second", image_size=16, **common)]
    with pytest.raises(Killed), kill_at_step(steps):
        run_small(photos, tmp_path / "run", stages=plan, save_steps=1)
    monkeypatch.setattr(Sinks, "advance", advance)
    pipeline.resume(tmp_path / "run", show=False)
    assert left[-1] == pytest.approx(0)


def test_the_time_left_never_jumps_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that suddenly takes ten times as long raises what is left step by step, not at once."""
    with Sinks(RunFolder(tmp_path), show=False) as sinks:
        sinks.plan(100)
        now = [0.0]
        monkeypatch.setattr(Sinks, "seconds", property(lambda self: now[0]))
        shown = []
        for step in range(40):
            now[0] += 1.0 if step < 10 else 10.0
            sinks.done += 1
            minutes, seconds = sinks._left().split()[1].split(":")
            shown.append(60 * int(minutes) + int(seconds))
    assert all(after <= 1.2 * before + 5 for before, after in pairwise(shown))
    assert shown[0] == 99


def test_solving_a_head_does_not_lengthen_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes time and passes no images, and the images that are left take no longer for it."""
    with Sinks(RunFolder(tmp_path), show=False) as sinks:
        sinks.plan(100)
        now = [0.0]
        monkeypatch.setattr(Sinks, "seconds", property(lambda self: now[0]))
        for _ in range(50):
            now[0] += 1.0
            sinks.advance(1, "head features")
        for number in range(10):
            now[0] += 3.0
            sinks.epoch({"stage": "head", "epoch": number + 1, "l2": 1.0, "seconds": 3.0, "val_loss": 0.5})
            assert sinks._left() == "about 0:50 remaining"


def test_the_bar_shows_the_same_estimate_and_counts_it_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn ten times a second, an estimate that may rise a little each time would rise without bound."""
    with Sinks(RunFolder(tmp_path), show=False) as sinks:
        sinks.plan(100)
        now = [0.0]
        monkeypatch.setattr(Sinks, "seconds", property(lambda self: now[0]))
        sinks.done = 1
        assert not sinks._left_now(), "too early to say"
        now[0], sinks.done = 10.0, 10.0
        assert sinks._left_now() == "about 1:30 remaining"
        for _ in range(90):  # nothing gets done for nine seconds
            now[0] += 0.1
            shown = sinks._left_now()
        assert shown in ("about 1:20 remaining", "about 1:21 remaining")
        now[0] = 20.0
        assert sinks._left_now() == "about 1:41 remaining", (
            "a fifth and five seconds more than the 80 that were to be left"
        )
