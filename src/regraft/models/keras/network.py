"""A network of Keras as a torch module: its layers by Keras's names, run in Keras's order; images come as (N, C, H, W).

It has what surgery asks of a timm network: `forward_features`, `forward_head`, `reset_classifier`, `drop_rate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from regraft.models.keras.layer import Definition, KerasLayer, drawn_from_torch

__all__ = ["Blueprint", "KerasNetwork", "Ref", "Step", "has_weights"]


@dataclass(frozen=True)
class Ref:
    """The output of a step, as the input of a later one."""

    name: str


@dataclass(frozen=True)
class Step:
    """One layer's run.

    Attributes:
        name: The module that runs; its output has the same name.
        definition: How Keras makes it.
        inputs: Its positional arguments: `Ref`s, numbers, lists of these.
        options: Its named arguments.
        shape: What it gives: (height, width, channels) or (features,), None where the image size is open.
        last_use: Outputs that no later step reads.
    """

    name: str
    definition: Definition
    inputs: tuple[Any, ...]
    options: Mapping[str, Any]
    shape: tuple[int | None, ...]
    last_use: tuple[str, ...] = ()


@dataclass(frozen=True)
class Blueprint:
    """A network as data.

    Attributes:
        image: The name of its input.
        steps: Its layers in order.
        first_of_head: Place of the first step behind the last feature map; the number of steps where there is none.
        image_size: (height, width) that it was laid out for.
    """

    image: str
    steps: tuple[Step, ...]
    first_of_head: int
    image_size: tuple[int, int]

    @classmethod
    def of(cls, image: str, steps: Sequence[Step], image_size: tuple[int, int]) -> Blueprint:
        """Find the head, and the last use of each step's output, after which it may be dropped."""
        last: dict[str, int] = {}
        for place, step in enumerate(steps):
            last.update(dict.fromkeys(_names((step.inputs, step.options)), place))
        forgotten: dict[int, list[str]] = {}
        for name, place in last.items():
            forgotten.setdefault(place, []).append(name)
        used = [replace(step, last_use=tuple(forgotten.get(place, ()))) for place, step in enumerate(steps)]
        return cls(image, tuple(used), _first_of_head(steps), image_size)

    @property
    def backbone(self) -> tuple[Step, ...]:
        """The steps up to the last feature map."""
        return self.steps[: self.first_of_head]

    @property
    def head(self) -> tuple[Step, ...]:
        """The steps behind it."""
        return self.steps[self.first_of_head :]


_POOLING = ("GlobalAveragePooling2D", "GlobalMaxPooling2D", "Flatten")


def _first_of_head(steps: Sequence[Step]) -> int:
    """Return the first pooling over the whole map behind which nothing reads what lies before it."""
    places = {step.name: place for place, step in enumerate(steps)}
    reach = [0] * (len(steps) + 1)  # the earliest output that a later step reads
    reach[-1] = len(steps)
    for place in range(len(steps) - 1, -1, -1):
        read = [places.get(name, -1) for name in _names((steps[place].inputs, steps[place].options))]
        reach[place] = min([reach[place + 1], *read])
    fit = (p for p, step in enumerate(steps) if step.definition.name in _POOLING and reach[p + 1] >= p)
    return next(fit, len(steps))


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, Mapping):
        yield from _names(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _names(item)


class KerasNetwork(nn.Module):
    """Images (N, C, H, W) -> logits (N, num_classes), or the last feature map (N, C, H, W) of a network without a top.

    Args:
        lay_out: Makes the blueprint for (number of classes, image size).
        num_classes: Number of logits; 0 for a network without a top.
        image_size: (height, width) in pixels.
    """

    def __init__(
        self,
        lay_out: Callable[[int, tuple[int, int]], Blueprint],
        *,
        num_classes: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self._lay_out = lay_out
        self.num_classes = num_classes
        self.drop_rate = 0.0
        self.blueprint = lay_out(num_classes, image_size)
        with drawn_from_torch():
            for step in self.blueprint.steps:
                self.add_module(step.name, KerasLayer(step.definition))
        self.num_features = int(self.blueprint.backbone[-1].shape[-1] or 0)
        self.pretrained_cfg: dict[str, Any] = {"classifier": self._classifier(), "first_conv": self._stem()}

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, num_classes)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into the last feature map (N, C, H, W)."""
        features = self._run(self.blueprint.backbone, self.blueprint.image, images.permute(0, 2, 3, 1))
        return features.permute(0, 3, 1, 2)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the last feature map (N, C, H, W) -> logits (N, num_classes)."""
        foreign = [name for name in self.head if not isinstance(self.get_submodule(name), (KerasLayer, nn.Identity))]
        if foreign:  # surgery has put one module instead of the whole head
            head: Tensor = self.get_submodule(foreign[-1])(features)
            return head
        steps = self.blueprint.head
        if not steps:
            return features
        return self._run(steps, self.blueprint.backbone[-1].name, features.permute(0, 2, 3, 1), drop=True)

    @property
    def head(self) -> tuple[str, ...]:
        """The modules behind the last feature map."""
        return tuple(step.name for step in self.blueprint.head)

    def get_classifier(self) -> nn.Module | None:
        """Return the layer that gives the logits."""
        name = self.pretrained_cfg["classifier"]
        return self.get_submodule(name) if name else None

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new, random classifier for another number of classes, in place; other layers of the head stay."""
        self.num_classes = num_classes
        self._lay_out_anew(self.blueprint.image_size)
        with drawn_from_torch():
            for step in self.blueprint.head:
                if step.name == self.pretrained_cfg["classifier"]:
                    setattr(self, step.name, KerasLayer(step.definition))

    def set_input_size(self, img_size: tuple[int, int]) -> None:
        """Lay the network out for another image size, in place: Keras's explicit paddings depend on it."""
        self._lay_out_anew(img_size)

    def _lay_out_anew(self, image_size: tuple[int, int]) -> None:
        self.blueprint = self._lay_out(self.num_classes, image_size)
        for place, step in enumerate(self.blueprint.steps):
            module = self.get_submodule(step.name)
            in_backbone = place < self.blueprint.first_of_head
            if isinstance(module, KerasLayer) and (in_backbone or not has_weights(module)):
                module.define(step.definition)

    def _run(self, steps: Sequence[Step], name: str, value: Tensor, *, drop: bool = False) -> Tensor:
        values: dict[str, Any] = {name: value}
        output = value
        for step in steps:
            inputs, options = _filled(step.inputs, values), _filled(step.options, values)
            if drop and self.drop_rate and step.name == self.pretrained_cfg["classifier"]:
                inputs = tuple(F.dropout(value, p=self.drop_rate, training=self.training) for value in inputs)
            output = self.get_submodule(step.name)(*inputs, **options)
            for forgotten in step.last_use:
                values.pop(forgotten, None)
            values[step.name] = output
        return output

    def _classifier(self) -> str | None:
        owners = [step.name for step in self.blueprint.head if has_weights(self.get_submodule(step.name))]
        return owners[-1] if self.num_classes and owners else None

    def _stem(self) -> str:
        kinds = ((step.name, self.get_submodule(step.name)) for step in self.blueprint.steps)
        return next(name for name, module in kinds if isinstance(module, KerasLayer) and module.kind == "Conv2D")


def has_weights(module: nn.Module) -> bool:
    """Return whether the module, or one inside it, owns parameters or buffers."""
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(item, values) for item in value)
    return value
