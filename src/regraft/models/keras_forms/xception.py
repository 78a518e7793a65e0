"""Xception of keras.applications on timm's modules: its poolings are padded as TensorFlow's SAME, at the end first.

Source: keras/src/applications/xception.py.
"""

from __future__ import annotations

from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from regraft.models.keras_forms.graph import KerasGraph
from regraft.models.keras_forms.rows import Row

__all__ = ["to_keras_xception", "xception_rows"]

_CONV, _NORM, _SEPARABLE = "Conv2D", "BatchNormalization", "SeparableConv2D"


def to_keras_xception(model: nn.Module) -> None:
    """Pad the maximum poolings as SAME does, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            model.set_submodule(name, MaxPool2dSame(3, stride=2))


def xception_rows() -> tuple[Row, ...]:
    """Return the rows of Xception without its top; a separable convolution is one row, for the module that holds its
    two.
    """
    graph = KerasGraph()
    x = graph.add(None, "InputLayer")
    for number in (1, 2):
        x = _named(graph, x, _CONV, f"block1_conv{number}", f"conv{number}", f"bn{number}", act=True)
    for block in range(2, 14):
        x = _block(graph, x, block)
    for number in (1, 2):
        module = number + 2
        x = _named(graph, x, _SEPARABLE, f"block14_sepconv{number}", f"conv{module}", f"bn{module}", act=True)
    return graph.listing(x)


def _named(graph: KerasGraph, x: str, kind: str, name: str, conv: str, norm: str, *, act: bool) -> str:
    x = graph.chain(x, (name, kind, conv), (f"{name}_bn", _NORM, norm))
    return graph.add(f"{name}_act", "Activation", x) if act else x


def _block(graph: KerasGraph, x: str, block: int) -> str:
    """Map blocks: Keras's block N is timm's N - 1; blocks 2, 3, 4 and 13 halve the map."""
    halves = block in (2, 3, 4, 13)
    module = f"block{block - 1}"
    shortcut = x
    if halves:
        shortcut = graph.chain(x, (None, _CONV, f"{module}.skip"), (None, _NORM, f"{module}.skipbn"))
    place = 0
    for number in range(1, 3 if halves else 4):
        if block > 2 or number > 1:
            x = graph.add(f"block{block}_sepconv{number}_act", "Activation", x)
            place += 1
        convs, norm = f"{module}.rep.{place}", f"{module}.rep.{place + 1}"
        x = _named(graph, x, _SEPARABLE, f"block{block}_sepconv{number}", convs, norm, act=False)
        place += 2
    if halves:
        x = graph.add(f"block{block}_pool", "MaxPooling2D", x)
    return graph.add(None, "Add", x, shortcut)
