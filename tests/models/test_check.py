"""A reference output settles what a weights file leaves open, and only if it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import regraft as rg
from regraft.errors import SettingsError, WeightsError
from regraft.models.graft.check import Reference, deviation, read_reference, settle
from regraft.weights.writers import keras_h5
from regraft.weights.writers.keras_tensor import KerasTensor

pytest.importorskip("h5py")


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left = nn.Conv2d(8, 8, 3)
        self.right = nn.Conv2d(8, 8, 3)
        self.top = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.top(self.left(x).relu() - self.right(x)).mean((2, 3))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    kernels = [("a", (3, 3, 3, 8)), ("b", (3, 3, 8, 8)), ("c", (3, 3, 8, 8)), ("d", (1, 1, 8, 4))]
    keras_h5.write(
        tmp_path / "w.h5", [KerasTensor(n, "kernel", random.normal(0, 0.1, s).astype("f4")) for n, s in kernels]
    )
    return tmp_path / "w.h5"


def filled(file: Path, left: str, right: str) -> nn.Module:
    model, weights = TwoBranches(), rg.read_weights(file)
    return rg.graft(model, rg.match_weights(weights, model, map={"left": left, "right": right}))


@pytest.mark.parametrize(("left", "right"), [("b", "c"), ("c", "b")])
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_right_one_of_two_assignments(file: Path, left: str, right: str, probabilities: bool) -> None:
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        logits = filled(file, left, right)(images).reshape(-1) * 1.0
    output = (logits.softmax(0) if probabilities else logits).numpy()
    model, weights = TwoBranches(), rg.read_weights(file)
    report = rg.match_weights(weights, model)
    assert report.ambiguous
    settled = settle(weights, model, report, Reference(images, output))
    sources = {match.target: match.sources[0].layer for match in settled.require("all").matched if match.sources}
    assert (sources["left.weight"], sources["right.weight"]) == (left, right)
    assert deviation(rg.graft(model, settled), Reference(images, output)) < 1e-5


def test_a_reference_that_fits_none(file: Path) -> None:
    model, weights = TwoBranches(), rg.read_weights(file)
    reference = Reference(torch.rand(1, 3, 16, 16), np.array([100, -100, 50, 7], "f4"))
    with pytest.raises(WeightsError, match="0 of the 2 possible assignments"):
        settle(weights, model, rg.match_weights(weights, model), reference)


def test_a_reference_of_another_network(file: Path) -> None:
    with pytest.raises(WeightsError, match="has 5 numbers"):
        deviation(filled(file, "b", "c"), Reference(torch.rand(1, 3, 16, 16), np.zeros(5, "f4")))


def test_a_photo_is_prepared_as_the_model_wants_it(tmp_path: Path) -> None:
    from PIL import Image

    model = rg.build_model("test_resnet")
    Image.fromarray(np.full((50, 40, 3), (255, 0, 128), np.uint8)).save(tmp_path / "a.png")
    np.save(tmp_path / "logits.npy", np.zeros((1, 1000), "f4"))
    reference = read_reference(f"{tmp_path / 'a.png'}={tmp_path / 'logits.npy'}", model)
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    wanted = [(value / 255 - m) / s for value, m, s in zip((255, 0, 128), mean, std, strict=True)]
    assert np.allclose(reference.images[0, :, 5, 5].numpy(), wanted, atol=1e-5)
    assert reference.output.shape == (1000,)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4, 3), (1, 4, 4, 5)])
def test_arrays_that_are_no_image(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, "f4"))
    with pytest.raises(SettingsError, match="image array"):
        read_reference(f"{tmp_path / 'x.npy'}={tmp_path / 'x.npy'}", TwoBranches())
