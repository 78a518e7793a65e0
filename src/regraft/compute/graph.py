"""A network's forward pass as a graph of calls (torch.fx), with what each of its layers gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers import BatchNormAct2d, get_notrace_functions, get_notrace_modules
from torch import fx, nn

__all__ = ["drop_unused", "trace_calls", "trace_evaluation", "trace_graph", "trace_layers"]


def trace_graph(model: nn.Module) -> fx.Graph | None:
    """Return the graph of a model of one input, in the mode (training or evaluation) that it is in.

    None where the model cannot be traced: numbers decide its path, or it takes something else than one batch of images.
    """
    traced = trace_layers(model)
    return None if traced is None else traced[0]


def trace_evaluation(model: nn.Module) -> fx.Graph | None:
    """Return the graph of a model as it computes in evaluation mode, whatever mode it is in."""
    was_training = model.training
    try:
        return trace_graph(model.eval())
    finally:
        model.train(was_training)


def trace_layers(model: nn.Module) -> tuple[fx.Graph, dict[str, Any]] | None:
    """Return the graph, and for each module that runs the node, or the tuple or dict of nodes, that it gave last."""
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except Exception:  # torch.fx raises whatever the model's own code raises on a proxy
        return None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    return (graph, tracer.outputs) if len(inputs) == 1 else None


def trace_calls(model: nn.Module, note: Callable[[str, nn.Module, bool], None]) -> bool:
    """Call `note` with the name of each module as it begins to run, with itself, and with whether it runs as one.

    Returns:
        Whether it was traced, which needs no numbers; False where numbers decide the path, or an option may.
    """
    tracer = _Tracer()
    tracer.note = note
    try:
        graph = tracer.trace(model)
    except Exception:  # as above
        return False
    return len([node for node in graph.nodes if node.op == "placeholder"]) == 1


def drop_unused(graph: fx.Graph) -> None:
    """Erase, in place, what nothing reads; inputs stay."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


class _Tracer(fx.Tracer):
    """Traces into everything but norms, what timm leaves out, and what says that it is `traced_as_one`."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._leaves = (BatchNormAct2d, nn.LocalResponseNorm, *get_notrace_modules())
        self.outputs: dict[str, Any] = {}
        self.note: Callable[[str, nn.Module, bool], None] = lambda name, module, as_one: None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_leaf = isinstance(m, self._leaves) or getattr(m, "traced_as_one", False) is True
        return is_leaf or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.note(self.path_of_module(m), m, self.is_leaf_module(m, self.path_of_module(m)))
        output = super().call_module(m, forward, args, kwargs)
        self.outputs[self.path_of_module(m)] = fx.node.map_aggregate(output, _node_of)
        return output


def _node_of(value: Any) -> Any:
    return value.node if isinstance(value, fx.Proxy) else value
