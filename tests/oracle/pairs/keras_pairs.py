"""Pairs of networks of Keras: of its applications, as tf_keras names those that Keras 3 lacks, and written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.oracle.pairs.weight_pair import Network, Pair, timm_
from torch import nn

__all__ = ["KERAS_PAIRS"]

_DIMS_TIMM: dict[str, Any] = {"dims": (8, 8, 16, 16), "depths": (1, 1, 2, 1)}


def _keras(name: str, target: tuple[str, Network], build: Callable[[Any], Any], suffix: str, **how: Any) -> Pair:
    def source() -> nn.Module:
        import os

        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras

        keras.backend.clear_session()
        return build(keras)  # type: ignore[no-any-return]

    def write(model: Any, folder: Path) -> Path:
        path = folder / f"file{suffix}"
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        return path

    def output(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        found = model(x.permute(0, 2, 3, 1).contiguous())
        return found if found.ndim == 2 else found.permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    how = {"output": output, "tolerance": 1e-4, **how}
    return Pair("Keras", f"{name} ({suffix})", target[0], source, write=write, build=target[1], **how)


def _keras_convnext(keras: Any) -> Any:
    from keras.src.applications.convnext import ConvNeXt

    return ConvNeXt(
        depths=[1, 1, 2, 1],
        projection_dims=[8, 8, 16, 16],
        include_preprocessing=False,
        weights=None,
        input_shape=(64, 64, 3),
        classes=3,
        classifier_activation=None,
        name="convnext_tiny",
    )


def _application(name: str, **arguments: Any) -> Callable[[Any], Any]:
    given = {"weights": None, "input_shape": (64, 64, 3), "classes": 3, "classifier_activation": None, **arguments}
    return lambda keras: getattr(keras.applications, name)(**given)


def _conv(keras: Any, x: Any, filters: int, size: int, strides: int, name: str) -> Any:
    """A convolution as tf_keras's ResNet-RS has it: padded alike on both sides, whatever the size."""
    x = keras.layers.ZeroPadding2D(size // 2)(x) if strides > 1 else x
    padding = "same" if strides == 1 else "valid"
    return keras.layers.Conv2D(filters, size, strides=strides, padding=padding, use_bias=False, name=name)(x)


def _norm(keras: Any, x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(epsilon=1e-5, name=name)(x)


def _resnet_rs(keras: Any) -> Any:
    """ResNet-RS with the layers and names of tf_keras (Keras 3 has none), narrow."""
    layers = keras.layers
    image = layers.Input((64, 64, 3))
    x = image
    for place, (filters, strides) in enumerate(((8, 2), (8, 1), (16, 1), (16, 2)), start=1):
        x = _conv(keras, x, filters, 3, strides, f"stem_1_stem_conv_{place}")
        x = layers.ReLU()(_norm(keras, x, f"stem_1_stem_batch_norm_{place}"))
    for group, (filters, depth) in enumerate(((8, 1), (8, 2), (16, 1), (16, 2)), start=2):
        for block in range(depth):
            x = _resnet_rs_block(keras, x, filters, 2 if group > 2 and not block else 1, not block,
                                 f"BlockGroup{group}__block_{block}_")  # fmt: skip
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(3, name="predictions")(x))


def _resnet_rs_block(keras: Any, x: Any, filters: int, strides: int, projects: bool, name: str) -> Any:
    layers, short = keras.layers, x
    if projects:
        short = layers.AveragePooling2D(2, 2, padding="same")(short) if strides == 2 else short
        short = _conv(keras, short, 4 * filters, 1, 1, f"{name}_projection_conv")
        short = _norm(keras, short, f"{name}_projection_batch_norm")
    x = layers.ReLU()(_norm(keras, _conv(keras, x, filters, 1, 1, f"{name}_conv_1"), f"{name}batch_norm_1"))
    x = layers.ReLU()(_norm(keras, _conv(keras, x, filters, 3, strides, f"{name}_conv_2"), f"{name}_batch_norm_2"))
    x = _norm(keras, _conv(keras, x, 4 * filters, 1, 1, f"{name}_conv_3"), f"{name}_batch_norm_3")
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)
    weights = layers.Conv2D(filters, 1, activation="relu", name=f"{name}_se_se_reduce")(weights)
    weights = layers.Conv2D(4 * filters, 1, activation="sigmoid", name=f"{name}_se_se_expand")(weights)
    return layers.ReLU()(layers.Add()([layers.Multiply()([x, weights]), short]))


