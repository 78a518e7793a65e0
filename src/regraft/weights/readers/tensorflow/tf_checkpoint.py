"""TensorFlow checkpoints without TensorFlow: V1 files, V2 `.index` + `.data`, SavedModel folders; by name or by object.

Optimizer slots, moving averages and counters are left out and noted. A checkpoint is sorted by name, so its order says
nothing, except where the names count the layers (`layer_with_weights-3`, `_operations/5`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regraft.errors import WeightsError
from regraft.weights.file import WeightFile
from regraft.weights.limits import LimitError, load_json
from regraft.weights.readers.byte_range import companion, open_source
from regraft.weights.readers.protobuf import Message, ProtobufError, read_varint
from regraft.weights.readers.tensorflow import sstable, tf_names
from regraft.weights.readers.tensorflow.tf_bundle import Variable, read_v1, read_v2
from regraft.weights.readers.tensorflow.tf_objects import Owner, owners

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "tf_checkpoint"

_DATA_NAME = re.compile(r"(.+)\.data-\d{5}-of-\d{5}", re.DOTALL)
_POINTER = re.compile(r'model_checkpoint_path:\s*"((?:[^"\\]|\\.)*)"')
_MAX_METADATA = 1 << 25

_BOOKKEEPING = re.compile(
    r"(^|/)(global_step|step|save_counter|beta[12]_power(_\d+)?|_?iterations?|iter|decay|_?learning_rate|momentum|rho|"
    r"epsilon|beta_[12]|loss_scale|good_steps|current_loss_scale)$|(^|/)(metrics|keras_api|_metrics)/"
)


def sniff(path: Path, head: bytes) -> bool:
    """Return whether this is a checkpoint in any of its forms; looks at the first and last bytes, or at the folder's
    names.
    """
    if path.is_dir():
        return _index_in(path) is not None
    if not path.is_file():
        return path.with_name(path.name + ".index").is_file()
    if _starts_like_a_table(head) or head.startswith(b"model_checkpoint_path:"):
        return True
    beside = _beside(path)
    if beside is not None:
        return beside.is_file()
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - len(sstable.MAGIC)))
        return sstable.is_table(stream.read())


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read a TensorFlow checkpoint.

    Args:
        path: A V1 file, a V2 `.index` or `.data` file or their common prefix, a `checkpoint` file, or the folder of a
            SavedModel or of a checkpoint.
        key: `ExponentialMovingAverage` (or `ema`) takes the moving averages in the place of the raw values.

    Raises:
        WeightsError: No checkpoint, a missing data file, damage, or no weights in it.
    """
    table = _table(path)
    source = open_source(table)
    try:
        with source.mapped() as view:
            if table.name.endswith(".index"):
                variables, graph = read_v2(sstable.entries(view), table, table.name.removesuffix(".index"))
            else:
                variables, graph = read_v1(sstable.entries(view), source), None
        return _weight_file(path, table, variables, owners(graph) if graph else {}, key)
    except ProtobufError as error:
        raise WeightsError(
            f"{str(table)!r} is damaged, or not a checkpoint ({error}).",
            "a whole TensorFlow checkpoint: a V1 file, or a V2 `.index` with its `.data` files",
            "download or copy all of its files again",
        ) from error


def _table(path: Path) -> Path:
    """Return the file that holds the table of a checkpoint, from any of the ways to name it."""
    if path.is_dir():
        found = _index_in(path)
        if found is None:
            raise _not_found(path, "It has no `variables/variables.index`, no `checkpoint` file and no `.index` file")
        return found
    beside = _beside(path)
    if beside is not None:
        return beside
    if not path.exists():
        return path.with_name(path.name + ".index")
    if path.name in ("saved_model.pb", "keras_metadata.pb", "fingerprint.pb"):
        return _table(path.parent)
    with open_source(path).path.open("rb") as stream:
        pointer = stream.read(1 << 16)
    if not pointer.startswith(b"model_checkpoint_path:"):
        return path
    return _pointed(path.parent, pointer) or path


def _beside(path: Path) -> Path | None:
    """Return the index of the checkpoint that a data file, or the `.meta` file of TensorFlow 1, belongs to; else
    None.
    """
    data = _DATA_NAME.fullmatch(path.name)
    if data:
        return path.with_name(data[1] + ".index")
    if path.suffix != ".meta":
        return None
    index = path.with_suffix(".index")
    return index if index.is_file() else path.with_suffix("")


