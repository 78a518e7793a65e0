"""Keras's own listing of its networks without their top, row by row, for `Provenance.keras_rows`.

Rows stand as in `model.layers` of keras.applications: by depth, so that a block's shortcut comes beside its last
convolution. Version "2" is the ResNet50 of Keras 2.1 (`res5c_branch2c`, ending in an average-pooling row), version "3"
that of Keras 2.3 and later. Each row is (Keras's name, Keras's class, timm's module name or None).
"""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

from regraft.errors import SettingsError
from regraft.models.describe.provenance import KerasRow

__all__ = ["Row", "keras_rows"]

Row = KerasRow
_RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_VGGS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_CONV, _NORM, _ACTIVATION = "Conv2D", "BatchNormalization", "Activation"


def keras_rows(architecture: str, version: str = "3") -> tuple[Row, ...]:
    """Return the rows of a Keras network's backbone.

    Args:
        architecture: vgg16, vgg19, resnet50, resnet101 or resnet152, with or without `keras_` before it.
        version: "2" or "3"; they differ for resnet50 alone.

    Raises:
        SettingsError: There is no such listing.
    """
    family = architecture.removeprefix("keras_")
    if family in _VGGS:
        return tuple(_vgg(_VGGS[family]))
    if family == "resnet50" and version == "2":
        return tuple(_old_resnet(_RESNETS[family]))
    if family in _RESNETS and version == "3":
        return tuple(_resnet(_RESNETS[family]))
    raise SettingsError(
        f"There is no listing of {architecture!r} in Keras version {version!r}.",
        f"version 3 (or 2, of resnet50) of one of: {', '.join([*_VGGS, *_RESNETS])}",
        "use the listing that `regraft inspect` prints",
    )


def _vgg(blocks: tuple[int, ...]) -> Iterator[Row]:
    yield ("input_layer", "InputLayer", None)
    place = 0
    for block, convs in enumerate(blocks, start=1):
        for conv in range(1, convs + 1):
            yield (f"block{block}_conv{conv}", _CONV, f"features.{place}")
            place += 2  # the activation is part of Keras's row
        yield (f"block{block}_pool", "MaxPooling2D", None)
        place += 1


def _resnet(blocks: tuple[int, ...]) -> Iterator[Row]:
    yield from (("input_layer", "InputLayer", None), ("conv1_pad", "ZeroPadding2D", None))
    yield from (("conv1_conv", _CONV, "conv1"), ("conv1_bn", _NORM, "bn1"), ("conv1_relu", _ACTIVATION, None))
    yield from (("pool1_pad", "ZeroPadding2D", None), ("pool1_pool", "MaxPooling2D", None))
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name, module = f"conv{stage + 1}_block{block + 1}", f"layer{stage}.{block}"
            for conv in (1, 2):
                yield (f"{name}_{conv}_conv", _CONV, f"{module}.conv{conv}")
                yield (f"{name}_{conv}_bn", _NORM, f"{module}.bn{conv}")
                yield (f"{name}_{conv}_relu", _ACTIVATION, None)
            shortcut = block == 0
            yield from [(f"{name}_0_conv", _CONV, f"{module}.downsample.0")] * shortcut
            yield (f"{name}_3_conv", _CONV, f"{module}.conv3")
            yield from [(f"{name}_0_bn", _NORM, f"{module}.downsample.1")] * shortcut
            yield (f"{name}_3_bn", _NORM, f"{module}.bn3")
            yield from ((f"{name}_add", "Add", None), (f"{name}_out", _ACTIVATION, None))


def _old_resnet(blocks: tuple[int, ...]) -> Iterator[Row]:
    yield from (("input_1", "InputLayer", None), ("conv1_pad", "ZeroPadding2D", None))
    yield from (("conv1", _CONV, "conv1"), ("bn_conv1", _NORM, "bn1"), ("activation_1", _ACTIVATION, None))
    yield ("max_pooling2d_1", "MaxPooling2D", None)
    activation, add = 1, 0
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name, module = f"{stage + 1}{ascii_lowercase[block]}_branch", f"layer{stage}.{block}"
            for conv, letter in ((1, "a"), (2, "b")):
                yield (f"res{name}2{letter}", _CONV, f"{module}.conv{conv}")
                yield (f"bn{name}2{letter}", _NORM, f"{module}.bn{conv}")
                activation += 1
                yield (f"activation_{activation}", _ACTIVATION, None)
            shortcut = block == 0
            yield (f"res{name}2c", _CONV, f"{module}.conv3")
            yield from [(f"res{name}1", _CONV, f"{module}.downsample.0")] * shortcut
            yield (f"bn{name}2c", _NORM, f"{module}.bn3")
            yield from [(f"bn{name}1", _NORM, f"{module}.downsample.1")] * shortcut
            activation, add = activation + 1, add + 1
            yield from ((f"add_{add}", "Add", None), (f"activation_{activation}", _ACTIVATION, None))
    yield ("avg_pool", "AveragePooling2D", None)
