"""ResNet and ResNetV2 of keras.applications on timm's modules.

Keras's ResNet halves the map in the first 1x1 convolution of a stage, where timm's does in the 3x3 one. Its ResNetV2
halves in the last block of a stage, with a maximum pooling over single pixels as the shortcut.
Source: keras/src/applications/resnet.py.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.models.resnetv2 import PreActBottleneck
from torch import Tensor, nn

from regraft.models.keras_forms.graph import KerasGraph
from regraft.models.keras_forms.norms import add_biases
from regraft.models.keras_forms.rows import Row

__all__ = ["HalvingBottleneck", "resnet_v2_rows", "to_keras_resnet", "to_keras_resnet_v2"]

_BLOCKS = (3, 4, 6, 3)


class HalvingBottleneck(PreActBottleneck):  # type: ignore[misc]
    """The last block of a stage in Keras's ResNetV2: maps (N, C, H, W) -> (N, C, H/2, W/2)."""

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv1(self.norm1(x))
        residual = self.conv3(self.norm3(self.conv2(self.norm2(residual))))
        total: Tensor = self.drop_path(residual) + F.max_pool2d(x, 1, 2)
        return total


def to_keras_resnet(model: nn.Module) -> None:
    """Move the strides to the first 1x1 convolutions and give all convolutions a bias, in place."""
    for stage in (2, 3, 4):
        _stride(model, f"layer{stage}.0.conv1", 2)
        _stride(model, f"layer{stage}.0.conv2", 1)
    add_biases(module for module in model.modules() if isinstance(module, nn.Conv2d))


def to_keras_resnet_v2(model: nn.Module) -> None:
    """Move the strides to the last blocks and give biases to stem, shortcuts and third convolutions, in place."""
    for stage, count in enumerate(_BLOCKS):
        if stage > 0:
            _stride(model, f"stages.{stage}.blocks.0.conv2", 1)
            _stride(model, f"stages.{stage}.blocks.0.downsample.conv", 1)
        if stage < len(_BLOCKS) - 1:
            last = f"stages.{stage}.blocks.{count - 1}"
            _stride(model, f"{last}.conv2", 2)
            model.get_submodule(last).__class__ = HalvingBottleneck
    names = ("stem.conv", ".conv3", "downsample.conv")
    add_biases(
        module for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and name.endswith(names)
    )


def _stride(model: nn.Module, name: str, stride: int) -> None:
    conv = model.get_submodule(name)
    conv.stride = (stride, stride)  # type: ignore[assignment]


def resnet_v2_rows() -> tuple[Row, ...]:
    """Return the rows of ResNet50V2 without its top."""
    graph = KerasGraph()
    x = graph.chain(
        graph.add(None, "InputLayer"),
        ("conv1_pad", "ZeroPadding2D", None),
        ("conv1_conv", "Conv2D", "stem.conv"),
        ("pool1_pad", "ZeroPadding2D", None),
        ("pool1_pool", "MaxPooling2D", None),
    )
    for stage, count in enumerate(_BLOCKS):
        for block in range(count):
            halves = block == count - 1 and stage < len(_BLOCKS) - 1
            x = _block(
                graph, x, f"conv{stage + 2}_block{block + 1}", f"stages.{stage}.blocks.{block}", block == 0, halves
            )
    last = graph.chain(x, ("post_bn", "BatchNormalization", "norm"), ("post_relu", "Activation", None))
    return graph.listing(last)


def _block(graph: KerasGraph, x: str, name: str, module: str, projects: bool, halves: bool) -> str:
    before = graph.chain(
        x, (f"{name}_preact_bn", "BatchNormalization", f"{module}.norm1"), (f"{name}_preact_relu", "Activation", None)
    )
    if projects:
        shortcut = graph.add(f"{name}_0_conv", "Conv2D", before, module=f"{module}.downsample.conv")
    else:
        shortcut = graph.add(None, "MaxPooling2D", x) if halves else x
    main = graph.chain(
        before,
        (f"{name}_1_conv", "Conv2D", f"{module}.conv1"),
        (f"{name}_1_bn", "BatchNormalization", f"{module}.norm2"),
        (f"{name}_1_relu", "Activation", None),
        (f"{name}_2_pad", "ZeroPadding2D", None),
        (f"{name}_2_conv", "Conv2D", f"{module}.conv2"),
        (f"{name}_2_bn", "BatchNormalization", f"{module}.norm3"),
        (f"{name}_2_relu", "Activation", None),
        (f"{name}_3_conv", "Conv2D", f"{module}.conv3"),
    )
    return graph.add(f"{name}_out", "Add", shortcut, main)
