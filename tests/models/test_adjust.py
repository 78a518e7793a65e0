"""Strides and epsilons that a file does not hold: refused, or changed on request; and built again as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import regraft as rg
from regraft.errors import WeightsError
from regraft.evaluation.probes import make_probes
from regraft.models.describe.info import info_of
from regraft.models.describe.inputs import Normaliser
from regraft.models.graft.keras_tensors import keras_tensors
from regraft.models.store.folder import write_model
from regraft.models.surgery.surgery import default_preprocessing
from regraft.weights.writers import keras_h5


def test_keras_resnet50_into_timms_with_adjust(tmp_path: Path) -> None:
    source = rg.build_model("keras_resnet50", keras_version="3", num_classes=3, seed=1).eval()
    keras_h5.write(tmp_path / "keras.h5", keras_tensors(source, set(source.state_dict())))
    target = rg.build_model("resnet50", num_classes=3)
    report = rg.match_weights(rg.read_weights(tmp_path / "keras.h5"), target)
    with pytest.raises(WeightsError, match="--adjust"):
        report.require("all")
    rg.graft(target, report.require("all", adjust=True), adjust=True)
    images = torch.randn(1, 3, 97, 97, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = source(images), target.eval()(images)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()

    adapted = rg.adapt(target, classes=["a", "b"], image_size=64)
    pixels = torch.zeros(2, 64, 64, 3, dtype=torch.uint8).numpy()
    probes = make_probes(adapted, pixels, Normaliser(default_preprocessing(adapted)))
    config = write_model(tmp_path / "model", adapted, probes=probes)
    assert config["architecture"] == "regraft/resnet50", "timm's own resnet50 would compute something else"
    again = rg.load_model(tmp_path / "model")
    assert info_of(again).args["adjusted"]["layer2.0.conv1"] == {"stride": [2, 2]}
    with torch.no_grad():
        assert torch.equal(again(probes["images"]), probes["logits"])
