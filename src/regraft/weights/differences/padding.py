"""How convolutions pad: what the file's network does, against what the model does.

TensorFlow's SAME pads as much as the image size asks for, and the odd one below and on the right: on even sizes a
strided convolution of 3x3 pads (0, 1). Where a file tells only numbers, these may be those of SAME at one image size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.weights.differences.file_flow import FileGraph, Pads
from regraft.weights.naming.layers import Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding
from regraft.weights.words import some

__all__ = ["SAME", "SYMMETRIC", "UNKNOWN", "UNKNOWN_FLAX", "dialect_padding", "graph_padding"]

SYMMETRIC = (
    "pad both sides alike; the file's network pads as TensorFlow's SAME does, which differs on even sizes "
    "(timm: pad_type='same', or the tf_ form of the network)"
)
SAME = (
    "pad as TensorFlow's SAME does; the file's network pads both sides alike, which differs on even sizes "
    "(timm: the form of the network without tf_)"
)
UNKNOWN = (
    "pad both sides alike; the file does not tell how its network pads, and Keras's padding='same' differs on even "
    "sizes (timm: pad_type='same', or the tf_ form of the network)"
)
UNKNOWN_FLAX = (
    "pad both sides alike; the file does not tell how its network pads, and Flax's default, 'SAME', differs on even "
    "sizes (timm: pad_type='same', or the tf_ form of the network): --check IMAGE=LOGITS.npy settles it"
)
_NO_PADS: Pads = (0, 0, 0, 0)


def dialect_padding(pairs: Sequence[Pair], graph: FileGraph | None, text: str, *, serious: bool) -> list[Finding]:
    """Return strided convolutions that pad otherwise than networks of the file's dialect do, unless the file itself
    tells.
    """
    told = {name for name, found in graph.attributes.items() if "pads" in found} if graph else set()
    layers = [
        pair.target.name for pair in pairs if pair.source.name not in told and _pads_same(pair.target) is (text is SAME)
    ]
    return [_finding(layers, text, serious=serious)] if layers else []


def _pads_same(target: Layer) -> bool | None:
    """Return whether a strided convolution pads as SAME does; None for other layers, and where nothing is padded."""
    window, pads = _window(target, target.attributes), target.attributes.get("pads")
    if window is None or window.stride[0] == 1 or window.size[0] == 1 or target.kind not in ("conv", "depthwise"):
        return None
    if pads == "same":
        return True
    half = window.size[0] // 2
    return False if pads == (half, half, half, half) and half else None


def graph_padding(pairs: Sequence[Pair], graph: FileGraph) -> list[Finding]:
    """Return convolutions that pad otherwise than the file's own graph says, and those of which it does not tell."""
    compared = list(_compared(pairs, graph))
    # Numbers that pad both sides alike are those of SAME where others of this file pad as only SAME does.
    is_same = any(_is_lopsided(one.file) and one.window.is_same(one.file) for one in compared)
    differ: dict[str, list[str]] = {}
    for one in compared:
        if not one.agree(is_same=is_same):
            differ.setdefault(one.text, []).append(one.target.name)
    return [*(_finding(names, text) for text, names in differ.items()), *_untold(pairs, graph)]


def _untold(pairs: Sequence[Pair], graph: FileGraph) -> list[Finding]:
    """Return convolutions before which the file pads by an amount that is computed, or that cannot be read."""
    untold = [
        pair.target
        for pair in pairs
        if _is_convolution(pair.target)
        and pair.target.attributes.get("pads", _NO_PADS) != _NO_PADS
        and "stride" in graph.attributes.get(pair.source.name, {})
        and "pads" not in graph.attributes[pair.source.name]
    ]
    findings = []
    for how, is_fixed in (("by fixed numbers", True), ("as TensorFlow's SAME does", False)):
        names = [layer.name for layer in untold if (layer.attributes["pads"] != "same") is is_fixed]
        if names:
            text = (
                f"{some(names)} pad {how}; the file pads before them by an amount that it does not tell: "
                "--check image=logits settles whether that is the same"
            )
            findings.append(Finding("unknown", names[0], text, serious=is_fixed, layers=tuple(names), unknown=True))
    return findings


