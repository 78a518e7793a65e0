"""A model as the matcher sees it: its tensors in the order of execution, with their roles and what feeds each layer.

The model is run once on torch's meta device (shapes only) while every operation is watched: which parameters it uses,
and which layers' outputs reach it. That also sees functional uses of a weight, which module hooks do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from regraft.models.info import info_of
from regraft.models.keras.layer import KerasLayer, kind_of
from regraft.models.trace import _eval_mode, in_channels, plain, trace_sizes
from regraft.weights.layers import Slot

__all__ = ["Flow", "flow_of", "slots_of"]

# Beside the usual sizes: what AlexNet, NASNet and networks for thumbnails with a flatten take.
_MORE_SIZES = (227, 331, 16, 28, 48, 100, 150, 160, 192, 200, 240, 320, 448)
_NORM_ROLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "mean",
    "running_var": "variance",
    "num_batches_tracked": "counter",
}


@dataclass
class Flow:
    """What a run showed.

    Attributes:
        order: The layers (modules that own tensors) in the order of their first use.
        inputs: For each layer, the layers whose outputs reach it with no other layer between ("" is the image).
        flattened: For each layer that reads flattened features, their (channels, height, width).
        pools: For each layer, the kinds of pooling (`max`, `avg`) between its inputs and itself.
    """

    order: list[str] = field(default_factory=list)
    inputs: dict[str, set[str]] = field(default_factory=dict)
    flattened: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of Keras layers: (height, width, C)
    pools: dict[str, set[str]] = field(default_factory=dict)


def slots_of(model: nn.Module) -> tuple[Slot, ...]:
    """Every tensor of the model's state dict as a `Slot`, in order of execution (unused layers behind)."""
    model = plain(model)
    info = info_of(model)
    flow = flow_of(model)
    modules = dict(model.named_modules())
    names = list(model.state_dict(keep_vars=True))
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    if flow is None:
        places = {owner: place for place, owner in enumerate(owners)}
    else:
        places = {owner: place for place, owner in enumerate(flow.order)}
        places |= {owner: len(places) + place for place, owner in enumerate(owners) if owner not in places}
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
                inputs=tuple(sorted(flow.inputs.get(owner, ()))) if flow and owner in flow.inputs else None,
                attributes=_attributes(module),
                flattened=(flattened[2], *flattened[:2]) if flattened and channels_last else flattened,
                rows="HWC" if channels_last else "CHW",
                pools=tuple(sorted(flow.pools.get(owner, ()))) if flow else (),
            )
        )
    return tuple(sorted(slots, key=lambda slot: slot.order))


def _role(module: nn.Module, leaf: str, tensor: torch.Tensor) -> str:
    weight = getattr(module, "weight", None)
    is_norm = hasattr(module, "running_mean") or (isinstance(weight, torch.Tensor) and weight.ndim == 1)
    if is_norm and not isinstance(module, nn.PReLU):
        return _NORM_ROLES.get(leaf, "other")
    if leaf == "bias":
        return "bias"
    if leaf != "weight":
        return "other"
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return "transpose_kernel"
    if tensor.ndim == 2:
        return "dense_kernel" if kind_of(module) in ("Linear", "Dense") else "other"
    is_depthwise = tensor.ndim == 4 and tensor.shape[1] == 1 and getattr(module, "groups", 1) > 1
    return "depthwise_kernel" if is_depthwise else "kernel" if tensor.ndim >= 3 else "other"


