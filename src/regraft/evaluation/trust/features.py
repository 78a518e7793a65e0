"""The features that a network's head reads, given out beside the logits by one and the same pass."""

from __future__ import annotations

from torch import fx, nn

from regraft.compute.graph import trace_evaluation
from regraft.compute.numerics import Numerics
from regraft.compute.program import InferenceProgram, joint_prefix
from regraft.models.describe.info import info_of

__all__ = ["featured_graph", "featured_program"]

_MOST_FEATURES = 4096


def featured_program(model: nn.Module, numerics: Numerics, batch_size: int) -> InferenceProgram | None:
    """Return the whole model, images -> (features, logits), as a fast inference copy.

    The features are what the first linear layer of the head reads.

    Args:
        model: A network that names images.
        numerics: Device, precision, layout, threads.
        batch_size: Images at a time.

    Returns:
        None for a network that cannot be traced, or whose head has no linear layer on at most 4,096 features.
    """
    module = featured_graph(model)
    return None if module is None else InferenceProgram(module, numerics, batch_size)


def featured_graph(model: nn.Module) -> fx.GraphModule | None:
    """Return a copy of the model as a graph, images -> (features, logits); None as for `featured_program`."""
    graph = trace_evaluation(model)
    if graph is None:
        return None
    features, (output,) = _head_input(model, graph), [node for node in graph.nodes if node.op == "output"]
    logits = output.args[0]
    if features is None or not isinstance(logits, fx.Node) or logits is features:
        return None
    joint = joint_prefix(model, [[features.name], [logits.name]])
    return None if joint is None else joint[0]


def _head_input(model: nn.Module, graph: fx.Graph) -> fx.Node | None:
    info, modules = info_of(model), dict(model.named_modules())
    for node in graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Linear) and info.is_head(str(node.target)) and layer.in_features <= _MOST_FEATURES:
            source = node.args[0] if node.args else None
            return source if isinstance(source, fx.Node) and source.op != "placeholder" else None
    return None
