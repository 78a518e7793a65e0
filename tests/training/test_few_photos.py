"""Heads of few photos: the strength of the regularisation comes from the training images, and is told."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import regraft as rg
from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from regraft.training.objective.few_photos import (
    STRENGTHS_FOR_FEW,
    are_few,
    are_few_to_choose_by,
    choose_strength,
)
from regraft.training.objective.lbfgs import STRENGTHS, solve_head
from regraft.training.objective.losses import build_loss
from tests.conftest import photos
from tests.training.tiny import few_photos_in

NUM_CLASSES = 5


def drawn(per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features around the means of five classes, far wider than the means lie apart."""
    means = torch.randn(NUM_CLASSES, 200, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(NUM_CLASSES).repeat_interleave(per_class)
    noise = torch.randn(len(labels), 200, generator=torch.Generator().manual_seed(seed))
    return means[labels] + 5 * noise, labels


def losses_of(strengths: tuple[float, ...], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[float]:
    solutions = solve_head(*train, NUM_CLASSES, build_loss("softmax"), strengths=strengths)
    return [float(calibrated_losses(test[0] @ s.weight.T + s.bias, test[1]).mean()) for s in solutions]


def test_it_is_better_than_what_one_validation_image_a_class_chooses() -> None:
    test, gains = drawn(200, seed=99), []
    for seed in range(1, 6):
        train = drawn(5, seed)
        choice = choose_strength(*train, NUM_CLASSES, build_loss("softmax"), seed=0)
        (ours,) = losses_of((choice.strength,), train, test)
        of_validation = losses_of(STRENGTHS, train, drawn(1, seed + 100))
        gains.append(losses_of(STRENGTHS, train, test)[of_validation.index(min(of_validation))] - ours)
    assert sum(gains) > 0, gains


def test_two_classes_of_one_logit_are_cross_validated_too() -> None:
    features, labels = drawn(5, seed=1)
    features, labels = features[:10], labels[:10]
    choice = choose_strength(features, labels, 1, build_loss("binary"), seed=0)
    assert choice == choose_strength(features, labels, 1, build_loss("binary"), seed=0)
    assert (choice.num_folds, set(choice.losses)) == (5, set(STRENGTHS_FOR_FEW))


def test_with_one_image_of_each_class_there_is_nothing_to_choose_by() -> None:
    choice = choose_strength(*drawn(1, seed=1), NUM_CLASSES, build_loss("softmax"), seed=0)
    assert (choice.num_folds, choice.losses) == (0, {})


def test_few_are_twenty_images_a_class() -> None:
    assert are_few(torch.zeros(40, dtype=torch.int64), 2)
    assert not are_few(torch.zeros(41, dtype=torch.int64), 2)
    assert not are_few(torch.zeros(1001, dtype=torch.int64), 100)
    assert not are_few(torch.zeros(4, 3), 3), "several labels for an image"


def trained(tmp_path: Path, **settings: object) -> RunFolder:
    data = rg.open_data(few_photos_in(tmp_path / "photos"))
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("head", optimizer="lbfgs", **settings)])  # type: ignore[arg-type]
    return rg.train(model, plan, data, out=tmp_path / "run", show=False)


def test_the_log_and_the_report_say_what_was_done(tmp_path: Path) -> None:
    run = trained(tmp_path)
    (record,) = read_metrics(run.metrics)
    assert record["folds"] == 4
    assert "head: 8 images of 2 classes are few, so the l2 is chosen by 4-fold cross-validation" in run.log.read_text()
    assert "l2 by 4-fold cross-validation, as images are few" in rg.write_report(run).read_text()


def test_weights_of_classes_that_somebody_chose_are_left_to_validation(tmp_path: Path) -> None:
    run = trained(tmp_path, class_weights=[1.0, 2.0])
    assert len(read_metrics(run.metrics)) > 1


def test_few_validation_images_leave_the_strength_to_the_training_images(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    photos(root / "train", {"blue": 25, "red": 25})
    photos(root / "val", {"blue": 3, "red": 3}, seed=1)
    data = rg.open_data(root)
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=data.class_names, image_size=32)
    run = rg.train(
        model, rg.make_plan(model, [rg.Stage("head", optimizer="lbfgs")]), data, out=tmp_path / "run", show=False
    )
    (record,) = read_metrics(run.metrics)
    assert record["folds"] == 5
    told = "head: 6 validation images are few, so the l2 is chosen by 5-fold cross-validation over the training images"
    assert told in run.log.read_text()


def test_two_hundred_validation_images_choose_themselves() -> None:
    assert are_few_to_choose_by(torch.zeros(500, dtype=torch.int64), 199)
    assert not are_few_to_choose_by(torch.zeros(500, dtype=torch.int64), 200)
    assert not are_few_to_choose_by(torch.zeros(500, 3), 30), "several labels for an image"


def test_of_many_images_a_thousand_are_cross_validated_and_hopeless_strengths_left_out() -> None:
    features, labels = drawn(240, seed=1)
    choice = choose_strength(features, labels, NUM_CLASSES, build_loss("softmax"), seed=0, few=False)
    assert choice.strength < choice.best
    assert choice == choose_strength(features, labels, NUM_CLASSES, build_loss("softmax"), seed=0, few=False)
    tried = list(choice.losses)
    assert tried == sorted(tried, reverse=True)
    assert tried.index(choice.best) >= len(tried) - 3
