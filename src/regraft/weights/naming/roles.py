"""What the tensors of one layer of a file are to each other, by their names, their shapes and their values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from regraft.weights.file import SourceTensor

__all__ = ["flat_parts", "roles_of"]

# How the formats call the tensors of a layer, where their reader does not say the role.
_ROLE_OF_NAME = {
    **dict.fromkeys(("kernel", "weights", "W", "w", "filter", "filters", "in_proj_weight"), "kernel"),
    **dict.fromkeys(("depthwise_kernel", "depthwise_weights"), "depthwise_kernel"),
    **dict.fromkeys(("pointwise_kernel", "pointwise_weights"), "pointwise_kernel"),
    **dict.fromkeys(("bias", "biases", "b", "in_proj_bias"), "bias"),
    **dict.fromkeys(("gamma", "scale"), "gamma"),
    **dict.fromkeys(("beta", "offset"), "beta"),
    **dict.fromkeys(("running_mean", "moving_mean", "mean"), "mean"),
    **dict.fromkeys(("running_var", "moving_variance", "variance", "var"), "variance"),
    "num_batches_tracked": "counter",
}
# What a one-dimensional tensor is called in a normalisation, beside these.
_IN_A_NORM = {
    **dict.fromkeys(("weight", "weights", "w", "W", "g", "gamma", "scale", "s"), "gamma"),
    **dict.fromkeys(("bias", "biases", "b", "beta", "offset", "shift"), "beta"),
    **dict.fromkeys(("running_mean", "moving_mean", "mean", "mu", "m"), "mean"),
    **dict.fromkeys(("running_var", "moving_variance", "moving_var", "variance", "var", "v"), "variance"),
    "num_batches_tracked": "counter",
}
_FLAT = re.compile(
    r"(\w+)_(weight|bias|running_mean|running_var|num_batches_tracked|kernel|gamma|beta|moving_mean|moving_variance|[wWb])"
)
_FLAT_NUMBERED = re.compile(
    r"(weight|bias|kernel|gamma|beta|(?:running_|moving_)?(?:mean|var|variance)|mu|[wWb])_?(\d+)"
)
_PARTS = ("gamma", "beta", "mean", "variance")


def roles_of(tensors: Sequence[SourceTensor]) -> dict[str, SourceTensor]:
    """Return the tensors of one layer by role; those whose role is not known as `other:NAME`."""
    parts = _parts_of_norm(tensors)
    if parts:
        return parts
    leaf = {tensor.name: _leaf(tensor.name) for tensor in tensors}
    is_norm = any(
        tensor.role in ("mean", "variance", "gamma") or _ROLE_OF_NAME.get(leaf[tensor.name]) in ("mean", "variance")
        for tensor in tensors
    )
    roles: dict[str, SourceTensor] = {}
    for tensor in tensors:
        role = tensor.role or _ROLE_OF_NAME.get(leaf[tensor.name])
        if role is None and (leaf[tensor.name] == "weight" or _is_only_kernel(tensor, tensors)):
            role = "kernel"
        if role == "kernel" and (len(tensor.shape) == 1 or _is_channel_row(tensor, tensors)):
            role = "gamma"
        if role == "bias" and (is_norm or _scales_channels(tensors)):
            role = "beta"
        if role == "gamma" and len(tensor.shape) > 1 and not is_norm and not _is_channel_row(tensor, tensors):
            role = "kernel"
        roles[role if role and role not in roles else f"other:{tensor.name}"] = tensor
    return roles


def _parts_of_norm(tensors: Sequence[SourceTensor]) -> dict[str, SourceTensor] | None:
    """Return the roles of a normalisation: three or four tensors of one number a channel, with whatever counts its
    batches.

    Of four whose names say nothing of two, the one that is never negative is the variance.
    """
    vectors = [tensor for tensor in tensors if tensor.num_values > 1 or len(tensor.shape) == 1]
    rest = [tensor for tensor in tensors if tensor not in vectors]
    same = len({tensor.shape for tensor in vectors}) == 1 and all(len(tensor.shape) == 1 for tensor in vectors)
    if not same or len(vectors) not in (3, 4) or any(tensor.role for tensor in tensors):
        return None
    named = {tensor.name: _IN_A_NORM.get(_leaf(tensor.name)) for tensor in vectors}
    known = [role for role in named.values() if role]
    if len(set(known)) < len(known) or not {"mean", "variance", "gamma"} & set(known):
        return None
    unknown = [tensor for tensor in vectors if named[tensor.name] is None]
    left = [role for role in _PARTS if role not in known]
    given = {role: tensor for tensor in vectors if (role := named[tensor.name])}
    if unknown and len(vectors) == len(_PARTS):
        given |= _told_apart(unknown, left)
    placed = {tensor.name for tensor in given.values()}
    for tensor in (*vectors, *rest):
        if tensor.name not in placed:
            role = _role_of_number(tensor) if tensor in rest else None
            given[role if role and role not in given else f"other:{tensor.name}"] = tensor
    return given


def _role_of_number(tensor: SourceTensor) -> str | None:
    """Return the role of a single number in a normalisation: an integer counts its batches, whatever it is called."""
    return _IN_A_NORM.get(_leaf(tensor.name)) or ("counter" if tensor.dtype.startswith(("int", "uint")) else None)


def _told_apart(unknown: Sequence[SourceTensor], left: Sequence[str]) -> Mapping[str, SourceTensor]:
    """Return the remaining tensors by role: one alone, or of two the variance as the one that is never negative."""
    if len(unknown) == 1:
        return {left[0]: unknown[0]}
    if len(unknown) == 2 and "variance" in left:
        positive = [tensor for tensor in unknown if _is_never_negative(tensor)]
        if len(positive) == 1:
            other = next(tensor for tensor in unknown if tensor is not positive[0])
            return {"variance": positive[0], next(role for role in left if role != "variance"): other}
    return {}


def _is_only_kernel(tensor: SourceTensor, tensors: Sequence[SourceTensor]) -> bool:
    """Return whether it is called `k` and alone has more than one axis: beside a `q` and a `v` it is something else."""
    return _leaf(tensor.name) == "k" and [one for one in tensors if len(one.shape) > 1] == [tensor]


def _is_channel_row(tensor: SourceTensor, tensors: Sequence[SourceTensor]) -> bool:
    """Return whether it is a scale of shape (1, 1, 1, C), beside a shift of the same shape (ConvNeXt V2's response
    normalisation): a kernel's bias has one axis.
    """
    is_row = len(tensor.shape) > 1 and max(tensor.shape) == tensor.num_values > 1
    return is_row and len(tensors) == 2 and len({one.shape for one in tensors}) == 1


def _is_never_negative(tensor: SourceTensor) -> bool:
    values = tensor.load()
    return bool(values.size) and bool((values >= 0).all())


def _scales_channels(tensors: Sequence[SourceTensor]) -> bool:
    """Return whether it is a layer norm: a weight and a bias, both one number per channel."""
    return any(
        _leaf(tensor.name) in ("weight", "weights", "w", "W", "kernel")
        and (len(tensor.shape) == 1 or _is_channel_row(tensor, tensors))
        for tensor in tensors
    )


def _leaf(name: str) -> str:
    flat = flat_parts(name)
    return flat[1] if flat else name.replace("/", ".").rpartition(".")[2].partition(":")[0]


def flat_parts(name: str) -> tuple[str, str] | None:
    """Return the layer and the leaf of a name without a path (`layer1_0_conv1_weight`, `W3`); None of other names."""
    if found := _FLAT.fullmatch(name):
        return found[1], found[2]
    numbered = _FLAT_NUMBERED.fullmatch(name)
    return (f"layer{numbered[2]}", numbered[1]) if numbered else None
