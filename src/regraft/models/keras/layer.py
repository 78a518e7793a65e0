"""One layer of a network that Keras built, as a torch module: Keras computes, torch holds the numbers.

Keras's own layers on its torch backend are torch modules, but not ones that can be frozen, copied or traced: a copy
forgets what was set on it, a graph cannot enter it, and its weights lie in a flat list in an order of axes that no
torch file has. So each Keras layer is kept as a definition without numbers. Its weights are parameters and buffers of a
`KerasLayer`, in torch's order of axes and under torch's names, and are lent to Keras for the length of a call
(`keras.StatelessScope`). Batch statistics and dropout follow the module's own `training` flag.
"""

from __future__ import annotations

import importlib
import inspect
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regraft.errors import SettingsError

__all__ = ["Definition", "KerasLayer", "drawing_nothing", "drawn_from_torch", "import_keras", "kind_of"]

Keras = Any  # the framework has no types
_INSTALL = "pip install 'regraft[keras]'"


def import_keras() -> Keras:
    """Return the framework, on its torch backend.

    Raises:
        SettingsError: It is not installed, or runs on another backend already.
    """
    if "keras" not in sys.modules and importlib.util.find_spec("keras") is None:
        raise SettingsError(
            "Keras is not installed, and networks called `keras:NAME` are built by it.",
            "the extra `keras` (the networks called `keras_NAME` need none)",
            f"`{_INSTALL}`",
        )
    keras = _import_on_torch()
    if keras.backend.backend() != "torch":
        raise SettingsError(
            f"Keras was imported with the backend {keras.backend.backend()!r} before, and a process has only one.",
            "the torch backend, which regraft chooses where it imports Keras first",
            "set the environment variable KERAS_BACKEND=torch, or import keras after regraft has built a network",
        )
    return keras


def _import_on_torch() -> Keras:
    if "keras" in sys.modules:
        return sys.modules["keras"]
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        return importlib.import_module("keras")
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before


@contextmanager
def drawing_nothing() -> Iterator[None]:
    """Open a context that restores Python's generator: Keras draws seeds from it wherever it makes a layer."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def drawn_from_torch() -> Iterator[None]:
    """Derive the seeds that Keras draws for its initial weights from torch's generator."""
    with drawing_nothing():
        random.seed(int(torch.randint(2**62, (), device="cpu")))
        yield


@dataclass
class Definition:
    """How Keras makes one layer or operation; it holds no numbers and is shared by copies of a network.

    Attributes:
        module: Where its class is.
        name: Its class.
        config: What the class makes it from.
        build: What it is built with (its input shape); None for an operation without weights.
    """

    module: str
    name: str
    config: Mapping[str, Any]
    build: Mapping[str, Any] | None = None
    _made: Any = field(default=None, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, operation: Keras) -> Definition:
        """Return the definition of a Keras layer, or of an operation between layers (`x + 3.0`)."""
        kind = type(operation)
        build = operation.get_build_config() if hasattr(operation, "get_build_config") else None
        return cls(kind.__module__, kind.__qualname__, _plain(operation.get_config()), _plain(build))

    def make(self, device: str) -> Keras:
        """Return a new Keras layer, with initial weights on a device."""
        keras = import_keras()
        kind = getattr(importlib.import_module(self.module), self.name)
        with keras.device(device):
            made = kind.from_config(dict(self.config))
            if self.build and not made.built:
                made.build_from_config(dict(self.build))
        return made

    @property
    def layer(self) -> Keras:
        """The Keras layer that computes; its own variables have no numbers (its constants, as of a rescaling, have)."""
        with self._lock:
            if self._made is None:
                with drawing_nothing():
                    made = self.make("meta")
                    self._made = made if getattr(made, "weights", None) else self.make("cpu")
            return self._made

    def alone(self) -> Any:
        """Return a context for layers that keep something of their weights on themselves during a call."""
        return self._lock if hasattr(self._made, "finalize_state") else nullcontext()

    def with_channels(self, channels: int) -> Definition:
        """Return the same layer for inputs of another number of channels."""
        shape = list((self.build or {})["input_shape"])
        return Definition(self.module, self.name, self.config, {"input_shape": [*shape[:-1], channels]})

    def __deepcopy__(self, memo: dict[int, Any]) -> Definition:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._made, self._lock = None, threading.Lock()


