"""Archives of torch.export (`.pt2`): the state dict of an exported program, without its graph.

Three layouts: a JSON table with the raw bytes of each tensor in a file of its own (torch 2.9 and later), and a file of
torch.save inside the archive, below `data/weights/` (2.8) or at its top (before). Constants (buffers that are not
persistent, numbers in the code) are read with `key="constants"` only.
Source of the layouts: torch/export/pt2_archive and torch/_export/serde/schema.py of PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import check_shape, load_json, shown
from regraft.weights.readers.archive import Archive, Member, is_zip, open_archive
from regraft.weights.readers.byte_range import SourceFile, open_source
from regraft.weights.readers.pickle.weight_sets import collect
from regraft.weights.readers.pytorch.torch_pth import TensorView, read_content, source_tensor, tensor_leaves
from regraft.weights.readers.pytorch.torch_storage import Storage, damaged, in_words
from regraft.wording import quantity

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "pt2"
_TABLE = re.compile(r"(?:[^/]+/)?data/(?P<kind>weights|constants)/(?P<model>.+)_(?:weights|constants)_config\.json")
_SAVED = re.compile(r"(?:[^/]+/)?data/(?P<kind>weights|constants)/(?P<model>[^/]+)\.pt")
_OLD = {"serialized_state_dict.pt": "weights", "serialized_constants.pt": "constants"}
# torch's ScalarType, as torch.export numbers it.
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 34: "uint32", 35: "uint64",
}  # fmt: skip


def sniff(path: Path, head: bytes) -> bool:
    """Return whether it is a zip archive with the tables of torch.export."""
    if not is_zip(head) or not path.is_file():
        return False
    try:
        return bool(_parts(open_archive(open_source(path))))
    except WeightsError:
        return path.suffix == ".pt2"


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the tensors of an exported program.

    Args:
        path: The file.
        key: `constants`, or the name of a model where the archive holds several; None for the weights of `model`.

    Raises:
        WeightsError: A pickle that calls something, a damaged or hostile file, no tensor, no such model.
    """
    source = open_source(path)
    archive = open_archive(source)
    parts = _parts(archive)
    model, kind = _chosen(path, parts, key)
    tensors = _tensors(archive, source, parts[kind, model]) if (kind, model) in parts else {}
    if not tensors:
        raise WeightsError(
            f"{str(path)!r} holds no tensor.",
            "an exported program with parameters",
            "export the model with its weights (`torch.export.save`); for constants alone, give the key 'constants'",
        )
    models = sorted({name for _, name in parts})
    notes = [f"using the model {model!r}; the archive also contains {', '.join(models[:8])}"] if models[1:] else []
    if kind == "weights" and ("constants", model) in parts:
        constants = _tensors(archive, source, parts["constants", model])
        if constants.keys() - tensors.keys():
            left = quantity(len(constants.keys() - tensors.keys()), "constant was", "constants were")
            notes.append(f"{left} left out; they are the set 'constants'")
    return WeightFile(path=path, format=FORMAT, producer="torch.export", tensors=tensors, notes=tuple(notes))


def _parts(archive: Archive) -> dict[tuple[str, str], Member]:
    """Return the member that lists, or holds, each set of tensors: by kind (weights, constants) and model."""
    parts: dict[tuple[str, str], Member] = {}
    for name, member in archive.members.items():
        found = _TABLE.fullmatch(name) or _SAVED.fullmatch(name)
        if found:
            parts.setdefault((found["kind"], found["model"]), member)
        elif name in _OLD:
            parts.setdefault((_OLD[name], "model"), member)
    return parts


def _chosen(path: Path, parts: Mapping[tuple[str, str], Member], key: str | None) -> tuple[str, str]:
    """Return the model and the kind of its tensors."""
    models = [name for kind, name in parts if kind == "weights"] or [name for _, name in parts]
    first = "model" if "model" in models else models[0] if models else ""
    if key is None or key in ("weights", "constants"):
        return first, key or "weights"
    if key in models:
        return key, "weights"
    raise WeightsError(
        f"{str(path)!r} holds no model {key!r}.",
        f"one of: {', '.join(map(shown, ['constants', *models[:20]]))}",
        "leave out the key to take the weights of the first model",
    )


def _tensors(archive: Archive, source: SourceFile, listed: Member) -> dict[str, SourceTensor]:
    if not listed.name.endswith(".json"):
        views = _saved(source, listed)
    else:
        with in_words(str(source.path)):
            table = load_json(archive.read(listed), f"its member {shown(listed.name)}")
            entries = table["config"] if isinstance(table, dict) and isinstance(table.get("config"), dict) else None
            if entries is None:
                raise damaged(str(source.path), f"the member {shown(listed.name)} lists no tensors")
            folder = listed.name.rpartition("/")[0]
            views = _listed(archive, source, folder, entries)
    return {name: source_tensor(name, view) for name, view in views.items()}


def _saved(source: SourceFile, member: Member) -> dict[str, Any]:
    """Return the tensors of a file of torch.save that lies in the archive."""
    if member.deflated:
        raise damaged(str(source.path), f"the member {shown(member.name)} is compressed, which torch never does")
    part = source.part(member.start, member.size)
    return collect(read_content(part).root, tensor_leaves(part))


def _listed(archive: Archive, source: SourceFile, folder: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    storages: dict[str, Storage] = {}
    views: dict[str, Any] = {}
    for name, entry in entries.items():
        path, meta = (entry.get(word) for word in ("path_name", "tensor_meta")) if isinstance(entry, dict) else (0, 0)
        if isinstance(path, str) and path.startswith(("custom_obj", "opaque_obj")):
            continue
        member = archive.members.get(f"{folder}/{path}") if isinstance(path, str) else None
        if member is None or member.deflated:
            raise damaged(str(source.path), f"the values of {shown(name)} are not in the archive")
        if entry.get("use_pickle"):
            part = source.part(member.start, member.size)
            root = read_content(part).root
            views |= {name: root} if isinstance(root, TensorView) else {}
        elif isinstance(meta, dict):
            views[name] = _view(source, member, storages, meta)
    return views


def _view(source: SourceFile, member: Member, storages: dict[str, Storage], meta: Mapping[str, Any]) -> TensorView:
    dtype = _DTYPES.get(meta["dtype"]) if type(meta.get("dtype")) is int else None
    if dtype is None:
        raise damaged(str(source.path), f"{shown(member.name)} has the dtype {shown(meta.get('dtype'))}")
    shape, strides = (_lengths(meta.get(word)) for word in ("sizes", "strides"))
    offset = _number(meta.get("storage_offset"))
    if member.name not in storages:
        storages[member.name] = Storage(source, "uint8", member.size, member.start, crc=member.crc)
    storages[member.name].check_window(offset, shape, strides, dtype)
    return TensorView(storages[member.name], offset, shape, strides, dtype)


def _lengths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise ValueError(f"a shape is {shown(values)}")
    return check_shape([_number(value) for value in values])


def _number(value: Any) -> int:
    number = value.get("as_int") if isinstance(value, dict) else value
    if type(number) is not int or number < 0:
        raise ValueError(f"a size is {shown(number)}")
    return number
