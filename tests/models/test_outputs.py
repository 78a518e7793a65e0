"""Heads with one logit and with a sigmoid for each label: their rows, their probabilities, their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regraft as rg
from regraft.errors import SettingsError, StorageError
from regraft.evaluation.probes import make_probes
from regraft.models.describe.info import info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import decide, monitors, num_logits, output_of, probabilities
from regraft.models.describe.provenance import Rows
from regraft.models.store.folder import load_probes, write_model
from regraft.models.surgery.surgery import default_preprocessing

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def build(classes: list[str], output: str, **form: Any) -> nn.Module:
    head = rg.Head(output=output, **form)
    return rg.adapt(rg.build_model("test_resnet"), classes=classes, image_size=64, head=head, seed=1).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = model.eval()(IMAGES)
    return outputs


def chances(model: nn.Module) -> dict[str, Tensor]:
    """The probability of each class, by name."""
    values = probabilities(output_of(model), logits(model)).double()
    return dict(zip(info_of(model).class_names or (), values.T, strict=True))


@pytest.mark.parametrize("form", [{}, {"dropout": 0.2}, {"pool": "flatten", "hidden": [8]}])
def test_a_binary_head_has_one_logit_and_a_multilabel_head_one_for_each_label(form: dict[str, Any]) -> None:
    assert logits(build(["cat", "dog"], "binary", **form)).shape == (3, 1)
    assert logits(build(["a", "b", "c"], "multilabel", **form)).shape == (3, 3)
    assert logits(build(["a"], "multilabel", **form)).shape == (3, 1)


@pytest.mark.parametrize("classes", [["cat"], ["cat", "dog", "hen"]])
def test_binary_needs_two_classes(classes: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"two classes|at least two"):
        build(classes, "binary")


def test_an_unknown_output_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="'softmax', 'binary', 'multilabel'"):
        rg.Head(output="sigmoid")


def test_a_head_keeps_its_output_when_only_its_classes_change() -> None:
    changed = rg.adapt(build(["a", "b", "c"], "multilabel"), classes=["c", "d"])
    assert output_of(changed) == "multilabel"
    with pytest.raises(SettingsError, match="exactly two"):
        rg.adapt(build(["a", "b"], "binary"), classes=["a", "b", "c"])


@given(st.lists(st.floats(-60, 60), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_probabilities_of_one_logit_are_exact_on_both_sides(values: list[float]) -> None:
    logit = torch.tensor(values, dtype=torch.float32)[:, None]
    pair = probabilities("binary", logit)
    two = torch.cat([torch.zeros_like(logit), logit], 1).double()
    torch.testing.assert_close(pair, probabilities("softmax", two), rtol=1e-12, atol=0)


def test_decisions() -> None:
    def named(output: str, values: list[float], names: str, thresholds: dict[str, float]) -> tuple[int, ...]:
        return decide(output, np.array(values), list(names), thresholds)

    assert named("softmax", [0.2, 0.5, 0.3], "abc", {}) == (1,)
    assert named("softmax", [0.4, 0.4, 0.2], "abc", {}) == (0,)
    assert [named("binary", [1 - p, p], "ab", {"b": 0.3}) for p in (0.29, 0.3, 0.9)] == [(0,), (1,), (1,)]
    assert named("binary", [0.5, 0.5], "ab", {}) == (1,)
    assert named("multilabel", [0.2, 0.9, 0.5], "abc", {"a": 0.1, "b": 0.95}) == (0, 2)
    assert named("multilabel", [0.2, 0.1], "ab", {}) == ()


def test_what_can_be_watched() -> None:
    assert monitors("softmax", 3) == (
        "val_loss",
        "val_calibrated_loss",
        "val_top1",
        "val_balanced_accuracy",
        "train_loss",
    )
    assert "val_top5" in monitors("softmax", 6)
    assert {"val_auc", "val_ap"} <= set(monitors("binary", 2))
    assert {"val_map", "val_f1_micro", "val_f1_macro"} <= set(monitors("multilabel", 2))
    assert [num_logits(output, 2) for output in ("softmax", "binary", "multilabel")] == [2, 1, 2]


# Rows follow names between outputs, where they mean the same.


@pytest.mark.parametrize("form", [{}, {"pool": "avgmax", "hidden": [8]}])
@pytest.mark.parametrize("before", ["softmax", "binary"])
@pytest.mark.parametrize("after", ["softmax", "binary"])
@pytest.mark.parametrize("classes", [["cat", "dog"], ["dog", "cat"]])
def test_softmax_and_binary_turn_into_each_other(
    before: str, after: str, classes: list[str], form: dict[str, Any]
) -> None:
    model = build(["cat", "dog"], before, **form)
    changed = rg.adapt(model, classes=classes, head=rg.Head(output=after, **form), seed=9)
    assert info_of(changed).origin.rows == Rows(kept=tuple(classes))
    assert info_of(changed).new_layers == ()
    for name, values in chances(model).items():
        torch.testing.assert_close(chances(changed)[name], values, atol=1e-6, rtol=1e-5)


def test_two_of_three_classes_keep_their_odds_in_one_logit() -> None:
    model = build(["cat", "dog", "hen"], "softmax")
    odds = chances(model)["hen"] / chances(model)["cat"]
    changed = chances(rg.adapt(model, classes=["cat", "hen"], head=rg.Head(output="binary")))
    torch.testing.assert_close(changed["hen"] / changed["cat"], odds, rtol=1e-4, atol=0)


def test_a_third_class_joins_a_binary_head_as_softmax() -> None:
    model = build(["cat", "dog"], "binary")
    odds = chances(model)["dog"] / chances(model)["cat"]
    changed = rg.adapt(model, classes=["ant", "cat", "dog"], head=rg.Head())
    assert info_of(changed).origin.rows.added == ("ant",)
    torch.testing.assert_close(chances(changed)["dog"] / chances(changed)["cat"], odds, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("before", "after", "classes", "reason"),
    [
        ("softmax", "multilabel", ["cat", "dog"], "mean something else"),
        ("multilabel", "softmax", ["cat", "dog"], "mean something else"),
        ("multilabel", "binary", ["cat", "dog"], "mean something else"),
        ("binary", "softmax", ["cat", "hen"], "only one of them"),
        ("softmax", "binary", ["cat", "hen"], "only one of them"),
    ],
)
def test_rows_that_would_mean_nothing_are_new(before: str, after: str, classes: list[str], reason: str) -> None:
    rows = info_of(rg.adapt(build(["cat", "dog"], before), classes=classes, head=rg.Head(output=after))).origin.rows
    assert rows.kept == ()
    assert reason in rows.reason


def test_labels_keep_their_rows() -> None:
    model = build(["a", "b", "c"], "multilabel")
    changed = chances(rg.adapt(model, classes=["c", "x", "a"]))
    for name in ("a", "c"):
        torch.testing.assert_close(changed[name], chances(model)[name], atol=1e-6, rtol=0)


def test_the_preview_says_what_the_logits_are() -> None:
    model = rg.build_model("test_resnet")
    head = rg.Head(output="binary", pool="flatten")
    plan = rg.surgery_plan(model, classes=["cat", "dog"], image_size=64, head=head)
    assert "one logit with a sigmoid" in plan.render()
    assert plan.cost is not None
    assert plan.cost.num_parameters == 4 * 96 * 1 + 1


# The model folder


def write(path: Path, model: nn.Module) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    probes = make_probes(model, images, Normaliser(default_preprocessing(model)))
    return write_model(path, model, probes=probes)


@pytest.mark.parametrize(
    ("output", "classes", "thresholds"),
    [("binary", ["cat", "dog"], {"dog": 0.25}), ("multilabel", ["a", "b", "c"], {"a": 0.75, "c": 0.1})],
)
@pytest.mark.parametrize(("form", "loadable"), [({}, True), ({"hidden": [8]}, False)])
def test_a_folder_keeps_output_and_thresholds(
    tmp_path: Path, output: str, classes: list[str], thresholds: dict[str, float], form: dict[str, Any], loadable: bool
) -> None:
    model = build(classes, output, **form)
    info_of(model).thresholds = thresholds
    config = write(tmp_path / "model", model)
    loaded = rg.load_model(tmp_path / "model")
    info = info_of(loaded)
    named = classes[1:] if output == "binary" else classes
    assert info.output == output
    assert info.class_names == tuple(classes)
    assert info.thresholds == {name: thresholds.get(name, 0.5) for name in named}
    images, expected = load_probes(tmp_path / "model").values()
    with torch.no_grad():
        assert torch.equal(loaded(images), expected)
    assert config["regraft"]["timm_loadable"] is loadable
    assert config["label_names"] == named, "timm wants one name for each logit"
    if loadable:
        twin = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
        with torch.no_grad():
            assert torch.allclose(twin(images), expected, atol=1e-5)
    assert "dog from 0.25" in (tmp_path / "model" / "README.md").read_text() or output == "multilabel"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"output": "sigmoid"}, "the output 'sigmoid'"),
        ({"output": "softmax"}, "label_names"),
        ({"output": []}, "unhashable"),
        ({"class_names": ["cat"]}, "label_names"),
        ({"class_names": ["dog", "cat"]}, "label_names"),
        ({"class_names": ["cat", "dog", "hen"]}, "label_names"),
        ({"thresholds": {"dog": 2}}, "thresholds are not"),
        ({"thresholds": {"dog": "half"}}, "thresholds are not"),
        ({"thresholds": {"cat": 0.5}}, "thresholds are not"),
        ({"thresholds": [0.5]}, "thresholds are not"),
        ({"thresholds": None}, "NoneType"),
    ],
    ids=json.dumps,
)
def test_a_tampered_meaning_is_refused(tmp_path: Path, damage: dict[str, Any], said: str) -> None:
    write(tmp_path / "model", build(["cat", "dog"], "binary"))
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["regraft"].update(damage)
    path.write_text(json.dumps(config))
    with pytest.raises(StorageError, match=said):
        rg.load_model(tmp_path / "model")
