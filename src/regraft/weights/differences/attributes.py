"""Strides and epsilons: what the file's network was made with, against what the model has.

No shape shows them. They come from the file's own graph, or, where it has none, from what is known of the family that
its names belong to (facts of keras.applications, Caffe and TF-slim). What differs is a finding, never silently changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regraft.weights.differences.activations import activation_findings
from regraft.weights.differences.file_flow import FileGraph
from regraft.weights.differences.hub_config import hub_config
from regraft.weights.differences.padding import SAME, SYMMETRIC, UNKNOWN, UNKNOWN_FLAX, dialect_padding, graph_padding
from regraft.weights.file import WeightFile
from regraft.weights.naming.layers import Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding
from regraft.weights.words import some

__all__ = ["attribute_findings"]

LAST_BLOCK = "stride of the last block"

# Layer, attribute, what the model has, what the file was made with.
Difference = tuple[str, str, Any, Any]

# Below this ratio no output shows a difference of epsilons (1.001e-5 and 1e-5: relative 1e-8).
_VISIBLE = 1.5
# Nor of ones as small as this (1e-12 and 1e-6), beside variances of images and of tokens.
_INVISIBLE = 2e-6


@dataclass(frozen=True)
class Known:
    """What a family's networks are built with in one framework.

    `stride`: `first` when the first convolution of a bottleneck strides (torchvision: the second one), `last` when the
    last block of a stage does (then no shortcut convolution strides), empty where torch does the same. `same`: whether
    strided convolutions pad as TensorFlow's SAME does, more behind than before where they must; `symmetric`: whether
    they are known to pad both sides alike. `note`: what else it does differently, which the model's tensors do not
    show. `eps_of`: where the networks of a family differ, the epsilon by the layers of the file. `act`: the activation;
    `act_is_sure`: whether all its networks have that one. `eps_key`: what a `config.json` calls the epsilon. `differs`:
    the address of a layer that works in another place of the model, and where. `num_heads`: that of all attentions.
    """

    eps: float | None = None
    stride: str = ""
    same: bool = False
    note: str = ""
    symmetric: bool = False
    eps_of: Callable[[Sequence[Pair]], float] | None = None
    act: str = ""
    act_is_sure: bool = True
    eps_key: str = "layer_norm_eps"
    differs: tuple[str, str] | None = None
    num_heads: int | None = None

    def told(self, config: Mapping[str, Any]) -> Known:
        """Return the same with what a file's `config.json` says."""
        found = self
        if isinstance(config.get(self.eps_key), float) and self.eps is not None:
            found = replace(found, eps=config[self.eps_key])
        if isinstance(config.get("hidden_act"), str) and self.act:
            found = replace(found, act=config["hidden_act"], act_is_sure=True)
        if isinstance(config.get("num_attention_heads"), int):
            found = replace(found, num_heads=config["num_attention_heads"])
        if config.get("downsample_in_bottleneck") is True:
            found = replace(found, stride="first")
        if config.get("tf_padding") is False:
            found = replace(found, same=False, symmetric=True)
        if str(config.get("global_padding")).upper() == "SAME":  # BiT, whose names are timm's
            found = replace(found, same=True)
        return found


def _torchvision_efficientnet_eps(pairs: Sequence[Pair]) -> float:
    """Return the epsilon by variant: B0 to B4 have the default of torch; B5 to B7 (three blocks or more at first)
    and V2 (no squeeze there) 1e-3.
    """
    names = [pair.source.name for pair in pairs]
    squeezes, is_deep = (any(one.search(name) for name in names) for one in (_FIRST_SQUEEZE, _THIRD_BLOCK))
    return 1e-5 if squeezes and not is_deep else 1e-3


