"""Strides and epsilons: what the file's network was made with, against what the model has.

No shape shows them. They come from the file's own graph, or, where it has none, from what is known of the family that
its names belong to (facts of keras.applications, Caffe and TF-slim). What differs is a finding, never silently changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.weights.file_graph import FileGraph
from regraft.weights.layers import Layer
from regraft.weights.naming import Pair
from regraft.weights.report import Finding

__all__ = ["attribute_findings"]

LAST_BLOCK = "stride of the last block"

# Layer, attribute, what the model has, what the file was made with.
Difference = tuple[str, str, Any, Any]

# Below this ratio no output shows a difference of epsilons (1.001e-5 and 1e-5: relative 1e-8).
_VISIBLE = 1.5


@dataclass(frozen=True)
class Known:
    """What a family's networks are built with in one framework.

    `stride`: `first` when the first convolution of a bottleneck strides (torchvision: the second one), `last` when the
    last block of a stage does (then no shortcut convolution strides), empty where torch does the same. `same`: whether
    strided convolutions pad as TensorFlow's SAME does, more behind than before where they must. `note`: what else it
    does differently, which the model's tensors do not show.
    """

    eps: float | None = None
    stride: str = ""
    same: bool = False
    note: str = ""


_KERAS = {
    "resnet: keras": Known(1.001e-5, "first"),
    "resnet: caffe": Known(1e-3, "first"),  # Keras 2.2 took Caffe's names, and its own default for epsilon
    "resnetv2: keras": Known(1.001e-5, "last"),
    "densenet: keras": Known(1.001e-5),
    "mobilenet and efficientnet: keras efficientnet": Known(1e-3, same=True),
    "mobilenet and efficientnet: keras mobilenet": Known(
        1e-3, same=True, note="Keras's MobileNet pads strided depthwise convolutions behind only, on any size"
    ),
    "mobilenet and efficientnet: keras mobilenetv2": Known(1e-3, same=True),
    "mobilenet and efficientnet: keras mobilenetv3": Known(1e-3, same=True),
    "xception: keras": Known(1e-3, note="Keras's Xception pads its poolings as SAME does, timm's on both sides"),
    "inception_v3: keras": Known(1e-3, note="Keras's InceptionV3 averages without the padding, timm's with it"),
}
_OTHERS = {
    "resnet: caffe": Known(None, "first"),
    "resnet: tf-slim": Known(1e-5, "last"),
    "resnetv2: tf-slim": Known(1e-5, "last"),
    "mobilenet and efficientnet: tf-slim mobilenet_v1": Known(1e-3, same=True),
    "mobilenet and efficientnet: tf-slim mobilenet_v2": Known(1e-3, same=True),
    "mobilenet and efficientnet: tensorflow efficientnet": Known(1e-3, same=True),
    "inception_v3: tf-slim": Known(1e-3),
}


def attribute_findings(pairs: Sequence[Pair], graph: FileGraph | None, format: str) -> list[Finding]:
    """Attributes of the model's layers that differ from what the file was made with."""
    table = _KERAS if format.startswith("keras") else {**_KERAS, **_OTHERS}
    dialects = {pair.dialect for pair in pairs if pair.dialect in table}
    known = table[next(iter(dialects))] if len(dialects) == 1 else Known()
    if graph is not None:
        found = [difference for pair in pairs for difference in _against_graph(pair, graph)]
    else:
        found = [*_against_family(pairs, known)]
    grouped: dict[tuple[str, Any, Any], list[str]] = {}
    for layer, attribute, have, want in found:
        grouped.setdefault((attribute, have, want), []).append(layer)
    findings = [_finding(layers, *difference) for difference, layers in grouped.items()]
    if known.same:
        findings += _symmetric_padding(pairs)
    if known.note:
        findings.append(Finding("note", "", f"{known.note}: see that the model does too"))
    return findings


def _symmetric_padding(pairs: Sequence[Pair]) -> list[Finding]:
    """Strided convolutions that pad both sides alike, where the file's network pads as TensorFlow does."""
    layers = []
    for pair in pairs:
        target = pair.target
        size, padding = target.attributes.get("kernel_size"), target.attributes.get("padding")
        strided = target.kind in ("conv", "depthwise") and len(target.shape) == 4 and _stride(target)[0] > 1
        if strided and isinstance(size, tuple) and isinstance(padding, tuple) and padding[0] == size[0] // 2 > 0:
            layers.append(target.name)
    if not layers:
        return []
    text = (
        f"{', '.join(layers)} pad both sides alike; the file's network pads as TensorFlow's SAME does, which differs "
        "on even sizes (timm: pad_type='same', or the tf_ form of the network)"
    )
    return [Finding("layout", layers[0], text, "padding", "symmetric", "same", serious=True, layers=tuple(layers))]


def _against_graph(pair: Pair, graph: FileGraph) -> Iterator[Difference]:
    wanted = graph.attributes.get(pair.source.name, {})
    if pair.target.kind in ("conv", "depthwise") and len(pair.target.shape) == 4:
        have, want = pair.target.attributes.get("stride"), wanted.get("stride")
        if isinstance(have, tuple) and want is not None and tuple(have) != tuple(want):
            yield pair.target.name, "stride", have, tuple(want)
    if pair.target.kind == "norm" and isinstance(wanted.get("eps"), float):
        yield from _eps(pair.target, wanted["eps"])


def _against_family(pairs: Sequence[Pair], known: Known) -> Iterator[Difference]:
    placed = {pair.address: pair.target for pair in pairs if pair.address}
    if known.eps is not None:
        for layer in placed.values():
            if layer.kind == "norm":
                yield from _eps(layer, known.eps)
    shortcuts = {
        address.partition(".")[0]: _stride(layer)
        for address, layer in placed.items()
        if ".shortcut" in address and "kernel" in layer.tensors
    }
    for block, stride in shortcuts.items():
        if known.stride == "first" and f"{block}.3.conv" in placed:
            for part, want in (("1", stride), ("2", (1, 1))):
                conv = placed.get(f"{block}.{part}.conv")
                if conv is not None and _stride(conv) != want:
                    yield conv.name, "stride", _stride(conv), want
        elif known.stride == "last" and stride != (1, 1):
            shortcut = placed.get(f"{block}.shortcut") or placed[f"{block}.shortcut.conv"]
            yield shortcut.name, LAST_BLOCK, stride, (1, 1)


def _stride(layer: Layer) -> tuple[int, ...]:
    stride = layer.attributes.get("stride", (1, 1))
    return tuple(stride) if isinstance(stride, tuple) else (int(stride), int(stride))


def _eps(layer: Layer, want: float) -> Iterator[Difference]:
    have = layer.attributes.get("eps")
    if isinstance(have, float) and max(have, want) > _VISIBLE * min(have, want):
        yield layer.name, "eps", have, want


def _finding(layers: Sequence[str], attribute: str, have: Any, want: Any) -> Finding:
    named = ", ".join(layers[:6]) + (f" and {len(layers) - 6} more" if len(layers) > 6 else "")
    if attribute == LAST_BLOCK:
        text = f"{named} strides by {have}; in the file's network the last block of a stage strides, not the shortcut"
        return Finding("layout", layers[0], text, serious=True, layers=tuple(layers))
    text = f"the {attribute} of {named} is {have}, the file was made with {want}"
    return Finding("attribute", layers[0], text, attribute, have, want, serious=True, layers=tuple(layers))
