"""A pixel program's resizing as ONNX nodes, to the bit what Pillow gives: one matrix product for each axis.

Pillow resamples 8-bit images with whole numbers: the weights of an output pixel, computed in fp64, are rounded to 22
bits behind the point, and each pass is rounded to bytes. In fp64 such sums are exact, in whatever order they are added.
Above a factor of four it first averages whole blocks (`reducing_gap`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from onnx import TensorProto
from PIL import Image

from regraft.data.decode.decode import PixelProgram
from regraft.exports.sealing.nodes import Nodes

__all__ = ["resized"]

_BITS = 22
_REDUCE_BITS = 24
_GAP = 2.0


@dataclass(frozen=True)
class _Axis:
    """One axis of a resize; names of scalars in the graph.

    Attributes:
        size: Pixels of the image, int64.
        start: Where the part that is looked at begins, fp64.
        end: Where it ends, fp64.
        filled: Pixels that this part becomes, int64.
        before: Pixels of background before these, int64.
        total: Pixels of the result.
    """

    size: str
    start: str
    end: str
    filled: str
    before: str
    total: int


@dataclass(frozen=True)
class _Filter:
    """A filter as Pillow has it (Resample.c): where it ends, and its value at a distance."""

    support: float
    value: Callable[[Nodes, str], str]


def resized(nodes: Nodes, images_NCHW: str, program: PixelProgram, background: tuple[int, ...]) -> str:
    """Add what a program does with decoded pixels, and return the name of its result, uint8 (N, C, h, w).

    Args:
        nodes: What is added to.
        images_NCHW: uint8, of any height and width.
        program: Its policy, filter and sizes.
        background: What lies beside a padded image, for each channel.
    """
    images = _pass(nodes, images_NCHW, program.stored or program.size, program, background)
    if program.stored is not None:
        images = _pass(nodes, images, program.size, program, None)
    return images


def _pass(
    nodes: Nodes, images: str, size: tuple[int, int], program: PixelProgram, background: tuple[int, ...] | None
) -> str:
    """Add one resize; without a background it squashes."""
    shape = nodes("Shape", images)
    sides = [nodes("Gather", shape, nodes.constant(place, np.int64), axis=0) for place in (2, 3)]
    policy = "squash" if background is None else program.resize
    axes = {"squash": _squash, "crop": _crop, "pad": _pad}[policy](nodes, sides, size, program)
    if program.interpolation == "nearest":
        result = _nearest(nodes, images, axes)
    else:
        result = _resampled(nodes, images, axes, _FILTERS[program.interpolation])
    if background is None or policy != "pad":
        return result
    inside = nodes("And", _filled(nodes, axes[0], 1), _filled(nodes, axes[1], 0))
    beside = nodes.constant(np.reshape(background, (1, -1, 1, 1)), np.uint8)
    return nodes("Where", inside, result, beside)


def _squash(nodes: Nodes, sides: list[str], size: tuple[int, int], program: PixelProgram) -> list[_Axis]:
    nothing, none = nodes.constant(0, np.float64), nodes.constant(0, np.int64)
    ends = [nodes.cast(side, TensorProto.DOUBLE) for side in sides]
    return [
        _Axis(side, nothing, end, nodes.constant(total, np.int64), none, total)
        for side, end, total in zip(sides, ends, size, strict=True)
    ]


def _crop(nodes: Nodes, sides: list[str], size: tuple[int, int], program: PixelProgram) -> list[_Axis]:
    wholes, scales = _scales(nodes, sides, size)
    scale = nodes("Div", nodes("Max", *scales), nodes.constant(program.crop_fraction, np.float64))
    axes = []
    for side, whole, total in zip(sides, wholes, size, strict=True):
        length = nodes("Min", nodes("Div", nodes.constant(total, np.float64), scale), whole)
        start = nodes("Div", nodes("Sub", whole, length), nodes.constant(2, np.float64))
        end = nodes("Add", start, length)
        axes.append(_Axis(side, start, end, nodes.constant(total, np.int64), nodes.constant(0, np.int64), total))
    return axes


def _pad(nodes: Nodes, sides: list[str], size: tuple[int, int], program: PixelProgram) -> list[_Axis]:
    wholes, scales = _scales(nodes, sides, size)
    scale = nodes("Min", *scales)
    axes = []
    for side, whole, total in zip(sides, wholes, size, strict=True):
        rounded = nodes.cast(nodes("Round", nodes("Mul", whole, scale)), TensorProto.INT64)
        filled = nodes("Max", nodes.constant(1, np.int64), nodes("Min", nodes.constant(total, np.int64), rounded))
        free = nodes("Sub", nodes.constant(total, np.int64), filled)
        before = nodes("Div", free, nodes.constant(2, np.int64))
        axes.append(_Axis(side, nodes.constant(0, np.float64), whole, filled, before, total))
    return axes


def _scales(nodes: Nodes, sides: list[str], size: tuple[int, int]) -> tuple[list[str], list[str]]:
    """Return the sides as fp64, and by how much each must shrink to fit exactly."""
    wholes = [nodes.cast(side, TensorProto.DOUBLE) for side in sides]
    pairs = zip(size, wholes, strict=True)
    return wholes, [nodes("Div", nodes.constant(total, np.float64), whole) for total, whole in pairs]


def _filled(nodes: Nodes, axis: _Axis, dimension: int) -> str:
    """Return which pixels of the result the image fills, bool, with one more dimension of 1."""
    places = nodes.constant(np.arange(axis.total), np.int64)
    end = nodes("Add", axis.before, axis.filled)
    inside = nodes("And", nodes("GreaterOrEqual", places, axis.before), nodes("Less", places, end))
    return nodes("Unsqueeze", inside, nodes.constant([dimension], np.int64))


def _resampled(nodes: Nodes, images: str, axes: list[_Axis], kernel: _Filter) -> str:
    images, reduced = _reduced(nodes, images, axes, kernel)
    pixels = nodes.cast(images, TensorProto.DOUBLE)
    down, right = (_weights(nodes, axis, kernel) for axis in reduced)
    right = nodes("Transpose", right, perm=[1, 0])

    def rows_first(inner: Nodes) -> str:
        return _as_bytes(inner, inner("MatMul", down, _as_bytes(inner, inner("MatMul", pixels, right))))

    def columns_first(inner: Nodes) -> str:
        return _as_bytes(inner, inner("MatMul", _as_bytes(inner, inner("MatMul", down, pixels)), right))

    if not _pillow_may_begin_with_columns():
        return nodes.cast(rows_first(nodes), TensorProto.UINT8)
    return nodes.cast(nodes.choose(_begins_with_columns(nodes, *reduced), columns_first, rows_first), TensorProto.UINT8)


@cache
def _pillow_may_begin_with_columns() -> bool:
    """Return whether the installed Pillow, of 13 or later, resamples some images column by column first.

    The order counts, because each pass rounds to bytes.
    """
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 8), dtype=np.uint8))
    columns, rows = (image.resize(size, Image.Resampling.BICUBIC) for size in ((8, 9), (7, 40)))
    whole = image.resize((7, 9), Image.Resampling.BICUBIC)
    orders = [first.resize((7, 9), Image.Resampling.BICUBIC).tobytes() for first in (rows, columns)]
    return orders[1] == whole.tobytes() != orders[0]


def _begins_with_columns(nodes: Nodes, down: _Axis, right: _Axis) -> str:
    """Return whether Pillow does: where an image shrinks more than twice as many pixels in height as in width."""
    lost, beside = (nodes("Sub", axis.size, axis.filled) for axis in (down, right))
    much = nodes("Greater", lost, nodes("Mul", nodes.constant(2, np.int64), beside))
    return nodes("And", much, nodes("Greater", lost, nodes.constant(0, np.int64)))


def _as_bytes(nodes: Nodes, sums: str) -> str:
    half = nodes("Add", sums, nodes.constant(1 << (_BITS - 1), np.float64))
    whole = nodes("Floor", nodes("Mul", half, nodes.constant(2.0**-_BITS, np.float64)))
    return nodes("Clip", whole, nodes.constant(0, np.float64), nodes.constant(255, np.float64))


def _weights(nodes: Nodes, axis: _Axis, kernel: _Filter) -> str:
    """Return the weights (total, size) of the pixels of an axis in each pixel of its result, whole numbers in fp64."""
    one, half = nodes.constant(1, np.float64), nodes.constant(0.5, np.float64)
    start, end = (nodes.cast(place, TensorProto.FLOAT) for place in (axis.start, axis.end))  # as Pillow takes them
    length = nodes.cast(nodes("Sub", end, start), TensorProto.DOUBLE)
    scale = nodes("Div", length, nodes.cast(axis.filled, TensorProto.DOUBLE))
    wide = nodes("Max", scale, one)
    support = nodes("Mul", nodes.constant(kernel.support, np.float64), wide)
    number = nodes("Sub", nodes.constant(np.arange(axis.total)[:, None], np.int64), axis.before)
    steps = nodes("Mul", nodes("Add", nodes.cast(number, TensorProto.DOUBLE), half), scale)
    centre = nodes("Add", nodes.cast(start, TensorProto.DOUBLE), steps)
    places = nodes("Range", nodes.constant(0, np.int64), axis.size, nodes.constant(1, np.int64))
    low = nodes.cast(nodes("Add", nodes("Sub", centre, support), half), TensorProto.INT64)
    high = nodes.cast(nodes("Add", nodes("Add", centre, support), half), TensorProto.INT64)
    near = nodes("And", nodes("GreaterOrEqual", places, low), nodes("Less", places, high))
    inside = nodes("GreaterOrEqual", number, nodes.constant(0, np.int64))
    near = nodes("And", near, nodes("And", inside, nodes("Less", number, axis.filled)))
    apart = nodes("Add", nodes("Sub", nodes.cast(places, TensorProto.DOUBLE), centre), half)
    values = kernel.value(nodes, nodes("Abs", nodes("Mul", apart, nodes("Div", one, wide))))
    zero = nodes.constant(0, np.float64)
    values = nodes("Where", near, values, zero)
    total = nodes("ReduceSum", values, nodes.constant([1], np.int64), keepdims=1)
    shares = nodes("Div", values, nodes("Where", nodes("Equal", total, zero), one, total))
    scaled = nodes("Mul", shares, nodes.constant(1 << _BITS, np.float64))
    rounded = nodes("Add", scaled, nodes("Mul", nodes("Sign", scaled), half))
    return nodes.cast(nodes.cast(rounded, TensorProto.INT32), TensorProto.DOUBLE)


def _bilinear(nodes: Nodes, apart: str) -> str:
    return nodes("Max", nodes("Sub", nodes.constant(1, np.float64), apart), nodes.constant(0, np.float64))


def _bicubic(nodes: Nodes, apart: str) -> str:
    def number(value: float) -> str:
        return nodes.constant(value, np.float64)

    inner = nodes("Sub", nodes("Mul", number(1.5), apart), number(2.5))
    inner = nodes("Add", nodes("Mul", nodes("Mul", inner, apart), apart), number(1))
    outer = nodes("Mul", nodes("Sub", apart, number(5)), apart)
    outer = nodes("Mul", nodes("Add", outer, number(8)), apart)
    outer = nodes("Mul", nodes("Sub", outer, number(4)), number(-0.5))
    outer = nodes("Where", nodes("Less", apart, number(2)), outer, number(0))
    return nodes("Where", nodes("Less", apart, number(1)), inner, outer)


def _lanczos(nodes: Nodes, apart: str) -> str:
    zero, lobes = nodes.constant(0, np.float64), nodes.constant(3, np.float64)
    values = nodes("Mul", _sinc(nodes, apart), _sinc(nodes, nodes("Div", apart, lobes)))
    return nodes("Where", nodes("LessOrEqual", apart, lobes), values, zero)


def _sinc(nodes: Nodes, apart: str) -> str:
    one, zero = nodes.constant(1, np.float64), nodes.constant(0, np.float64)
    angle = nodes("Mul", apart, nodes.constant(math.pi, np.float64))
    middle = nodes("Equal", angle, zero)
    return nodes("Where", middle, one, nodes("Div", nodes("Sin", angle), nodes("Where", middle, one, angle)))


_FILTERS: Mapping[str, _Filter] = {
    "bilinear": _Filter(1, _bilinear),
    "bicubic": _Filter(2, _bicubic),
    "lanczos": _Filter(3, _lanczos),
}


def _reduced(nodes: Nodes, images: str, axes: list[_Axis], kernel: _Filter) -> tuple[str, list[_Axis]]:
    """Return the images after blocks of pixels were averaged, where they are much larger than the result."""
    one = nodes.constant(1, np.int64)
    factors = []
    for axis in axes:
        length = nodes("Sub", axis.end, axis.start)
        ratio = nodes("Div", nodes("Div", length, nodes.cast(axis.filled, TensorProto.DOUBLE)), _number(nodes, _GAP))
        factors.append(nodes("Max", nodes.cast(ratio, TensorProto.INT64), one))
    any_of = nodes("Or", *(nodes("Greater", factor, one) for factor in factors))
    parts = [_part(nodes, axis, any_of, kernel) for axis in axes]
    reduced = []
    for axis, factor, (start, end) in zip(axes, factors, parts, strict=True):
        size = _over(nodes, nodes("Sub", end, start), factor)
        places = (nodes("Sub", place, nodes.cast(start, TensorProto.DOUBLE)) for place in (axis.start, axis.end))
        new_start, new_end = (nodes("Div", place, nodes.cast(factor, TensorProto.DOUBLE)) for place in places)
        reduced.append(_Axis(size, new_start, new_end, axis.filled, axis.before, axis.total))
    averaged = nodes.choose(
        any_of,
        lambda inner: _averaged(inner, images, factors, parts, [axis.size for axis in reduced]),
        lambda inner: inner("Identity", images),
    )
    return averaged, reduced


def _part(nodes: Nodes, axis: _Axis, any_of: str, kernel: _Filter) -> tuple[str, str]:
    """Return from which pixel to which the image is read: all of it, or what the filter can reach."""
    scale = nodes("Div", nodes("Sub", axis.end, axis.start), nodes.cast(axis.filled, TensorProto.DOUBLE))
    reach = nodes("Mul", _number(nodes, kernel.support - 0.5), scale)
    low = nodes.cast(nodes("Sub", axis.start, reach), TensorProto.INT64)
    high = nodes.cast(nodes("Ceil", nodes("Add", axis.end, reach)), TensorProto.INT64)
    none = nodes.constant(0, np.int64)
    start, end = nodes("Max", none, low), nodes("Min", axis.size, high)
    return nodes("Where", any_of, start, none), nodes("Where", any_of, end, axis.size)


def _number(nodes: Nodes, value: float) -> str:
    return nodes.constant(value, np.float64)


def _over(nodes: Nodes, length: str, factor: str) -> str:
    """Return length / factor, rounded up."""
    return nodes("Div", nodes("Sub", nodes("Add", length, factor), nodes.constant(1, np.int64)), factor)


def _averaged(nodes: Nodes, images: str, factors: list[str], parts: list[tuple[str, str]], sizes: list[str]) -> str:
    """Return the mean of each block, uint8, rounded as Pillow does (Reduce.c)."""
    vector = nodes.constant([0], np.int64)

    def listed(*scalars: str) -> str:
        return nodes("Concat", *(nodes("Unsqueeze", scalar, vector) for scalar in scalars), axis=0)

    starts, ends = (listed(*(part[place] for part in parts)) for place in (0, 1))
    pixels = nodes.cast(nodes("Slice", images, starts, ends, nodes.constant([2, 3], np.int64)), TensorProto.FLOAT)
    shape = nodes("Shape", images)
    outer = nodes("Slice", shape, nodes.constant([0], np.int64), nodes.constant([2], np.int64))
    lengths = [nodes("Sub", end, start) for start, end in parts]
    wholes = [nodes("Mul", size, factor) for size, factor in zip(sizes, factors, strict=True)]
    missing = [nodes("Sub", whole, length) for whole, length in zip(wholes, lengths, strict=True)]
    none = nodes.constant(0, np.int64)
    pixels = nodes("Pad", pixels, listed(none, none, none, none, none, none, *missing))
    blocks = nodes("Concat", outer, listed(sizes[0], factors[0], wholes[1]), axis=0)
    sums = nodes("ReduceSum", nodes("Reshape", pixels, blocks), nodes.constant([3], np.int64), keepdims=0)
    blocks = nodes("Concat", outer, listed(sizes[0], sizes[1], factors[1]), axis=0)
    sums = nodes("ReduceSum", nodes("Reshape", sums, blocks), nodes.constant([4], np.int64), keepdims=0)
    down, right = (
        _counts(nodes, size, factor, length) for size, factor, length in zip(sizes, factors, lengths, strict=True)
    )
    counts = nodes("Mul", nodes("Unsqueeze", down, nodes.constant([1], np.int64)), right)
    top = nodes.constant(1 << _REDUCE_BITS, np.int64)
    half = nodes("Div", counts, nodes.constant(2, np.int64))
    # Products below 2**53 are exact in fp64; engines that keep whole numbers in 32 bits would overflow.
    sums = nodes("Add", nodes.cast(sums, TensorProto.DOUBLE), nodes.cast(half, TensorProto.DOUBLE))
    scaled = nodes("Mul", sums, nodes.cast(nodes("Div", top, counts), TensorProto.DOUBLE))
    whole = nodes("Floor", nodes("Mul", scaled, _number(nodes, 2.0**-_REDUCE_BITS)))
    return nodes.cast(whole, TensorProto.UINT8)


def _counts(nodes: Nodes, size: str, factor: str, length: str) -> str:
    """Return how many pixels each block of an axis has: the last one what is left."""
    places = nodes("Range", nodes.constant(0, np.int64), size, nodes.constant(1, np.int64))
    left = nodes("Sub", length, nodes("Mul", places, factor))
    return nodes("Min", factor, left)


def _nearest(nodes: Nodes, images: str, axes: list[_Axis]) -> str:
    """Return the pixel at the place of each; places are sums of one step, as Pillow adds them up (Geometry.c)."""
    for dimension, axis in zip((2, 3), axes, strict=True):
        start, end = (nodes.cast(place, TensorProto.FLOAT) for place in (axis.start, axis.end))
        length = nodes.cast(nodes("Sub", end, start), TensorProto.DOUBLE)
        step = nodes("Div", length, nodes.cast(axis.filled, TensorProto.DOUBLE))
        first = nodes("Add", nodes.cast(start, TensorProto.DOUBLE), nodes("Mul", step, _number(nodes, 0.5)))
        steps = nodes("Expand", step, nodes.constant([axis.total], np.int64))
        begin = nodes("Where", nodes.constant(np.arange(axis.total) == 0, np.bool_), first, steps)
        places = nodes.cast(nodes("CumSum", begin, nodes.constant(0, np.int64)), TensorProto.INT64)
        own = nodes("Sub", nodes.constant(np.arange(axis.total), np.int64), axis.before)
        own = nodes("Max", nodes.constant(0, np.int64), nodes("Min", own, nodes.constant(axis.total - 1, np.int64)))
        places = nodes("Gather", places, own)
        last = nodes("Sub", axis.size, nodes.constant(1, np.int64))
        images = nodes("Gather", images, nodes("Min", places, last), axis=dimension)
    return images
