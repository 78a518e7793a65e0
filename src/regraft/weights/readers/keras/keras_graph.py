"""A Keras model's own description (`model_config`, `config.json`), read as data: layers, classes, settings, order.

Nothing in it is ever built or called: class names are words here, and a Lambda layer is an entry like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regraft.weights.limits import LimitError, load_json
from regraft.weights.readers.keras.keras_layers import snake_case

__all__ = ["GraphLayer", "layers_of", "parse_graph"]

_MAX_DEPTH = 32
_MODELS = ("sequential", "functional", "model", "network")


@dataclass(frozen=True)
class GraphLayer:
    """One layer of the description.

    Attributes:
        name: The layer's name.
        kind: Its class in snake case (`conv2d`).
        config: Its settings.
        children: The layers in it, when it is a model; else empty.
        is_model: Whether it is a model.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    children: tuple[GraphLayer, ...] = ()
    is_model: bool = False

    def flat(self) -> Iterator[GraphLayer]:
        """Yield all layers below it that are no models, in the order of the description."""
        for child in self.children:
            if child.is_model:
                yield from child.flat()
            else:
                yield child


def parse_graph(text: str | bytes | bytearray) -> dict[str, Any] | None:
    """Return the description as plain data; None when it is no JSON object."""
    try:
        graph = load_json(text, "its description of the model")
    except LimitError:
        raise
    except ValueError:
        return None
    return graph if isinstance(graph, dict) else None


def layers_of(graph: Mapping[str, Any] | None) -> GraphLayer | None:
    """Return the model that a description describes, with its layers; None when it names none (a subclassed model)."""
    root = _layer(graph, 0) if graph else None
    return root if root and root.is_model else None


def _layer(entry: Any, depth: int) -> GraphLayer | None:
    if not isinstance(entry, Mapping) or depth > _MAX_DEPTH:
        return None
    config = entry.get("config")
    settings: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    name = settings.get("name") or entry.get("name") or ""
    kind = entry.get("class_name")
    # Before Keras 2.2.3 the config of a Sequential was the list of its layers.
    listed = config if isinstance(config, list) else settings.get("layers")
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    if not isinstance(listed, list) or (depth and snake_case(kind) not in _MODELS and not _looks_like_layers(listed)):
        return GraphLayer(name, snake_case(kind), settings)
    children = [_layer(child, depth + 1) for child in listed]
    return GraphLayer(name, snake_case(kind), settings, tuple(child for child in children if child), True)


def _looks_like_layers(listed: list[Any]) -> bool:
    return bool(listed) and all(isinstance(entry, Mapping) and "class_name" in entry for entry in listed)
