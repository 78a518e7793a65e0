"""Sources that are no path: addresses, and names of data sets on Hugging Face's hub, which get a path in the cache."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.data.decode.sniff import is_address
from regraft.data.files.remote.listing import local_source
from regraft.errors import DataError
from regraft.machine.cache_folder import cache_folder, private_folder

__all__ = ["far_source", "is_far"]

_HUB = re.compile(r"hf:([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?")


def is_far(source: str) -> bool:
    """Return whether a source is an address, or `hf:OWNER/NAME[:CONFIG]`, and no path."""
    return is_address(source) or _HUB.fullmatch(source) is not None


def far_source(source: str) -> Path:
    """Return the path under which a source that is far away is read.

    Raises:
        DataError: It cannot be reached, or what it takes is not installed.
    """
    match = _HUB.fullmatch(source)
    return local_source(source) if match is None else _from_hub(match[1], match[2])


def _from_hub(name: str, config: str | None) -> Path:
    """Return a folder with links to the tables that Hugging Face's library keeps of a data set, by split."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"hf:{name} is opened by Hugging Face's library, which is not installed.", "", "pip install datasets"
        ) from None
    try:
        splits = dict(datasets.load_dataset(name, config))
    except Exception as error:  # the library, and what it calls, raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"hf:{name} cannot be opened ({reason}).", "", "check the name, and HF_ENDPOINT") from error
    key = hashlib.sha256(f"{name}\0{config}".encode()).hexdigest()[:16]
    folder = private_folder(private_folder(private_folder(cache_folder() / "hub") / key) / name.replace("/", "-"))
    for split, rows in splits.items():
        _link(private_folder(folder / split), [str(kept["filename"]) for kept in rows.cache_files])
    commit.write_json(folder / "dataset_dict.json", {"splits": list(splits)})
    return folder


def _link(folder: Path, tables: list[Any]) -> None:
    names = [f"data-{number:05}.arrow" for number in range(len(tables))]
    with commit.storage_errors(folder):
        for name, table in zip(names, tables, strict=True):
            place = folder / name
            if not place.is_symlink() or os.readlink(place) != table:
                place.unlink(missing_ok=True)
                place.symlink_to(table)
    commit.write_json(folder / "state.json", {"_data_files": [{"filename": name} for name in names]})