def _index_in(folder: Path) -> Path | None:
    """Return the one checkpoint in a folder: a SavedModel's, the one that its `checkpoint` file names, or its only
    one.
    """
    saved = folder / "variables" / "variables.index"
    if (folder / "saved_model.pb").is_file() or saved.is_file():
        return companion(folder, "variables/variables.index", named_by=f"The SavedModel {str(folder)!r}").path
    pointer = folder / "checkpoint"
    if pointer.is_file():
        with pointer.open("rb") as stream:
            return _pointed(folder, stream.read(1 << 16))
    found = sorted(folder.glob("*.index"))
    if len(found) > 1:
        raise WeightsError(
            f"The folder {str(folder)!r} holds {len(found)} checkpoints, but no `checkpoint` file.",
            "one checkpoint",
            f"name one of them: {', '.join(name.name for name in found[:8])}",
        )
    return found[0] if found else None


def _pointed(folder: Path, pointer: bytes) -> Path | None:
    """Return the index that a `checkpoint` file points to, in its own folder: only the last part of the path counts."""
    named = _POINTER.search(pointer.decode("utf-8", "replace"))
    if not named:
        return None
    prefix = re.split(r"[/\\]", named[1])[-1]
    for name in (prefix + ".index", prefix):
        if prefix and (folder / name).is_file():
            return companion(folder, name, named_by=f"The `checkpoint` file of {str(folder)!r}").path
    raise _not_found(folder, f"Its `checkpoint` file names {prefix!r}, which does not exist")


def _starts_like_a_table(head: bytes) -> bool:
    """Return whether the first entry has an empty key, and a value that starts as the header of V1 or V2 does."""
    if not head.startswith(b"\0\0"):
        return False
    try:
        size, start = read_varint(memoryview(head), 2)
    except ProtobufError:
        return False
    if head[start : start + 1] == b"\x08" and size <= 64:
        return head[start : start + size].endswith(b"\x1a\x02\x08\x01")
    return head[start : start + 1] == b"\x0a" and size > 8 and b"\x0a" in head[start + 2 : start + 8]


def _weight_file(
    path: Path, table: Path, variables: list[Variable], owned: Mapping[str, Owner], key: str | None
) -> WeightFile:
    notes: list[str] = []
    num_entries = len(variables)
    variables = _choose_averages(variables, key, notes)
    variables = _weights_only(variables, owned, notes)
    kept = tf_names.place(variables, owned)
    if not kept:
        raise WeightsError(
            f"{str(path)!r} holds no weights ({num_entries} entries, all of an optimizer or counters).",
            "a checkpoint of a model",
            "save the model as well",
        )
    counting = {item.counting for item in kept}
    ordered = None not in counting and len(counting) == 1
    if ordered:
        kept.sort(key=lambda item: item.rank)
    _note_parts(variables, notes)
    folder = table.parent.parent if table.name == "variables.index" else None
    return WeightFile(
        path=path,
        format=FORMAT,
        producer=_producer(folder, "V2" if table.name.endswith(".index") else "V1"),
        tensors={item.variable.name: item.tensor() for item in kept},
        ordered=ordered,
        graph=_model_config(folder, notes),
        notes=tuple(notes),
    )


def _choose_averages(variables: list[Variable], key: str | None, notes: list[str]) -> list[Variable]:
    """Drop the moving averages, or take each in the place of its raw value when `key` asks for them."""
    averages = {
        item.name.removesuffix("/" + tf_names.AVERAGE): item
        for item in variables
        if item.name.endswith("/" + tf_names.AVERAGE)
    }
    if key is not None and key.lower() not in (tf_names.AVERAGE.lower(), "ema"):
        raise WeightsError(
            f"A TensorFlow checkpoint has no set of tensors named {key!r}.",
            f"it holds the raw values and, where the trainer kept them, {tf_names.AVERAGE!r}",
            f"leave out the key, or give {tf_names.AVERAGE!r}",
        )
    if not averages:
        if key is not None:
            raise WeightsError(
                "This checkpoint holds no moving averages.",
                f"variables that end in `/{tf_names.AVERAGE}`",
                "leave out the key to read the raw values",
            )
        return variables
    raw = [item for item in variables if not item.name.endswith("/" + tf_names.AVERAGE)]
    if key is None:
        notes.append(
            f"{len(averages)} variables also have a moving average ({tf_names.AVERAGE}): the raw values were read; "
            f"`--from {tf_names.AVERAGE}` takes the averages."
        )
        return raw
    notes.append(f"{len(averages)} variables were read from their moving averages ({tf_names.AVERAGE}).")
    taken = [averages.pop(item.name, item) for item in raw]
    return [*taken, *averages.values()]


