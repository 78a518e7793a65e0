"""Both Keras writers: what they write is what the readers, and Keras itself, read."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.errors import WeightsError
from regraft.weights.file import read_weights
from regraft.weights.writers import keras_h5, keras_v3
from regraft.weights.writers.keras_tensor import KerasTensor

pytest.importorskip("h5py")


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype("f4")


def network() -> list[KerasTensor]:
    tensors = []
    for index, channels in enumerate((3, 8, 8)):
        tensors += [
            KerasTensor(f"conv_{index}", "kernel", random(3, 3, channels, 8) + index),
            KerasTensor(f"conv_{index}", "bias", random(8) + index),
            *(KerasTensor(f"bn_{index}", word, random(8) + 3) for word in ("gamma", "beta", "moving_mean")),
            KerasTensor(f"bn_{index}", "moving_variance", random(8) ** 2 + 1),
        ]
    tensors += [
        KerasTensor("sep", "depthwise_kernel", random(3, 3, 8, 1)),
        KerasTensor("sep", "pointwise_kernel", random(1, 1, 8, 6)),
        KerasTensor("sep", "bias", random(6)),
        KerasTensor("dw", "depthwise_kernel", random(3, 3, 6, 2)),
        KerasTensor("head", "kernel", random(12, 4)),
        KerasTensor("head", "bias", random(4)),
    ]
    return tensors


WORDS = {"moving_mean": "mean", "moving_variance": "variance"}


@pytest.mark.parametrize(("writer", "name"), [(keras_h5, "w.h5"), (keras_v3, "w.weights.h5")])
def test_the_reader_gets_back_what_was_written(tmp_path, writer, name):
    writer.write(tmp_path / name, network())
    weights = read_weights(tmp_path / name)
    got = {(tensor.layer, tensor.role): tensor.load().tobytes() for tensor in weights}
    assert got == {(t.layer, WORDS.get(t.weight, t.weight)): t.values.tobytes() for t in network()}
    if writer is keras_h5:
        assert list(weights.layers) == list(dict.fromkeys(t.layer for t in network()))


def test_long_lists_of_names_are_split(tmp_path):
    tensors = [KerasTensor("a" * 2000 + str(index), "kernel", random(2, 2)) for index in range(100)]
    keras_h5.write(tmp_path / "w.h5", tensors)
    assert list(read_weights(tmp_path / "w.h5").layers) == [tensor.layer for tensor in tensors]


@pytest.mark.parametrize("writer", [keras_h5, keras_v3])
@pytest.mark.parametrize("layers", [("a", "a"), ("a", "../b"), ("", "a")])
def test_names_that_cannot_be_written(tmp_path, writer, layers):
    with pytest.raises(WeightsError, match="cannot be written"):
        writer.write(tmp_path / "w.h5", [KerasTensor(layer, "kernel", random(2, 2)) for layer in layers])
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_not_known(tmp_path):
    with pytest.raises(WeightsError, match="'odd'"):
        keras_v3.write(tmp_path / "w.weights.h5", [KerasTensor("odd", "embeddings", random(2, 2))])


@pytest.mark.oracle
def test_keras_loads_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    inputs = x = keras.Input((16, 16, 3))
    for index in range(3):
        x = keras.layers.Conv2D(8, 3, name=f"conv_{index}")(x)
        x = keras.layers.BatchNormalization(name=f"bn_{index}")(x)
    x = keras.layers.SeparableConv2D(6, 3, name="sep")(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="dw")(x)
    x = keras.layers.Dense(4, name="head")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    expected = {(tensor.layer, tensor.weight): tensor.values for tensor in network()}
    for writer, name in ((keras_h5, "w.h5"), (keras_v3, "w.weights.h5")):
        for variable in model.weights:
            variable.assign(np.zeros(variable.shape, "f4"))
        writer.write(tmp_path / name, network())
        model.load_weights(tmp_path / name)
        for layer in model.layers:
            for variable in layer.weights:
                word = "depthwise_kernel" if layer.name == "dw" else variable.name
                assert np.array_equal(np.asarray(variable.value.detach()), expected[layer.name, word])
