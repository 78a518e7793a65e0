"""Both sides of a match as layers: what the file holds, and what the model has room for.

A `Slot` is one tensor of the model as plain data; the matcher never sees a module. `Layer` groups the tensors of
either side by what they do (kernel, bias, gamma, ...), in torch's axes, so that two layers can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.axes import torch_shape
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.naming.roles import flat_parts, roles_of

__all__ = ["KERNEL_ROLES", "Fits", "Layer", "Slot", "loose_layers", "loose_slots", "model_layers", "source_layers"]

KERNEL_ROLES = ("kernel", "depthwise_kernel", "transpose_kernel", "dense_kernel", "pointwise_kernel")
_KIND_OF_ROLE = {"depthwise_kernel": "depthwise", "transpose_kernel": "transpose", "dense_kernel": "dense"}
_NORM_ROLES = ("gamma", "beta", "mean", "variance")


@dataclass(frozen=True)
class Slot:
    """One tensor of a model, as the matcher sees it.

    Attributes:
        name: Its name in the state dict.
        shape: Its shape (torch axes).
        role: `kernel`, `depthwise_kernel`, `transpose_kernel`, `dense_kernel`, `bias`, `gamma`, `beta`, `mean`,
            `variance`, `counter` or `other`.
        layer: The module that owns it.
        order: The place of that module in the order of execution.
        part: `backbone` or `head`.
        kind: The module's class name.
        inputs: The layers whose outputs reach this layer without another layer between; None when unknown.
        attributes: What a weight file may have to say about, too: `stride`, `dilation`, `groups`, `eps`, and `pads`
            (`same`, as TensorFlow pads, or how much above, left, below and right).
        flattened: For a dense kernel behind a flatten, the (channels, height, width) that were flattened.
        pools: The kinds of pooling (`max`, `avg`) between those layers and this one.
        rows: The order in which the model flattens: `CHW`, or `HWC` (a network of Keras).
    """

    name: str
    shape: tuple[int, ...]
    role: str
    layer: str
    order: int
    part: str
    kind: str
    inputs: tuple[str, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    flattened: tuple[int, int, int] | None = None
    pools: tuple[str, ...] = ()
    rows: str = "CHW"

    @property
    def num_values(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass
class Layer:
    """The tensors that work together, on either side.

    Attributes:
        name: The layer's name on its side.
        kind: `conv`, `depthwise`, `transpose`, `dense`, `norm` or `other`.
        tensors: Its tensors by role; every kernel is called `kernel` here.
        order: Its place in the order of its side.
        shape: The kernel's shape in torch's axes, or (channels,) of a normalisation.
        inputs: The layers before it, where the side knows its graph.
        attributes: Stride, padding, epsilon, where the side knows them.
        pools: The kinds of pooling before it.
        leaves: How many values each of its tensors holds, by the last part of its name, those of no known role too.
    """

    name: str
    kind: str
    tensors: dict[str, Any]
    order: int
    shape: tuple[int, ...]
    inputs: tuple[str, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    pools: tuple[str, ...] = ()
    leaves: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_channelwise(self) -> bool:
        """Whether each of its kernels reads one channel."""
        return self.kind in ("conv", "depthwise") and len(self.shape) == 4 and self.shape[1] == 1 < self.shape[0]

    @property
    def signature(self) -> tuple[str, tuple[int, ...]]:
        """What must be equal for two layers to be the same one: the same for a 1x1 convolution and a dense layer.

        A kernel of one input channel may be a depthwise one or read grey images; no shape tells.
        """
        shape = self.shape
        if self.is_channelwise:
            return "channelwise", shape
        if self.kind in ("conv", "dense"):
            return "linear", (shape[0], _product(shape[1:]))
        return self.kind, shape


# Whether a layer of the file (second) can be this one of the model (first).
Fits = Callable[[Layer, Layer], bool]


def model_layers(slots: Sequence[Slot]) -> dict[str, Layer]:
    """Return the model's layers by name, in order of execution."""
    grouped: dict[str, list[Slot]] = {}
    for slot in sorted(slots, key=lambda slot: slot.order):
        grouped.setdefault(slot.layer, []).append(slot)
    return {name: _model_layer(name, members) for name, members in grouped.items()}


