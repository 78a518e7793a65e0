"""From a network's maps to masks at the size of the image, as ONNX nodes."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from regraft.data.decode.decode import PixelProgram
from regraft.exports.sealing.nodes import Nodes

__all__ = ["masks"]


def masks(nodes: Nodes, maps: str, size: str, program: PixelProgram) -> tuple[str, str]:
    """Add what makes masks of logits; return the names of the masks, uint8 (N, H, W), and of their mean confidence.

    Args:
        nodes: What is added to.
        maps: Logits (N, classes, h, w).
        size: Height and width of the image, int64 (2,).
        program: How the image became the network's input.
    """
    inside = maps if program.resize != "pad" else _inside(nodes, maps, size, program)
    shape = nodes("Shape", inside)
    outer = nodes("Slice", shape, nodes.constant([0], np.int64), nodes.constant([2], np.int64))
    large = nodes(
        "Resize",
        inside,
        "",
        "",
        nodes("Concat", outer, size, axis=0),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    mask = nodes.cast(nodes("ArgMax", large, axis=1, keepdims=0), TensorProto.UINT8)
    axis = nodes.constant([1], np.int64)
    best = nodes("ReduceMax", large, axis)
    shares = nodes("ReduceSum", nodes("Exp", nodes("Sub", large, best)), axis, keepdims=0)
    sure = nodes("ReduceMean", nodes("Reciprocal", shares), nodes.constant([1, 2], np.int64), keepdims=0)
    return mask, sure


def _inside(nodes: Nodes, maps: str, size: str, program: PixelProgram) -> str:
    """Return the part of the maps that a padded image fills, as `regraft.data.decode.upright.filled_part` has it."""
    first = program.stored or program.size
    own = nodes.cast(size, TensorProto.DOUBLE)
    wanted = nodes.constant(first, np.float64)
    scale = nodes("ReduceMin", nodes("Div", wanted, own), keepdims=1)
    one, whole = nodes.constant([1, 1], np.int64), nodes.constant(first, np.int64)
    rounded = nodes.cast(nodes("Round", nodes("Mul", own, scale)), TensorProto.INT64)
    filled = nodes("Max", one, nodes("Min", whole, rounded))
    before = nodes("Div", nodes("Sub", whole, filled), nodes.constant([2, 2], np.int64))
    factors = nodes.constant(np.divide(program.size, first), np.float64)  # a second resize squashes

    def scaled(places: str) -> str:
        product = nodes("Mul", nodes.cast(places, TensorProto.DOUBLE), factors)
        return nodes.cast(nodes("Round", product), TensorProto.INT64)

    start = scaled(before)
    end = nodes("Add", start, nodes("Max", one, scaled(filled)))
    return nodes("Slice", maps, start, end, nodes.constant([2, 3], np.int64))
