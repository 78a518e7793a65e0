"""The last map of places that everything a network says goes through, found by watching one pass; no layer is named.

The network runs once on noise while every tensor of four axes is noted. A map counts if it has the image's two sides,
scaled down, as two of its axes, and if every path from the image to the logits leads through it: then nothing that was
said goes past it. Paths are those of gradients, so that traced and untraceable networks are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of

__all__ = ["LastMap", "MapsSeen", "find_last_map"]

_MOST_ASPECT = 2.0  # between the strides of a map along both axes: small maps round
_COARSE = 4  # pixels: the stride from which on a map of a network for segmentation is no copy of its mask
Nodes = Any  # of torch's graph of gradients, which has no types


@dataclass(frozen=True)
class LastMap:
    """Where the map is.

    Attributes:
        place: Which tensor of four axes it is, in the order of a pass.
        channels_axis: 1 for (N, C, H, W), 3 for (N, H, W, C).
        size: Its height and width, for images of the size that was tried.
    """

    place: int
    channels_axis: int
    size: tuple[int, int]


class MapsSeen(TorchFunctionMode):
    """Hands every floating tensor of four axes that a pass makes, with its number, to a function that may replace it.

    Args:
        take: Called with the number and the tensor; the pass continues with what it returns.
        noted: Called with every operation's arguments before it runs.
    """

    def __init__(
        self, take: Callable[[int, Tensor], Tensor], noted: Callable[[Sequence[Any]], None] = lambda given: None
    ) -> None:
        super().__init__()
        self._take, self._noted, self._num = take, noted, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._noted((*args, *(kwargs or {}).values()))
        output = func(*args, **(kwargs or {}))
        if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
            return output
        self._num += 1
        return self._take(self._num - 1, output)


@dataclass
class _Seen:
    """A map, and what had happened before it."""

    found: LastMap
    node: Nodes
    time: int


@dataclass
class _Watch:
    """Notes of one pass: maps, layers that work on tokens, where the decoder and the head begin."""

    images: Tensor
    maps: list[_Seen] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)
    time: int = 0
    learned: int = 0  # operations with weights, on what comes from the image

    def note(self, given: Sequence[Any]) -> None:
        self.time += 1
        data = next((value for value in given if isinstance(value, Tensor)), None)
        if data is None or not data.requires_grad or not any(isinstance(value, nn.Parameter) for value in given):
            return
        self.learned += 1
        if data.ndim == 3 and data.shape[1] > 1:
            self.tokens.append(self.time)

    def take(self, place: int, output: Tensor) -> Tensor:
        axis = _channels_axis(output.shape, self.images.shape)
        if axis is not None and output.requires_grad and self.learned:
            sides = output.shape[1:3] if axis == 3 else output.shape[2:]
            found = LastMap(place, axis, (int(sides[0]), int(sides[1])))
            self.maps.append(_Seen(found, output.grad_fn, self.time))
        return output

    def start(self, part: str) -> int:
        """Return the time of the last operation before a part."""
        return self.starts.get(part, self.time)


def find_last_map(model: nn.Module, images: Tensor) -> LastMap:
    """Find the map of a network in evaluation mode whose parameters ask for no gradient.

    Of a network that names images: the last map before its head. Of one that names pixels: the coarsest of those maps;
    where each is nearly as fine as the image, as behind skips, the map at which the first of them has joined: what goes
    through the coarsest one adds next to nothing to the logits of a U-Net, and most of it at the padded borders.

    Args:
        model: The network.
        images: Input of the size that is to be explained, (N, C, H, W); its numbers do not count.

    Raises:
        SettingsError: It has none.
    """
    info = info_of(model)
    noise = torch.randn(2, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images.device)
    watch = _Watch(noise.requires_grad_())
    with torch.enable_grad(), _noting_starts(model, info, watch), MapsSeen(watch.take, watch.note):
        logits = model(watch.images)
    cuts = _all_pass(logits.grad_fn, watch.images) if logits.requires_grad else set()
    passed = [seen for seen in watch.maps if seen.node in cuts]
    if info.output == "segmentation":
        return _of_pixels(passed, watch, images.shape)
    before_head = [seen for seen in passed if seen.time <= watch.start("head")]
    chosen = next(reversed(before_head or passed), None)
    if chosen is None or any(chosen.time < token <= watch.start("head") for token in watch.tokens):
        raise _no_map(info, is_tokens=bool(watch.tokens))
    return chosen.found


def _of_pixels(passed: Sequence[_Seen], watch: _Watch, shape: torch.Size) -> LastMap:
    """Pick the map of a network that names pixels."""
    before = [seen for seen in watch.maps if seen.time <= watch.start("decoder")] or watch.maps
    choices = [seen for seen in passed if _is_coarse(seen, shape)] or _first_joined(before, watch, shape) or before
    if not choices:
        raise SettingsError("The network has no map of places.", "", "`regraft predict RUN IMAGES --overlay`")
    least = min(map(_num_places, choices))
    return [seen.found for seen in choices if _num_places(seen) == least][-1]


def _first_joined(before: Sequence[_Seen], watch: _Watch, shape: torch.Size) -> list[_Seen]:
    """Return the coarse maps behind the coarsest one, which are finer than it."""
    coarsest = min(before, key=_num_places, default=None)
    if coarsest is None:
        return []
    end = max(seen.time for seen in watch.maps if seen.found.size == coarsest.found.size)  # pooled grids come before
    least = _num_places(coarsest)
    return [seen for seen in watch.maps if seen.time > end and _num_places(seen) > least and _is_coarse(seen, shape)]


def _is_coarse(seen: _Seen, shape: torch.Size) -> bool:
    return int(shape[2]) // seen.found.size[0] >= _COARSE


def _num_places(seen: _Seen) -> int:
    return seen.found.size[0] * seen.found.size[1]


def _no_map(info: ModelInfo, *, is_tokens: bool) -> SettingsError:
    why = (
        "after its first layer it works on tokens, which its layers mix freely"
        if is_tokens
        else "no tensor that all of its logits depend on has places"
    )
    return SettingsError(
        f"The network {info.architecture!r} has no map of places to explain by: {why}.",
        "a convolutional network, whose last feature map has a height and a width",
        "each fold by itself, for a cross-validation; else another network, such as resnet50"
        if "ensemble" in info.architecture
        else "another network, such as `--model resnet50`",
    )


def _channels_axis(shape: torch.Size, images: torch.Size) -> int | None:
    """Return which axis of a tensor holds channels; None where no two others are the image's sides, scaled down."""
    found: dict[int, float] = {}
    for axis, (height, width) in ((1, (shape[2], shape[3])), (3, (shape[1], shape[2]))):
        if shape[0] == images[0] and height * width > 1 and height <= images[2] and width <= images[3]:
            strides = sorted((images[2] / height, images[3] / width))
            found[axis] = strides[1] / strides[0]
    best = min(found, key=lambda axis: found[axis], default=None)
    return best if best is not None and found[best] <= _MOST_ASPECT else None


