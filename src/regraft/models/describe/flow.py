"""What runs before what in a model: its layers in the order of execution, and what reaches each of them.

The model is run once on torch's meta device (shapes only), or a small one on an image (as in `trace`), while every
operation is watched: which parameters it uses, and which layers' outputs reach it. That also sees functional uses of a
weight, which module hooks do not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from regraft.models.describe.trace import _eval_mode, _is_quick, in_channels, plain, trace_sizes
from regraft.weights.differences.file_flow import nearest_givers

__all__ = ["NO_PADS", "Flow", "Pads", "flow_of"]

# Beside the usual sizes: what AlexNet, NASNet and networks for thumbnails with a flatten take.
_MORE_SIZES = (227, 331, 16, 28, 48, 100, 150, 160, 192, 200, 240, 320, 448)

Pads = tuple[int, int, int, int]  # above, left, below, right
NO_PADS: Pads = (0, 0, 0, 0)


@dataclass
class Flow:
    """What a run showed.

    Attributes:
        order: The layers (modules that own tensors) in the order of their first use.
        inputs: For each layer, the layers whose outputs reach it with no other layer between ("" is the image); the
            latest of them where there are very many (`nearest_givers`).
        flattened: For each layer that reads flattened features, their (channels, height, width).
        pools: For each layer, the kinds of pooling (`max`, `avg`) between its inputs and itself.
        pads: For each layer, how much was padded between its inputs and itself, as (above, left, below, right).
    """

    order: list[str] = field(default_factory=list)
    inputs: dict[str, set[str]] = field(default_factory=dict)
    flattened: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of Keras layers: (height, width, C)
    pools: dict[str, set[str]] = field(default_factory=dict)
    pads: dict[str, set[Pads | None]] = field(default_factory=dict)


def flow_of(model: nn.Module) -> Flow | None:
    """Run the model once and return its data flow; None when it runs on no image that was tried.

    A run on the meta device that was lost on the way is made again with numbers: Keras's max pooling makes a tensor of
    its own there.
    """
    model = plain(model)
    lost: Flow | None = None
    sizes = trace_sizes(model)
    sizes += [(side, side) for side in _MORE_SIZES if (side, side) not in sizes]
    devices = ("real", "meta") if _is_quick(model) else ("meta", "real")  # with the same result
    for channels in in_channels(model):
        for size in sizes:
            flows: dict[str, Flow] = {}
            for device in devices:
                try:
                    flow, followed = _watch(model, (1, channels, *size), device)
                except Exception:
                    # Whatever a foreign forward raises on an image that it does not take: the next one is tried.
                    continue
                if followed:
                    return flow
                flows[device] = flow
            lost = lost or flows.get("meta")
            if "real" in flows and lost is not None:
                return flows["real"]
            lost = lost or flows.get("real")
    return lost


def _watch(model: nn.Module, shape: tuple[int, ...], device: str) -> tuple[Flow, bool]:
    """Return the data flow of one forward pass, and whether its output was seen to come from the image."""
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
    pads: frozenset[Pads | None] = frozenset()


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every tensor of a run from the layers that it comes from."""

    def __init__(self, owners: Mapping[int, str], image: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = Flow()
        self._places: dict[str, int] = {}
        self._owners = owners
        self._origins: MutableMapping[torch.Tensor, _Origin] = WeakIdKeyDictionary()  # or a run would keep all its maps
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
        return self._origins.get(tensor)

    def follows(self, tensor: torch.Tensor) -> bool:
        """Return whether it is known to come from the image."""
        origin = self._origin(tensor)
        return origin is not None and origin.layers is not None

    def _note(self, tensor: torch.Tensor, origin: _Origin) -> None:
        self._origins[tensor] = origin

    def _made(self, func: Any, args: Any, origins: list[_Origin], output: Any) -> _Origin:
        owners = frozenset().union(*(origin.owners for origin in origins if origin.layers is None))
        data = [origin for origin in origins if origin.layers is not None]
        if not data:
            return _Origin(owners, None)
        layers = self._reaching(data)
        pooled = _pooling(func)
        pools = frozenset().union(*(origin.pools for origin in data)) | pooled
        pads = frozenset() if pooled else _padded(func, args, frozenset().union(*(origin.pads for origin in data)))
        flat = next((origin.flat for origin in data if origin.flat), None) or _flattening(args, output)
        if not owners:
            return _Origin(frozenset(), layers, flat, pools, pads)
        for owner in sorted(owners):
            if owner not in self.flow.inputs:
                self._places[owner] = len(self.flow.order)
                self.flow.order.append(owner)
            self.flow.inputs.setdefault(owner, set()).update(layers - {owner})
            self.flow.pools.setdefault(owner, set()).update(pools)
            self.flow.pads.setdefault(owner, set()).update(pads or {NO_PADS})
            if flat:
                self.flow.flattened.setdefault(owner, flat)
        return _Origin(frozenset(), owners)

    def _reaching(self, data: list[_Origin]) -> frozenset[str]:
        first, *others = (origin.layers for origin in data if origin.layers is not None)
        if all(other is first for other in others):
            return first
        return nearest_givers(first.union(*others), self._places)


# As it is written: torch wraps it, and the wrapper imports torch's compiler in order to be exempt from it.
_Watcher.__torch_dispatch__ = inspect.unwrap(_Watcher.__torch_dispatch__)  # type: ignore[method-assign]


def _pooling(func: Any) -> frozenset[str]:
    """Return `max` or `avg` for a pooling over a window; a mean over the whole map is none."""
    name = str(func)
    if "max_pool2d" in name and "adaptive" not in name:
        return frozenset(["max"])
    return frozenset(["avg"]) if "avg_pool2d" in name and "adaptive" not in name else frozenset()


def _padded(func: Any, args: Any, so_far: frozenset[Pads | None]) -> frozenset[Pads | None]:
    """Return the paddings on the way to here; None among them for one that is not of zeros around a map."""
    name = str(func)
    if "pad" not in name or not (args and isinstance(args[0], torch.Tensor) and args[0].ndim == 4):
        return so_far
    if "constant_pad_nd" not in name:
        return frozenset([None]) if "_pad2d" in name else so_far
    left, right, above, below = (*args[1], 0, 0, 0, 0)[:4]
    if not (left or right or above or below):
        return so_far
    return frozenset(
        one and (one[0] + above, one[1] + left, one[2] + below, one[3] + right) for one in so_far or {NO_PADS}
    )


def _flattening(args: Any, output: Any) -> tuple[int, int, int] | None:
    """Return (C, H, W) where this operation turned a map of more than one position into a row."""
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
