"""What the tensors of a Keras layer are: roles by class and position, axes by role, and what shapes can tell.

Keras writes HWIO kernels, HWCM depthwise kernels (M = channel multiplier), HWOI kernels of transposed convolutions and
IO dense kernels. Where only names or shapes are there, a role is given when they leave one reading, and else is None.
Source: keras.layers (`build` and `save_own_variables` of each class), Keras 2.12 to 3.15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["axes_of", "class_in_name", "kernel_role", "roles_by_position", "snake_case"]

Shape = tuple[int, ...]

_CONV = ("kernel", "bias")
_POSITIONS: dict[str, tuple[str, ...]] = {
    "conv1d": _CONV,
    "conv2d": _CONV,
    "conv3d": _CONV,
    "dense": _CONV,
    "einsum_dense": _CONV,
    "conv1d_transpose": ("transpose_kernel", "bias"),
    "conv2d_transpose": ("transpose_kernel", "bias"),
    "conv3d_transpose": ("transpose_kernel", "bias"),
    "depthwise_conv1d": ("depthwise_kernel", "bias"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "separable_conv1d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "normalization": ("mean", "variance", "count"),
    "embedding": ("embeddings",),
    "p_re_lu": ("alpha",),
    "lstm_cell": ("kernel", "recurrent_kernel", "bias"),
    "gru_cell": ("kernel", "recurrent_kernel", "bias"),
    "simple_rnn_cell": ("kernel", "recurrent_kernel", "bias"),
}
_NORMS = ("batch_normalization", "sync_batch_normalization")
_SCALED = ("layer_normalization", "group_normalization")
_STATISTICS = ("mean", "variance")
_AXES = {
    ("kernel", 5): "DHWIO",
    ("kernel", 4): "HWIO",
    ("kernel", 3): "WIO",
    ("kernel", 2): "IO",
    ("transpose_kernel", 5): "DHWOI",
    ("transpose_kernel", 4): "HWOI",
    ("transpose_kernel", 3): "WOI",
    ("depthwise_kernel", 4): "HWCM",
    ("depthwise_kernel", 3): "WCM",
    ("pointwise_kernel", 4): "HWIO",
    ("pointwise_kernel", 3): "WIO",
    ("alpha", 3): "HWC",
}
_CHANNELS = ("bias", "gamma", "beta", "mean", "variance", "alpha")
_NUMBER = re.compile(r"_\d+$")


def snake_case(class_name: str) -> str:
    """Return `DepthwiseConv2D` as Keras spells it in paths and automatic names: `depthwise_conv2d`."""
    name = re.sub(r"\W+", "", class_name.rsplit(">", 1)[-1])
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def class_in_name(name: str) -> str | None:
    """Return the class in an automatic layer name (`conv2d_7`, `batch_normalization`), or None."""
    plain = _NUMBER.sub("", name)
    known = plain in _POSITIONS or plain in _NORMS or plain in _SCALED
    return plain if known else None


def axes_of(role: str | None, shape: Shape) -> str | None:
    """Return the axes of a tensor in Keras's own (channels-last, Keras 2 and 3) layout, or None."""
    if role in _CHANNELS and len(shape) == 1:
        return "C"
    return _AXES.get((role or "", len(shape)))


def roles_by_position(
    kind: str | None, shapes: Sequence[Shape], config: Mapping[str, Any] | None = None, *, layer: str = ""
) -> tuple[str | None, ...]:
    """Return roles of a layer's numbered variables (`vars/0`, `vars/1`, ...).

    Args:
        kind: The class in snake case, or None when it is not known: then the shapes decide, as far as they can.
        shapes: The shapes, in the order of the numbers.
        config: The layer's settings, where the file has them (which of gamma and beta a norm has).
        layer: The layer's name, for a class that only the name tells (`dwconv`).
    """
    if kind in _NORMS or kind in _SCALED:
        return _norm_roles(len(shapes), config, with_statistics=kind in _NORMS)
    if kind in _POSITIONS:
        roles = _POSITIONS[kind]
        return roles[: len(shapes)] + (None,) * (len(shapes) - len(roles))
    return _roles_by_shape(shapes, layer)


def kernel_role(layer: str, kind: str | None, shape: Shape, num_biases: int | None) -> str | None:
    """Return the role of a tensor called `kernel`: Keras 3 calls depthwise and transposed kernels so too.

    Args:
        layer: The layer's name: `expanded_conv_depthwise` says what it is.
        kind: The class in snake case, where it is known.
        shape: The kernel's shape.
        num_biases: The length of the layer's bias, or None without one.
    """
    if kind in _POSITIONS:
        return _POSITIONS[kind][0]
    if len(shape) not in (3, 4, 5):
        return "kernel"
    says_depthwise = re.search(r"depthwise|(^|[^a-z])dw|dwconv", layer.lower()) is not None
    says_transpose = re.search(r"transpose|deconv", layer.lower()) is not None
    inputs, outputs = shape[-2:]
    if num_biases is None or inputs == outputs:
        if says_transpose:
            return "transpose_kernel"
        undecided = outputs == 1 and inputs > 1
        return ("depthwise_kernel" if says_depthwise else None) if undecided else "kernel"
    if num_biases == outputs:
        return "kernel"
    if num_biases == inputs and (outputs > 1 or says_transpose):
        return "transpose_kernel"
    return "depthwise_kernel" if num_biases == inputs * outputs else None


def _norm_roles(count: int, config: Mapping[str, Any] | None, *, with_statistics: bool) -> tuple[str | None, ...]:
    fixed: tuple[str | None, ...] = _STATISTICS if with_statistics else ()
    num_free = count - len(fixed)
    if num_free == 2:
        return ("gamma", "beta", *fixed)
    if num_free == 0:
        return fixed
    if num_free == 1:  # scale=False leaves beta, center=False leaves gamma: the settings tell, the numbers do not
        return (_only_parameter(config), *fixed)
    return (None,) * count


def _only_parameter(config: Mapping[str, Any] | None) -> str | None:
    scale, center = (config or {}).get("scale"), (config or {}).get("center")
    if scale is False and center is not False:
        return "beta"
    return "gamma" if center is False and scale is not False else None


def _roles_by_shape(shapes: Sequence[Shape], layer: str) -> tuple[str | None, ...]:
    ranks = [len(shape) for shape in shapes]
    if ranks == [4] or (ranks == [4, 1] and shapes[1][0] in _fan_outs(shapes[0])):
        return (kernel_role(layer, None, shapes[0], shapes[1][0] if len(shapes) == 2 else None), "bias")[: len(shapes)]
    if ranks == [2, 1] and shapes[1][0] == shapes[0][1]:
        return ("kernel", "bias")
    if ranks[:2] == [4, 4] and ranks[2:] in ([], [1]) and shapes[1][:2] == (1, 1):
        return ("depthwise_kernel", "pointwise_kernel", "bias")[: len(shapes)]
    if ranks == [1, 1, 1, 1] and len(set(shapes)) == 1:
        return ("gamma", "beta", "mean", "variance")
    return (None,) * len(shapes)


def _fan_outs(shape: Shape) -> tuple[int, ...]:
    return (shape[-1], shape[-2], shape[-1] * shape[-2])
