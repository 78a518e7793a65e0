"""Keras's own formats since 2.12: `.weights.h5`, sharded `x.weights.json`, and `.keras` archives.

Variables are numbered (`layers/conv2d_1/vars/0`), so roles come from the class in the path, from the archive's
config.json, or from the shapes where they leave one reading. The order of layers is kept within a class by the numbers;
across classes only config.json has it, which is read as data: nothing that it names is built, imported or opened.
Source: keras/src/saving/saving_lib.py (3.15), keras/saving/saving_lib.py (2.12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.errors import WeightsError
from regraft.weights.file import WeightFile
from regraft.weights.limits import shown
from regraft.weights.readers.archive import Archive, is_zip, open_archive
from regraft.weights.readers.byte_range import SourceFile, companion, open_source
from regraft.weights.readers.hdf5.hdf5 import classic, is_hdf5, opened
from regraft.weights.readers.hdf5.hdf5_image import Hdf5Image
from regraft.weights.readers.hdf5.hdf5_tree import Node, Tree
from regraft.weights.readers.keras.keras_graph import GraphLayer, layers_of, parse_graph
from regraft.weights.readers.keras.keras_h5 import is_legacy
from regraft.weights.readers.keras.keras_variables import Variable, layered, source_tensors
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "keras_v3"
_WEIGHTS, _CONFIG, _METADATA = "model.weights.h5", "config.json", "metadata.json"
_MAX_CONFIG = 64 * 2**20
_MAX_DEPTH = 64
_MAX_SHARDS = 10_000
# State that is not the model's: the optimizer's slots have the shapes of the weights, seeds and metrics are counters.
_STATE = {"optimizer", "_optimizer", "metrics", "_metrics", "compile_metrics", "_compile_metrics", "_loss_tracker"}
_SEEDS = ("seed_generator", "_seed_generator", "random_generator", "_random_generator")


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it is an HDF5 file of the Keras 3 layout, a `.keras` archive, or the index of a sharded set."""
    if is_hdf5(head):
        return _sniff_hdf5(path)
    if is_zip(head):
        return _sniff_archive(path)
    return path.name.endswith(".weights.json") and b'"weight_map"' in head


def _sniff_hdf5(path: Path) -> bool:
    try:
        return not is_legacy(Hdf5Image.whole(open_source(path)))
    except WeightsError:
        return True


def _sniff_archive(path: Path) -> bool:
    try:
        names = set(open_archive(open_source(path)).members)
    except WeightsError:
        return path.suffix == ".keras"
    if names & {_WEIGHTS, "model.weights.json", "model.weights.npz"} or {_CONFIG, _METADATA} <= names:
        return True
    return path.suffix == ".keras" and not any(name.endswith((".npy", "data.pkl")) for name in names)


