"""The tensors that both Keras writers take, grouped by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from regraft.errors import WeightsError

__all__ = ["KerasTensor", "by_layer"]


class KerasTensor(NamedTuple):
    """One tensor: `("conv1", "kernel", values)`, values in Keras's axes (HWIO, HWCM, IO)."""

    layer: str
    weight: str
    values: NDArray[Any]


def by_layer(tensors: Sequence[KerasTensor]) -> dict[str, list[KerasTensor]]:
    """Return the tensors of each layer, in the order in which they come.

    Raises:
        WeightsError: A name stands for two tensors, or is no name.
    """
    layers: dict[str, list[KerasTensor]] = {}
    seen: set[tuple[str, str]] = set()
    for tensor in tensors:
        parts = [*tensor.layer.split("/"), tensor.weight]
        if (tensor.layer, tensor.weight) in seen or any(part in ("", ".", "..") for part in parts):
            raise WeightsError(
                f"The tensor {tensor.weight!r} of layer {tensor.layer!r} cannot be written: taken or invalid name.",
                "each tensor of a Keras file needs a unique name",
                "rename the layer",
            )
        seen.add((tensor.layer, tensor.weight))
        layers.setdefault(tensor.layer, []).append(tensor)
    return layers
