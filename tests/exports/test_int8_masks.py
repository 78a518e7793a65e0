"""`regraft export --int8` of networks for segmentation: what is measured, promised and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import Cli
from tests.segmentation import CLASSES, scenes_in, small_unet

import regraft as rg
from regraft.exports.int8 import accuracy, form
from regraft.exports.int8.accuracy import Drop
from regraft.exports.int8.masks import MaskAnswers
from regraft.exports.int8.quantise import layers_of


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes_in(tmp_path_factory.mktemp("int8") / "scenes", {"train": 24, "val": 10}, size=(32, 32))


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net that was trained for a moment."""
    data = rg.open_data(scenes)
    model = rg.adapt(small_unet(), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("all", train="all", epochs=1)])
    return rg.train(model, plan, data, out=tmp_path_factory.mktemp("int8") / "run", batch_size=8, show=False).path


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows nothing may lose what it likes."""
    for module in (accuracy, form):
        monkeypatch.setattr(module, "MOST_DROP", 0.5)
        monkeypatch.setattr(module, "MOST_LIKELY_DROP", 0.9)


@pytest.mark.slow
def test_masks_in_int8(run: Path, scenes: Path, tmp_path: Path, cli: Cli, lenient: None) -> None:
    out = tmp_path / "small.onnx"
    result = cli("export", run, "-o", out, "--int8", "--verify", "6")
    assert result.code == 0, result.err
    assert "mean IoU" in result.out
    assert "pixel accuracy" in result.out
    assert "layers in floats: none" in result.out
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    verified = json.loads({prop.key: prop.value for prop in model.metadata_props}["verified"])
    assert verified["int8_num_images"] == 10
    measured = rg.evaluate(run, split="val")
    assert verified["miou_fp32"] == pytest.approx(measured["miou"], abs=2e-3)
    assert verified["pixel_accuracy_fp32"] == pytest.approx(measured["pixel_accuracy"], abs=2e-3)
    low, high = verified["miou_drop_interval"]
    assert low <= verified["miou_fp32"] - verified["miou_int8"] <= high
    assert "miou drop interval" in out.with_suffix(".md").read_text()
    weights = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4]
    assert len(weights) > 10
    images = sorted((scenes / "val/images").iterdir())
    for one, other in zip(rg.predict_masks(out, images), rg.predict_masks(run, images), strict=True):
        assert one.mask is not None
        assert other.mask is not None
        assert (one.mask == other.mask).mean() > 0.9


@pytest.mark.slow
def test_too_few_and_other_images(
    run: Path, scenes: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = scenes_in(tmp_path / "few", {"test": 12}, size=(32, 32))
    asked = ("-o", tmp_path / "small.onnx", "--int8", "--verify", "0")
    result = cli("export", run / "model", *asked, "--calibrate", few)
    assert (result.code, "Of 3 images of" in result.err) == (3, True), result.err
    result = cli("export", run / "model", *asked, "--calibrate", scenes / "train" / "images")
    assert result.code == 3, result.err
    monkeypatch.setattr(form, "FEWEST", 11)
    result = cli("export", run, *asked)
    assert (result.code, "10 images with masks cannot show" in result.err) == (4, True), result.err
    assert not list(tmp_path.glob("small.*"))


@pytest.mark.slow
def test_what_loses_too_much_is_refused_with_both_figures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = MaskAnswers.drops

    def spoilt(self: MaskAnswers, after: MaskAnswers) -> list[Drop]:
        return honest(self, MaskAnswers(after.counts * np.array([0.5, 1, 1])[:, None]))

    monkeypatch.setattr(MaskAnswers, "drops", spoilt)
    monkeypatch.setattr(form, "_by_cost", lambda floats, way, ranges, names: list(names))
    monkeypatch.setattr(form, "layers_of", lambda model: layers_of(model)[:2])
    with pytest.raises(rg.WeightsError, match=r"even with 1 of 2 layers in floats: mean IoU .*; pixel accuracy .* in"):
        rg.export(run, tmp_path / "small.onnx", int8=True, verify=0)
    assert not list(tmp_path.iterdir())


def test_the_drop_is_paired_over_images() -> None:
    """Files that differ on few pixels of each image have a narrow interval, however different the images are."""
    rng = np.random.default_rng(0)
    support = rng.integers(200, 4000, (40, len(CLASSES))).astype(np.float64)
    hits = np.floor(support * rng.uniform(0.3, 0.95, support.shape))
    before = MaskAnswers(np.stack([hits, support, support], 1))
    after = MaskAnswers(np.stack([hits - 2, support, support], 1))
    miou, pixels = before.drops(after)
    assert (miou.measure, pixels.measure, miou.num) == ("miou", "pixel_accuracy", 40)
    sums = [answers.counts.sum(0) for answers in (before, after)]
    ious = [float((right / (there + said - right)).mean()) for right, there, said in sums]
    assert (miou.before, miou.after) == (pytest.approx(ious[0]), pytest.approx(ious[1]))
    assert pixels.before - pixels.after == pytest.approx(240 / support.sum())
    for drop in (miou, pixels):
        assert drop.is_small
        assert drop.interval[0] < drop.before - drop.after < drop.interval[1] < 0.004
    worse = MaskAnswers(np.stack([hits * 0.98, support, support], 1))
    assert not any(drop.is_small for drop in before.drops(worse))
