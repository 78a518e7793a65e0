"""Features from the middle of a network: cut it behind a layer, or tap several layers at once.

The result is a module of its own, with copies of only those layers that the features need, under their own names; the
original stays as it was. It is the network's graph up to there, traced once for training and once for evaluation. A
network that cannot be traced is kept whole and watched through hooks; it says so in the log.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, fx, nn

from regraft.compute.graph import drop_unused, trace_layers
from regraft.errors import SettingsError, nearest
from regraft.models.describe.info import ModelInfo, info_of, is_under, set_info
from regraft.models.describe.trace import plain
from regraft.models.layers.aliases import aliases_of

__all__ = ["cut", "find_layer", "tap"]

_log = logging.getLogger("regraft")


def cut(model: nn.Module, at: str) -> nn.Module:
    """Return a new module, images -> what the layer `at` gives; `model` stays as it was.

    A network that cannot be traced (numbers decide its path) is kept and run as a whole, with a warning. Of a
    layer that runs several times, the last output counts.

    Args:
        model: Any network of one input.
        at: A module's full name, or its name in Keras (`layer3`, `conv4_block6_out`).

    Raises:
        SettingsError: There is no such layer (the nearest names are given), or it never runs.
    """
    return _extractor(model, [at], single=True)


def tap(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Return a new module, images -> a tuple of what each of `layers` gives, in the order of the list.

    A network that cannot be traced (numbers decide its path) is kept and run as a whole, with a warning. Of a
    layer that runs several times, the last output counts.

    Args:
        model: Any network of one input; it stays as it was.
        layers: Module names, or names in Keras.

    Raises:
        SettingsError: No layers, one twice, one that does not exist or never runs.
    """
    if isinstance(layers, str) or not layers or len(set(layers)) < len(layers):
        raise SettingsError(
            f"The layers to tap are {layers!r}.",
            "a list of different layer names",
            "pass for example `['layer2', 'layer4']`",
        )
    return _extractor(model, layers, single=False)


def find_layer(model: nn.Module, name: str) -> str:
    """Return the full module name that `name` means: the name itself, or that of a layer with this name in Keras.

    Raises:
        SettingsError: There is none; the nearest names are given.
    """
    modules = dict(model.named_modules())
    if name and name in modules:
        return name
    info = info_of(model)
    architecture, aliases = info.architecture, aliases_of(model, info)
    found = [module for module, names in aliases.items() if name in names]
    if len(found) == 1:
        return found[0]
    known = [*(module for module in modules if module), *(alias for names in aliases.values() for alias in names)]
    near = nearest(name, known)
    raise SettingsError(
        f"{architecture!r} has no layer {name!r}{f'; did you mean {near}?' if near else '.'}",
        "" if near else "the full name of one of its modules",
        "`regraft inspect MODEL` for the names",
    )


class _Features(nn.Module):
    """The part of a network that some of its layers need, run by its graph."""

    _programs: dict[bool, Callable[..., Any]] | None = None  # by `training`; made from the graphs when first used

    def __init__(self, model: nn.Module, graphs: dict[bool, fx.Graph]) -> None:
        super().__init__()
        self._graphs = graphs
        self.training = model.training
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in model._buffers.items():
            self.register_buffer(name, buffer, persistent=name not in model._non_persistent_buffers_set)
        for target in {str(node.target) for graph in graphs.values() for node in graph.nodes if node.op == "get_attr"}:
            if "." not in target and not hasattr(self, target):
                self.register_buffer(target, getattr(model, target), persistent=False)  # a constant of the code

    def forward(self, images: Tensor) -> Any:
        """Turn images (N, C, H, W) into the features."""
        if self._programs is None:
            self._programs = {mode: type(fx.GraphModule(self, graph)).forward for mode, graph in self._graphs.items()}
        return self._programs[self.training](self, images)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_programs"}


