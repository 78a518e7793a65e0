"""What surgery would do and what it costs, told before it is done: no number is computed or copied."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn

from regraft.data.decode.preprocess import Channels
from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of, preprocessing_of
from regraft.models.describe.outputs import OUTPUTS, num_logits
from regraft.models.describe.provenance import Rows
from regraft.models.describe.trace import trace
from regraft.models.layers.layers import num_parameters
from regraft.models.surgery.classifier_swap import is_channels_last
from regraft.models.surgery.head import HeadModule
from regraft.models.surgery.surgery import adapt
from regraft.settings.head import Head, Pool
from regraft.wording import quantity

__all__ = ["HeadCost", "SurgeryPlan", "surgery_plan"]


@dataclass(frozen=True)
class HeadCost:
    """What one way of pooling costs: how many numbers it hands on, and the parameters of the whole head."""

    pool: str
    num_inputs: int
    num_parameters: int


@dataclass(frozen=True)
class SurgeryPlan:
    """What `adapt` would do with the same arguments.

    Attributes:
        architecture: The network's name.
        image_size: (height, width) in pixels.
        channels: What the network's input channels would be.
        stem: How the first layer is changed, in words; empty when it stays.
        classes: The names of the rows, or None where the head stays.
        rows: Which rows are kept, added and dropped.
        head: Its form.
        features: (channels, height, width) of the last feature map, where there is one.
        cost: Of the chosen head.
        others: The same head with each other pooling; empty where only the network's own is possible.
        num_backbone_parameters: As Keras counts, with moving statistics.
        num_head_parameters: All layers behind the last feature map, old ones too.
        num_decoder_parameters: Those between the encoder and the head of a network for segmentation.
    """

    architecture: str
    image_size: tuple[int, int]
    channels: Channels
    stem: str
    classes: tuple[str, ...] | None
    rows: Rows
    head: Head
    features: tuple[int, ...] | None
    cost: HeadCost | None
    others: tuple[HeadCost, ...]
    num_backbone_parameters: int
    num_head_parameters: int
    num_decoder_parameters: int = 0

    def render(self) -> str:
        """Return plain text for people, one fact a line; sizes are height×width×channels."""
        height, width = self.image_size
        channels = self.channels if isinstance(self.channels, str) else ", ".join(self.channels)
        lines = [
            f"{self.architecture} at {height}×{width} pixels, channels {channels}",
            f"  stem        {self.stem or 'as it is'}",
            *self._rows(),
            f"  backbone    {quantity(self.num_backbone_parameters, 'parameter')}",
            *([f"  decoder     {quantity(decoder, 'parameter')}"] if (decoder := self.num_decoder_parameters) else []),
            f"  head        {quantity(self.num_head_parameters, 'parameter')}" + self._form(),
        ]
        return "\n".join([*lines, *self._costs()])

    def _rows(self) -> list[str]:
        if self.classes is None:
            return ["  classes     as they are"]
        named = [(word, getattr(self.rows, word)) for word in ("kept", "added", "dropped")]
        told = "; ".join(f"{word} {_short(names)}" for word, names in named if names)
        reason = f" ({self.rows.reason})" if self.rows.reason else ""
        return [f"  classes     {len(self.classes)}: {told}{reason}"]

    def _form(self) -> str:
        hidden = "".join(f", hidden layer of {width:,}" for width in self.head.hidden)
        dropout = f", dropout {self.head.dropout:g}" if self.head.dropout else ""
        output = self.head.resolved_output
        logits = "" if output == "softmax" else f", {OUTPUTS[output].logits_name}"
        return hidden + dropout + logits

    def _costs(self) -> list[str]:
        if self.cost is None:
            return []
        shown = (self.cost, *self.others)
        shape = self.features or ()
        title = "  pooling     of features " + "×".join(map(str, (*shape[1:], shape[0]))) if shape else "  pooling"
        widths = [max(len(text) for text in column) for column in zip(*map(_cells, shown), strict=True)]
        rows = []
        for cost in shown:
            pool, inputs, parameters = (
                text.ljust(width) if place == 0 else text.rjust(width)
                for place, (text, width) in enumerate(zip(_cells(cost), widths, strict=True))
            )
            chosen = "  <- chosen" if cost is self.cost else ""
            rows.append(f"    {pool}  {inputs} inputs  {parameters} parameters of the new layers{chosen}")
        return [title, *rows]


def surgery_plan(model: nn.Module, **arguments: Any) -> SurgeryPlan:
    """Return the plan of `adapt(model, **arguments)`, which is not carried out; same arguments, same errors.

    Args:
        model: The network; it is neither changed nor copied.
        **arguments: Those of `adapt`.
    """
    with torch.device("meta"):
        adapted = adapt(_shapes_of(model), **arguments)
        info = info_of(adapted)
        described = preprocessing_of(adapted)
        head = Head(**{**info.args.get("head", {}), "output": info.output})
        features = _features(adapted, described.pixels.size)
        classes = info.class_names if arguments.get("classes") is not None or arguments.get("head") else None
        pools = classes is not None and info.output != "segmentation"
        costs = _costs(adapted, info, head, features) if pools else ()
    counts = _counts(adapted, info)
    return SurgeryPlan(
        architecture=info.architecture,
        image_size=described.pixels.size,
        channels=described.channels,
        stem=info.origin.stem,
        classes=classes,
        rows=info.origin.rows or Rows(),
        head=head,
        features=features,
        cost=costs[0] if costs else None,
        others=costs[1:],
        num_backbone_parameters=counts["backbone"],
        num_head_parameters=counts["head"],
        num_decoder_parameters=counts["decoder"],
    )


def _shapes_of(model: nn.Module) -> nn.Module:
    """Return a copy without numbers, on torch's meta device."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)


