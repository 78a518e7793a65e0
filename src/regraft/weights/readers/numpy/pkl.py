"""Pickles of NumPy arrays (`.pkl`): dicts of arrays by name, as Detectron, detectron2 and many scripts save them.

The pickle is read as data; what is not an array or a plain container becomes an inert stub, and a call of anything else
is an error. Texts beside the arrays (`__author__`, `matching_heuristics`) are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from regraft.errors import WeightsError
from regraft.weights.file import WeightFile
from regraft.weights.readers.byte_range import SourceFile, open_source
from regraft.weights.readers.numpy.array_names import NameClashError, named_tensors
from regraft.weights.readers.numpy.npy import HeaderError, leaves
from regraft.weights.readers.numpy.numpy_pickle import fill, is_array, lenient_calls
from regraft.weights.readers.pickle.unpickle import PickleError, RefusedCallError, Words, unpickle
from regraft.weights.readers.pickle.weight_sets import Leaves, choose_set, class_names, is_no_weights, plain

__all__ = ["FORMAT", "is_pickle", "read", "read_pickle", "refused", "sniff"]

FORMAT = "pkl"
# Pickles in text (protocols 0 and 1) begin with their first instructions: a dict, a list, an ordered dict, an array.
_IN_TEXT = re.compile(rb"\([dl]p?\d*\n|[}\]]q.|c(collections\nOrderedDict|numpy\.core\.multiarray)\n", re.DOTALL)


def is_pickle(head: bytes) -> bool:
    """Return whether a file begins like a pickle of Python."""
    return (len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5) or _IN_TEXT.match(head) is not None


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the first bytes are those of a pickle; torch's own pickles are asked for before."""
    return path.is_file() and is_pickle(head)


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the arrays of a pickle without running anything of it.

    Args:
        path: The file.
        key: Which set of arrays to take, as a dotted path; None for the raw weights.

    Raises:
        WeightsError: A pickle that calls something, a damaged or hostile file, no array, no such key.
    """
    root, source = read_pickle(path)
    parts = Leaves(str(path), is_array, lambda why: refused(source, why))
    chosen, notes = choose_set(root, key, parts)
    if isinstance(chosen, dict):
        chosen = {name: value for name, value in chosen.items() if not (isinstance(name, str) and is_no_weights(name))}
    try:
        arrays = list(leaves(source, chosen))
        tensors, layout = named_tensors(arrays)
    except (HeaderError, NameClashError) as error:
        raise refused(source, str(error)) from error
    if not tensors:
        raise refused(source, "it is a plain pickle, not a file of torch.save, and holds no array of numbers")
    return WeightFile(
        path=path,
        format=FORMAT,
        producer="numpy",
        tensors=tensors,
        # Python 2, which wrote no later protocol than 2, put its dicts in an arbitrary order.
        ordered=bool(source.read(0, 2)[0] == 0x80 and source.read(0, 2)[1] > 2),
        class_names=class_names(root),
        notes=(*notes, *layout),
    )


def read_pickle(path: Path) -> tuple[Any, SourceFile]:
    """Return what a pickle holds, arrays as `numpy_pickle.Array`, and its file.

    Raises:
        WeightsError: It calls something, is damaged, or something follows it.
    """
    source = open_source(path)
    try:
        with source.mapped() as view:
            root, end = unpickle(view, words=Words(lenient_calls(), fill=fill))
            if end != len(view):
                raise PickleError(f"{len(view) - end} bytes follow its pickle")
    except RefusedCallError as error:
        raise WeightsError(
            f"The pickle in {str(path)!r} calls {error.called!r}, which regraft does not do: no code of a file is ever "
            "run.",
            "a file that holds NumPy arrays in plain containers",
            "where the file comes from a source that you trust, load it there and save its arrays as .npz or "
            ".safetensors; otherwise delete it",
        ) from error
    except PickleError as error:
        raise refused(source, str(error)) from error
    return plain(root), source


def refused(source: SourceFile, why: str) -> WeightsError:
    """Return the error for a pickle that holds no weights, or is damaged."""
    return WeightsError(
        f"{str(source.path)!r} cannot be read as weights: {why}.",
        "a pickle with a dict of NumPy arrays; nothing in it is ever executed",
        "download it again, or ask for the same weights as .npz or .safetensors",
    )
