"""How Keras lists DenseNet121; the network itself is timm's with another epsilon.

Source: keras/src/applications/densenet.py.
"""

from __future__ import annotations

from regraft.models.keras_forms.graph import KerasGraph
from regraft.models.keras_forms.rows import Row

__all__ = ["densenet_rows"]

_BLOCKS = (6, 12, 24, 16)
_CONV, _NORM = "Conv2D", "BatchNormalization"


def densenet_rows() -> tuple[Row, ...]:
    """Return the rows of DenseNet121 without its top."""
    graph = KerasGraph()
    x = graph.chain(
        graph.add(None, "InputLayer"),
        (None, "ZeroPadding2D", None),
        ("conv1_conv", _CONV, "features.conv0"),
        ("conv1_bn", _NORM, "features.norm0"),
        ("conv1_relu", "Activation", None),
        (None, "ZeroPadding2D", None),
        ("pool1", "MaxPooling2D", None),
    )
    for stage, count in enumerate(_BLOCKS, start=1):
        for layer in range(1, count + 1):
            x = _layer(graph, x, f"conv{stage + 1}_block{layer}", f"features.denseblock{stage}.denselayer{layer}")
        if stage < len(_BLOCKS):
            x = _transition(graph, x, f"pool{stage + 1}", f"features.transition{stage}")
    return graph.listing(graph.chain(x, ("bn", _NORM, "features.norm5"), ("relu", "Activation", None)))


def _layer(graph: KerasGraph, x: str, name: str, module: str) -> str:
    new = graph.chain(
        x,
        (f"{name}_0_bn", _NORM, f"{module}.norm1"),
        (f"{name}_0_relu", "Activation", None),
        (f"{name}_1_conv", _CONV, f"{module}.conv1"),
        (f"{name}_1_bn", _NORM, f"{module}.norm2"),
        (f"{name}_1_relu", "Activation", None),
        (f"{name}_2_conv", _CONV, f"{module}.conv2"),
    )
    return graph.add(f"{name}_concat", "Concatenate", x, new)


def _transition(graph: KerasGraph, x: str, name: str, module: str) -> str:
    return graph.chain(
        x,
        (f"{name}_bn", _NORM, f"{module}.norm"),
        (f"{name}_relu", "Activation", None),
        (f"{name}_conv", _CONV, f"{module}.conv"),
        (f"{name}_pool", "AveragePooling2D", None),
    )
