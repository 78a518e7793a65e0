"""Small Keras files, written with h5py alone, in every spelling that Keras has had."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

h5py: Any = __import__("pytest").importorskip("h5py")

Layers = Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]


def random(*shape: int, seed: int = 0, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def fill(group: Any, layers: Layers, *, version: str | None = "2.15.0", backend: str | None = "tensorflow") -> None:
    """The tree of the legacy format."""
    group.attrs["layer_names"] = [name.encode() for name, _ in layers]
    if version:
        group.attrs["keras_version"] = version.encode()
    if backend:
        group.attrs["backend"] = backend.encode()
    for name, weights in layers:
        layer = group.create_group(name)
        layer.attrs["weight_names"] = [weight.encode() for weight, _ in weights]
        for weight, values in weights:
            layer.create_dataset(weight, data=values)


def legacy(path: Path, layers: Layers, *, config: Any = None, **settings: Any) -> Path:
    """A weights-only file, or a full model with `config`."""
    libver = settings.pop("libver", None)
    with h5py.File(path, "w", libver=libver) as file:
        if config is None:
            fill(file, layers, **settings)
        else:
            file.attrs["model_config"] = json.dumps(config)
            fill(file.create_group("model_weights"), layers, **settings)
    return path


def variables(target: Any, tensors: Mapping[str, np.ndarray], names: Mapping[str, str] = {}) -> None:
    """The tree of the Keras 3 format: `layers/conv2d/vars/0` -> values; names by layer path."""
    with h5py.File(target, "w") as file:
        for path, values in tensors.items():
            file.create_dataset(path, data=values)
        for path, name in names.items():
            file.require_group(f"{path}/vars").attrs["name"] = name


def archive(path: Path, tensors: Mapping[str, np.ndarray], config: Any, *, compression: int = 0) -> Path:
    """A `.keras` file."""
    weights = path.with_suffix(".tmp")
    variables(weights, tensors)
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.9.0"}))
        file.writestr("config.json", json.dumps(config))
        file.write(weights, "model.weights.h5")
    weights.unlink()
    return path


def layer(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    return {"class_name": kind, "name": name, "config": {"name": name, **settings}}


def model(*layers: dict[str, Any], name: str = "functional", kind: str = "Functional") -> dict[str, Any]:
    return {"class_name": kind, "name": name, "config": {"name": name, "layers": list(layers)}}