_FIRST_SQUEEZE = re.compile(r"(^|\.)1\.0\.block\.1\.fc1$")
_THIRD_BLOCK = re.compile(r"(^|\.)1\.2\.block\.0\.0$")
_KERAS = {
    "resnet: keras": Known(1.001e-5, "first"),
    "resnet: caffe": Known(1e-3, "first"),  # Keras 2.2 took Caffe's names, and its own default for epsilon
    "resnetv2: keras": Known(1.001e-5, "last"),
    "densenet: keras": Known(1.001e-5),
    "mobilenet and efficientnet: keras efficientnet": Known(
        1e-3, same=True, note="Keras's EfficientNets take pixels of 0 to 255, which they scale themselves"
    ),
    "mobilenet and efficientnet: keras mobilenet": Known(
        1e-3, same=True, note="Keras's MobileNet pads strided depthwise convolutions behind only, on any size"
    ),
    "mobilenet and efficientnet: keras mobilenetv2": Known(1e-3, same=True),
    "mobilenet and efficientnet: keras mobilenetv3": Known(
        1e-3, same=True, note="Keras's MobileNetV3 takes pixels of 0 to 255, which it scales to -1 to 1 itself"
    ),
    "convnext: keras": Known(
        1e-6, act="gelu", note="Keras's ConvNeXts take pixels of 0 to 255, which they scale themselves"
    ),
    "regnet: keras": Known(
        1e-5, same=True, act="relu", note="Keras's RegNets take pixels of 0 to 255, which they scale themselves"
    ),
    "resnetrs: keras": Known(
        1e-5, symmetric=True, act="relu", note="Keras's ResNet-RS takes pixels of 0 to 255, which it scales itself"
    ),
    "xception: keras": Known(1e-3, note="Keras's Xception pads its poolings as SAME does, timm's on both sides"),
    "inception_v3: keras": Known(1e-3, note="Keras's InceptionV3 averages without the padding, timm's with it"),
}
_POOLED = (
    "norm",
    "normalises the features after pooling, the file's network before: the head cannot give the same "
    "(to fill all but this: --skip norm)",
)
_AVERAGED = (
    "block0.shortcut",
    "reads the average of 2x2 or 3x3 pixels, the file's network that of 3x3 with the padding counted in: timm has no "
    "network that computes the same",
)
_TF_LIKE = Known(1e-3, same=True)
_OTHERS = {
    "resnet: transformers": Known(1e-5, symmetric=True, act="relu", eps_key=""),
    "regnet: transformers": Known(1e-5, symmetric=True, act="relu", eps_key=""),
    "regnet: torchvision": Known(1e-5, symmetric=True, act="relu"),
    "mobilenet and efficientnet: transformers efficientnet": replace(_TF_LIKE, act="silu", eps_key="batch_norm_eps"),
    "mobilenet and efficientnet: transformers mobilenet_v1": replace(_TF_LIKE, act="relu6"),
    "mobilenet and efficientnet: transformers mobilenet_v2": replace(_TF_LIKE, act="relu6"),
    "convnext: original": Known(1e-6, act="gelu"),
    "convnext: torchvision": Known(1e-6, act="gelu"),
    "convnext: transformers": Known(1e-6, act="gelu", eps_key=""),
    "convnext: transformers dinov3": Known(1e-6, act="gelu"),
    "poolformer: original": Known(1e-5, act="gelu", differs=_POOLED),
    "poolformer: transformers": Known(1e-5, act="gelu", eps_key="", differs=_POOLED),
    "mobilevit: transformers": Known(1e-5, symmetric=True, act="silu"),
    "maxvit: torchvision": Known(symmetric=True, act="gelu", differs=_AVERAGED),
    "resnet of clip: clip": Known(1e-5, symmetric=True, act="relu"),
    "vit: transformers": Known(1e-12, act="gelu"),
    "vit: transformers dinov2": Known(1e-6, act="gelu"),
    "vit: transformers dinov3": Known(1e-5, act="gelu"),
    "vit: transformers clip": Known(1e-5, act="quick_gelu", act_is_sure=False),
    "vit: transformers siglip": Known(1e-6, act="gelu_tanh"),
    "vit: clip": Known(1e-5, act="quick_gelu", act_is_sure=False),
    "vit: torchvision": Known(1e-6, act="gelu"),
    "vit: mmpretrain": Known(1e-6, act="gelu"),
    "swin: transformers": Known(1e-5, act="gelu"),
    "swin: torchvision": Known(1e-5, act="gelu"),
    "swin: openmmlab": Known(1e-5, act="gelu"),
    "pvt_v2: transformers": Known(1e-6, act="gelu"),
    "focalnet: transformers": Known(1e-5, act="gelu"),
    "levit: transformers": Known(1e-5, act="hard_swish", eps_key=""),
    "mobilenet and efficientnet: lukemelas": Known(1e-3, same=True),
    "mobilenet and efficientnet: torchvision mobilenet_v2": Known(1e-5, symmetric=True),
    "mobilenet and efficientnet: torchvision mobilenet_v3": Known(1e-3, symmetric=True),
    "mobilenet and efficientnet: torchvision efficientnet": Known(symmetric=True, eps_of=_torchvision_efficientnet_eps),
    "inception_v3: torchvision": Known(1e-3, symmetric=True),
    "resnet: caffe": Known(None, "first"),
    "resnet: tf-slim": Known(1e-5, "last"),
    "resnetv2: tf-slim": Known(1e-5, "last"),
    "mobilenet and efficientnet: tf-slim mobilenet_v1": Known(1e-3, same=True),
    "mobilenet and efficientnet: tf-slim mobilenet_v2": Known(1e-3, same=True),
    "mobilenet and efficientnet: tensorflow efficientnet": Known(1e-3, same=True),
    "inception_v3: tf-slim": Known(1e-3),
}


