"""A network's graph as TensorBoard draws it: layers nested by their names, with their settings and shapes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from regraft.training.loggers.event_file import graph_node

__all__ = ["graph_nodes"]


def graph_nodes(model: nn.Module, graph: fx.Graph) -> Iterator[bytes]:
    """Yield a node for each call of `graph` (a trace of `model`), named by the path of its module.

    TensorBoard's own tracer needs TorchScript, which torch has deprecated.
    """
    names = _names(graph)
    for node in graph.nodes:
        sources = [names[source] for source in node.all_input_nodes]
        yield graph_node(names[node], _kind(model, node), sources, _settings(model, node))


def _names(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return a name of its own for each node: where it runs, with slashes between the levels."""
    names: dict[fx.Node, str] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        place = name = _place(node)
        number = 1
        while name in taken:
            number += 1
            name = f"{place}_{number}"
        taken.add(name)
        names[node] = name
    return names


def _place(node: fx.Node) -> str:
    if node.op in ("call_module", "get_attr"):
        return str(node.target).replace(".", "/")
    stack = [path for path in node.meta.get("nn_module_stack", {}) if path]
    return "/".join([*str(stack[-1]).split("."), node.name] if stack else [node.name])


def _kind(model: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))).__name__
    if node.op in ("placeholder", "output"):
        return {"placeholder": "input"}.get(node.op, node.op)
    return str(getattr(node.target, "__name__", node.target))


def _settings(model: nn.Module, node: fx.Node) -> dict[str, str]:
    if node.op != "call_module":
        return {}
    module = model.get_submodule(str(node.target))
    settings = {"settings": module.extra_repr()} if module.extra_repr() else {}
    return settings | {name: " x ".join(map(str, tensor.shape)) for name, tensor in module.named_parameters()}