class _Watched(nn.Module):
    """A network that cannot be traced: it runs whole, and hooks catch what its layers give."""

    def __init__(self, model: nn.Module, layers: Sequence[str], *, single: bool) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._layers = tuple(layers)
        self._single = single

    def forward(self, images: Tensor) -> Any:
        """Turn images (N, C, H, W) into the features."""
        caught: dict[str, Any] = {}

        def catch(name: str) -> Callable[..., None]:
            return lambda _module, _inputs, output: caught.update({name: _cloned(output)})

        with ExitStack() as stack:
            for name in self._layers:
                stack.callback(self.model.get_submodule(name).register_forward_hook(catch(name)).remove)
            self.model(images)
        missing = [name for name in self._layers if name not in caught]
        if missing:
            raise _never_runs(missing)
        return caught[self._layers[0]] if self._single else tuple(caught[name] for name in self._layers)


def _cloned(output: Any) -> Any:
    """Return a copy of a tensor, because a later layer may write into the one that an earlier layer gave."""
    return output.clone() if isinstance(output, Tensor) else output


def _extractor(model: nn.Module, names: Sequence[str], *, single: bool) -> nn.Module:
    original = plain(model)
    layers = [find_layer(original, name) for name in names]
    info = copy.deepcopy(info_of(original))
    model = copy.deepcopy(original)
    graphs = {mode: _graph(model, layers, mode, single=single) for mode in (True, False)}
    for module, twin in zip(original.modules(), model.modules(), strict=True):
        twin.training = module.training
    made = [graph for graph in graphs.values() if graph is not None]
    if len(made) < len(graphs):
        _log.warning(
            "%s cannot be traced, so all of it is kept and runs for these features (hooks catch them); names of its "
            "layers begin with `model.`",
            info.architecture,
        )
        features: nn.Module = _Watched(model, layers, single=single)
        return set_info(features, ModelInfo(info.architecture, {"own_module": True}, preprocessing=info.preprocessing))
    _keep_only(model, {str(node.target) for g in made for node in g.nodes if node.op in ("call_module", "get_attr")})
    features = _Features(model, {mode: graph for mode, graph in graphs.items() if graph is not None})
    names_left = {name for name, _ in features.named_modules()}
    stages = tuple(name for name in info.feature_stages if name in names_left)
    kept = ModelInfo(info.architecture, {"own_module": True}, preprocessing=info.preprocessing, feature_stages=stages)
    return set_info(features, kept)


def _graph(model: nn.Module, layers: Sequence[str], mode: bool, *, single: bool) -> fx.Graph | None:
    """Return the model's graph in one mode, ending in what the layers gave."""
    traced = trace_layers(model.train(mode))
    if traced is None:
        return None
    graph, outputs = traced
    missing = [name for name in layers if name not in outputs]
    if missing:
        raise _never_runs(missing)
    given = [fx.node.map_aggregate(outputs[name], lambda value: value) for name in layers]
    (end,) = (node for node in graph.nodes if node.op == "output")
    end.args = (given[0] if single else tuple(given),)
    drop_unused(graph)
    _protect(graph, end)
    graph.lint()
    return graph


def _protect(graph: fx.Graph, end: fx.Node) -> None:
    """Give out a copy of a tensor that a later layer may write into, made before that."""
    last = end.prev
    for node in list(end.all_input_nodes):
        if node is last or node.op == "placeholder":
            continue
        with graph.inserting_after(node):
            duplicate = graph.call_function(_cloned, (node,))
        end.replace_input_with(node, duplicate)


def _keep_only(model: nn.Module, targets: Iterable[str]) -> None:
    """Delete, in place, the modules, parameters and buffers that none of the names needs."""
    wanted = tuple(targets)
    for name, module in list(model.named_modules()):
        if is_under(name, wanted) and name:
            continue
        prefix = f"{name}." if name else ""
        for owned in (module._modules, module._parameters, module._buffers):
            for key in list(owned):
                full = prefix + key
                if not is_under(full, wanted) and not any(target.startswith(full + ".") for target in wanted):
                    del owned[key]


def _never_runs(names: Sequence[str]) -> SettingsError:
    return SettingsError(
        f"The layer {', '.join(map(repr, names))} never runs as a whole, so it gives nothing.",
        "a layer that the network calls; a list of layers is not called, its members are",
        "name a layer inside it; `regraft inspect MODEL` lists them with their output shapes",
    )
