"""From pairs of layers to tensors: which tensor of the file's layer fills which of the model's, by which steps.

Also what has no plain counterpart: a normalisation without scale, a convolution's bias where the model has none (folded
into the mean behind it), batch norms that were folded into the convolutions, and the counters that only torch has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.axes import Fill, Join, Step, Subtract
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.match.fit import Fitter
from regraft.weights.naming.layers import Layer, Slot
from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding, Match, WrongShape
from regraft.weights.words import some

__all__ = ["Binder", "Bound", "append_step", "leftovers", "zeros_said"]

# Formats whose layers are whole by themselves: a part that is absent is a part that the layer does not have.
_WHOLE_LAYERS = frozenset(
    {"keras_h5", "keras_v3", "caffemodel", "onnx", "tf_checkpoint", "flax_msgpack", "tflite", "mxnet_params", "darknet"}
)
_FILL = {"bias": 0.0, "gamma": 1.0, "beta": 0.0}


@dataclass
class Bound:
    """What came of the pairs."""

    matches: dict[str, Match] = field(default_factory=dict)
    wrong: list[WrongShape] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class Binder:
    """Turns pairs of layers into matches of tensors.

    Args:
        weights: The file.
        targets: The model's layers.
        sources: The file's layers.
        fitter: What says how the file's tensors fit the model's.
    """

    def __init__(
        self, weights: WeightFile, targets: Mapping[str, Layer], sources: Mapping[str, Layer], fitter: Fitter
    ) -> None:
        self.weights = weights
        self.targets = targets
        self.sources = sources
        self.fitter = fitter
        self.norm_behind = _norms_behind(targets)

    def bind(self, pairs: list[Pair]) -> Bound:
        """Return matches for all pairs."""
        bound = Bound()
        source_of = {pair.target.name: pair for pair in pairs}
        for pair in pairs:
            self._bind_pair(pair, bound)
        unfolded = [folded for pair in pairs if (folded := self._place_bias(pair, source_of, bound))]
        if unfolded:
            text = (
                f"the file's normalisations were folded into its convolutions: {some([norm for norm, _ in unfolded])} "
                f"are set to add the biases of {some([layer for _, layer in unfolded])}, and nothing else"
            )
            bound.findings.append(Finding("folded", unfolded[0][0], text, layers=tuple(norm for norm, _ in unfolded)))
        return bound

    def _bind_pair(self, pair: Pair, bound: Bound) -> None:
        given = _named_roles(pair)
        for role, slot in pair.target.tensors.items():
            tensor = given.get(role)
            if tensor is None:
                match = self._absent(pair, role, slot)
                if match:
                    bound.matches[slot.name] = match
                continue
            steps = self.fitter.steps(slot, tensor)
            if steps is None:
                bound.wrong.append(WrongShape(slot.name, tensor.name, slot.shape, tensor.shape))
            else:
                bound.matches[slot.name] = Match(slot.name, (tensor,), pair.rule, steps)
                bound.findings += [
                    *self._unknown_rows(pair.target, slot),
                    *_unknown_direction(pair.target, slot, tensor),
                ]

    def _unknown_rows(self, target: Layer, slot: Slot) -> list[Finding]:
        """Return a finding on a dense kernel whose rows may be flattened NHWC features, where the flow is unknown."""
        if self.fitter.rows != "HWC" or slot.role != "dense_kernel" or target.inputs is not None:
            return []
        before = [layer for layer in self.targets.values() if layer.order < target.order and "kernel" in layer.tensors]
        if not before or before[-1].kind == "dense" or before[-1].shape[0] == slot.shape[1]:
            return []
        text = (
            f"{slot.name} may read flattened features, whose order differs in the file (height, width, channels); "
            "the model could not be run on any image size that was tried, so their size is not known"
        )
        return [Finding("layout", target.name, text, serious=True)]

    def _absent(self, pair: Pair, role: str, slot: Slot) -> Match | None:
        """Return the match of a tensor that the file's layer lacks: a constant where absence means one, else None."""
        if role == "counter":
            return Match(slot.name, (), pair.rule, (Fill(0, slot.shape),))
        if any(name.startswith("other:") for name in _named_roles(pair)):
            return None  # the file has something that may be it, and does not say so
        is_norm = "mean" in pair.source.tensors or "variance" in pair.source.tensors
        if role == "bias" and pair.unbiased and pair.address == "classifier":
            return Match(slot.name, (), pair.rule, (Fill(0.0, slot.shape),))
        if role in _FILL and self.weights.format in _WHOLE_LAYERS and (role == "bias" or is_norm):
            return Match(slot.name, (), pair.rule, (Fill(_FILL[role], slot.shape),))
        return None

    def _place_bias(self, pair: Pair, source_of: Mapping[str, Pair], bound: Bound) -> tuple[str, str] | None:
        """Move a bias that the model's convolution has no place for into the mean of the normalisation behind it.

        Returns:
            Where the file's normalisation was folded: the model's one, and the file's convolution.
        """
        bias = pair.source.tensors.get("bias")
        if bias is None or "bias" in pair.target.tensors or "kernel" not in pair.target.tensors:
            return None
        norm = self.norm_behind.get(pair.target.name)
        if norm is not None and norm.name in source_of:
            slot = norm.tensors.get("mean")
            mean = bound.matches.get(slot.name) if slot else None
            if slot is not None and mean is not None and len(mean.sources) == 1 and slot.shape == bias.shape:
                bound.matches[slot.name] = Match(slot.name, (*mean.sources, bias), mean.rule, (*mean.steps, Subtract()))
                return None
        if norm is None or not self._is_folded(norm, source_of):
            return None
        self._unfold(norm, bias, bound)
        return norm.name, pair.source.name

    def _is_folded(self, norm: Layer, source_of: Mapping[str, Pair]) -> bool:
        """Return whether the file has no normalisation left that could be this one."""
        used = {pair.source.name for pair in source_of.values()}
        return norm.name not in source_of and not any(
            layer.kind == "norm" and layer.shape == norm.shape and name not in used
            for name, layer in self.sources.items()
        )

    def _unfold(self, norm: Layer, bias: SourceTensor, bound: Bound) -> None:
        """Let the model's normalisation add the folded bias alone: gamma = sqrt(1 + eps), mean 0, variance 1."""
        eps = float(norm.attributes.get("eps", 1e-5))
        rule = "folded normalisation"
        constants = {"gamma": (1.0 + eps) ** 0.5, "mean": 0.0, "variance": 1.0, "counter": 0.0}
        for role, value in constants.items():
            slot = norm.tensors.get(role)
            if slot is not None:
                bound.matches[slot.name] = Match(slot.name, (), rule, (Fill(value, slot.shape),))
        slot = norm.tensors.get("beta")
        if slot is not None and slot.shape == bias.shape:
            bound.matches[slot.name] = Match(slot.name, (bias,), rule)