@contextmanager
def _noting_starts(model: nn.Module, info: ModelInfo, watch: _Watch) -> Iterator[None]:
    """Note when the decoder and the head begin."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for part, names in (("decoder", (*info.decoder, *info.head)), ("head", info.head)):

            def begin(_module: nn.Module, _given: Any, part: str = part) -> None:
                watch.starts.setdefault(part, watch.time)

            for name in names:
                for inner in modules[name].modules():  # a list of layers is not called itself
                    stack.callback(inner.register_forward_pre_hook(begin).remove)
        yield


def _all_pass(last: Nodes, images: Tensor) -> set[Nodes]:
    """Return the nodes that every path of gradients from the logits to the images leads through.

    In an order in which every node comes before those that it reads, such a node is one that no edge leads past.
    """
    first = torch.autograd.graph.get_gradient_edge(images).node
    order = _from_the_end(last, first)
    places = {node: place for place, node in enumerate(order)}
    cuts, farthest = set(), 0
    for place, node in enumerate(order):
        if farthest <= place:
            cuts.add(node)
        farthest = max([farthest, *(places[source] for source in _sources(node) if source in places)])
    return cuts


def _from_the_end(last: Nodes, first: Nodes) -> list[Nodes]:
    """Return the nodes between, each before all that it reads."""
    finished: list[Nodes] = []
    leads: dict[Nodes, bool] = {first: True}
    waiting: list[tuple[Nodes, Iterator[Nodes]]] = [(last, iter(_sources(last)))]
    begun = {last}
    while waiting:
        node, sources = waiting[-1]
        source = next(sources, None)
        if source is None:
            waiting.pop()
            leads[node] = leads.get(node, False) or any(leads.get(each, False) for each in _sources(node))
            if leads[node]:
                finished.append(node)
        elif source not in begun:
            begun.add(source)
            waiting.append((source, iter(_sources(source))))
    return finished[::-1]


def _sources(node: Nodes) -> Iterable[Nodes]:
    return [source for source, _ in node.next_functions if source is not None]
