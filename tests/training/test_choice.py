"""Which network a run delivers: by what it knows and not by how sure it is, with the noise of the images known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import regraft as rg
from regraft.evaluation.metrics.measure import measure_for
from regraft.training.checkpoint.state import Best, Progress, packed
from regraft.training.loop.choice import choose, lead_of, safest
from regraft.training.loop.stage_run import StageRun

from .tiny import begin, few_photos_in

NAMES = ("a", "b", "c", "d")


def epoch(stage: str, losses: list[float] | Tensor, number: int = 1) -> Best:
    values = torch.as_tensor(losses, dtype=torch.float64)
    return Best(number, stage, number, float(values.mean()), losses=packed(values))


def answers(num_wrong: int, margin: float, num: int = 200) -> tuple[Tensor, Tensor]:
    """Logits of which so many are wrong, all of them as sure as the margin says."""
    targets = torch.arange(num) % len(NAMES)
    called = targets.clone()
    called[:num_wrong] = (called[:num_wrong] + 1) % len(NAMES)
    noise = torch.randn(num, len(NAMES), generator=torch.Generator().manual_seed(num_wrong))
    return functional.one_hot(called, len(NAMES)) * margin + 0.1 * margin * noise, targets


def measured(stage: str, logits: Tensor, targets: Tensor) -> tuple[float, Best]:
    measure = measure_for("softmax", NAMES)
    measure.update(logits, targets)
    values = measure.compute()
    return values["loss"], Best(1, stage, 1, values["calibrated_loss"], losses=packed(measure.losses()))


def test_smoothed_targets_do_not_hide_the_better_network() -> None:
    # The head is 90 % right and well calibrated; the whole network, trained on smoothed targets, 95 % and hardly sure.
    raw_head, head = measured("head", *answers(20, 3.5))
    raw_all, everything = measured("all", *answers(10, 1.2))
    assert raw_head < raw_all  # by which the head was delivered
    assert choose([head, everything], "min") is everything


def test_an_overconfident_network_is_no_worse_for_it() -> None:
    raw_first, first = measured("first", *answers(12, 4.0))
    raw_second, second = measured("second", *answers(10, 40.0))
    assert raw_first < raw_second
    assert choose([first, second], "min") is second


def test_a_later_stage_is_given_up_only_for_one_that_is_really_better() -> None:
    rng = np.random.default_rng(1)
    base = rng.exponential(0.3, 100)
    noise = rng.normal(0, 0.2, 100)
    head = epoch("head", torch.tensor(base))
    alike = epoch("all", torch.tensor(base + 0.005 + noise - noise.mean()))
    worse = epoch("all", torch.tensor(base + 0.2 + noise))
    assert alike.value > head.value
    assert not lead_of(head, alike).is_real  # type: ignore[union-attr]
    assert choose([head, alike], "min") is alike
    assert choose([head, alike], "min", {"all"}) is head, "the way back to the head was open, and it is no worse"
    better = epoch("all", torch.tensor(base - 0.001))
    assert choose([head, better], "min", {"all"}) is better
    assert lead_of(head, worse).is_real  # type: ignore[union-attr]
    assert choose([head, worse], "min") is head
    assert choose([worse, head], "min") is head


def test_small_losses_do_not_add_up_over_many_stages() -> None:
    rng = np.random.default_rng(2)
    base, noise = rng.exponential(0.3, 400), rng.normal(0, 0.2, 400)
    stages = [epoch(str(place), torch.tensor(base + 0.012 * place + noise * (place > 0))) for place in range(6)]
    chosen = choose(stages, "min")
    assert chosen is not None
    assert not lead_of(stages[0], chosen).is_real if chosen is not stages[0] else True  # type: ignore[union-attr]
    assert chosen is not stages[-1]


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=40), st.lists(st.floats(-2, 2), min_size=2, max_size=40))
def test_the_interval_is_of_pairs_and_the_same_seen_from_both_sides(first: list[float], second: list[float]) -> None:
    num = min(len(first), len(second))
    one, other = epoch("one", first[:num]), epoch("other", second[:num])
    lead, back = lead_of(one, other), lead_of(other, one)
    assert lead is not None
    assert back is not None
    assert lead.mean == pytest.approx(-back.mean)
    assert (lead.low, lead.high) == pytest.approx((-back.high, -back.low))
    assert lead.low <= lead.mean <= lead.high


def test_without_losses_of_images_the_best_value_counts_and_nan_never() -> None:
    values = (float("nan"), 0.5, 0.4, 0.45, float("nan"))
    bests = [Best(number, f"s{number}", 1, value) for number, value in enumerate(values)]
    assert choose(bests, "min") is bests[2]
    assert choose(bests, "max") is bests[1]
    assert choose(bests[:1], "min") is None
    assert choose([], "min") is None


def test_what_is_compared_is_part_of_the_saved_state() -> None:
    progress = Progress(bests=[epoch("head", [0.25, 0.5]), epoch("all", [0.125])], best=epoch("head", [0.25, 0.5]))
    stored = json.loads(json.dumps(progress.to_dict()))
    assert Progress.from_dict(stored) == progress
    assert Progress.from_dict(stored).bests[0].of_images.tolist() == [0.25, 0.5]
    older = {key: value for key, value in stored.items() if key not in ("bests", "last")}
    older["best"].pop("losses")
    assert [best.stage for best in Progress.from_dict(older).bests] == ["head"]  # of a version that compared values


def test_a_run_is_chosen_by_it_and_says_so(tmp_path: Path) -> None:
    photos = few_photos_in(tmp_path / "photos")
    plan = [
        rg.Stage("head", train="head", optimizer="adamw", epochs=2, batch_size=4, lr=0.1),
        rg.Stage("all", train="all", optimizer="sgd", epochs=2, batch_size=4, lr=0.05, label_smoothing=0.9),
    ]
    run = begin(photos, tmp_path / "run", plan=plan, monitor="val_calibrated_loss")
    epochs = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert all(0 <= line["val_calibrated_loss"] <= np.log(2) + 1e-9 for line in epochs)
    assert "val_calibrated_loss" in run.metrics_csv.read_text().splitlines()[0]
    best = json.loads(run.best.read_text())
    assert "losses" not in best
    log = run.log.read_text()
    assert f"(best: stage {best['stage']}, epoch {best['epoch']}, val_calibrated_loss {best['value']:.4f})" in log
    assert "chosen by val_calibrated_loss; next best: stage " in log
    assert "95 % interval over the validation images" in log


class Planned(rg.Callback):
    """Puts chosen losses of the validation images in the place of those that were measured, epoch by epoch."""

    def __init__(self, losses: list[list[float]]) -> None:
        self.losses = iter([torch.tensor(of_epoch, dtype=torch.float64) for of_epoch in losses])

    def on_stage_start(self, stage: StageRun) -> None:
        measured_for_real = stage.validate

        def validate() -> dict[str, float]:
            values = measured_for_real()
            losses = next(self.losses)
            stage.measure.losses = lambda: losses  # type: ignore[union-attr, method-assign]
            return {**values, "val_calibrated_loss": float(losses.mean())}

        stage.validate = validate  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ([[0.9] * 8, [0.2, 0.4] * 4, [0.4, 0.21] * 4], 3),  # as good as the second one, which has the smallest mean
        ([[0.9] * 8, [0.2, 0.4] * 4, [0.4, 0.6] * 4], 2),  # worse on every image
        ([[0.2, 0.4] * 4, [0.21, 0.4] * 4, [0.22, 0.4] * 4], 1),  # little by little, and surely
        ([[0.2, 0.4] * 4, [0.4, 0.21] * 4, [0.5, 0.6] * 4], 2),
    ],
)
def test_within_a_stage_a_later_epoch_is_given_up_only_for_one_that_is_really_better(
    losses: list[list[float]], chosen: int, tmp_path: Path
) -> None:
    photos = few_photos_in(tmp_path / "photos")
    plan = [rg.Stage("all", train="all", optimizer="sgd", epochs=3, batch_size=4, lr=0.05)]
    watch = Planned(losses)
    run = begin(photos, tmp_path / "run", plan=plan, monitor="val_calibrated_loss", callbacks=[watch])
    assert json.loads(run.best.read_text())["epoch"] == chosen
    means = [sum(of_epoch) / len(of_epoch) for of_epoch in losses]
    said = "within their noise, so the later one is taken" in run.log.read_text()
    assert said == (min(means) < means[chosen - 1] - 1e-9)


def test_a_solved_head_is_not_its_own_next_best(tmp_path: Path) -> None:
    """The chosen solution is put back at the end, at a step of its own. Weights of classes: there are several."""
    data = rg.open_data(few_photos_in(tmp_path / "photos"))
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("head", optimizer="lbfgs", class_weights=[1.0, 1.0])])
    run = rg.train(model, plan, data, out=tmp_path / "run", show=False)
    best = json.loads(run.best.read_text())
    (said,) = [line for line in run.log.read_text().splitlines() if "chosen by val_calibrated_loss" in line]
    assert f"next best: stage head, epoch {best['epoch']}, " not in said


def drawn_losses(rng: np.random.Generator, gain: float, num: int) -> list[Best]:
    """A head, and networks between it and one that was fine-tuned: their leads and their noise grow with the share."""
    head = rng.exponential(0.4, num)
    moved = rng.normal(0, 0.5, num)
    others = {share: head - share * gain + share * moved for share in (0.25, 0.5, 0.75, 1.0)}
    return [epoch("head", torch.tensor(head)), *(epoch("all", torch.tensor(others[share])) for share in others)]


def test_on_few_images_a_network_that_is_better_by_luck_is_left_alone() -> None:
    rng = np.random.default_rng(3)
    rounds = 300
    kept_by_mean = kept = 0
    for _ in range(rounds):
        head, *others = drawn_losses(rng, gain=-0.03, num=40)  # all others are truly worse
        kept += safest(head, others, "min") is head
        kept_by_mean += min([head, *others], key=lambda one: one.value) is head
    assert kept > 0.8 * rounds > kept_by_mean
    taken = sum(safest(*_split(drawn_losses(rng, gain=0.3, num=40)), "min").stage == "all" for _ in range(rounds))
    assert taken > 0.95 * rounds, "what is clearly better is taken"


def _split(bests: list[Best]) -> tuple[Best, list[Best]]:
    return bests[0], bests[1:]


def test_on_many_images_the_best_value_counts() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        bests = drawn_losses(rng, gain=0.02, num=200)
        assert safest(*_split(bests), "min").value == min(best.value for best in bests)
        assert choose([bests[0], bests[4]], "min", {"all"}) is min((bests[0], bests[4]), key=lambda one: one.value)


def test_a_stage_that_may_end_where_it_began_needs_more_than_a_standard_error_of_few_images() -> None:
    noise = torch.linspace(-1, 1, 50, dtype=torch.float64)  # a standard error of 0.08
    head = epoch("head", torch.full((50,), 2.0, dtype=torch.float64))
    lucky, better = epoch("all", 1.95 + noise), epoch("all", 1.85 + noise)
    assert choose([head, lucky], "min", {"all"}) is head
    assert choose([head, better], "min", {"all"}) is better
    assert choose([head, lucky], "min") is lucky, "a stage without interpolation is delivered as before"