def _features(model: nn.Module, size: tuple[int, int]) -> tuple[int, ...] | None:
    """Return (C, H, W) of what `forward_features` gives: the input of everything behind it."""
    if not hasattr(model, "forward_features"):
        return None
    caught: list[tuple[int, ...]] = []
    inner = model.forward_features

    def forward_features(images: Any) -> Any:
        output = inner(images)  # type: ignore[operator]
        caught.append(tuple(output.shape[1:]))
        return output

    try:
        model.forward_features = forward_features  # type: ignore[assignment]
        trace(model, size)
    except (SettingsError, AttributeError):
        return None
    finally:
        del model.forward_features
    shape = caught[0] if caught else ()
    return shape if len(shape) == 3 and not is_channels_last(model, shape) else None


def _costs(model: nn.Module, info: ModelInfo, head: Head, features: tuple[int, ...] | None) -> tuple[HeadCost, ...]:
    """Return the cost of the head as it is, then with each other pooling."""
    num_rows = num_logits(info.output, len(info.class_names or ()))
    layers = [module for name, module in model.named_modules() if info.is_head(name)]
    modules = [module for module in layers if isinstance(module, HeadModule)]
    if modules and len(modules[0].feature_shape) == 3:
        chosen = _cost(head, modules[0].feature_shape, num_rows)
    else:
        last = next((module for module in reversed(layers) if hasattr(module, "weight")), None)
        width = int(last.weight.shape[1]) if isinstance(last, (nn.Linear, nn.Conv2d)) else 0
        chosen = HeadCost("its own", width, sum(p.numel() for p in last.parameters()) if last else 0)
    if features is None:
        return (chosen,)
    pools = [pool for pool in get_args(Pool) if pool != head.pool]
    return (chosen, *(_cost(replace(head, pool=pool), features, num_rows) for pool in pools))


def _cost(head: Head, features: Sequence[int], num_rows: int) -> HeadCost:
    module = HeadModule(head, features, num_rows)
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Linear))
    return HeadCost(str(head.pool), first.in_features, sum(p.numel() for p in module.parameters()))


def _counts(model: nn.Module, info: ModelInfo) -> dict[str, int]:
    counts = dict.fromkeys(("backbone", "decoder", "head"), 0)
    for name, module in model.named_modules():
        counts[info.part_of(name)] += num_parameters(module)[0]
    return counts


def _cells(cost: HeadCost) -> tuple[str, str, str]:
    return cost.pool, f"{cost.num_inputs:,}", f"{cost.num_parameters:,}"


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
