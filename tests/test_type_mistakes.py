"""Settings of the wrong type are SettingsErrors that name them, not TypeErrors from some comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import regraft as rg
from regraft.errors import SettingsError
from regraft.plan.make import make_plan


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: rg.Stage("a", lr="x"), "lr: must be a number, or 'auto', or a mapping; it is 'x'"),  # type: ignore[arg-type]
        (lambda: rg.Stage("a", epochs=1.5), "epochs: must be a whole number; it is 1.5"),  # type: ignore[arg-type]
        (lambda: rg.Stage("a", epochs=True), "epochs: must be a whole number; it is True"),
        (lambda: rg.Stage("a", train={"head": 1}), "train: must be a string, or a list"),  # type: ignore[arg-type]
        (lambda: rg.Stage("a", lr={"head": "x"}), "lr.head: must be a number; it is 'x'"),  # type: ignore[dict-item]
        (
            lambda: rg.Stage("a", augment={"flip": 1}),
            "augment.flip: must be 'horizontal', 'vertical'",
        ),  # type: ignore[arg-type]
        (
            lambda: rg.Stage("a", image_size="big"),
            "image_size: must be a whole number of pixels, or two",
        ),  # type: ignore[arg-type]
        (lambda: rg.Stage("a", train=3), "train: must be a string; it is 3"),  # type: ignore[arg-type]
        (lambda: rg.Stage("a", train=["head", 3]), "train: must be a string; it is 3"),  # type: ignore[list-item]
        (lambda: rg.Stage("a", epochs="3"), "epochs: must be a whole number; it is '3'"),  # type: ignore[arg-type]
        (lambda: rg.Stage("a", epochs=2.0), "epochs: must be a whole number; it is 2.0"),  # type: ignore[arg-type]
        (lambda: rg.Stage("a", lr="1e-3"), "lr: must be a number; it is '1e-3'"),  # type: ignore[arg-type]
        (lambda: rg.Schedule("cosin"), "name: must be 'constant', 'step'"),  # type: ignore[arg-type]
        (lambda: rg.Augment(rotation="x"), "rotation: must be a number; it is 'x'"),  # type: ignore[arg-type]
        (lambda: rg.Head(hidden=5), "hidden: must be a list; it is 5"),  # type: ignore[arg-type]
        (lambda: rg.Head(dropout="x"), "dropout: must be a number; it is 'x'"),  # type: ignore[arg-type]
        (
            lambda: rg.Stage("a", early_stopping=rg.EarlyStopping(patience="x")),  # type: ignore[arg-type]
            "patience: must be a whole number; it is 'x'",
        ),
    ],
)
def test_a_wrong_type_is_named(make: Any, line: str) -> None:
    with pytest.raises(SettingsError) as error:
        make()
    assert any(detail.startswith(line) for detail in error.value.details), error.value.details


def test_numbers_of_numpy_and_lists_are_welcome() -> None:
    stage = rg.Stage("a", lr=np.float32(0.5), epochs=np.int64(3), image_size=[32, 48], train=("head",))  # type: ignore[arg-type]
    assert (stage.lr, stage.epochs) == (0.5, 3)
    assert stage.size == (32, 48)
    assert rg.Augment(crop=[0.5, 1.0]).crop == (0.5, 1.0)  # type: ignore[arg-type]


def test_one_stage_is_not_a_list_of_stages() -> None:
    for given in (rg.Stage("a"), ["head"], [{"name": "a"}]):
        with pytest.raises(SettingsError, match=r"expected: a list of `rg\.Stage`"):
            make_plan(None, given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rg.build_model(None), "`name` is a NoneType"),  # type: ignore[arg-type]
        (lambda: rg.read_weights({}), "`path` is a dict"),  # type: ignore[arg-type]
        (lambda: rg.open_data(["a"]), "`source` is a list"),  # type: ignore[arg-type]
        (lambda: rg.adapt("resnet18", classes=2), "`model` is a str"),  # type: ignore[arg-type]
        (lambda: rg.make_plan("resnet18", []), "`model` is a str"),  # type: ignore[arg-type]
        (lambda: rg.match_weights("w.pth", rg.build_model("test_resnet")), "`weights` is a str"),  # type: ignore[arg-type]
        (lambda: rg.graft(rg.build_model("test_resnet"), None), "`report` is a NoneType"),  # type: ignore[arg-type]
        (lambda: rg.train("resnet18", None, "photos"), "`model` is a str"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_type_are_named(call: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        call()
