"""Darknet's `.cfg`: the layers of a network in order, and the tensors that each has in the `.weights` file.

The number of input channels of a layer stands nowhere: the shapes of what flows between the layers are followed.
Source: src/parser.c of Darknet and of its fork by AlexeyAB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.limits import MAX_VALUES, budget, check_shape, shown

__all__ = ["CfgError", "DarknetLayer", "parse_cfg"]

_MAX_SECTIONS = 10_000
_LINE = re.compile(r"(?P<name>[\w.]{1,64})\s*=\s*(?P<value>.*)")
_INTEGER = re.compile(r"-?\d{1,9}")
_ALIASES = {
    "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "conn": "connected", "deconv": "deconvolutional",
    "network": "net",
}  # fmt: skip
# Layers without weights that leave the shape as it is.
_PLAIN = ("dropout", "softmax", "soft", "cost", "yolo", "region", "detection", "activation", "logistic", "l2norm",
          "normalization", "lrn", "Gaussian_yolo")  # fmt: skip
_CHANGES = ("xnor", "binary", "share_index", "flipped", "antialiasing", "local")


class CfgError(ValueError):
    """A description that cannot be followed; the text goes on after the name of the file."""


@dataclass(frozen=True)
class DarknetLayer:
    """One layer: its number, its kind, its tensors (suffix, role, shape) in the order of the file, and its node."""

    number: int
    kind: str
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    inputs: tuple[int, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Shape:
    """What flows out of a layer."""

    channels: int
    height: int
    width: int


class _Section:
    """One section: its name and its settings."""

    def __init__(self, name: str) -> None:
        self.name = _ALIASES.get(name, name)
        self.settings: dict[str, str] = {}

    def number(self, name: str, default: int) -> int:
        text = self.settings.get(name)
        if text is None:
            return default
        if not _INTEGER.fullmatch(text):
            raise CfgError(f"{name} of its section [{self.name}] is {shown(text)}")
        return int(text)

    def size(self, name: str, default: int, least: int = 1) -> int:
        value = self.number(name, default)
        if value < least:
            raise CfgError(f"{name} of its section [{self.name}] is {value}")
        return value

    def numbers(self, name: str) -> list[int]:
        parts = [part.strip() for part in self.settings.get(name, "").split(",")]
        if not all(_INTEGER.fullmatch(part) for part in parts):
            raise CfgError(f"{name} of its section [{self.name}] is {shown(self.settings.get(name, ''))}")
        return [int(part) for part in parts]


def parse_cfg(text: str) -> list[DarknetLayer]:
    """Return the layers of a network.

    Raises:
        CfgError: It is no description of a network, or has layers with weights that regraft does not know.
    """
    sections = _sections(text)
    if not sections or sections[0].name != "net":
        raise CfgError("it does not begin with a section [net]")
    net = sections[0]
    shape = _Shape(net.size("channels", 3), net.size("height", 0, 0), net.size("width", 0, 0))
    layers: list[DarknetLayer] = []
    shapes: list[_Shape] = []
    for number, section in enumerate(sections[1:]):
        budget().step(16)
        layer, shape = _layer(number, section, shape, shapes)
        if max(shape.channels, shape.height, shape.width) > MAX_VALUES or min(shape.height, shape.width) < 0:
            raise CfgError(f"its layer {number} gives {shape.channels} x {shape.height} x {shape.width} values")
        layers.append(layer)
        shapes.append(shape)
    return layers


def _sections(text: str) -> list[_Section]:
    sections: list[_Section] = []
    for line in text.splitlines():
        line = line.strip()
        budget().step()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            sections.append(_Section(line.strip("[] ")[:64]))
            if len(sections) > _MAX_SECTIONS:
                raise CfgError(f"it has more than {_MAX_SECTIONS:,} sections")
            continue
        found = _LINE.fullmatch(line)
        if not found or not sections:
            raise CfgError(f"it holds the line {shown(line)}")
        sections[-1].settings.setdefault(found["name"], found["value"].strip())
    return sections


def _layer(number: int, section: _Section, shape: _Shape, shapes: Sequence[_Shape]) -> tuple[DarknetLayer, _Shape]:
    changed = [name for name in _CHANGES if section.number(name, 0)] if section.name in _MAKERS else []
    if changed:
        raise CfgError(f"its layer {number} has {changed[0]}, which regraft does not read")
    before = (number - 1,)
    if section.name in _MAKERS:
        return _MAKERS[section.name](number, section, shape)
    if section.name in ("route", "shortcut", "sam", "scale_channels"):
        word = "layers" if section.name == "route" else "from"
        sources = tuple(index + number if index < 0 else index for index in section.numbers(word))
        if not all(0 <= index < number for index in sources):
            raise CfgError(f"its layer {number} takes layer {shown(section.settings.get(word))}")
        if section.name == "route":
            groups = section.size("groups", 1)
            first = shapes[sources[0]]
            channels = sum(shapes[index].channels for index in sources) // groups
            return DarknetLayer(number, "Concat", (), sources), _Shape(channels, first.height, first.width)
        result = shape if section.name == "shortcut" else shapes[sources[0]]
        return DarknetLayer(number, "Add", (), (*before, *sources)), result
    if section.name in _PLAIN:
        return DarknetLayer(number, section.name, (), before), shape
    stride = section.size("stride", 2 if section.name == "upsample" else 1)
    if section.name == "maxpool":
        size = section.size("size", stride)
        padding = section.size("padding", size - 1, 0)
        height, width = ((length + padding - size) // stride + 1 for length in (shape.height, shape.width))
        return DarknetLayer(number, "MaxPool", (), before), _Shape(shape.channels, max(height, 0), max(width, 0))
    if section.name == "avgpool":
        return DarknetLayer(number, "AveragePool", (), before), _Shape(shape.channels, 1, 1)
    if section.name == "upsample":
        new = _Shape(shape.channels, shape.height * stride, shape.width * stride)
        return DarknetLayer(number, "Resize", (), before), new
    if section.name in ("reorg", "reorg3d"):
        new = _Shape(shape.channels * stride * stride, shape.height // stride, shape.width // stride)
        return DarknetLayer(number, "Reorg", (), before), new
    if section.name == "crop":
        new = _Shape(shape.channels, section.size("crop_height", 1), section.size("crop_width", 1))
        return DarknetLayer(number, "Crop", (), before), new
    raise CfgError(f"its layer {number} is [{section.name}], which regraft does not read")


def _convolution(number: int, section: _Section, shape: _Shape) -> tuple[DarknetLayer, _Shape]:
    filters, size, stride = (section.size(name, 1) for name in ("filters", "size", "stride"))
    stride_x, stride_y = section.size("stride_x", stride), section.size("stride_y", stride)
    groups, dilation = section.size("groups", 1), section.size("dilation", 1)
    pad = size // 2 if section.number("pad", 0) else section.size("padding", 0, 0)
    if shape.channels % groups or filters % groups:
        raise CfgError(f"its layer {number} has {groups} groups for {shape.channels} channels and {filters} filters")
    inputs = shape.channels // groups
    role = "depthwise_kernel" if groups > 1 and inputs == 1 else "kernel"
    kernel = check_shape((filters, inputs, size, size))
    reach = dilation * (size - 1) + 1
    pad *= dilation
    height, width = (
        (length + 2 * pad - reach) // step + 1 for length, step in ((shape.height, stride_y), (shape.width, stride_x))
    )
    attributes = {
        "strides": [stride_y, stride_x], "pads": [pad] * 4, "dilations": [dilation, dilation], "group": groups,
    }  # fmt: skip
    tensors = (*_norm_or_bias(section, filters), ("conv.weight", role, kernel))
    layer = DarknetLayer(number, "Conv", tensors, (number - 1,), attributes)
    return layer, _Shape(filters, max(height, 0), max(width, 0))


def _deconvolution(number: int, section: _Section, shape: _Shape) -> tuple[DarknetLayer, _Shape]:
    filters, size, stride = (section.size(name, 1) for name in ("filters", "size", "stride"))
    pad = size // 2 if section.number("pad", 0) else section.size("padding", 0, 0)
    kernel = check_shape((shape.channels, filters, size, size))
    tensors = (*_norm_or_bias(section, filters), ("conv.weight", "transpose_kernel", kernel))
    height, width = ((length - 1) * stride + size - 2 * pad for length in (shape.height, shape.width))
    return DarknetLayer(number, "ConvTranspose", tensors, (number - 1,)), _Shape(filters, max(height, 0), max(width, 0))


def _connected(number: int, section: _Section, shape: _Shape) -> tuple[DarknetLayer, _Shape]:
    outputs = section.size("output", 1)
    kernel = check_shape((outputs, shape.channels * shape.height * shape.width))
    bias, *norm = _norm_or_bias(section, outputs)
    name = ("bn.bias" if norm else "fc.bias", *bias[1:])
    tensors = (name, ("fc.weight", "kernel", kernel), *norm)
    return DarknetLayer(number, "Gemm", tensors, (number - 1,)), _Shape(outputs, 1, 1)


def _norm_or_bias(section: _Section, channels: int) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    if not section.number("batch_normalize", 0):
        return (("conv.bias", "bias", (channels,)),)
    return (
        ("bn.bias", "beta", (channels,)),
        ("bn.weight", "gamma", (channels,)),
        ("bn.running_mean", "mean", (channels,)),
        ("bn.running_var", "variance", (channels,)),
    )


_MAKERS = {"convolutional": _convolution, "deconvolutional": _deconvolution, "connected": _connected}