def _attributes(module: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("stride", "padding", "groups", "eps", "kernel_size"):
        value = getattr(module, name, None)
        if isinstance(value, (int, float, str, tuple)):
            found[name] = value
    if "same" in type(module).__name__.lower():  # timm's Conv2dSame pads in its forward
        found["padding"] = "same"
    return found


def flow_of(model: nn.Module) -> Flow | None:
    """Run the model once and watch; None when it runs on no image that was tried.

    A run on the meta device that was lost on the way is made again with numbers: Keras's max pooling makes a tensor of
    its own there.
    """
    model = plain(model)
    lost: Flow | None = None
    sizes = trace_sizes(model)
    sizes += [(side, side) for side in _MORE_SIZES if (side, side) not in sizes]
    for channels in in_channels(model):
        for size in sizes:
            for device in ("meta", "real"):
                try:
                    flow, followed = _watch(model, (1, channels, *size), device)
                except Exception:
                    # Whatever a foreign forward raises on an image that it does not take: the next one is tried.
                    continue
                if followed or (lost is not None and device == "real"):
                    return flow
                lost = lost or flow
    return lost


def _watch(model: nn.Module, shape: tuple[int, ...], device: str) -> tuple[Flow, bool]:
    """What the run showed, and whether its output was seen to come from the image."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    first = next(iter(named.values()), torch.zeros(()))
    if device == "meta":
        tensors = {name: torch.empty_like(tensor, device="meta") for name, tensor in named.items()}
    else:
        tensors = {name: tensor.detach().clone() for name, tensor in named.items()}
    kind = next((tensor.dtype for tensor in named.values() if tensor.is_floating_point()), torch.float32)
    image = torch.zeros(shape, dtype=kind, device="meta" if device == "meta" else first.device)
    watcher = _Watcher({id(tensor): name.rpartition(".")[0] for name, tensor in tensors.items()}, image)
    with torch.no_grad(), _eval_mode(model), watcher:
        output = functional_call(model, tensors, (image,))
    return watcher.flow, any(map(watcher.follows, _tensors(output)))


@dataclass
class _Origin:
    """Where a tensor comes from: parameters alone (`owners`), or data (`layers`, the nearest ones)."""

    owners: frozenset[str]
    layers: frozenset[str] | None
    flat: tuple[int, int, int] | None = None
    pools: frozenset[str] = frozenset()


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every tensor of a run from the layers that it comes from."""

    def __init__(self, owners: Mapping[int, str], image: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = Flow()
        self._owners = owners
        self._origins: dict[int, tuple[torch.Tensor, _Origin]] = {}
        self._note(image, _Origin(frozenset(), frozenset([""])))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        origins = [origin for origin in map(self._origin, _tensors((args, kwargs))) if origin is not None]
        if origins:
            made = self._made(func, args, origins, output)
            for tensor in _tensors(output):
                self._note(tensor, made)
        return output

    def _origin(self, tensor: torch.Tensor) -> _Origin | None:
        owner = self._owners.get(id(tensor))
        if owner is not None:
            return _Origin(frozenset([owner]), None)
        known = self._origins.get(id(tensor))
        return known[1] if known else None

    def follows(self, tensor: torch.Tensor) -> bool:
        """Whether it is known to come from the image."""
        origin = self._origin(tensor)
        return origin is not None and origin.layers is not None

    def _note(self, tensor: torch.Tensor, origin: _Origin) -> None:
        self._origins[id(tensor)] = (tensor, origin)  # the tensor is kept, so that its id stays its own

    def _made(self, func: Any, args: Any, origins: list[_Origin], output: Any) -> _Origin:
        owners = frozenset().union(*(origin.owners for origin in origins if origin.layers is None))
        data = [origin for origin in origins if origin.layers is not None]
        if not data:
            return _Origin(owners, None)
        layers = frozenset().union(*(origin.layers for origin in data if origin.layers is not None))
        pools = frozenset().union(*(origin.pools for origin in data)) | _pooling(func)
        flat = next((origin.flat for origin in data if origin.flat), None) or _flattening(args, output)
        if not owners:
            return _Origin(frozenset(), layers, flat, pools)
        for owner in sorted(owners):
            if owner not in self.flow.inputs:
                self.flow.order.append(owner)
            self.flow.inputs.setdefault(owner, set()).update(layers - {owner})
            self.flow.pools.setdefault(owner, set()).update(pools)
            if flat:
                self.flow.flattened.setdefault(owner, flat)
        return _Origin(frozenset(), owners)


def _pooling(func: Any) -> frozenset[str]:
    """`max` or `avg` for a pooling over a window; a mean over the whole map is none."""
    name = str(func)
    if "max_pool2d" in name and "adaptive" not in name:
        return frozenset(["max"])
    return frozenset(["avg"]) if "avg_pool2d" in name and "adaptive" not in name else frozenset()


def _flattening(args: Any, output: Any) -> tuple[int, int, int] | None:
    """(C, H, W) where this operation turned a map of more than one position into a row."""
    if not (args and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor)):
        return None
    before, after = tuple(args[0].shape), tuple(output.shape)
    if len(before) == 4 and len(after) == 2 and before[2] * before[3] > 1:
        channels, height, width = before[1:]
        return (channels, height, width) if after[1] == channels * height * width else None
    return None


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
