"""Layers of a Caffe network as plain data: names, types, wiring and the settings that change what is computed.

Schema: `caffe.proto` of BVLC Caffe; `layer` (LayerParameter, types as text) and the older `layers` (V1LayerParameter,
types as numbers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regraft.weights.readers.protobuf import Message, ProtobufError

__all__ = ["CaffeLayer", "read_layer", "read_v1_layer"]

_V1_TYPES = {
    1: "Accuracy", 2: "BNLL", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 7: "EuclideanLoss", 8: "Flatten",
    9: "HDF5Data", 10: "HDF5Output", 11: "Im2col", 12: "ImageData", 13: "InfogainLoss", 14: "InnerProduct", 15: "LRN",
    16: "MultinomialLogisticLoss", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax", 21: "SoftmaxWithLoss",
    22: "Split", 23: "TanH", 24: "WindowData", 25: "Eltwise", 26: "Power", 27: "SigmoidCrossEntropyLoss",
    28: "HingeLoss", 29: "MemoryData", 30: "ArgMax", 31: "Threshold", 32: "DummyData", 33: "Slice", 34: "MVN",
    35: "AbsVal", 36: "Silence", 37: "ContrastiveLoss", 38: "Exp", 39: "Deconvolution",
}  # fmt: skip


@dataclass(frozen=True)
class CaffeLayer:
    """One layer: its wiring (blob names), its settings, and its blobs as messages still to be read."""

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    blobs: tuple[Message, ...]


def read_layer(message: Message) -> CaffeLayer:
    """Return a `layer` of today's schema."""
    return CaffeLayer(
        name=message.text(1),
        type=message.text(2),
        inputs=tuple(message.texts(3)),
        outputs=tuple(message.texts(4)),
        attributes=_attributes(message, _PARAMETERS),
        blobs=tuple(blob.kept() for blob in message.messages(7)),
    )


def read_v1_layer(message: Message) -> CaffeLayer:
    """Return a `layers` entry of the schema of 2013 and 2014.

    Raises:
        ProtobufError: It is of the schema before that (V0), which Caffe itself has to upgrade.
    """
    if 1 in message:
        raise ProtobufError("it is of Caffe's first schema: run Caffe's `upgrade_net_proto_binary` on it")
    number = message.integer(5)
    return CaffeLayer(
        name=message.text(4),
        type=_V1_TYPES.get(number, f"type {number}"),
        inputs=tuple(message.texts(2)),
        outputs=tuple(message.texts(3)),
        attributes=_attributes(message, _V1_PARAMETERS),
        blobs=tuple(blob.kept() for blob in message.messages(6)),
    )


def _attributes(message: Message, parameters: dict[int, Callable[[Message], dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, read in parameters.items():
        parameter = message.message(number)
        if parameter is not None:
            found |= read(parameter)
    return found


def _convolution(parameter: Message) -> dict[str, Any]:
    return {
        "num_output": parameter.integer(1),
        "bias_term": bool(parameter.integer(2, 1)),
        "kernel_size": _pair(parameter, 4, 11, 12, 0),
        "pad": _pair(parameter, 3, 9, 10, 0),
        "stride": _pair(parameter, 6, 13, 14, 1),
        "dilation": _pair(parameter, 18, 18, 18, 1),
        "group": parameter.integer(5, 1),
    }


def _pooling(parameter: Message) -> dict[str, Any]:
    return {
        "pool": {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}.get(parameter.integer(1), "?"),
        "kernel_size": _pair(parameter, 2, 5, 6, 0),
        "pad": _pair(parameter, 4, 9, 10, 0),
        "stride": _pair(parameter, 3, 7, 8, 1),
        "global_pooling": bool(parameter.integer(12)),
        "ceil_mode": parameter.integer(13) == 0,
    }


def _pair(parameter: Message, both: int, height: int, width: int, default: int) -> list[int]:
    """Return height and width of a setting that is given once for both, once for each axis, or by two fields of
    their own.
    """
    values = parameter.integers(both)
    if height in parameter and width in parameter and height != both:
        return [parameter.integer(height), parameter.integer(width)]
    if not values:
        return [default, default]
    return [values[0], values[0]] if len(values) == 1 else values[:8]


def _lrn(parameter: Message) -> dict[str, Any]:
    return {
        "local_size": parameter.integer(1, 5),
        "alpha": parameter.number(2, 1.0),
        "beta": parameter.number(3, 0.75),
        "k": parameter.number(5, 1.0),
        "norm_region": "WITHIN_CHANNEL" if parameter.integer(4) else "ACROSS_CHANNELS",
    }


def _inner_product(parameter: Message) -> dict[str, Any]:
    return {
        "num_output": parameter.integer(1),
        "bias_term": bool(parameter.integer(2, 1)),
        "axis": parameter.integer(5, 1),
        "transpose": bool(parameter.integer(6)),
    }


def _batch_norm(parameter: Message) -> dict[str, Any]:
    return {"eps": parameter.number(3, 1e-5)}


def _scale(parameter: Message) -> dict[str, Any]:
    return {"axis": parameter.integer(1, 1), "bias_term": bool(parameter.integer(4))}


def _eltwise(parameter: Message) -> dict[str, Any]:
    return {
        "operation": {0: "PROD", 1: "SUM", 2: "MAX"}.get(parameter.integer(1, 1), "?"),
        "coefficients": parameter.floats(2),
    }


def _concat(parameter: Message) -> dict[str, Any]:
    return {"axis": parameter.integer(2, parameter.integer(1, 1))}


def _relu(parameter: Message) -> dict[str, Any]:
    return {"negative_slope": parameter.number(1, 0.0)}


def _dropout(parameter: Message) -> dict[str, Any]:
    return {"dropout_ratio": parameter.number(1, 0.5)}


def _transform(parameter: Message) -> dict[str, Any]:
    return {
        "scale": parameter.number(1, 1.0),
        "crop_size": parameter.integer(3),
        "mean_value": parameter.floats(5),
    }


_PARAMETERS: dict[int, Callable[[Message], dict[str, Any]]] = {
    100: _transform, 104: _concat, 106: _convolution, 108: _dropout, 110: _eltwise, 117: _inner_product, 118: _lrn,
    121: _pooling, 123: _relu, 139: _batch_norm, 142: _scale,
}  # fmt: skip
_V1_PARAMETERS: dict[int, Callable[[Message], dict[str, Any]]] = {
    9: _concat, 10: _convolution, 12: _dropout, 17: _inner_product, 18: _lrn, 19: _pooling, 24: _eltwise, 30: _relu,
    36: _transform,
}  # fmt: skip
