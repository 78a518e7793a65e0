"""TensorFlow Lite models, written by their schema (`other_files`).

TensorFlow is not installed here. The reader was compared with models that TensorFlow 2.21 converted from Keras (float,
half floats, integer weights, integers throughout; convolution, depthwise with one and two outputs for each input,
transposed, dense).
"""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from other_files import Fields, Shared, TfliteModel, flatbuffer
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import read_weights
from regraft.weights.readers.tflite import tflite

CONV, DEPTHWISE, DEQUANTIZE, DENSE, MEAN, TRANSPOSE_CONV = 3, 4, 6, 9, 40, 67
SAME, VALID = 0, 1


class Net(nn.Module):
    """Every kind of layer; some kernels fit both ways."""

    def __init__(self, stride: int = 2, pad: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride, pad)
        self.depthwise = nn.Conv2d(6, 12, 3, groups=6)
        self.up = nn.ConvTranspose2d(12, 12, 2)
        self.fc = nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.up(self.depthwise(self.stem(x).relu()).relu()).mean((2, 3)))
        return out


def net(seed: int, **options: int) -> Net:
    torch.manual_seed(seed)
    return Net(**options).eval()


def model(network: Net, kind: str = "float", padding: int = VALID) -> TfliteModel:
    """The network as TensorFlow Lite keeps it: float, half, per_tensor, per_channel."""
    made = TfliteModel()
    image = made.tensor("image")
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    axes = {"stem": (0, 2, 3, 1), "depthwise": (1, 2, 3, 0), "up": (1, 2, 3, 0), "fc": (0, 1)}
    scaled = {"stem": 0, "depthwise": 3, "up": 0, "fc": 0}

    def stored(name: str, layer: str) -> int:
        values = np.ascontiguousarray(state[name].transpose(axes[layer]) if name.endswith("weight") else state[name])
        if kind == "half":
            return made.operator(DEQUANTIZE, [made.tensor(f"{name}/half", values.astype("f2"))])
        if kind == "float" or name.endswith("bias"):
            return made.tensor(f"{name};another name", values)
        if kind == "per_tensor":
            low, scale = values.min(), (values.max() - values.min()) / 255
            quantised = np.round((values - low) / scale).astype("u1")
            zero = np.array([round(float(-low / scale))], "i8")
            return made.tensor(name, quantised, {2: np.array([scale], "f4"), 3: zero})
        others = tuple(axis for axis in range(values.ndim) if axis != scaled[layer])
        scales = abs(values).max(others, keepdims=True) / 127
        fields: Fields = {2: scales.ravel().astype("f4"), 3: np.zeros(scales.size, "i8"), 6: ("i", scaled[layer])}
        return made.tensor(name, np.round(values / scales).astype("i1"), fields)

    x = made.operator(CONV, [image, stored("stem.weight", "stem"), stored("stem.bias", "stem")],
                      {0: ("b", padding), 1: ("i", 2), 2: ("i", 2)})  # fmt: skip
    x = made.operator(
        DEPTHWISE,
        [x, stored("depthwise.weight", "depthwise"), stored("depthwise.bias", "depthwise")],
        {0: ("b", VALID), 1: ("i", 1), 2: ("i", 1), 3: ("i", 2)},
    )
    size = made.tensor("size", np.array([1, 8, 8, 12], "i4"))
    x = made.operator(TRANSPOSE_CONV, [size, stored("up.weight", "up"), x, stored("up.bias", "up")])
    x = made.operator(MEAN, [x])
    made.operator(DENSE, [x, stored("fc.weight", "fc"), stored("fc.bias", "fc")])
    return made


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float", 1e-6), ("half", 1e-3), ("per_tensor", 2e-2), ("per_channel", 2e-2)]
)
def test_a_model_computes_the_same_in_torch(tmp_path: Path, kind: str, tolerance: float) -> None:
    made, filled = net(1), net(2)
    weights = read_weights(written(tmp_path / "w.tflite", model(made, kind).content()))
    assert (weights.format, weights.producer, weights.ordered) == ("tflite", "tflite test", True)
    assert any("dequantised with their scales" in note for note in weights.notes) == kind.startswith("per_")
    graft(filled, match_weights(weights, filled).require("all"))
    x = torch.randn(2, 3, 13, 13)
    assert (filled(x) - made(x)).abs().max() <= tolerance * made(x).abs().max()


def test_strides_and_paddings_are_compared(tmp_path: Path) -> None:
    weights = read_weights(written(tmp_path / "w.tflite", model(net(1), padding=SAME).content()))
    with pytest.raises(WeightsError, match="pad"):
        match_weights(weights, net(2, pad=1)).require("all")
    with pytest.raises(WeightsError, match=r"the stride of stem is \(1, 1\), the file was made with \(2, 2\)"):
        match_weights(weights, net(2, stride=1)).require("all")


