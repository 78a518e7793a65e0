"""U-Net against the same network built in Keras, on its torch backend, with the same weights."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regraft as rg

pytestmark = pytest.mark.oracle

TOLERANCE = 1e-4
SIZE = 64
NUM_CLASSES = 5
SKIPS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
FILTERS = (256, 128, 64, 32)
Keras = Any  # the framework has no types


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keras]:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    module = pytest.importorskip("keras")
    if module.backend.backend() != "torch":
        pytest.skip(f"keras was imported with the backend {module.backend.backend()} before")
    module.backend.clear_session()
    yield module
    module.backend.clear_session()
    gc.collect()


def keras_unet(keras: Keras, depth: int, *, batch_norm: bool, up: str) -> Keras:
    """As people write it on keras.applications: skips by name, no fifth pooling."""
    layers = keras.layers
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    skips = [base.get_layer(name).output for name in SKIPS[:depth]]
    maps = skips[-1]
    for filters, skip in zip(FILTERS[-(depth - 1) :], reversed(skips[:-1]), strict=True):
        if up == "transposed":
            maps = layers.Conv2DTranspose(filters, 2, strides=2)(maps)
        else:
            maps = layers.UpSampling2D(2, interpolation=up)(maps)
        maps = layers.Concatenate()([maps, skip])
        for _ in range(2):
            maps = layers.Conv2D(filters, 3, padding="same", use_bias=not batch_norm)(maps)
            maps = layers.BatchNormalization(epsilon=1e-5)(maps) if batch_norm else maps
            maps = layers.ReLU()(maps)
    return keras.Model(base.inputs, layers.Conv2D(NUM_CLASSES, 1, name="classes")(maps))


def randomise(model: Keras) -> None:
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([_random(variable, rng) for variable in layer.weights])


def _random(variable: Keras, rng: np.random.Generator) -> np.ndarray:
    kind, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
    if kind in ("gamma", "moving_variance"):
        return rng.uniform(0.7, 1.3, shape)
    if kind in ("beta", "bias", "moving_mean"):
        return rng.normal(0, 0.1, shape)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)


@pytest.mark.parametrize(
    ("depth", "batch_norm", "up"),
    [
        (5, False, "nearest"),
        (5, True, "nearest"),
        (5, True, "transposed"),
        (4, True, "bilinear"),
        (2, False, "nearest"),
    ],
)
def test_unet_equals_keras(depth: int, batch_norm: bool, up: str, keras: Keras, tmp_path: Path) -> None:
    """The weights go through a file and the match engine: encoder by its names, decoder by the file's own graph."""
    source = keras_unet(keras, depth, batch_norm=batch_norm, up=up)
    randomise(source)
    source.save(tmp_path / "unet.h5")
    model = rg.build_model(
        "unet", encoder="keras_vgg16", classes=NUM_CLASSES, depth=depth, batch_norm=batch_norm, up=up
    )
    report = rg.match_weights(rg.read_weights(tmp_path / "unet.h5"), model)
    print(report.counts)
    rg.graft(model, report.require("all"))
    images = np.random.default_rng(1).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype("f4")
    with torch.no_grad():
        expected = np.asarray(source(images, training=False).detach().cpu()).transpose(0, 3, 1, 2)
        given = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    error = np.abs(given - expected).max() / np.abs(expected).max()
    print(f"depth {depth}, batch norm {batch_norm}, {up}: {error:.1e}")
    assert given.shape == expected.shape
    assert error <= TOLERANCE
