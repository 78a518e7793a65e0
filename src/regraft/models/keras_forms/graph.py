"""The order in which Keras lists the layers of a functional model: by depth, not by creation.

A layer's depth is the longest way from it to the output. Layers stand from the deepest to the output; those of one
depth in the order in which a walk from the output, inputs first to last, meets them first.
Source: keras/src/ops/function.py, `map_graph`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from regraft.models.keras_forms.rows import Row

__all__ = ["KerasGraph"]


@dataclass
class KerasGraph:
    """A functional model while it is put together; names stand for layers.

    Attributes:
        rows: Each layer by name, in the order of creation.
        inputs: For each layer, the layers that it takes.
        numbers: How many layers of each class have been named automatically.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, name: str | None, kind: str, *inputs: str, module: str | None = None) -> str:
        """Return a layer of Keras's class `kind` behind `inputs`; None for a name gives Keras's automatic one."""
        name = name or self._automatic(kind)
        self.rows[name] = (name, kind, module)
        self.inputs[name] = inputs
        return name

    def chain(self, start: str, *layers: tuple[str | None, str, str | None]) -> str:
        """Return layers (name, class, module), each behind the one before; the name of the last is returned."""
        for name, kind, module in layers:
            start = self.add(name, kind, start, module=module)
        return start

    def listing(self, output: str) -> tuple[Row, ...]:
        """Return the rows in the order of Keras's `model.layers`."""
        met = self._met(output)
        depths = self._depths(output, met)
        deepest = max(depths.values())
        depths |= {name: deepest for name in met if not self.inputs[name]}
        return tuple(self.rows[name] for name in sorted(met, key=lambda name: (-depths[name], met[name])))

    def _automatic(self, kind: str) -> str:
        stem = _AUTOMATIC[kind]
        number = self.numbers[kind] = self.numbers.get(kind, -1) + 1
        return f"{stem}_{number}" if number else stem

    def _met(self, output: str) -> dict[str, int]:
        """Return when a walk from the output first meets each layer."""
        met: dict[str, int] = {}
        waiting = [output]
        while waiting:
            name = waiting.pop()
            if name not in met:
                met[name] = len(met)
                waiting += reversed(self.inputs[name])
        return met

    def _depths(self, output: str, met: dict[str, int]) -> dict[str, int]:
        depths = {output: 0}
        for name in reversed(self.rows):  # created later than all that it takes
            if name in met:
                for other in self.inputs[name]:
                    depths[other] = max(depths.get(other, 0), depths[name] + 1)
        return depths


_AUTOMATIC = {
    "Activation": "activation",
    "Add": "add",
    "AveragePooling2D": "average_pooling2d",
    "BatchNormalization": "batch_normalization",
    "Concatenate": "concatenate",
    "Conv2D": "conv2d",
    "InputLayer": "input_layer",
    "MaxPooling2D": "max_pooling2d",
    "Normalization": "normalization",
    "Rescaling": "rescaling",
    "ZeroPadding2D": "zero_padding2d",
}
