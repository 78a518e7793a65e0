"""Weights in several files, with an index that tells which tensor is in which (`*.index.json` of the hub)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor
from regraft.weights.limits import is_own_file, load_json
from regraft.weights.readers.byte_range import open_source
from regraft.weights.words import some

__all__ = ["read_shards"]

_MAX_INDEX_BYTES = 100_000_000
_MAX_SHARDS = 10_000


def read_shards(
    index: Path, read_file: Callable[[Path], Mapping[str, SourceTensor]]
) -> tuple[dict[str, SourceTensor], list[str]]:
    """Read the tensors that an index names, and the names of its shards.

    Args:
        index: The index.
        read_file: Reads one shard.

    Raises:
        WeightsError: A damaged index, a missing shard, one that is no file beside it, a name that two shards hold.
    """
    try:
        source = open_source(index)
        if source.size > _MAX_INDEX_BYTES:
            raise ValueError(f"it has {source.size:,} bytes")
        weight_map = load_json(bytes(source.read(0, source.size).data), "it")["weight_map"]
        shards = sorted({name for name in weight_map.values() if isinstance(name, str)})
        if not all(isinstance(name, str) for name in weight_map.values()):
            raise ValueError("it holds something that is not a file name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(index, f"the index is not readable ({error})") from error
    if len(shards) > _MAX_SHARDS:
        raise _damaged(index, f"it names {len(shards)} shards")
    paths = [_shard_path(index, shard) for shard in shards]
    _require_all(index, [path.name for path in paths if not path.exists()])
    tensors: dict[str, SourceTensor] = {}
    for shard, path in zip(shards, paths, strict=True):
        for name, tensor in read_file(path).items():
            if name in tensors:
                raise _damaged(index, f"two shards hold {name!r}")
            if weight_map.get(name) == shard:
                tensors[name] = tensor
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise _damaged(index, f"no shard holds {missing[0]!r} and {len(missing) - 1} more that the index names")
    return tensors, shards


def _shard_path(index: Path, shard: str) -> Path:
    """Return a shard beside its index: a file of this very folder, no link to elsewhere."""
    path = index.parent / shard
    if Path(shard).name != shard or (os.path.lexists(path) and not is_own_file(path)):
        raise _damaged(index, f"the shard {shard!r} is not a regular file next to it")
    return path


def _require_all(index: Path, missing: list[str]) -> None:
    if missing:
        word = "shard" if len(missing) == 1 else f"{len(missing)} shards"
        verb = "is" if len(missing) == 1 else "are"
        raise WeightsError(
            f"The {word} {some([repr(name) for name in missing])} of {str(index)!r} {verb} missing.",
            "all files that the index names must be next to it",
            f"download {some([repr(name) for name in missing])} too",
        )


def _damaged(index: Path, why: str) -> WeightsError:
    return WeightsError(
        f"The index {str(index)!r} cannot be read: {why}.",
        "a whole index of shards, with its files next to it",
        "copy or download the files again, and compare their sizes or checksums with the originals",
    )
