"""Write weights as Keras reads them: in its legacy HDF5 layout, or in Keras 3's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regraft.weights.writers import keras_h5, keras_v3
from regraft.weights.writers.keras_tensor import KerasTensor

__all__ = ["write_keras"]


def write_keras(path: str | Path, tensors: Sequence[KerasTensor]) -> None:
    """Write a weights-only file that Keras's `load_weights` reads.

    Args:
        path: NAME.weights.h5 is written in the layout of Keras 3, any other name in legacy HDF5; replaced as a whole.
        tensors: Layer, weight name and values (Keras axes) of each tensor, from `keras_tensors` or made by hand; layers
            in the order of `model.layers`.

    Raises:
        WeightsError: h5py is missing, a name stands for two tensors, or a weight belongs to no known kind of layer.
        StorageError: The disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    if path.name.endswith(".weights.h5"):
        keras_v3.write(path, tensors)
    else:
        keras_h5.write(path, tensors)
