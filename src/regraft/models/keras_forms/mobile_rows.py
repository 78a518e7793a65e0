"""How Keras lists MobileNet, MobileNetV2 and EfficientNetB0 without their top.

Source: keras/src/applications/{mobilenet,mobilenet_v2,efficientnet}.py; module names are timm's.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

from regraft.models.keras_forms.graph import KerasGraph
from regraft.models.keras_forms.rows import Row

__all__ = ["efficientnet_rows", "mobilenet_rows", "mobilenet_v2_rows"]

_CONV, _NORM, _DEPTHWISE, _PAD = "Conv2D", "BatchNormalization", "DepthwiseConv2D", "ZeroPadding2D"
_V1_STAGES = ((1, 1), (2, 2), (2, 2), (6, 2), (2, 2))  # blocks and first stride of each of timm's stages
_V2_STAGES = ((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1))
_EFFICIENT_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))


def _blocks(stages: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int, int]]:
    """Return stage, block and stride of every block."""
    for stage, (count, stride) in enumerate(stages):
        yield from ((stage, block, stride if block == 0 else 1) for block in range(count))


def mobilenet_rows() -> tuple[Row, ...]:
    """Return the rows of MobileNet."""
    graph = KerasGraph()
    x = graph.chain(
        graph.add(None, "InputLayer"),
        ("conv1", _CONV, "conv_stem"),
        ("conv1_bn", _NORM, "bn1"),
        ("conv1_relu", "ReLU", None),
    )
    for number, (stage, block, stride) in enumerate(_blocks(_V1_STAGES), start=1):
        module = f"blocks.{stage}.{block}"
        if stride == 2:
            x = graph.add(f"conv_pad_{number}", _PAD, x)
        x = graph.chain(
            x,
            (f"conv_dw_{number}", _DEPTHWISE, f"{module}.conv_dw"),
            (f"conv_dw_{number}_bn", _NORM, f"{module}.bn1"),
            (f"conv_dw_{number}_relu", "ReLU", None),
            (f"conv_pw_{number}", _CONV, f"{module}.conv_pw"),
            (f"conv_pw_{number}_bn", _NORM, f"{module}.bn2"),
            (f"conv_pw_{number}_relu", "ReLU", None),
        )
    return graph.listing(x)


def mobilenet_v2_rows() -> tuple[Row, ...]:
    """Return the rows of MobileNetV2."""
    graph = KerasGraph()
    x = graph.chain(
        graph.add(None, "InputLayer"),
        ("Conv1", _CONV, "conv_stem"),
        ("bn_Conv1", _NORM, "bn1"),
        ("Conv1_relu", "ReLU", None),
    )
    for number, (stage, block, stride) in enumerate(_blocks(_V2_STAGES)):
        before, name = x, f"block_{number}" if number else "expanded_conv"
        if number:
            x = _v2_expansion(graph, x, name, f"blocks.{stage}.{block}", stride)
        x = _v2_projection(graph, x, name, f"blocks.{stage}.{block}", expanded=number > 0)
        if block:
            x = graph.add(f"{name}_add", "Add", before, x)
    last = (("Conv_1", _CONV, "conv_head"), ("Conv_1_bn", _NORM, "bn2"), ("out_relu", "ReLU", None))
    return graph.listing(graph.chain(x, *last))


def _v2_expansion(graph: KerasGraph, x: str, name: str, module: str, stride: int) -> str:
    x = graph.chain(
        x,
        (f"{name}_expand", _CONV, f"{module}.conv_pw"),
        (f"{name}_expand_BN", _NORM, f"{module}.bn1"),
        (f"{name}_expand_relu", "ReLU", None),
    )
    return graph.add(f"{name}_pad", _PAD, x) if stride == 2 else x


def _v2_projection(graph: KerasGraph, x: str, name: str, module: str, *, expanded: bool) -> str:
    first, second, project = ("bn2", "bn3", "conv_pwl") if expanded else ("bn1", "bn2", "conv_pw")
    return graph.chain(
        x,
        (f"{name}_depthwise", _DEPTHWISE, f"{module}.conv_dw"),
        (f"{name}_depthwise_BN", _NORM, f"{module}.{first}"),
        (f"{name}_depthwise_relu", "ReLU", None),
        (f"{name}_project", _CONV, f"{module}.{project}"),
        (f"{name}_project_BN", _NORM, f"{module}.{second}"),
    )


def efficientnet_rows() -> tuple[Row, ...]:
    """Return the rows of EfficientNetB0, built with `weights=None`."""
    graph = KerasGraph()
    x = graph.chain(
        graph.add(None, "InputLayer"),
        (None, "Rescaling", None),
        (None, "Normalization", "normalization"),
        ("stem_conv_pad", _PAD, None),
        ("stem_conv", _CONV, "conv_stem"),
        ("stem_bn", _NORM, "bn1"),
        ("stem_activation", "Activation", None),
    )
    for stage, block, stride in _blocks(_EFFICIENT_STAGES):
        before, name, module = x, f"block{stage + 1}{ascii_lowercase[block]}_", f"blocks.{stage}.{block}"
        if stage:
            x = graph.chain(
                x,
                (f"{name}expand_conv", _CONV, f"{module}.conv_pw"),
                (f"{name}expand_bn", _NORM, f"{module}.bn1"),
                (f"{name}expand_activation", "Activation", None),
            )
        if stride == 2:
            x = graph.add(f"{name}dwconv_pad", _PAD, x)
        x = _efficient_rest(graph, x, name, module, expanded=stage > 0)
        if block:
            x = graph.add(f"{name}add", "Add", graph.add(f"{name}drop", "Dropout", x), before)
    last = (("top_conv", _CONV, "conv_head"), ("top_bn", _NORM, "bn2"), ("top_activation", "Activation", None))
    return graph.listing(graph.chain(x, *last))


def _efficient_rest(graph: KerasGraph, x: str, name: str, module: str, *, expanded: bool) -> str:
    """Build a block: depthwise convolution, squeeze and excitation, projection."""
    first, second, project = ("bn2", "bn3", "conv_pwl") if expanded else ("bn1", "bn2", "conv_pw")
    x = graph.chain(
        x,
        (f"{name}dwconv", _DEPTHWISE, f"{module}.conv_dw"),
        (f"{name}bn", _NORM, f"{module}.{first}"),
        (f"{name}activation", "Activation", None),
    )
    weights = graph.chain(
        x,
        (f"{name}se_squeeze", "GlobalAveragePooling2D", None),
        (f"{name}se_reshape", "Reshape", None),
        (f"{name}se_reduce", _CONV, f"{module}.se.conv_reduce"),
        (f"{name}se_expand", _CONV, f"{module}.se.conv_expand"),
    )
    x = graph.add(f"{name}se_excite", "Multiply", x, weights)
    return graph.chain(
        x, (f"{name}project_conv", _CONV, f"{module}.{project}"), (f"{name}project_bn", _NORM, f"{module}.{second}")
    )
