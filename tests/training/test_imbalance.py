"""Strongly imbalanced classes: the loss adds the logarithms of their shares, by itself in a run without a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import regraft as rg
from regraft.errors import SettingsError
from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.evaluation.metrics.measure import measure_for
from regraft.plan.imbalance import adjustment_factor
from regraft.training.objective.balance import class_weights, log_shares
from regraft.training.objective.lbfgs import solve_head
from regraft.training.objective.losses import build_loss
from tests.conftest import TINY_MODEL, Cli, photos

FEW = ("--model", TINY_MODEL, "--image-size", "32", "--set", "model.weights=none", "--stages", "head")


def drawn(per_class: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around the means of classes that overlap."""
    means = torch.randn(len(per_class), 64, generator=torch.Generator().manual_seed(0))
    labels = torch.repeat_interleave(torch.arange(len(per_class)), torch.tensor(per_class))
    noise = torch.randn(len(labels), 64, generator=torch.Generator().manual_seed(seed))
    return means[labels] + 3 * noise, labels


def balanced_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    right = logits.argmax(1) == labels
    return float(torch.stack([right[labels == number].double().mean() for number in labels.unique()]).mean())


def test_the_loss_is_that_of_logits_with_the_logarithms_of_the_shares() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    added = log_shares(0.5, 3, labels)
    assert added is not None
    assert added.tolist() == pytest.approx((0.5 * np.log([0.9, 0.09, 0.01])).tolist())
    logits, targets = torch.randn(7, 3), torch.arange(7) % 3
    loss = build_loss("softmax", adjustment=added)
    assert torch.equal(loss(logits, targets), functional.cross_entropy(logits + added, targets))
    assert log_shares(0.0, 3, labels) is None
    assert log_shares(1.0, 4, labels).isfinite().all(), "a class without an image"  # type: ignore[union-attr]


def test_at_a_hundred_to_one_it_beats_balanced_weights() -> None:
    train, test = drawn([500, 50, 5], seed=1), drawn([300, 300, 300], seed=2)
    labels = train[1].numpy()
    found = {}
    for name, settings in {
        "plain": {},
        "weights": {"class_weights": class_weights("balanced", ["a", "b", "c"], labels)},
        "adjusted": {"adjustment": log_shares(1.0, 3, labels)},
    }.items():
        (head,) = solve_head(*train, 3, build_loss("softmax", **settings), strengths=[0.1])
        found[name] = balanced_accuracy(functional.linear(test[0], head.weight, head.bias), test[1])
    assert found["adjusted"] > found["weights"] > found["plain"], found


def test_stages_are_compared_by_what_their_loss_says_of_such_images() -> None:
    logits, targets = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 3
    added = torch.tensor([0.0, -2.0, -4.0])
    measure = measure_for("softmax", ["a", "b", "c"], added)
    measure.update(logits, targets)
    assert torch.equal(measure.losses(), calibrated_losses(logits + added, targets))
    assert measure.compute()["loss"] == pytest.approx(float(functional.cross_entropy(logits, targets)), rel=1e-6)


def test_auto_is_for_twenty_to_one_and_leaves_what_is_weighed_alone() -> None:
    strong, weak = np.repeat([0, 1], [200, 10]), np.repeat([0, 1], [199, 10])
    stage = rg.Stage("head", logit_adjustment="auto")
    assert adjustment_factor(stage, "softmax", strong) == 1
    assert adjustment_factor(stage, "softmax", weak) == 0
    assert adjustment_factor(stage, "binary", strong) == 0
    assert adjustment_factor(rg.Stage("head", logit_adjustment=0.5), "softmax", weak) == 0.5
    for settings in ({"class_weights": "balanced"}, {"sampling": "balanced"}):
        weighed = rg.Stage("head", logit_adjustment="auto", **settings)  # type: ignore[arg-type]
        assert adjustment_factor(weighed, "softmax", strong) == 0


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uneven")
    photos(root / "train", {"blue": 60, "red": 3})
    return photos(root / "val", {"blue": 6, "red": 3}, seed=1).parent


def test_a_run_without_a_recipe_does_it_and_says_so(cli: Cli, uneven: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("-q", "train", uneven, "--out", run, *FEW).code == 0
    settings = rg.open_run(run).settings()
    assert [stage["logit_adjustment"] for stage in settings["stages"]] == [1.0]
    told = "stage head: logit_adjustment 1 (auto: 'blue' has 60 images and 'red' 3; all classes count the same)"
    assert f"# {told}" in (run / "recipe.yaml").read_text()
    assert told in (run / "log.txt").read_text()
    assert "logit adjustment, arXiv:2007.07314" in (run / "report.html").read_text()
    off = tmp_path / "off"
    assert cli("-q", "train", uneven, "--out", off, *FEW, "--set", "stages.*.logit_adjustment=0").code == 0
    assert "logit adjustment" not in (off / "report.html").read_text()


def test_classes_of_like_sizes_are_left_alone(tiny_photos: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("-q", "train", tiny_photos, "--out", tmp_path / "run", *FEW).code == 0
    assert [stage["logit_adjustment"] for stage in rg.open_run(tmp_path / "run").settings()["stages"]] == [0.0]


def test_other_outputs_refuse_it_and_twice_corrected_classes_are_told() -> None:
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=["a", "b"], image_size=32, head=rg.Head(output="binary"))
    with pytest.raises(SettingsError, match="stages do not fit") as refused:
        rg.make_plan(model, [rg.Stage("head", logit_adjustment=1.0)])
    assert "softmax" in str(refused.value.details)
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=["a", "b"], image_size=32)
    plan = rg.make_plan(model, [rg.Stage("top", optimizer="adamw", logit_adjustment=1.0, class_weights="balanced")])
    assert any("both correct class imbalance" in warning for warning in plan.warnings)
