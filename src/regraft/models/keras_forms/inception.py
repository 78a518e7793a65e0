"""InceptionV3 of keras.applications on timm's modules.

Keras's average poolings leave the padding out of the mean, and its batch norms have no scale.
Source: keras/src/applications/inception_v3.py.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.inception_v3 import InceptionA, InceptionC, InceptionE
from torch import Tensor, nn

from regraft.models.keras_forms.graph import KerasGraph
from regraft.models.keras_forms.norms import without_scale
from regraft.models.keras_forms.rows import Row

__all__ = ["INCEPTION_BLOCKS", "inception_rows", "to_keras_inception"]

# The convolutions of each branch, in the order in which both networks create and run them; a pair inside runs side by
# side on the same map. A branch that starts with a pooling has its kind in the first place.
_AVG, _MAX = "AveragePooling2D", "MaxPooling2D"
Branch = tuple[str | tuple[str, str], ...]
_A: tuple[Branch, ...] = (
    ("branch1x1",),
    ("branch5x5_1", "branch5x5_2"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    (_AVG, "branch_pool"),
)
_B: tuple[Branch, ...] = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), (_MAX,))
_C: tuple[Branch, ...] = (
    ("branch1x1",),
    ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
    (_AVG, "branch_pool"),
)
_D: tuple[Branch, ...] = (
    ("branch3x3_1", "branch3x3_2"),
    ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"),
    (_MAX,),
)
_E: tuple[Branch, ...] = (
    ("branch1x1",),
    ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
    ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    (_AVG, "branch_pool"),
)
INCEPTION_BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _A),
    "Mixed_6a": _B,
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _C),
    "Mixed_7a": _D,
    **dict.fromkeys(("Mixed_7b", "Mixed_7c"), _E),
}


class _Branches(nn.Module):
    """A block whose average pooling leaves the padding out of the mean."""

    branches: tuple[Branch, ...]

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [out for branch in self.branches for out in self._run(x, branch)]

    def _run(self, x: Tensor, branch: Branch) -> list[Tensor]:
        for name in branch:
            if isinstance(name, tuple):
                return [self.get_submodule(side)(x) for side in name]
            pools = name == _AVG
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if pools else self.get_submodule(name)(x)
        return [x]


class KerasInceptionA(_Branches, InceptionA):  # type: ignore[misc]
    """The blocks mixed0 to mixed2."""

    branches = _A


class KerasInceptionC(_Branches, InceptionC):  # type: ignore[misc]
    """The blocks mixed4 to mixed7."""

    branches = _C


class KerasInceptionE(_Branches, InceptionE):  # type: ignore[misc]
    """The blocks mixed9 and mixed10."""

    branches = _E


_KERAS = {
    InceptionA: KerasInceptionA,
    InceptionC: KerasInceptionC,
    InceptionE: KerasInceptionE,
}


def to_keras_inception(model: nn.Module) -> None:
    """Correct the average poolings and take the scales away, in place."""
    for block in model.children():
        if type(block) in _KERAS:
            block.__class__ = _KERAS[type(block)]
    without_scale(model)


def inception_rows() -> tuple[Row, ...]:
    """Return the rows of InceptionV3 without its top."""
    graph = KerasGraph()
    x = graph.add(None, "InputLayer")
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", _MAX, "Conv2d_3b_1x1", "Conv2d_4a_3x3", _MAX):
        x = graph.add(None, _MAX, x) if name == _MAX else _conv(graph, x, name)
    for number, (block, branches) in enumerate(INCEPTION_BLOCKS.items()):
        x = _mixed(graph, x, block, branches, number)
    return graph.listing(x)


def _conv(graph: KerasGraph, x: str, module: str) -> str:
    return graph.chain(
        x,
        (None, "Conv2D", f"{module}.conv"),
        (None, "BatchNormalization", f"{module}.bn"),
        (None, "Activation", None),
    )


def _mixed(graph: KerasGraph, x: str, block: str, branches: tuple[Branch, ...], number: int) -> str:
    ends = []
    for place, branch in enumerate(branches):
        end = x
        for name in branch:
            if isinstance(name, tuple):
                sides = [_conv(graph, end, f"{block}.{side}") for side in name]
                end = graph.add(f"mixed9_{number - 9}" if place == 1 else None, "Concatenate", *sides)
            elif name in (_AVG, _MAX):
                end = graph.add(None, name, end)
            else:
                end = _conv(graph, end, f"{block}.{name}")
        ends.append(end)
    return graph.add(f"mixed{number}", "Concatenate", *ends)
