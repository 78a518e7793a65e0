"""Back to Keras: the tensors of a network under Keras's names and in Keras's axes, each layout step undone exactly.

This works for the networks of keras.applications, whose listing regraft knows, in the order of that listing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.errors import WeightsError
from regraft.models.describe.info import info_of
from regraft.models.keras_forms.forms import FORMS
from regraft.models.keras_forms.rows import Row
from regraft.models.layers.aliases import keras_aliases
from regraft.weights.writers.keras_tensor import KerasTensor
from regraft.wording import quantity

__all__ = ["keras_tensors"]

Array = NDArray[Any]

# Keras's class -> its weights in Keras's order, with torch's name for each.
_WEIGHTS = {
    "BatchNormalization": (
        *(("gamma", "weight"), ("beta", "bias")),
        *(("moving_mean", "running_mean"), ("moving_variance", "running_var")),
    ),
    "Normalization": (("mean", "running_mean"), ("variance", "running_var"), ("count", "num_batches_tracked")),
    "SeparableConv2D": (
        *(("depthwise_kernel", "conv1.weight"), ("pointwise_kernel", "pointwise.weight")),
        ("bias", "pointwise.bias"),
    ),
    "DepthwiseConv2D": (("depthwise_kernel", "weight"), ("bias", "bias")),
}
_PLAIN = (("kernel", "weight"), ("bias", "bias"))
# timm's networks that are Keras's as they are; all others differ by strides, padding or biases.
_SAME_NETWORK = {"vgg16": "keras_vgg16", "vgg19": "keras_vgg19", "densenet121": "keras_densenet121"}


def keras_tensors(model: nn.Module, filled: Collection[str] | None = None) -> list[KerasTensor]:
    """Return the filled tensors of a network as Keras has them, in the order of Keras's `model.layers`.

    Args:
        model: A `keras_NAME` network, or one of timm's that is the same.
        filled: Names of the tensors (state dict) that hold values worth writing; layers without any are left out. None
            writes all.

    Raises:
        WeightsError: Keras's names of this network are not known, or a layer is filled in part.
    """
    architecture = info_of(model).architecture
    state = model.state_dict()
    filled = state.keys() if filled is None else filled
    tensors: list[KerasTensor] = []
    partly: list[str] = []
    for name, kind, module in _rows(model, architecture):
        wanted = [
            (weight, f"{module}.{own}") for weight, own in _WEIGHTS.get(kind, _PLAIN) if f"{module}.{own}" in state
        ]
        missing = [own for _, own in wanted if own not in filled]
        if missing and len(missing) < len(wanted):
            partly += missing
        elif not missing:
            tensors += [KerasTensor(name, weight, _values(kind, weight, state[own])) for weight, own in wanted]
    if partly:
        raise WeightsError(
            f"Not filled in {architecture}: {quantity(len(partly), 'tensor')} of layers that are filled otherwise.",
            "Keras files hold whole layers",
            "leave the whole layer out with --skip, or name the missing tensors with --map",
            details=partly,
        )
    return tensors


def _rows(model: nn.Module, architecture: str) -> Iterator[tuple[str, str, str]]:
    """Return name and class in Keras, and the module, of each layer that has weights."""
    yield from ((name, kind, module) for name, kind, module in _listing(model, architecture) if module)
    aliases = keras_aliases(model, architecture)
    old = any(name == "res5c_branch2c" for name, _, _ in _listing(model, architecture))
    for module in (name for name in _heads(model) if name in aliases):
        if architecture == "keras_mobilenet":
            yield "conv_preds", "Conv2D", module
        else:
            yield aliases[module][-1 if old else 0], "Dense", module


def _listing(model: nn.Module, architecture: str) -> tuple[Row, ...]:
    form = FORMS.get(_SAME_NETWORK.get(architecture.partition(".")[0], architecture))
    if form is None:
        known = [*FORMS, *_SAME_NETWORK]
        raise WeightsError(
            f"Keras's names for the layers of {architecture!r} are not known.",
            f"one of: {', '.join(known)}. timm's other networks stride, pad or normalise elsewhere.",
            "write a .safetensors file or a model folder, or name the network of Keras: `--model keras_resnet50`",
        )
    return info_of(model).origin.keras_rows or form.rows()


def _heads(model: nn.Module) -> Iterator[str]:
    """Return modules of the head with weights of their own, in order."""
    info = info_of(model)
    for name, module in model.named_modules():
        if info.is_head(name) and isinstance(module, (nn.Linear, nn.Conv2d)):
            yield name


def _values(kind: str, weight: str, tensor: Tensor) -> Array:
    values: Array = tensor.detach().cpu().numpy()
    if weight == "depthwise_kernel":  # (C, 1, H, W) -> HWCM: one filter for each channel, in all of these networks
        values = values.transpose(2, 3, 0, 1)
    elif weight.endswith("kernel"):
        values = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
        if kind == "Dense":  # timm's VGG holds its first dense layer as a convolution over the whole map
            values = values.reshape(-1, values.shape[-1])
        elif values.ndim == 2:
            values = values[None, None]
    return np.array(values, order="C")  # which keeps a single number one
