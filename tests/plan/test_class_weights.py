"""Class weights: by name, by position as in Keras, and what neither of them can mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.tiny import tiny_network

import regraft as rg
from regraft.errors import SettingsError
from regraft.plan.class_weights import by_class_name, class_weight_mistakes
from regraft.recipe.recipe import validate_recipe
from regraft.training.objective.balance import class_weights
from regraft.training.objective.losses import build_loss


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        ({0: 1, 1: 3}, ("cat", "dog"), {"cat": 1, "dog": 3}),
        ({"1": 3}, ("cat", "dog"), {"dog": 3}),
        ({0: 1, 1: 3}, ("0", "1"), {"0": 1, "1": 3}),
        ({1: 3, 2: 5}, ("1", "2", "3"), {"1": 3, "2": 5}),  # names, though they could be positions as well
        ({"cat": 2}, ("cat", "dog"), {"cat": 2}),
        ([1, 3], ("cat", "dog"), [1, 3]),
    ],
)
def test_keys_are_names_or_positions(given: Any, names: tuple[str, ...], expected: Any) -> None:
    assert by_class_name(given, names) == expected
    assert list(class_weight_mistakes(given, names)) == []
    values = [expected.get(name, 1) for name in names] if isinstance(expected, Mapping) else expected
    made = class_weights(given, names, torch.zeros(0, dtype=torch.int64).numpy())
    assert made is not None
    assert made.tolist() == values


@pytest.mark.parametrize(
    ("given", "names", "said"),
    [
        ({0: 1, 2: 3}, ("cat", "dog"), "positions from 0 to 1"),
        ({0: 1, 1: 3}, ("1", "2"), "write the class names: '1', '2'"),
        ({"cta": 1}, ("cat", "dog"), "did you mean 'cat'"),
        ({"cat": 0, "dog": 0}, ("cat", "dog"), "0 for every class"),
        ([1.0], ("cat", "dog"), "1 weight for 2 classes"),
    ],
)
def test_what_the_keys_cannot_mean_is_told(given: Any, names: tuple[str, ...], said: str) -> None:
    (line,) = class_weight_mistakes(given, names)
    assert said in line


def test_keras_keys_go_through_a_recipe_and_stand_in_the_plan_by_name() -> None:
    recipe = validate_recipe({"stages": [{"name": "all", "train": "all", "class_weights": {0: 1, 1: 3}}]})
    stage = recipe.stages[0]
    plan = rg.make_plan(tiny_network(), [stage])
    assert plan.stages[0].class_weights == {"bright": 1.0, "dark": 3.0}


def test_zero_for_every_class_is_refused_with_the_reason() -> None:
    with pytest.raises(SettingsError) as caught:
        rg.Stage("all", class_weights=[0, 0])
    assert "nothing would train" in caught.value.details[0]
    assert rg.Stage("all", class_weights={"cat": 0}).class_weights == {"cat": 0}, "the others have 1"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("output", ["softmax", "binary"])
def test_a_batch_of_classes_that_weigh_nothing_has_no_loss_and_no_gradient(output: str, smoothing: float) -> None:
    loss = build_loss(output, label_smoothing=smoothing, class_weights=torch.tensor([0.0, 1.0]))
    logits = torch.randn(3, 1 if output == "binary" else 2, requires_grad=True)
    for targets in (torch.zeros(3, dtype=torch.int64), torch.tensor([[1.0, 0.0]] * 3)):
        value = loss(logits, targets)
        value.backward()  # type: ignore[no-untyped-call]
        assert float(value.detach()) == 0.0
        assert logits.grad is not None
        assert not logits.grad.any()
    mixed = loss(logits, torch.tensor([0, 1, 1]))
    alone = loss(logits[1:], torch.tensor([1, 1]))
    if not smoothing:
        torch.testing.assert_close(mixed, alone)


def test_numbers_of_numpy_are_numbers() -> None:
    assert rg.Stage("a", class_weights=[np.float32(1), np.int64(2)]).class_weights is not None
    with pytest.raises(SettingsError, match="finite number"):
        rg.Stage("a", class_weights=[np.float32("nan"), 1.0])