def _unknown_direction(target: Layer, slot: Slot, tensor: SourceTensor) -> list[Finding]:
    """Return a finding on a plain kernel of TensorFlow for a transposed convolution, whose kernels lie otherwise."""
    if slot.role != "transpose_kernel" or tensor.role != "kernel" or tensor.axes != "HWIO":
        return []
    text = (
        f"{slot.name} belongs to a transposed convolution, and the file does not tell that {tensor.name} "
        "does: its axes and its direction are not known"
    )
    return [Finding("layout", target.name, text, serious=True)]


def zeros_said(bound: Bound, pairs: Collection[Pair]) -> list[Finding]:
    """Return which biases are zeros because the file's network has none."""
    keys = [match.target for match in bound.matches.values() if any(_has_zeros(step) for step in match.steps)]
    classifiers = {pair.target.name for pair in pairs if pair.unbiased and pair.address == "classifier"}
    heads = [f"{name}.bias" for name in sorted(classifiers) if (match := bound.matches.get(f"{name}.bias")) is not None
             and not match.sources]  # fmt: skip
    findings = []
    if keys:
        text = f"the file's network has no bias of keys: that part of {some(keys)} is zeros"
        findings.append(Finding("note", keys[0].rpartition(".")[0], text))
    if heads:
        text = f"the file's classifier has no bias: {some(heads)} is zeros"
        findings.append(Finding("note", heads[0].rpartition(".")[0], text))
    return findings


def _has_zeros(step: Step) -> bool:
    return isinstance(step, Join) and None in step.places


def append_step(bound: Bound, slots: list[Slot], step: Step) -> None:
    """Add a step for these tensors, where they are matched."""
    for slot in slots:
        match = bound.matches.get(slot.name)
        if match is not None and match.sources:
            bound.matches[slot.name] = Match(match.target, match.sources, match.rule, (*match.steps, step))


def _named_roles(pair: Pair) -> dict[str, SourceTensor]:
    """Return the tensors of the file's layer by role.

    A lone unnamed one of a normalisation is its beta where the family says so, and is what it must be where the model's
    layer has one place left for it: the beta of a normalisation without scale, the scale of one that is nothing else.
    """
    tensors = dict(pair.source.tensors)
    unnamed = [role for role in tensors if role.startswith("other:")]
    if pair.target.kind != "norm" or len(unnamed) != 1:
        return tensors
    left = [role for role in ("gamma", "beta") if role in pair.target.tensors and role not in tensors]
    if not pair.scaled and "beta" not in tensors:
        left = ["beta"]
    if len(left) == 1 and not {"gamma", "beta"} & tensors.keys():
        tensors[left[0]] = tensors.pop(unnamed[0])
    return tensors


def leftovers(pairs: list[Pair], bound: Bound, skipped: Collection[str]) -> list[Finding]:
    """Return tensors of placed layers that went nowhere: the layer computes something else without them."""
    placed = {source.name for match in bound.matches.values() for source in match.sources} | set(skipped)
    placed |= {pair.source for pair in bound.wrong}
    return [
        Finding(
            "leftover",
            pair.target.name,
            f"{tensor.name} has no place in the model, although its layer was matched with "
            + (pair.target.name or "the model itself"),
            serious=True,
        )
        for pair in pairs
        for role, tensor in pair.source.tensors.items()
        if role not in ("counter", "count") and not _is_placed(tensor, placed)
    ]


def _is_placed(tensor: SourceTensor, placed: Collection[str]) -> bool:
    """Return whether a tensor went somewhere, or what it is made of did."""
    return tensor.name in placed or (bool(tensor.parts) and all(part.name in placed for part in tensor.parts))


def _norms_behind(targets: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return the normalisation behind each convolution, by the convolution's name."""
    found: dict[str, Layer] = {}
    before: Layer | None = None
    for layer in targets.values():
        if layer.kind == "norm":
            if layer.inputs is not None:
                giver = targets.get(layer.inputs[0]) if len(layer.inputs) == 1 else None
            else:
                giver = before
            if giver is not None and "kernel" in giver.tensors and _out_channels(giver) == layer.shape[0]:
                found[giver.name] = layer
        before = layer
    return found


def _out_channels(layer: Layer) -> Any:
    return layer.shape[1] if layer.kind == "transpose" else layer.shape[0]
