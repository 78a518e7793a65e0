"""Statistics in a file of their own in the run folder: statistics.safetensors, read without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from regraft import commit
from regraft.errors import StorageError
from regraft.incremental.sample import Sample
from regraft.incremental.statistics import Statistics
from regraft.run.stored import require_plain

__all__ = ["read_statistics", "write_statistics"]

_FORMAT = "1"
_MOST_IMAGES = 10**12
_MOST_PRODUCT = 1e100  # features are in fp32, so that their squares are below 1e77
_ROUNDING = 1e-6
_KINDS = {
    "counts": np.int64,
    "sums": np.float64,
    "products": np.float64,
    "sample_features": np.float16,
    "sample_labels": np.int64,
    "sample_keys": np.uint64,
    "sample_counted": np.bool_,
}


def write_statistics(path: Path, statistics: Statistics, network: str) -> None:
    """Write the statistics of a network's features, the products as their upper triangle.

    Args:
        path: The file.
        statistics: They themselves.
        network: The key of the network (`network_key`).

    Raises:
        StorageError: The disk is full or read-only.
    """
    sample = statistics.sample
    tensors: dict[str, npt.NDArray[Any]] = {
        "counts": statistics.counts,
        "sums": statistics.sums,
        "products": statistics.products[np.triu_indices(statistics.num_features)],
        "sample_features": sample.features,
        "sample_labels": sample.labels,
        "sample_keys": sample.keys,
        "sample_counted": sample.counted,
    }
    facts = {"format": _FORMAT, "network": network, "class_names": list(statistics.class_names)}
    plain = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    data = save(plain, metadata={"regraft": json.dumps(facts)})  # one entry: the library keeps no order of several
    commit.write_bytes(path, data)


def read_statistics(path: Path, network: str) -> Statistics:
    """Return stored statistics.

    Args:
        path: The file.
        network: The key of the network whose features they must be of.

    Raises:
        StorageError: They are damaged, of another network, or a link.
    """
    require_plain(path)
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})["regraft"])
            tensors = {name: file.get_tensor(name) for name in _KINDS}
        names = tuple(facts["class_names"])
        statistics = _checked(names, tensors)
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise _unusable(path, f"cannot be read ({type(error).__name__}: {error})") from error
    if facts.get("format") != _FORMAT or facts.get("network") != network:
        raise _unusable(path, "belongs to another network than the model beside it")
    return statistics


def _checked(names: tuple[Any, ...], tensors: dict[str, npt.NDArray[Any]]) -> Statistics:
    """Return the statistics; raises ValueError where shapes or numbers contradict each other."""
    for name, kind in _KINDS.items():
        if tensors[name].dtype != kind:
            raise ValueError(f"{name} is {tensors[name].dtype}")
    counts, sums, packed = tensors["counts"], tensors["sums"], tensors["products"]
    num, width = len(names), sums.shape[-1]
    if not num or len(set(names)) < num or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names is not a list of different names")
    rows = len(tensors["sample_labels"])
    shapes = {
        "counts": (num,),
        "sums": (num, width),
        "products": (width * (width + 1) // 2,),
        "sample_features": (rows, width),
        "sample_labels": (rows,),
        "sample_keys": (rows,),
        "sample_counted": (rows,),
    }
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has the shape {tensors[name].shape}, expected {shape}")
    labels = tensors["sample_labels"]
    numbers = (sums, packed, tensors["sample_features"])
    if (counts < 1).any() or not all(np.isfinite(values).all() for values in numbers):
        raise ValueError("a class has no image, or a number is not finite")
    if rows and not 0 <= labels.min() <= labels.max() < num:
        raise ValueError("the sample has a class that is not in class_names")
    products = np.zeros((width, width))
    products[np.triu_indices(width)] = packed
    products = products + np.triu(products, 1).T
    with np.errstate(over="ignore"):
        least = (sums**2 / counts[:, None]).sum(0)  # what equal images of a class would give
    most = products.diagonal()
    if counts.max() > _MOST_IMAGES or most.max() > _MOST_PRODUCT or (least > most * (1 + _ROUNDING)).any():
        raise ValueError("counts, sums and products contradict each other")
    sample = Sample(tensors["sample_features"], labels, tensors["sample_keys"], tensors["sample_counted"])
    return Statistics(names, counts, sums, products, sample)


def _unusable(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{str(path)!r} {why}.",
        "the statistics that regraft wrote for this model",
        "take the file away: they are computed again where the run's images are still there",
    )