def attribute_findings(pairs: Sequence[Pair], graph: FileGraph | None, weights: WeightFile) -> list[Finding]:
    """Return attributes of the model's layers that differ from what the file was made with, or that the file cannot
    tell.
    """
    table = _KERAS if weights.format.startswith("keras") else {**_KERAS, **_OTHERS}
    dialects = {pair.dialect for pair in pairs if pair.dialect in table}
    known = table[next(iter(dialects))] if len(dialects) == 1 else Known()
    dialect = next(iter(dialects)).partition(": ")[2] if len(dialects) == 1 else ""
    known = known.told(hub_config(weights.path, dialect or ("transformers" if not dialects else "")))
    if known.eps_of is not None:
        known = replace(known, eps=known.eps_of(pairs))
    if graph is not None:
        findings = _grouped([difference for pair in pairs for difference in _against_graph(pair, graph)])
        findings += graph_padding(pairs, graph)
    else:
        findings = _grouped([*_against_family(pairs, known)])
    if known.same:
        findings += dialect_padding(pairs, graph, SYMMETRIC, serious=True)
    if known.symmetric:
        findings += dialect_padding(pairs, graph, SAME, serious=True)
    if known.num_heads is not None:
        findings += _grouped(
            [
                (pair.target.name, "num_heads", have, known.num_heads)
                for pair in pairs
                if isinstance(have := pair.target.attributes.get("num_heads"), int) and have != known.num_heads
            ]
        )
    findings += [_pooled(pair.target.name) for pair in pairs if _normalises_elsewhere(pair)]
    if known.differs is not None:
        findings += [
            Finding("layout", pair.target.name, f"{pair.target.name} {known.differs[1]}", serious=True)
            for pair in pairs
            if pair.address == known.differs[0]
        ]
    if known.act:
        findings += activation_findings(pairs, known.act, told=known.act_is_sure)
    if known.note:
        findings.append(Finding("note", "", f"{known.note}: see that the model does too"))
    if graph is None and not dialects:
        findings += _unknown(pairs, weights)
    return findings


def _normalises_elsewhere(pair: Pair) -> bool:
    """Return whether one side normalises all tokens of a vision transformer, and the other what was pooled of them."""
    if not pair.dialect.startswith("vit: ") or pair.address != "norm":
        return False
    return pair.target.name.endswith("fc_norm") is not pair.source.name.endswith("pooler.layernorm")


def _pooled(name: str) -> Finding:
    text = f"{name} and the file's last normalisation differ: one is of all tokens, the other of what is pooled of them"
    return Finding("layout", name, f"{text} (timm: global_pool='token' or 'avg')", serious=True)


def _grouped(found: Sequence[Difference]) -> list[Finding]:
    grouped: dict[tuple[str, Any, Any], list[str]] = {}
    for layer, attribute, have, want in found:
        grouped.setdefault((attribute, have, want), []).append(layer)
    return [_finding(layers, *difference) for difference, layers in grouped.items()]


def _unknown(pairs: Sequence[Pair], weights: WeightFile) -> list[Finding]:
    """Return the findings that a file without a graph, and without a known network's names, leaves open."""
    findings: list[Finding] = []
    if weights.format.startswith("keras") or weights.producer.startswith("keras"):
        differences = [d for pair in pairs if pair.target.kind == "norm" for d in _eps(pair.target, _KERAS_EPS)]
        findings = [
            replace(
                finding,
                text=f"{finding.text} if its normalisations have Keras's default, which it does not tell",
                unknown=True,
            )
            for finding in _grouped(differences)
        ]
        findings += [
            replace(one, unknown=True) for one in dialect_padding(pairs, None, UNKNOWN, serious=bool(findings))
        ]
    if weights.format == "flax_msgpack":
        findings += [replace(one, unknown=True) for one in dialect_padding(pairs, None, UNKNOWN_FLAX, serious=False)]
    if any(pair.rule.startswith("structure") for pair in pairs):
        text = (
            "the file does not tell its network's epsilon, padding, strides, activations and input normalization, and "
            "its names belong to no known network: --check IMAGE=LOGITS.npy, what the original network gives for one "
            "image, settles whether the model's are right"
        )
        findings.append(Finding("unknown", "", text))
    return findings


_KERAS_EPS = 1e-3  # the default of Keras's BatchNormalization and LayerNormalization


def _against_graph(pair: Pair, graph: FileGraph) -> Iterator[Difference]:
    wanted = graph.attributes.get(pair.source.name, {})
    if pair.target.kind in ("conv", "depthwise") and len(pair.target.shape) == 4:
        compared = ["stride", *(["dilation"] if max(pair.target.shape[2:]) > 1 else [])]
        for attribute in compared:
            have, want = pair.target.attributes.get(attribute), wanted.get(attribute)
            if isinstance(have, tuple) and want is not None and tuple(have) != tuple(want):
                yield pair.target.name, attribute, have, tuple(want)
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
    if isinstance(have, float) and max(have, want) > max(_VISIBLE * min(have, want), min(have, want) + _INVISIBLE):
        yield layer.name, "eps", have, want


def _finding(layers: Sequence[str], attribute: str, have: Any, want: Any) -> Finding:
    named = some(layers)
    if attribute == LAST_BLOCK:
        text = f"{named} strides by {have}; in the file's network the last block of a stage strides, not the shortcut"
        return Finding("layout", layers[0], text, serious=True, layers=tuple(layers))
    text = f"the {attribute} of {named} is {have}, the file was made with {want}"
    kind = "attribute" if attribute in ("stride", "eps") else "layout"
    return Finding(kind, layers[0], text, attribute, have, want, serious=True, layers=tuple(layers))