def _regnet(keras: Any) -> Any:
    """RegNetX002 with the layers and names of tf_keras (Keras 3 has none)."""
    layers = keras.layers
    image = layers.Input((64, 64, 3))
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="regnetx002_stem_conv")(image)
    x = layers.ReLU()(_norm(keras, x, "regnetx002_stem_bn"))
    for stage, (filters, depth) in enumerate(((24, 1), (56, 1), (152, 4), (368, 7))):
        for block in range(depth):
            name, strides, short = f"regnetx002_Stage_{stage}_XBlock_{block}", 1 if block else 2, x
            if not block:
                short = layers.Conv2D(filters, 1, strides=2, use_bias=False, name=f"{name}_skip_1x1")(x)
                short = _norm(keras, short, f"{name}_skip_bn")
            x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv_1x1_1")(x)
            x = layers.ReLU()(_norm(keras, x, f"{name}_conv_1x1_1_bn"))
            x = layers.Conv2D(filters, 3, strides=strides, groups=filters // 8, padding="same", use_bias=False,
                              name=f"{name}_conv_3x3")(x)  # fmt: skip
            x = layers.ReLU()(_norm(keras, x, f"{name}_conv_3x3_bn"))
            x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv_1x1_2")(x)
            x = layers.ReLU()(layers.Add()([_norm(keras, x, f"{name}_conv_1x1_2_bn"), short]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(3, name="regnetx002head_dense")(x))


def _sequential(keras: Any) -> Any:
    """A network as tutorials write it: equal convolutions, a flatten, two dense layers."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            *(layer for width in (8, 8, 8, 16) for layer in (
                layers.Conv2D(width, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(),
            )),
            layers.MaxPooling2D(8),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(3),
        ]
    )  # fmt: skip


def _as_torch() -> nn.Module:
    layers: list[nn.Module] = []
    for width, out in ((3, 8), (8, 8), (8, 8), (8, 16)):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out, eps=1e-3), nn.ReLU()]
    layers += [nn.MaxPool2d(8), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 3)]
    return nn.Sequential(*layers)


_SAME = {"pad_type": "same", "bn_eps": 1e-3, "num_classes": 3}
KERAS_PAIRS = [
    *(
        _keras("ConvNeXt", timm_("convnext_tiny", **_DIMS_TIMM, num_classes=3), _keras_convnext, suffix)
        for suffix in (".weights.h5", ".keras", ".h5")
    ),
    *(
        _keras("MobileNetV2", timm_("mobilenetv2_100", **_SAME), _application("MobileNetV2"), suffix)
        for suffix in (".weights.h5", ".keras", ".h5")
    ),
    _keras(
        "MobileNetV2 into the stock network",
        timm_("mobilenetv2_100", num_classes=3),
        _application("MobileNetV2"),
        ".weights.h5",
        refused="eps",
    ),
    _keras("DenseNet121", timm_("densenet121", num_classes=3), _application("DenseNet121"), ".h5"),
    _keras("MobileNet", timm_("mobilenetv1_100", **_SAME, act_layer="relu6"), _application("MobileNet"), ".h5"),
    _keras("VGG16", timm_("resnet18", num_classes=3), _application("VGG16", include_top=False), ".weights.h5",
           refused="does not fill"),
    *(
        _keras(
            "ResNet-RS (written by hand with tf_keras's names)",
            timm_("resnetrs50", channels=(8, 8, 16, 16), layers=(1, 2, 1, 2), stem_width=8, num_classes=3),
            _resnet_rs,
            suffix,
        )
        for suffix in (".h5", ".keras")
    ),
    _keras(
        "RegNetX (written by hand with tf_keras's names)",
        timm_("regnetx_002", num_classes=3),
        _regnet,
        ".h5",
        refused="SAME",
    ),
    *(
        _keras("Sequential (written by hand)", ("nn.Sequential", _as_torch), _sequential, suffix, size=32)
        for suffix in (".weights.h5", ".keras", ".h5")
    ),
]  # fmt: skip
