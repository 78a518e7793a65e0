"""Write Keras 3's `.weights.h5` for a flat model: `layers/<class>_N/vars/<i>`, names as attributes.

Keras loads these files by class and number, so the layers have to come in the order of `model.layers`.
Source: `_save_state` and `_save_container_state` in keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from regraft.commit import write_bytes
from regraft.errors import WeightsError
from regraft.weights.writers.keras_tensor import KerasTensor, by_layer

__all__ = ["write"]

_ORDER = (
    *("depthwise_kernel", "pointwise_kernel", "kernel", "bias"),
    *("gamma", "beta", "moving_mean", "moving_variance", "mean", "variance", "count"),
)
_KIND_BY_WEIGHT = {
    "pointwise_kernel": "separable_conv2d",
    "depthwise_kernel": "depthwise_conv2d",
    "moving_mean": "batch_normalization",
    "mean": "normalization",
}


def write(path: Path, tensors: Sequence[KerasTensor], *, kinds: Mapping[str, str] | None = None) -> None:
    """Write the weights of a flat model.

    Args:
        path: The file (`.weights.h5`), replaced as a whole.
        tensors: Layer, weight name and values (Keras axes) of each tensor, layers in the order of `model.layers`.
        kinds: The class (`conv2d_transpose`) of layers whose weights do not tell it.

    Raises:
        WeightsError: A name stands for two tensors, or a weight is of no class that is known.
        StorageError: The disk.
    """
    import h5py

    counts: Counter[str] = Counter()
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=("earliest", "v108")) as file:
        for layer, members in by_layer(tensors).items():
            kind = (kinds or {}).get(layer) or _kind(layer, members)
            number = counts[kind]
            counts[kind] += 1
            group = file.create_group(f"layers/{kind}_{number}/vars" if number else f"layers/{kind}/vars")
            group.attrs["name"] = layer
            for index, tensor in enumerate(sorted(members, key=lambda one: _ORDER.index(one.weight))):
                group.create_dataset(str(index), data=tensor.values)
    write_bytes(path, stream.getvalue())


def _kind(layer: str, members: Sequence[KerasTensor]) -> str:
    weights = {tensor.weight: tensor.values for tensor in members}
    if weights.keys() <= set(_ORDER):
        for weight, kind in _KIND_BY_WEIGHT.items():
            if weight in weights:
                return kind
        if "kernel" in weights and weights["kernel"].ndim in (2, 4):
            return "conv2d" if weights["kernel"].ndim == 4 else "dense"
    raise WeightsError(
        f"Layer {layer!r} with the weights {', '.join(map(repr, weights))} has a class that regraft cannot write.",
        "convolutions, dense layers and batch norms",
        "write a legacy .h5 file, which only needs names",
    )
