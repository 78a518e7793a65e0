"""PyTorch files in several shards with an index (`pytorch_model.bin.index.json`)."""

from __future__ import annotations

from pathlib import Path

from regraft.weights.file import WeightFile
from regraft.weights.readers.pytorch import torch_pth
from regraft.weights.readers.shards import read_shards
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "torch_shards"
_INDEX_SUFFIX = ".bin.index.json"


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it is an index of shards, or a folder with one."""
    return _index_in(path) is not None if path.is_dir() else path.name.endswith(_INDEX_SUFFIX)


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the tables of contents of all shards, as `torch_pth` reads one.

    Raises:
        WeightsError: A damaged index or shard, a missing shard, a name that two shards hold.
    """
    refuse_key(path, key)
    index = (_index_in(path) or path) if path.is_dir() else path
    tensors, shards = read_shards(index, lambda shard: torch_pth.read(shard).tensors)
    return WeightFile(
        path=index,
        format=FORMAT,
        producer="pytorch",
        tensors=tensors,
        ordered=False,  # the order between shards is that of their names
        notes=(f"{len(shards)} shards",),
    )


def _index_in(folder: Path) -> Path | None:
    found = sorted(folder.glob("*" + _INDEX_SUFFIX))
    return found[0] if len(found) == 1 else None