def _model_layer(name: str, slots: list[Slot]) -> Layer:
    tensors = {("kernel" if slot.role in KERNEL_ROLES else slot.role): slot for slot in slots if slot.role != "other"}
    kernel = tensors.get("kernel")
    first = slots[0]
    if kernel is not None:
        kind, shape = _KIND_OF_ROLE.get(kernel.role, "conv"), kernel.shape
    elif any(role in tensors for role in _NORM_ROLES):
        kind, shape = "norm", next(tensors[role].shape for role in _NORM_ROLES if role in tensors)
    else:
        kind, shape = "other", first.shape
    leaves = _leaves(slots)
    return Layer(name, kind, tensors, first.order, shape, first.inputs, first.attributes, first.pools, leaves)


def source_layers(weights: WeightFile) -> dict[str, Layer]:
    """Return the file's layers by name, in the file's order; a separable convolution becomes two."""
    layers: dict[str, Layer] = {}
    for name, tensors in _grouped(weights).items():
        roles = roles_of(tensors)
        for part in _split_separable(name, roles):
            layers[part[0]] = _source_layer(part[0], part[1], len(layers))
    return layers


def _grouped(weights: WeightFile) -> Mapping[str, list[SourceTensor]]:
    """Return tensors by layer; where no name has a path (`layer1_0_conv1_weight`), by what their names say of it."""
    flat = {tensor.name: flat_parts(tensor.name) for tensor in weights if not tensor.layer}
    if 2 * sum(parts is not None for parts in flat.values()) <= len(weights):
        return weights.layers
    grouped: dict[str, list[SourceTensor]] = {}
    for tensor in weights:
        parts = flat.get(tensor.name)
        grouped.setdefault(tensor.layer if parts is None else parts[0], []).append(tensor)
    return grouped


def _split_separable(name: str, roles: dict[str, SourceTensor]) -> list[tuple[str, dict[str, SourceTensor]]]:
    if "depthwise_kernel" not in roles or "pointwise_kernel" not in roles:
        return [(name, roles)]
    depthwise = {"depthwise_kernel": roles["depthwise_kernel"]}
    pointwise = {role: tensor for role, tensor in roles.items() if role != "depthwise_kernel"}
    return [(f"{name}#depthwise", depthwise), (f"{name}#pointwise", pointwise)]


def _source_layer(name: str, roles: dict[str, SourceTensor], order: int) -> Layer:
    kernel_role = next((role for role in KERNEL_ROLES if role in roles), None)
    tensors: dict[str, Any] = {("kernel" if role == kernel_role else role): tensor for role, tensor in roles.items()}
    if kernel_role is None:
        norm = [role for role in _NORM_ROLES if role in tensors]
        kind = "norm" if norm else "other"
        shape = (tensors[norm[0]].num_values,) if norm else next(iter(tensors.values())).shape
        return Layer(name, kind, tensors, order, shape, leaves=_leaves(roles.values()))
    kernel = tensors["kernel"]
    shape = torch_shape(kernel.shape, kernel.axes)
    return Layer(name, _KIND_OF_ROLE.get(kernel_role) or _kind_of_shape(shape), tensors, order, shape)


def loose_layers(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the single tensors of a file that are of no known role, lone scales, and tables of embeddings, each as a
    layer of its own, by their whole names.
    """
    found: dict[str, Layer] = {}
    for layer in layers.values():
        for role, tensor in layer.tensors.items():
            is_alone = len(layer.tensors) == 1 and (role == "gamma" or "embedding" in layer.name.lower())
            if role.startswith("other:") or is_alone:
                inside = tensor.name.startswith(tensor.layer)
                name = tensor.name if inside else f"{tensor.layer}/{re.split(r'[./]', tensor.name)[-1]}"
                found[name] = Layer(name, "other", {"other": tensor}, layer.order, tensor.shape)
    return found


def loose_slots(slots: Sequence[Slot]) -> dict[str, Layer]:
    """Return the single tensors of a model that are of no known role, each as a layer of its own."""
    return {
        slot.name: Layer(slot.name, "other", {"other": slot}, slot.order, slot.shape)
        for slot in slots
        if slot.role == "other"
    }


def _leaves(tensors: Iterable[Slot | SourceTensor]) -> dict[str, int]:
    return {re.split(r"[./]", tensor.name)[-1]: tensor.num_values for tensor in tensors}


def _kind_of_shape(shape: tuple[int, ...]) -> str:
    return "dense" if len(shape) == 2 else "conv"


def _product(lengths: Sequence[int]) -> int:
    count = 1
    for length in lengths:
        count *= length
    return count
