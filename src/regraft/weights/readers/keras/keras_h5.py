"""Keras's legacy HDF5 weights (`.h5`, `.hdf5`): weights only or a full model, of Keras 0.3 to 3.

The names of the tensors are kept in the file, and they alone say what a tensor is: the order inside a nested model
depends on which layers were trainable when it was saved. So every tensor gets its inner layer and its role from its
name, and the file counts as ordered only where its own graph, or the list itself, proves the order.
Source: keras/src/legacy/saving/legacy_h5_format.py; keras/engine/saving.py of Keras 2.3 (Keras 1 layouts, Theano).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.errors import WeightsError
from regraft.weights.file import WeightFile
from regraft.weights.readers.byte_range import open_source
from regraft.weights.readers.hdf5.hdf5 import classic, is_classic, is_hdf5, opened
from regraft.weights.readers.hdf5.hdf5_image import Hdf5Image
from regraft.weights.readers.hdf5.hdf5_tree import Tree
from regraft.weights.readers.keras.keras_graph import GraphLayer, layers_of, parse_graph
from regraft.weights.readers.keras.keras_names import Stored, inner_layers
from regraft.weights.readers.keras.keras_tensors import source_tensors
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "is_legacy", "read", "sniff"]

FORMAT = "keras_h5"
_MARKS = ("layer_names", "layer_names0", "model_config", "keras_version", "nb_layers")
_TOP_LEVEL = "top_level_model_weights"
_MAX_PARAMETERS = 10_000


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it is an HDF5 file, even a damaged one (`read` says what is wrong), not in the Keras 3 layout."""
    if not is_hdf5(head):
        return False
    try:
        return is_legacy(Hdf5Image.whole(open_source(path)))
    except WeightsError:
        return True


def is_legacy(image: Hdf5Image) -> bool:
    """Return whether an HDF5 file is to be read as the legacy format: it has its marks, or no variables of the newer
    one.

    Raises:
        WeightsError: It is damaged.
    """
    if not is_classic(image):
        return image.mentions(b"layer_names") or not image.mentions(b"vars")
    with opened(image) as tree:
        return _has_marks(tree) or not _has_variables(tree)


def _has_marks(tree: Tree) -> bool:
    return any(tree.has_attribute(tree.root, mark) for mark in _MARKS) or tree.has(tree.root, "model_weights")


def _has_variables(tree: Tree) -> bool:
    return any(tree.has(tree.root, name) for name in ("layers", "_layer_checkpoint_dependencies", "vars")) or any(
        tree.is_group(tree.root, name) for name in tree.names(tree.root)
    )


@dataclass(frozen=True)
class _Origin:
    """What the file says about itself."""

    version: str | None
    backend: str | None
    graph: dict[str, Any] | None
    model: GraphLayer | None

    @property
    def producer(self) -> str:
        return f"keras {self.version}" if self.version else "keras 1"


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the table of contents of a legacy Keras file; values stay on the disk.

    Raises:
        WeightsError: No Keras weights, damaged, hostile, or h5py is missing.
    """
    refuse_key(path, key)
    image = classic(Hdf5Image.whole(open_source(path)))
    with opened(image) as tree:
        root = tree.group(tree.root, "model_weights") if tree.has(tree.root, "model_weights") else tree.root
        origin = _origin(tree, root)
        stored = _stored(tree, root, image)
        left_out = tree.has(tree.root, "optimizer_weights")
    layers = inner_layers(stored, origin.model)
    tensors, axes_notes = source_tensors(layers.tensors, keras_1=origin.version is None, backend=origin.backend)
    notes = [*layers.notes, *axes_notes]
    if left_out:
        notes.append("The optimizer state in the file was skipped.")
    if not tensors:
        raise _without_weights(path)
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=origin.producer,
        tensors=tensors,
        ordered=layers.ordered,
        graph=origin.graph,
        notes=tuple(notes),
    )


def _origin(tree: Tree, root: Any) -> _Origin:
    version = tree.text(root, "keras_version") or tree.text(tree.root, "keras_version")
    backend = tree.text(root, "backend") or tree.text(tree.root, "backend")
    text = tree.text(tree.root, "model_config")
    graph = parse_graph(text) if text else None
    return _Origin(version, backend, graph, layers_of(graph))


def _stored(tree: Tree, root: Any, image: Hdf5Image) -> list[Stored]:
    """Return every listed tensor, in the order of the lists."""
    layer_names = tree.texts(root, "layer_names")
    if layer_names is None:
        count = tree.number(root, "nb_layers")
        if count is None:
            raise _not_keras(image.path, tree)
        return _numbered(tree, root, count)
    if tree.has(root, _TOP_LEVEL) and _TOP_LEVEL not in layer_names:
        layer_names.append(_TOP_LEVEL)
    found: list[Stored] = []
    for layer in layer_names:
        group = tree.group(root, layer)
        for name in tree.texts(group, "weight_names") or []:
            found.append(Stored(layer, name, tree.path_of(group, name), tree.array(group, name)))
    _require_unique(image.path, found)
    return found


def _numbered(tree: Tree, root: Any, num_layers: int) -> list[Stored]:
    """Read files of Keras before 1.0: `layer_0/param_0` ..., no names."""
    found: list[Stored] = []
    for layer in (f"layer_{index}" for index in range(min(num_layers, 1_000_000))):
        group = tree.group(root, layer)
        for name in (f"param_{index}" for index in range(min(tree.number(group, "nb_params") or 0, _MAX_PARAMETERS))):
            found.append(Stored(layer, name, tree.path_of(group, name), tree.array(group, name)))
    return found


def _require_unique(path: Path, found: list[Stored]) -> None:
    names = [stored.path for stored in found]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise WeightsError(
            f"{str(path)!r} lists the tensor {twice!r} twice.",
            "names in a Keras file must be unique",
            "ask for a clean copy",
        )


def _not_keras(path: Path, tree: Tree) -> WeightsError:
    members = ", ".join(repr(name) for name in tree.names(tree.root)[:5]) or "nothing"
    return WeightsError(
        f"{str(path)!r} is an HDF5 file without Keras weights: it holds {members} and no `layer_names`.",
        "what `model.save_weights` or `model.save` of Keras writes",
        "if these are weights of another program, save them as .npz or .safetensors under their names",
    )


def _without_weights(path: Path) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} is a Keras file without tensors.",
        "a model that was built before it was saved",
        "save it again after it has seen an input (`model.build(...)`), or look for another file",
    )