def _weights_only(variables: list[Variable], owned: Mapping[str, Owner], notes: list[str]) -> list[Variable]:
    """Return the model's variables; everything else by kind in the notes."""
    shapes = {item.name: item.shape for item in variables}
    direct_names = {owner.full_name for key, owner in owned.items() if not key.startswith("_all_variables/")}
    left_out: dict[str, list[str]] = {}
    kept: list[Variable] = []
    for item in variables:
        why = _why_not(item, shapes, owned.get(item.name), direct_names)
        if why is None:
            kept.append(item)
        else:
            left_out.setdefault(why, []).append(item.name.removesuffix(tf_names.SUFFIX))
    for why, names in left_out.items():
        more = ", ..." if len(names) > 3 else ""
        notes.append(f"{len(names)} {why} were skipped: {', '.join(names[:3])}{more}.")
    return kept


def _why_not(item: Variable, shapes: Mapping[str, Any], owner: Owner | None, direct_names: set[str]) -> str | None:
    name = item.name.removesuffix(tf_names.SUFFIX)
    if item.dtype is None:
        return "entries without numbers"
    if owner is not None and name.startswith("_all_variables/") and owner.full_name in direct_names:
        return "second copies"
    if owner is not None and owner.path is None:
        return "optimizer variables"
    parent = name.rpartition("/")[0]
    if ".OPTIMIZER_SLOT" in name or shapes.get(parent) == item.shape:
        return "optimizer variables"
    if owner is None and name.split("/")[0] in ("optimizer", "_optimizer") and "_trainable_variables" not in name:
        return "optimizer variables"
    if _BOOKKEEPING.search(name) and (not item.shape or "metrics/" in name or "keras_api/" in name):
        return "counters and settings"
    if not item.shape and item.dtype in ("int32", "int64"):
        return "counters and settings"
    return None


def _note_parts(variables: Iterable[Variable], notes: list[str]) -> None:
    parted = [item for item in variables if item.num_parts > 1]
    if parted:
        names = ", ".join(f"{item.name} ({item.num_parts} parts)" for item in parted[:3])
        notes.append(f"{len(parted)} partitioned variables were merged: {names}{', ...' if parted[3:] else ''}.")


def _producer(folder: Path | None, version: str) -> str:
    """Return `tensorflow 2.15.0` where a SavedModel says so, else the version of the checkpoint."""
    if folder is not None:
        try:
            source = companion(folder, "saved_model.pb", named_by="The SavedModel")
            with source.mapped() as view:
                meta = Message(view).message(2)
                info = meta.message(1) if meta is not None else None
                if info is not None and info.text(5):
                    return f"tensorflow {info.text(5)}"
        except (WeightsError, ProtobufError, LimitError):
            pass  # only the version's number is lost
    return f"tensorflow (checkpoint {version})"


def _model_config(folder: Path | None, notes: list[str]) -> Mapping[str, Any] | None:
    """Return the Keras model of a SavedModel as plain data, from `keras_metadata.pb` (Keras 2.5 to 2.15)."""
    if folder is None or not (folder / "keras_metadata.pb").is_file():
        return None
    try:
        source = companion(folder, "keras_metadata.pb", named_by=f"The SavedModel {str(folder)!r}")
        if source.size > _MAX_METADATA:
            return None
        with source.mapped() as view:
            for node in Message(view).messages(1):
                if node.text(3) == "root":
                    return _root_config(load_json(node.text(5), "its keras_metadata.pb"))
    except (WeightsError, ValueError):
        notes.append("keras_metadata.pb cannot be read, so the model's graph is not known.")
    return None


def _root_config(root: Any) -> Mapping[str, Any] | None:
    if not isinstance(root, dict) or not isinstance(root.get("config"), dict):
        return None
    return {"class_name": root.get("class_name"), "config": root["config"]}


def _not_found(path: Path, what: str) -> WeightsError:
    return WeightsError(
        f"There is no TensorFlow checkpoint in {str(path)!r}. {what}.",
        "a SavedModel folder, or a folder with one checkpoint (`.index` and `.data` files)",
        "give the path of the `.index` file",
    )
