"""Write Keras's legacy HDF5 weights (`.h5`), which every Keras since 2.0 loads by name or by position.

Source: `save_weights_to_hdf5_group` in keras/src/legacy/saving/legacy_h5_format.py.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regraft.commit import write_bytes
from regraft.errors import WeightsError
from regraft.weights.writers.keras_tensor import KerasTensor, by_layer

__all__ = ["write"]

_ATTRIBUTE_LIMIT = 64_512


def write(path: Path, tensors: Sequence[KerasTensor], *, keras_version: str = "2.15.0") -> None:
    """Write a weights-only file; layers in the order in which they come.

    Args:
        path: The file, replaced as a whole.
        tensors: Layer, weight name and values (Keras axes) of each tensor.
        keras_version: The version that the file claims; Keras 2 spellings (`kernel:0`) are written.

    Raises:
        WeightsError: A name stands for two tensors.
        StorageError: The disk.
    """
    import h5py

    layers = by_layer(tensors)
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=("earliest", "v108")) as file:
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", keras_version.encode()
        _write_names(file, "layer_names", list(layers))
        for layer, members in layers.items():
            group = file.create_group(layer)
            names = [f"{layer}/{tensor.weight}:0" for tensor in members]
            _write_names(group, "weight_names", names)
            for name, tensor in zip(names, members, strict=True):
                group.create_dataset(name, data=tensor.values)
        _write_names(file.create_group("top_level_model_weights"), "weight_names", [])
    write_bytes(path, stream.getvalue())


def _write_names(group: Any, name: str, words: list[str]) -> None:
    """Write a list of names, split as Keras splits it where one attribute cannot hold it."""
    encoded = np.array([word.encode() for word in words]) if words else np.array([], dtype="S1")
    if encoded.itemsize > _ATTRIBUTE_LIMIT:
        raise WeightsError(
            f"A layer name of {encoded.itemsize} bytes does not fit in a Keras file.",
            f"names of at most {_ATTRIBUTE_LIMIT} bytes",
            "rename the layer",
        )
    num_parts = -(-encoded.nbytes // _ATTRIBUTE_LIMIT)
    while num_parts > 1 and any(part.nbytes > _ATTRIBUTE_LIMIT for part in np.array_split(encoded, num_parts)):
        num_parts += 1
    if num_parts <= 1:
        group.attrs[name] = encoded
        return
    for index, part in enumerate(np.array_split(encoded, num_parts)):
        group.attrs[f"{name}{index}"] = part