@dataclass(frozen=True)
class _Window:
    """Size, stride and dilation of a convolution, by height and width."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    def same(self, axis: int, rest: int) -> tuple[int, int]:
        """Return SAME's padding before and behind, where `rest` is the image's length modulo the stride."""
        stride = self.stride[axis]
        reach = (self.size[axis] - 1) * self.dilation[axis] + 1
        total = max(reach - (rest or stride), 0)
        return total // 2, total - total // 2

    def is_same(self, pads: str | Pads) -> bool:
        """Return whether it is SAME, or what SAME pads at sizes that the stride divides."""
        return pads == "same" or (_axis(pads, 0) == self.same(0, 0) and _axis(pads, 1) == self.same(1, 0))

    def may_be_same(self, pads: Pads) -> bool:
        """Return whether SAME pads so much at some image size."""
        return all(
            any(_axis(pads, axis) == self.same(axis, rest) for rest in range(self.stride[axis])) for axis in (0, 1)
        )


@dataclass(frozen=True)
class _Compared:
    """One convolution of the model, and how both sides pad before it."""

    target: Layer
    window: _Window
    model: str | Pads
    file: str | Pads

    def agree(self, *, is_same: bool) -> bool:
        """Return whether both pad alike; `is_same` where the file's numbers are known to be those of SAME."""
        if self.model == self.file:
            return True
        for one, other in ((self.model, self.file), (self.file, self.model)):
            if one == "same" and not isinstance(other, str) and self.window.is_same(other):
                return True
        return (
            is_same and self.model == "same" and not isinstance(self.file, str) and self.window.may_be_same(self.file)
        )

    @property
    def text(self) -> str:
        """How they differ."""
        if self.model == "same" and _is_alike(self.file):
            return SAME
        if _is_alike(self.model) and self.window.is_same(self.file):
            return SYMMETRIC
        return f"pad {_shown(self.model)}; the file's network pads {_shown(self.file)}"


def _compared(pairs: Sequence[Pair], graph: FileGraph) -> Iterator[_Compared]:
    for pair in pairs:
        model, wanted = pair.target.attributes, graph.attributes.get(pair.source.name, {})
        window = _window(pair.target, {**model, **wanted})
        if _is_convolution(pair.target) and window and "pads" in model and "pads" in wanted:
            yield _Compared(pair.target, window, model["pads"], wanted["pads"])


def _is_convolution(target: Layer) -> bool:
    return target.kind in ("conv", "depthwise") and len(target.shape) == 4


def _window(target: Layer, attributes: Mapping[str, Any]) -> _Window | None:
    if len(target.shape) != 4:
        return None
    stride, dilation = (_both(attributes.get(name, (1, 1))) for name in ("stride", "dilation"))
    return _Window((target.shape[2], target.shape[3]), stride, dilation) if stride and dilation else None


def _both(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        value = value, value
    return tuple(value) if isinstance(value, tuple) and len(value) == 2 and min(value) > 0 else None


def _axis(pads: str | Pads, axis: int) -> tuple[int, int] | None:
    return None if isinstance(pads, str) else (pads[axis], pads[axis + 2])


def _is_alike(pads: str | Pads) -> bool:
    """Return whether both sides are padded, and alike."""
    return not isinstance(pads, str) and pads != _NO_PADS and pads[:2] == pads[2:]


def _is_lopsided(pads: str | Pads) -> bool:
    return not isinstance(pads, str) and pads[:2] != pads[2:]


def _shown(pads: str | Pads) -> str:
    if isinstance(pads, str):
        return "as TensorFlow's SAME does"
    return f"{pads[0]}, {pads[1]}, {pads[2]}, {pads[3]} (above, left, below, right)"


def _finding(layers: Sequence[str], text: str, *, serious: bool = True) -> Finding:
    have, want = ("same", "symmetric") if text is SAME else ("symmetric", "same")
    return Finding("layout", layers[0], f"{some(layers)} {text}", "padding", have, want, serious, tuple(layers))
