"""Nodes of an ONNX graph, made one after the other, each with a name of its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["Nodes"]


class Nodes:
    """Nodes in the order in which they are computed.

    Args:
        prefix: Of all names.
        numbers: Makes names unique across a graph and what is nested in it.
    """

    def __init__(self, prefix: str = "resizing", numbers: count[int] | None = None) -> None:
        self.made: list[onnx.NodeProto] = []
        self._prefix = prefix
        self._numbers = count() if numbers is None else numbers

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the name of that output."""
        name = f"{self._prefix}/{next(self._numbers)}_{kind}"
        self.made.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """Add a constant: a number, or an array."""
        return self("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def cast(self, name: str, to: int) -> str:
        """Add a conversion to another type of `onnx.TensorProto`."""
        return self("Cast", name, to=to)

    def choose(self, condition: str, then: Callable[[Nodes], str], other: Callable[[Nodes], str]) -> str:
        """Add a choice between two ways of computing one value, of which only one is computed."""
        return self("If", condition, then_branch=self._branch(then), else_branch=self._branch(other))

    def _branch(self, make: Callable[[Nodes], str]) -> onnx.GraphProto:
        nodes = Nodes(self._prefix, self._numbers)
        result = nodes("Identity", make(nodes))
        output = onnx.ValueInfoProto(name=result)
        return helper.make_graph(nodes.made, f"{result}/branch", [], [output])
