"""`regraft export --int8`: what is fitted, measured, kept in floats, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.conftest import Cli, photos

import regraft as rg
from regraft.exports.int8 import accuracy, form
from regraft.exports.int8.accuracy import Answers, Drop
from regraft.exports.int8.quantise import WAYS, layers_of, quantised, ranges_of


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images are enough: they are all that the tiny run has."""
    for module in (accuracy, form):
        monkeypatch.setattr(module, "MOST_LIKELY_DROP", 0.9)


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_a_file_in_int8(tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli, small: None) -> None:
    out = tmp_path / "tiny.onnx"
    result = cli("export", tiny_run, "-o", out, "--int8", "--verify", "6")
    assert result.code == 0, result.err
    assert "a drop of 0.00 points (95 % interval" in result.out
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    texts = {prop.key: prop.value for prop in model.metadata_props}
    verified = json.loads(texts["verified"])
    assert verified["layers_in_floats"] == []
    assert verified["accuracy_int8"] == verified["accuracy_fp32"] == 1
    assert (verified["num_probes"], verified["same_class"]) == (6, 6)
    card = out.with_suffix(".md").read_text()
    assert "accuracy drop interval: [" in card
    rows = [json.loads(line) for line in cli("predict", out, tiny_photos, "--json").out.splitlines()]
    wanted = rg.predict(tiny_run, tiny_photos)
    assert [row["prediction"] for row in rows] == [row.prediction for row in wanted]


def test_pixel_program_and_what_follows_the_network_stay_floats(sealed: rg.Export) -> None:
    model = onnx.load(sealed.path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    ranges = ranges_of(model, [pixels], "minmax")
    made = quantised(model, ranges, WAYS[0])
    names = [node.name for node in made.graph.node]
    first = next(place for place, node in enumerate(made.graph.node) if node.op_type == "QuantizeLinear")
    assert names.index("pixels") < first
    assert [node.op_type for node in made.graph.node][-1] == [node.op_type for node in model.graph.node][-1]
    weights = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    floats = {tensor.name for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.name in layers_of(model)]
    assert len(layers) > 10
    for node in layers:
        assert node.input[1] in floats
        assert weights[f"{node.input[1]}_quantized"] == onnx.TensorProto.INT8
    one = layers_of(model)[3]
    kept = quantised(model, ranges, WAYS[0], [one])
    assert len(kept.graph.node) < len(made.graph.node)
    stayed = next(node for node in model.graph.node if node.name == one).input[1]
    assert stayed in {tensor.name for tensor in kept.graph.initializer}


def test_the_drop_is_paired() -> None:
    def said(right: list[int]) -> Answers:
        return Answers(np.array(right, bool), np.zeros((len(right), 2)), np.arange(len(right)))

    none = Drop.between(said([1] * 400), said([1] * 400))
    assert none.is_small
    assert none.interval[1] == pytest.approx(0.0049, abs=2e-4)
    lost = Drop.between(said([1] * 400), said([1] * 398 + [0] * 2))
    assert (lost.before - lost.after, lost.is_small) == (pytest.approx(0.005), False)
    traded = Drop.between(said([0] * 40 + [1] * 360), said([1] * 40 + [0] * 40 + [1] * 320))
    assert (traded.before - traded.after, traded.is_small) == (0, False)
    assert "(95 % interval -4" in str(traded)


def test_too_few_validation_images_are_refused_with_figures(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    result = cli("export", tiny_run, "-o", tmp_path / "tiny.onnx", "--int8", "--verify", "0")
    assert result.code == 4
    assert "6 images cannot show how little int8 loses" in result.err
    assert "up to" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_layers_that_cost_most_stay_floats_and_are_named(
    tiny_run: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, make, kept = accuracy.answers, form.quantised, [2]

    def noted(model: onnx.ModelProto, ranges: Any, way: Any, in_floats: Sequence[str] = ()) -> onnx.ModelProto:
        kept.append(len(in_floats))
        return make(model, ranges, way, in_floats)

    def spoilt(*given: Any) -> Answers:
        found = honest(*given)
        return found if kept[-1] >= 2 else Answers(~found.right, found.probabilities, found.places)

    monkeypatch.setattr(form, "quantised", noted)
    monkeypatch.setattr(form, "answers", spoilt)
    found = rg.export(tiny_run, tmp_path / "tiny.onnx", int8=True, verify=0)
    names = found.verified["layers_in_floats"]
    assert len(names) == 2
    assert set(names) < {node.name for node in onnx.load(found.path).graph.node}
    assert all(name in str(found) and name in found.card.read_text() for name in names)


def test_what_loses_too_much_is_refused(
    tiny_run: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = accuracy.answers, []

    def spoilt(*given: Any) -> Answers:
        found = honest(*given)
        calls.append(given)
        return found if len(calls) == 1 else Answers(~found.right, found.probabilities, found.places)

    monkeypatch.setattr(form, "answers", spoilt)
    monkeypatch.setattr(form, "_by_cost", lambda floats, way, ranges, names: list(names))
    with pytest.raises(
        rg.WeightsError, match=r"int8 loses too much, even with \d+ of \d+ layers in floats: 100.00% in"
    ):
        rg.export(tiny_run, tmp_path / "tiny.onnx", int8=True, verify=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_images_that_are_gone_and_a_folder_instead(
    tiny_run: Path, tmp_path: Path, cli: Cli, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("export", tiny_run / "model", "-o", tmp_path / "tiny.onnx", "--int8", "--verify", "0")
    result = cli(*asked)
    assert (result.code, "does not know its training images" in result.err) == (2, True), result.err
    assert "--calibrate FOLDER" in result.err
    moved = shutil.copytree(tiny_run, tmp_path / "run")
    splits = (moved / "splits.json").read_text()
    (moved / "splits.json").write_text(splits.replace("/colours", "/nowhere"))
    result = cli("export", moved, "-o", tmp_path / "tiny.onnx", "--int8", "--verify", "0")
    assert result.code == 3, result.err
    assert "0 can be read" in result.err
    result = cli(*asked, "--calibrate", photos(tmp_path / "more", {"blue": 20, "green": 20, "red": 20}))
    assert result.code == 0, result.err
    assert "100.00% of 45 images right" in result.out


def test_options_that_do_not_go_together(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    result = cli("export", tiny_run, "-o", tmp_path / "tiny.onnx", "--calibrate", tmp_path, "--verify", "0")
    assert (result.code, "floats need none" in result.err) == (2, True)