@dataclass(frozen=True)
class _Content:
    """What one of the three containers gave."""

    variables: list[Variable]
    graph: dict[str, Any] | None
    producer: str
    left_out: set[str]


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the table of contents of a Keras 3 file; values stay on the disk.

    Raises:
        WeightsError: No Keras weights, damaged, hostile, or a shard is missing.
    """
    refuse_key(path, key)
    source = open_source(path)
    with path.open("rb") as stream:
        head = stream.read(4096)
    if is_zip(head):
        content = _from_archive(open_archive(source))
    elif is_hdf5(head):
        variables, left_out = _from_hdf5([Hdf5Image.whole(source)])
        content = _Content(variables, None, "keras", left_out)
    else:
        content = _from_shards(source)
    return _weight_file(path, content)


def _weight_file(path: Path, content: _Content) -> WeightFile:
    model: GraphLayer | None = layers_of(content.graph)
    layers = layered(content.variables, model)
    tensors = source_tensors(layers)
    if not tensors:
        raise WeightsError(
            f"{str(path)!r} holds no variables of Keras layers.",
            "groups `vars` with numbered datasets were expected, as `model.save_weights` of Keras writes them",
            "if these are weights of another program, save them as .npz or .safetensors under their names",
        )
    notes = [*layers.notes, *(f"The state under {name!r} was skipped." for name in sorted(content.left_out))]
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=content.producer,
        tensors=tensors,
        ordered=layers.ordered,
        graph=content.graph,
        notes=tuple(notes),
    )


def _from_archive(archive: Archive) -> _Content:
    source, members = archive.source, archive.members
    weights = members.get(_WEIGHTS)
    if weights is None:
        listed = ", ".join(repr(name) for name in list(members)[:5]) or "nothing"
        raise WeightsError(
            f"{str(source.path)!r} is a zip archive without {_WEIGHTS!r}; it holds {listed}.",
            f"a .keras file holds {_CONFIG!r}, {_METADATA!r} and {_WEIGHTS!r}",
            "save the model again with `model.save('x.keras')`, or give the file that holds its weights",
        )
    variables, left_out = _from_hdf5([Hdf5Image.of_member(archive, weights)])
    version = (_json(archive, _METADATA) or {}).get("keras_version")
    producer = f"keras {version}" if isinstance(version, str) and len(version) < 50 else "keras"
    return _Content(variables, _json(archive, _CONFIG), producer, left_out)


def _json(archive: Archive, name: str) -> dict[str, Any] | None:
    member = archive.members.get(name)
    return parse_graph(archive.read(member)) if member and member.size <= _MAX_CONFIG else None


def _from_shards(source: SourceFile) -> _Content:
    if source.size > _MAX_CONFIG:
        raise _bad_index(source, f"it has {source.size} bytes")
    index = parse_graph(bytes(source.read(0, source.size).data)) or {}
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _bad_index(source, "it has no `weight_map`")
    names: dict[str, None] = {}
    for shards in weight_map.values():
        for name in shards if isinstance(shards, list) else [shards]:
            if not isinstance(name, str) or len(names) > _MAX_SHARDS:
                raise _bad_index(source, "its `weight_map` holds something that is not a file name")
            names[name] = None
    if not names:
        raise _bad_index(source, "its `weight_map` names no file")
    named_by = f"The index {source.path.name!r}"
    shards = [companion(source.path.parent, name, named_by=named_by) for name in names]
    variables, left_out = _from_hdf5([Hdf5Image.whole(shard) for shard in shards])
    _require_complete(source, weight_map, variables, left_out)
    return _Content(variables, None, "keras 3", left_out)


def _require_complete(
    source: SourceFile, weight_map: dict[str, Any], variables: list[Variable], left_out: set[str]
) -> None:
    present = {variable.group for variable in variables}
    missing = [
        name
        for name in (group.strip("/") for group in weight_map)
        if name not in present and not _is_state(name.split("/"), left_out)
    ]
    if missing:
        raise _bad_index(source, f"the shards lack {shown(missing[0])}")


def _is_state(parts: Sequence[str], left_out: set[str]) -> bool:
    return parts[0] in left_out or any(part in _SEEDS for part in parts)


def _bad_index(source: SourceFile, why: str) -> WeightsError:
    return WeightsError(
        f"{str(source.path)!r} is not the index of a sharded Keras file: {why}.",
        "a JSON object with `weight_map` (variable group -> shard)",
        "download it again, with all of its `x_0000N.weights.h5`",
    )


def _from_hdf5(images: Sequence[Hdf5Image]) -> tuple[list[Variable], set[str]]:
    """Return all variables, and the names of what was left out. A layer's name may stand in another shard than its
    values.
    """
    variables: list[Variable] = []
    own_names: dict[str, str] = {}
    left_out: set[str] = set()
    for image in map(classic, images):
        with opened(image) as tree:
            for name in tree.names(tree.root):
                if name in _STATE:
                    left_out.add(name)
                elif name == "vars":
                    variables += _variables(tree, tree.group(tree.root, name), "")
                elif tree.is_group(tree.root, name):
                    variables += _walk(tree, tree.group(tree.root, name), (name,), own_names)
    _require_unique(images[0], variables)
    return [replace(variable, names=_names_around(variable.path, own_names)) for variable in variables], left_out


def _walk(tree: Tree, group: Node, path: tuple[str, ...], own_names: dict[str, str]) -> list[Variable]:
    """Return the variables below a group; the layer names (Keras 3.6 and later) go to `own_names`."""
    if len(path) > _MAX_DEPTH:
        raise tree.too_deep("/".join(path))
    members = tree.names(group)
    found: list[Variable] = []
    if "vars" in members:
        variables = tree.group(group, "vars")
        own_name = tree.text(variables, "name")
        if own_name:
            own_names["/".join(path)] = own_name
        found = _variables(tree, variables, "/".join(path))
    for name in members:
        if name != "vars" and name not in _SEEDS and tree.is_group(group, name):
            found += _walk(tree, tree.group(group, name), (*path, name), own_names)
    return found


def _names_around(path: str, own_names: dict[str, str]) -> tuple[str, ...]:
    """Return the names of the models around a layer, and its own, as far as the file has them."""
    parts = path.split("/")
    above = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
    return tuple(own_names[prefix] for prefix in above if prefix in own_names)


def _variables(tree: Tree, group: Node, layer: str) -> list[Variable]:
    return [
        Variable(f"{layer}/vars" if layer else "vars", layer, key, tree.array(group, key)) for key in tree.names(group)
    ]


def _require_unique(image: Hdf5Image, variables: list[Variable]) -> None:
    seen: set[str] = set()
    for variable in variables:
        if variable.name in seen:
            raise image.damaged(f"{variable.name!r} is in two shards")
        seen.add(variable.name)