@dataclass(frozen=True)
class _Axes:
    """An order of axes, and the way between it and torch's."""

    to_torch: Callable[[Tensor], Tensor]
    to_keras: Callable[[Tensor, tuple[int, ...]], Tensor]


def _depthwise_to_torch(kernel_HWCM: Tensor) -> Tensor:
    height, width, channels, multiplier = kernel_HWCM.shape
    return kernel_HWCM.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


def _depthwise_to_keras(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    height, width, channels, multiplier = shape
    return weight.reshape(channels, multiplier, height, width).permute(2, 3, 0, 1)


_SAME = _Axes(lambda value: value, lambda value, _: value)
_HWIO = _Axes(lambda value: value.permute(3, 2, 0, 1), lambda value, _: value.permute(2, 3, 1, 0))
_HWCM = _Axes(_depthwise_to_torch, _depthwise_to_keras)
_IO = _Axes(lambda value: value.t(), lambda value, _: value.t())
_SCALE = {"gamma": ("weight", _SAME), "beta": ("bias", _SAME)}
_PLACES: dict[str, dict[str, tuple[str, _Axes]]] = {
    "Conv2D": {"kernel": ("weight", _HWIO)},
    "DepthwiseConv2D": {"kernel": ("weight", _HWCM)},
    "SeparableConv2D": {
        "depthwise_kernel": ("depthwise.weight", _HWCM),
        "pointwise_kernel": ("pointwise.weight", _HWIO),
        "bias": ("pointwise.bias", _SAME),
    },
    "Dense": {"kernel": ("weight", _IO)},
    "BatchNormalization": {
        **_SCALE,
        "moving_mean": ("running_mean", _SAME),
        "moving_variance": ("running_var", _SAME),
    },
    "LayerNormalization": _SCALE,
    "Normalization": {
        "mean": ("running_mean", _SAME),
        "variance": ("running_var", _SAME),
        "count": ("num_batches_tracked", _SAME),
    },
}


class _Part(nn.Module):
    """Holds the weights of one half of a separable convolution."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups


def kind_of(module: nn.Module) -> str:
    """Return the name of a module's class; of a layer that Keras made, Keras's name of it."""
    return module.kind if isinstance(module, KerasLayer) else type(module).__name__


class KerasLayer(nn.Module):
    """A layer of Keras, channels last: what goes in and comes out lies as (N, H, W, C).

    Args:
        definition: How Keras makes it. Its initial weights are drawn from Python's generator
            (see `drawn_from_torch`).
    """

    channels_last = True
    traced_as_one = True  # Keras computes it: a graph of torch's calls ends here

    def __init__(self, definition: Definition) -> None:
        super().__init__()
        self.definition = definition
        self._channels: int | None = None
        layer = definition.make(str(torch.get_default_device()))
        for variable, place, axes in _variables(layer):
            self._put(place, axes.to_torch(variable.value.detach()).clone(), trains=variable.trainable)

    @property
    def kind(self) -> str:
        """Keras's name of its class."""
        return self.definition.name

    @property
    def groups(self) -> int:
        """As torch counts: as many as channels for a depthwise convolution."""
        if self.kind == "DepthwiseConv2D":
            return int((self.definition.build or {})["input_shape"][-1])
        return int(self.definition.config.get("groups", 1))

    @property
    def in_channels(self) -> int | None:
        """Channels that a convolution takes; None for any other layer. Setting it leaves the weights alone."""
        return int((self.definition.build or {})["input_shape"][-1]) if self.kind == "Conv2D" else None

    @in_channels.setter
    def in_channels(self, channels: int) -> None:
        self._channels = channels
        self.define(self.definition)

    def define(self, definition: Definition) -> None:
        """Return the same layer as laid out for another image size; the number of channels that was set stays."""
        self.definition = definition if self._channels is None else definition.with_channels(self._channels)

    @property
    def has_channel_constants(self) -> bool:
        """Whether it holds a number for each channel of the image that is no weight."""
        config = self.definition.config
        values = {"Normalization": ("mean", "variance"), "Rescaling": ("scale", "offset")}.get(self.kind, ())
        return any(isinstance(config.get(name), (list, tuple)) for name in values)

    @property
    def acts_in_training(self) -> bool:
        """Whether it computes something else in training mode: statistics of the batch, dropout."""
        return self.kind == "BatchNormalization" or _seeds(self.definition.layer) != []

    def extra_repr(self) -> str:
        """Return Keras's class and name."""
        return f"{self.kind}, {self.definition.config.get('name', '')}"

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return the Keras layer's output for these inputs, with these weights, in this mode."""
        layer, keras = self.definition.layer, import_keras()
        first = _first_tensor(inputs)
        if "training" in inspect.signature(layer.call).parameters:
            options["training"] = self.training
        with keras.device(str(first.device)), keras.StatelessScope() as scope, self.definition.alone():
            lent = self._lend(layer, scope)
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
            output = layer.call(*inputs, **options)
            self._take_back(layer, scope, lent)
        narrower = isinstance(output, Tensor) and first.dtype in (torch.bfloat16, torch.float16)
        return output.to(first.dtype) if narrower and output.dtype == torch.float32 else output

    def _lend(self, layer: Keras, scope: Keras) -> dict[int, Tensor]:
        """Hand Keras the weights, and seeds for its dropout that are a function of torch's generator."""
        lent = {}
        for variable, place, axes in _variables(layer):
            value = axes.to_keras(self._at(place), tuple(variable.shape))
            scope.add_update((variable, value))
            lent[id(variable)] = value
        if self.training:
            for seed in _seeds(layer):
                scope.add_update((seed, torch.randint(2**31 - 1, (2,), device="cpu")))
        return lent

    def _take_back(self, layer: Keras, scope: Keras, lent: Mapping[int, Tensor]) -> None:
        """Update the statistics as a training step of Keras does."""
        for variable, place, _ in _variables(layer):
            value = scope.get_current_value(variable)
            if value is not lent[id(variable)]:
                with torch.no_grad():
                    self._at(place).copy_(value)

    def _put(self, place: str, value: Tensor, *, trains: bool) -> None:
        part, _, leaf = place.rpartition(".")
        if part and not hasattr(self, part):
            self.add_module(part, _Part(value.shape[0] if part == "depthwise" else 1))
        owner = self.get_submodule(part)
        value = value.contiguous()
        if trains:
            owner.register_parameter(leaf, nn.Parameter(value))
        else:
            owner.register_buffer(leaf, value.float())

    def _at(self, place: str) -> Tensor:
        part, _, leaf = place.rpartition(".")
        value: Tensor = getattr(self.get_submodule(part), leaf)
        return value


def _variables(layer: Keras) -> list[tuple[Keras, str, _Axes]]:
    """Return Keras's weights of a layer, each with its place in the torch module and its order of axes."""
    weights = list(getattr(layer, "weights", ()))
    places = _PLACES.get(type(layer).__name__, {})
    if not places and len(weights) == 1 and len(weights[0].shape) == 1:
        return [(weights[0], "weight", _SAME)]  # ConvNeXt's LayerScale, whose weight has no name
    return [(variable, *places.get(variable.name, (variable.name, _SAME))) for variable in weights]


def _seeds(layer: Keras) -> list[Keras]:
    """Return the states of a layer's own random generators."""
    weights = {id(variable) for variable in getattr(layer, "weights", ())}
    return [variable for variable in getattr(layer, "variables", ()) if id(variable) not in weights]


def _plain(value: Any) -> Any:
    """Return Keras's tracked lists and dicts as plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _first_tensor(inputs: Any) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs
    found = (_first_tensor(item) for item in inputs if isinstance(item, (Tensor, list, tuple)))
    return next(found)
