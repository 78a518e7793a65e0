"""The object graph of a TensorFlow checkpoint: which object of the program owns which variable.

An object-based checkpoint names a variable after the shortest way to it, and that way may lead through the optimizer:
Keras 3 stores the trained kernels as `optimizer/_trainable_variables/7`. The graph tells what they are.
Schema: `trackable_object_graph.proto` of TensorFlow.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from regraft.weights.readers.protobuf import Message, ProtobufError

__all__ = ["Owner", "owners"]

_OPTIMIZER_MARKS = {"_iterations", "iter", "iterations"}
# Lists that name variables a second time, and bookkeeping: no way through them says where a variable belongs.
_SIDE_WAYS = {
    "_all_variables", "_compiled_trainable_state", "_metrics", "_non_trainable_variables", "_trainable_variables",
    "_variables", "keras_api", "layer_metrics", "losses", "metrics", "non_trainable_variables",
    "regularization_losses", "trainable_variables", "variables", "weights",
}  # fmt: skip


@dataclass(frozen=True)
class Owner:
    """Who owns a variable: its path among the model's objects (None: the optimizer's alone) and its own name."""

    path: tuple[str, ...] | None
    full_name: str


@dataclass(frozen=True)
class _Node:
    children: tuple[tuple[str, int], ...]
    variables: tuple[tuple[str, str], ...]  # (checkpoint key, full name)
    slots: tuple[int, ...]


def owners(graph: memoryview) -> dict[str, Owner]:
    """Return owners by checkpoint key.

    Raises:
        ProtobufError: The graph is damaged.
    """
    nodes = [_node(message) for message in Message(graph).messages(1)]
    optimizers = {place for place, node in enumerate(nodes) if _is_optimizer(node)}
    of_optimizer = _reach(nodes, dict.fromkeys(optimizers, ()), closed=set(), side_ways=True)
    direct = _reach(nodes, {0: ()} if nodes else {}, closed=optimizers, side_ways=False)
    slots = {place for node in nodes for place in node.slots}
    found: dict[str, Owner] = {}
    for place, node in enumerate(nodes):
        for key, full_name in node.variables:
            path = direct.get(place)
            if path is None and place not in of_optimizer and place not in slots:
                path = tuple(key.split("/.ATTRIBUTES/")[0].split("/"))
            found[key] = Owner(None if place in slots else path, full_name)
    return found


def _node(message: Message) -> _Node:
    children = tuple((child.text(2), child.integer(1)) for child in message.messages(1))
    variables = tuple((item.text(3), item.text(2)) for item in message.messages(2) if item.text(1) == "VARIABLE_VALUE")
    return _Node(children, variables, tuple(slot.integer(3) for slot in message.messages(3)))


def _is_optimizer(node: _Node) -> bool:
    names = {name for name, _ in node.children}
    return bool(names & _OPTIMIZER_MARKS) and not names & {"_functional", "_layers", "layer-0"}


def _preference(child: tuple[str, int]) -> bool:
    """Sort the children: of the two ways to count layers, the one that skips those without weights comes first."""
    return not child[0].startswith("layer_with_weights-")


def _reach(
    nodes: list[_Node], starts: dict[int, tuple[str, ...]], *, closed: set[int], side_ways: bool
) -> dict[int, tuple[str, ...]]:
    """Return the shortest path to every object that can be reached, breadth first."""
    found = dict(starts)
    waiting = deque(starts)
    while waiting:
        place = waiting.popleft()
        for name, child in sorted(nodes[place].children, key=_preference):
            if not 0 <= child < len(nodes):
                raise ProtobufError("a child that does not exist")
            if child in found or child in closed or (not side_ways and name in _SIDE_WAYS):
                continue
            if len(found[place]) > 24:
                continue
            found[child] = (*found[place], name)
            waiting.append(child)
    return found
