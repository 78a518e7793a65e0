"""A model as the matcher sees it: its tensors in the order of execution, with their roles and what feeds each layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from regraft.models.describe.flow import NO_PADS, Pads, flow_of
from regraft.models.describe.info import ModelInfo, info_of
from regraft.models.describe.trace import plain
from regraft.models.keras.layer import KerasLayer, kind_of
from regraft.weights.naming.layers import Slot

__all__ = ["slots_of"]

_NORM_ROLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "mean",
    "running_var": "variance",
    "num_batches_tracked": "counter",
}


def slots_of(model: nn.Module, info: ModelInfo | None = None) -> tuple[Slot, ...]:
    """Return every tensor of the model's state dict as a `Slot`, in order of execution (unused layers behind).

    Args:
        model: Any module.
        info: Its description, where it is known; None derives it.
    """
    model = plain(model)
    info = info_of(model) if info is None else info
    flow = flow_of(model)
    modules = dict(model.named_modules())
    names = list(model.state_dict(keep_vars=True))
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    if flow is None:
        places = {owner: place for place, owner in enumerate(owners)}
    else:
        places = {owner: place for place, owner in enumerate(flow.order)}
        places |= {owner: len(places) + place for place, owner in enumerate(owners) if owner not in places}
    inputs = {} if flow is None else {owner: tuple(sorted(of)) for owner, of in flow.inputs.items()}
    pools = {} if flow is None else {owner: tuple(sorted(of)) for owner, of in flow.pools.items()}
    slots = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            continue
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner, model)
        flattened = flow.flattened.get(owner) if flow else None
        channels_last = isinstance(module, KerasLayer)
        slots.append(
            Slot(
                name=name,
                shape=tuple(tensor.shape),
                role=_role(module, leaf, tensor),
                layer=owner,
                order=places[owner],
                part=info.part_of(name),
                kind=kind_of(module),
                inputs=inputs.get(owner),
                attributes=_attributes(module, flow.pads.get(owner) if flow else None)
                | _activation(module, modules.get(owner.rpartition(".")[0]), owner)
                | _heads(module, modules.get(owner.rpartition(".")[0]), owner),
                flattened=(flattened[2], *flattened[:2]) if flattened and channels_last else flattened,
                rows="HWC" if channels_last else "CHW",
                pools=pools.get(owner, ()),
            )
        )
    return tuple(sorted(slots, key=lambda slot: slot.order))


def _role(module: nn.Module, leaf: str, tensor: torch.Tensor) -> str:
    weight = getattr(module, "weight", None)
    is_norm = hasattr(module, "running_mean") or (isinstance(weight, torch.Tensor) and weight.ndim == 1)
    if is_norm and not isinstance(module, nn.PReLU):
        return _NORM_ROLES.get(leaf, "other")
    if leaf in ("bias", "in_proj_bias"):
        return "bias"
    if leaf == "in_proj_weight":  # nn.MultiheadAttention's queries, keys and values
        return "dense_kernel"
    if leaf != "weight":
        return "other"
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return "transpose_kernel"
    if tensor.ndim == 2:
        return "dense_kernel" if kind_of(module) in ("Linear", "Dense") else "other"
    is_depthwise = tensor.ndim == 4 and tensor.shape[1] == 1 and getattr(module, "groups", 1) > 1
    return "depthwise_kernel" if is_depthwise else "kernel" if tensor.ndim >= 3 else "other"


def _attributes(module: nn.Module, padded: set[Pads | None] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("stride", "groups", "eps", "kernel_size", "dilation"):
        value = getattr(module, name, None)
        if isinstance(value, (int, float, str, tuple)):
            found[name] = value
    pads = _pads(module, padded or {NO_PADS})
    if pads is not None:
        found["pads"] = pads
    return found


def _activation(module: nn.Module, parent: nn.Module | None, name: str) -> dict[str, str]:
    """Return the activation behind a normalisation that has one, or behind the first layer of a block's MLP."""
    own = isinstance(getattr(module, "act", None), nn.Module)
    act = getattr(module if own else parent, "act", None)
    if not isinstance(act, nn.Module) or isinstance(act, nn.Identity) or not (own or name.endswith(".fc1")):
        return {}
    kind = type(act).__name__
    if kind == "GELUTanh" or getattr(act, "approximate", "none") == "tanh":
        return {"activation": "gelu_tanh"}
    spelled = {"QuickGELU": "quick_gelu", "Hardswish": "hard_swish", "HardSwish": "hard_swish", "Swish": "silu"}
    return {"activation": spelled.get(kind, kind.lower())}


def _heads(module: nn.Module, parent: nn.Module | None, name: str) -> dict[str, int]:
    """Return the number of heads of an attention, at its queries."""
    is_query = name.rpartition(".")[2] in ("qkv", "q", "query", "q_proj")
    count = getattr(parent if is_query else module, "num_heads", None)
    return {"num_heads": count} if isinstance(count, int) else {}


def _pads(module: nn.Module, padded: set[Pads | None]) -> str | Pads | None:
    """Return a convolution's padding, explicit padding before it included; None where that is unknown."""
    if "same" in type(module).__name__.lower():  # timm's Conv2dSame pads in its forward
        return "same"
    own = getattr(module, "padding", None)
    before = next(iter(padded)) if len(padded) == 1 else None
    if own == "same" or before is None:
        return "same" if before == NO_PADS else None
    if own == "valid":
        return before
    if isinstance(own, int):
        own = own, own
    if not isinstance(own, tuple) or len(own) != 2:
        return None
    return before[0] + own[0], before[1] + own[1], before[2] + own[0], before[3] + own[1]