def test_integers_are_the_numbers_that_they_stand_for(tmp_path: Path) -> None:
    made = TfliteModel()
    values = np.array([[-3, 0, 100], [7, 7, -128]], "i1")
    quantised = {2: np.array([0.5, 0.25], "f4"), 3: np.array([1, -1], "i8"), 6: ("i", 0)}
    made.operator(DENSE, [made.tensor("x"), made.tensor("w", values, quantised)])
    nibbles = made.tensor("n", np.array([0x21, 0xF8, 0x07], "u1"))
    made.tensors[nibbles] |= {0: np.array([1, 5], "i4"), 1: ("b", 17), 4: {2: np.array([2.0], "f4")}}
    made.operator(DENSE, [made.tensor("x"), nibbles])
    weights = read_weights(written(tmp_path / "w.tflite", made.content()))
    expected = (values.astype("f8") - [[1], [-1]]) * [[0.5], [0.25]]
    np.testing.assert_array_equal(weights.tensors["w"].load(), expected)
    np.testing.assert_array_equal(weights.tensors["n"].load(), [[2, 4, -16, -2, 14]])


def _lies(change: Any) -> bytes:
    """A model with its tables changed; tensor 1 is the first kernel."""
    fields = model(net(1), "per_channel").fields()
    change(fields, fields[2][0])
    return flatbuffer(fields)


def _tensor(**changes: Any) -> Any:
    return lambda fields, graph: graph[0][1].update({int(name[1:]): value for name, value in changes.items()})


WHOLE = model(net(1)).content()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WHOLE[:200], "cannot be read"),
        (_lies(_tensor(_0=np.array([2**30, 2**30], "i4"))), "does not fit in memory"),
        (_lies(_tensor(_0=np.ones(40, "i4"))), "more than 32 axes"),
        (_lies(_tensor(_2=("I", 99))), "refers to buffer 99"),
        (_lies(_tensor(_1=("b", 0))), "needs 648"),
        (_lies(_tensor(_4={2: np.ones(5, "f4")})), "has 5 scales along axis 0"),
        (_lies(_tensor(_4={2: np.ones(6, "f4"), 6: ("i", 9)})), "along axis 9"),
        (_lies(_tensor(_4={2: np.ones(6, "f4"), 3: np.ones(2, "i8")})), "2 zero points"),
        (_lies(_tensor(_4={2: np.full(1, np.inf, "f4")})), "not finite"),
        (_lies(_tensor(_3=b"\xff")), "not UTF-8"),
        (_lies(lambda fields, graph: graph[3][0].update({1: np.array([999], "i4")})), "uses tensor 999"),
        (_lies(lambda fields, graph: graph[3][0].update({0: ("I", 9)})), "an operator of kind 9"),
        (_lies(lambda fields, graph: fields.update({0: ("I", 2)})), "its version is 2"),
        (_lies(lambda fields, graph: fields.update({2: []})), "has no graph"),
        (_lies(lambda fields, graph: graph.update({3: []})), "no weights that a layer uses"),
        (_lies(lambda fields, graph: fields[4][1].update({1: ("Q", 2**40), 2: ("Q", 9)})), "a buffer at"),
        (struct.pack("<I", 2**31) + b"TFL3" + bytes(8), "leads out of the file"),
        (struct.pack("<I", 8) + b"TFL3" + struct.pack("<i2H", 2**30, 4, 4), "outside of the file"),
        (struct.pack("<I", 12) + b"TFL3" + struct.pack("<2Hi", 60000, 4, 4), "without its list of fields"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_refuses_what_lies(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(written(tmp_path / "w.tflite", content))
    hostile.assert_in_words(caught.value)


@pytest.mark.parametrize("place", ["codes", "buffers", "tensors", "operators"])
def test_a_list_that_names_one_table_many_times_is_bounded(tmp_path: Path, place: str) -> None:
    """Offsets may meet in one table, so a list of a million items needs four megabytes only."""

    def many(fields: Fields, graph: Fields) -> None:
        target, field = {"codes": (fields, 1), "buffers": (fields, 4), "tensors": (graph, 0), "operators": (graph, 3)}[
            place
        ]
        target[field] = Shared(1_000_000, target[field][0])

    path = written(tmp_path / "w.tflite", _lies(many))
    start = time.process_time()
    with pytest.raises(WeightsError, match="a list of 1,000,000 tables"):
        read_weights(path)
    assert time.process_time() - start < 10


def test_survives_cuts_and_flips(tmp_path: Path) -> None:
    num_cut, num_flipped = hostile.fuzz(tflite, written(tmp_path / "w.tflite", model(net(1), "per_channel").content()))
    assert num_cut < 20
    assert num_flipped > 50
