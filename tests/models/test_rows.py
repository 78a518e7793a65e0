"""Rows of the classifier follow the class names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regraft as rg
from regraft.models.describe.info import info_of
from regraft.models.describe.provenance import Rows

OLD = ["cat", "dog", "hen", "owl"]
IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """A user's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def logits(model: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs = model.eval()(IMAGES)
    return dict(zip(info_of(model).class_names or (), outputs.T, strict=True))


def adapted(name: str, head: rg.Head | None = None) -> nn.Module:
    model = Small() if name == "own" else rg.build_model(name)
    return rg.adapt(model, classes=OLD, image_size=64, head=head, seed=1)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("test_resnet", None),
        ("test_efficientnet", rg.Head(dropout=0.3)),
        ("test_mambaout", None),  # its classifier is fc2 of a head with hidden layers of its own
        ("mobilenetv3_small_050", None),
        ("resnetv2_18", None),  # its classifier is a 1x1 convolution
        ("test_resnet", rg.Head(pool="flatten", hidden=[16, 4], dropout=0.2)),
        ("test_convnext", rg.Head(pool="avgmax")),
        ("own", None),
        ("own", rg.Head(hidden=[4])),
    ],
)
@pytest.mark.parametrize("classes", [["owl", "ant", "cat"], ["hen", "dog"], ["dog", "cat", "owl", "hen", "bee"]])
def test_logits_of_names_that_stay_are_unchanged(name: str, head: rg.Head | None, classes: list[str]) -> None:
    model = adapted(name, head)
    changed = rg.adapt(model, classes=classes)
    before, after = logits(model), logits(changed)
    assert list(after) == classes
    for shared in set(before) & set(after):
        assert (before[shared] - after[shared]).abs().max() <= 1e-6
    rows = info_of(changed).origin.rows
    assert rows.kept == tuple(c for c in classes if c in OLD)
    assert rows.added == tuple(c for c in classes if c not in OLD)
    assert rows.dropped == tuple(c for c in OLD if c not in classes)
    assert rows.reason == ""
    assert bool(info_of(changed).new_layers) == bool(rows.added)


def test_new_rows_are_a_function_of_the_seed() -> None:
    model = adapted("test_resnet")
    one, two, other = (
        rg.adapt(model, classes=["ant", "cat"], seed=seed).get_parameter("fc.weight") for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], other[0])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, unique=True), st.data())
def test_any_two_lists_of_names(before: list[str], data: Any) -> None:
    after = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, unique=True))
    base = rg.adapt(Small(), classes=before, image_size=64, seed=3)
    changed = rg.adapt(base, classes=after, seed=4)
    old, new = base.get_parameter("fc.weight"), changed.get_parameter("fc.weight")
    for row, name in enumerate(after):
        if name in before:
            assert torch.equal(new[row], old[before.index(name)])
        else:
            assert not any(torch.equal(new[row], other) for other in old)


def test_a_loaded_model_keeps_its_rows(tiny_run: Any) -> None:
    model = rg.load_model(tiny_run)
    changed = rg.adapt(model, classes=["red", "yellow", "blue"])
    old, new = model.get_parameter("classifier.weight"), changed.get_parameter("classifier.weight")
    assert torch.equal(new[[0, 2]], old[[2, 0]])


def test_a_new_head_on_request() -> None:
    model = adapted("test_resnet")
    changed = rg.adapt(model, classes=OLD, keep_rows=False, seed=9)
    assert not torch.equal(changed.get_parameter("fc.weight"), model.get_parameter("fc.weight"))
    assert info_of(changed).origin.rows.added == tuple(OLD)
    assert "asked for" in info_of(changed).origin.rows.reason


@pytest.mark.parametrize(
    ("before", "after", "size"),
    [
        (rg.Head(pool="avg", hidden=[4]), rg.Head(pool="avg", hidden=[5]), 64),
        (rg.Head(pool="avg", hidden=[4]), rg.Head(pool="max", hidden=[4]), 64),
        (rg.Head(pool="avg", hidden=[4]), rg.Head(pool="avg", hidden=[4], activation="tanh"), 64),
        (rg.Head(), rg.Head(pool="avg"), 64),
        (
            rg.Head(pool="flatten", hidden=[4]),
            rg.Head(pool="flatten", hidden=[4]),
            96,
        ),  # the new size changes its inputs
    ],
)
def test_rows_of_another_form_of_head_mean_nothing(before: rg.Head, after: rg.Head, size: int) -> None:
    model = rg.adapt(rg.build_model("test_resnet"), classes=OLD, image_size=64, head=before)
    rows = info_of(rg.adapt(model, classes=OLD, head=after, image_size=size)).origin.rows
    assert rows == Rows(added=tuple(OLD), reason="the head has another form")


def test_hidden_layers_as_wide_as_the_classes_are_not_shuffled() -> None:
    model = adapted("test_resnet", rg.Head(pool="avg", hidden=[4]))
    changed = rg.adapt(model, classes=OLD[::-1])
    assert torch.equal(changed.get_parameter("fc.hidden1.weight"), model.get_parameter("fc.hidden1.weight"))
    assert torch.equal(
        changed.get_parameter("fc.classifier.weight"), model.get_parameter("fc.classifier.weight").flip(0)
    )


def test_a_network_without_class_names_keeps_nothing() -> None:
    rows = info_of(adapted("test_resnet")).origin.rows
    assert rows == Rows(added=tuple(OLD))
