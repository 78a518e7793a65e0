"""A weight file as a value: names, shapes, dtypes and axes of every tensor, read lazily, without torch.

`read_weights` looks at the content (never at the suffix alone), picks the one reader that knows it and
returns a `WeightFile`. Nothing is executed and nothing but the parts that the format names is opened.
"""

from __future__ import annotations

import importlib
import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regraft.errors import WeightsError, did_you_mean, require_type
from regraft.weights.axes import Step
from regraft.weights.limits import MAX_CLASSES, MAX_NAME, Budget, check_shape, guarded, is_own_file
from regraft.weights.shard_name import shard_note
from regraft.wording import quantity

__all__ = ["FORMATS", "READERS", "SUFFIXES", "SourceTensor", "WeightFile", "read_weights"]

# One spelling per format everywhere: reader module = `WeightFile.format` = word in errors = docs page.
# Order matters: the first reader whose `sniff` says yes reads the file.
READERS = {
    "safetensors": "regraft.weights.readers.safetensors",
    "keras_h5": "regraft.weights.readers.keras.keras_h5",
    "keras_v3": "regraft.weights.readers.keras.keras_v3",
    "npz": "regraft.weights.readers.numpy.npz",
    "npy": "regraft.weights.readers.numpy.npy",
    "torch_pth": "regraft.weights.readers.pytorch.torch_pth",
    "pt2": "regraft.weights.readers.pytorch.torch_export",
    "torch_shards": "regraft.weights.readers.pytorch.torch_shards",
    "pdparams": "regraft.weights.readers.paddle.pdparams",
    "pkl": "regraft.weights.readers.numpy.pkl",
    "flax_msgpack": "regraft.weights.readers.flax.flax_msgpack",
    "mxnet_params": "regraft.weights.readers.mxnet.mxnet_params",
    "tf_checkpoint": "regraft.weights.readers.tensorflow.tf_checkpoint",
    "onnx": "regraft.weights.readers.onnx.onnx",
    "tflite": "regraft.weights.readers.tflite.tflite",
    "caffemodel": "regraft.weights.readers.caffe.caffemodel",
    "darknet": "regraft.weights.readers.darknet.darknet_weights",
}
FORMATS = tuple(READERS)
_MODEL_WEIGHTS = "model.safetensors"
_ITEM_SIZES = {"float64": 8, "float32": 4, "float16": 2, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}
SUFFIXES = (
    ".safetensors", ".pth", ".pt", ".pt2", ".bin", ".pkl", ".pdparams", ".msgpack", ".params", ".weights", ".tflite",
    ".h5", ".keras", ".npz", ".npy", ".onnx", ".index", ".caffemodel",
)  # fmt: skip


@dataclass(frozen=True)
class SourceTensor:
    """One tensor of a weight file.

    Attributes:
        name: Its whole name in the file, unique there.
        shape: Its shape as stored.
        dtype: Its dtype as stored, by numpy's name, or `bfloat16`.
        layer: The layer that it belongs to, as the file groups it (`block1_conv1`, `layer1.0.conv1`).
        role: What it is in that layer, where the file says so: `kernel`, `depthwise_kernel`,
            `pointwise_kernel`, `bias`, `gamma`, `beta`, `mean`, `variance`, ...; None when unknown.
        axes: The meaning of its axes, where the format fixes it (`HWIO`, `OIHW`, `IO`, `OI`, `HWCM`, `C`); else None.
        load: Reads the values; bfloat16 comes back widened to float32 (exact).
        parts: Where it is no tensor of the file but made of some (queries, keys and values joined): these.
        made: The steps that make it of them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layer: str
    load: Callable[[], NDArray[Any]] = field(repr=False, compare=False)
    role: str | None = None
    axes: str | None = None
    parts: tuple[SourceTensor, ...] = ()
    made: tuple[Step, ...] = ()

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class WeightFile:
    """Everything that a weight file says, with the values still on the disk.

    Attributes:
        path: The file (or the folder) that was read.
        format: One of `FORMATS`.
        producer: Who wrote it, as far as the file tells (`keras 2.15.0`, `torch`), or an empty string.
        tensors: Tensors by name, in the order of the file. Whether that order means anything is `ordered`.
        ordered: True when file order is the order of layers as the writer created or ran them; False when it is
            alphabetical or arbitrary (npz, Python 2 dicts, TensorFlow checkpoints).
        graph: The network as the file describes it (Keras `model_config`, ONNX nodes), as plain data, or None.
        class_names: Class names stored in the file, or None.
        preprocessing: Preprocessing stored in the file, as plain data, or None.
        notes: What a user should know about how it was read (prefixes stripped, the set that was chosen).
    """

    path: Path
    format: str
    producer: str
    tensors: Mapping[str, SourceTensor]
    ordered: bool = True
    graph: Mapping[str, Any] | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[SourceTensor]:
        return iter(self.tensors.values())

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def layers(self) -> dict[str, list[SourceTensor]]:
        """Tensors by layer, in file order."""
        grouped: dict[str, list[SourceTensor]] = {}
        for tensor in self:
            grouped.setdefault(tensor.layer, []).append(tensor)
        return grouped

    def under(self, prefix: str) -> WeightFile:
        """Return the part of the file whose names begin with a prefix (`encoder_q`); names stay as they are.

        Raises:
            WeightsError: No name begins with it.
        """
        start = prefix.rstrip("./*")
        part = {name: tensor for name, tensor in self.tensors.items() if name.startswith((f"{start}.", f"{start}/"))}
        if not part:
            raise WeightsError(
                f"{str(self.path)!r} holds no set of weights {prefix!r}, and no name in it begins with {prefix!r}.",
                _begin(self.tensors),
                "name one of these, or leave the key out",
            )
        note = (
            f"using the part {start!r}, as requested; "
            f"{quantity(len(self.tensors) - len(part), 'other tensor is', 'other tensors are')} ignored"
        )
        return replace(self, tensors=part, notes=(*self.notes, note))

    @property
    def num_parameters(self) -> int:
        return sum(tensor.num_values for tensor in self)


def _begin(names: Iterable[str], most: int = 12) -> str:
    """Return a sentence with the first parts of names that have more than one, the first few of them."""
    heads = list(dict.fromkeys(re.split(r"[./]", name)[0] for name in names if re.search(r"[./].*[./]", name)))
    shown = ", ".join([*heads[:most], *(["..."] if len(heads) > most else [])])
    return f"Its names begin with: {shown}." if heads else "Its names share no prefix."


def read_weights(path: str | Path, *, format: str | None = None, key: str | None = None) -> WeightFile:
    """Read any weight file that regraft knows.

    Args:
        path: A file, the folder of a format that is a folder (TensorFlow SavedModel, sharded sets), a model folder, or
            a run (the model that it trained).
        format: One of `FORMATS`, to skip the detection.
        key: Which set of tensors to take when the file holds several (`state_dict_ema`), or what the names of those to
            take begin with (`encoder_q`); `--from KEY`.

    Raises:
        WeightsError: No such file, no known format, a damaged or hostile file, or more than a file of its size needs.
    """
    require_type(path, (str, Path), "path", "give the path of a weights file")
    path = Path(path)
    if not path.exists() and not path.with_name(path.name + ".index").is_file():
        raise WeightsError(
            f"There is no weights file {str(path)!r}.",
            "a file in one of the formats: " + ", ".join(FORMATS),
            "check the spelling of the path; `ls` its folder",
        )
    path = _weights_of_model(path) or path
    remembered: dict[object, Any] = {}
    with guarded(path, remembered):
        reader = _reader(format) if format else _detect(path)
    with guarded(path, remembered) as budget:
        return _within(_part(reader, path, key), budget)


def _part(reader: Any, path: Path, key: str | None) -> WeightFile:
    """Return the set of tensors that a key names, or else those whose names begin with it."""
    try:
        weights: WeightFile = reader.read(path, key=key)
    except WeightsError as error:
        if key is None:
            raise
        whole: WeightFile = reader.read(path, key=None)
        try:
            weights = whole.under(key)
        except WeightsError as none:
            raise WeightsError(error.what, f"{error.expected}; {none.expected}", error.next_step) from error
    return weights


def _within(weights: WeightFile, budget: Budget) -> WeightFile:
    """Return the file, when what it declares can be loaded, matched and printed."""
    budget.text(weights.tensors)
    budget.text({tensor.layer for tensor in weights})
    for tensor in weights:
        check_shape(tensor.shape)
        budget.values(tensor.num_values * _ITEM_SIZES.get(tensor.dtype, 8))
    names = weights.class_names
    if names is not None and (len(names) > MAX_CLASSES or max(map(len, names), default=0) > MAX_NAME):
        note = f"The file's list of {quantity(len(names), 'class name')} was ignored: it is too long, or its names are."
        weights = replace(weights, class_names=None, notes=(*weights.notes, note))
    alone = shard_note(weights.path)
    return replace(weights, notes=(*weights.notes, alone)) if alone else weights


def _weights_of_model(path: Path) -> Path | None:
    """Return the weights in a model folder, or in the model folder of a run; None for any other path.

    Raises:
        WeightsError: They are a link, or something else than a regular file; or the run has no model yet.
    """
    if not path.is_dir():
        return None
    is_run, is_model = (path / "recipe.yaml").is_file(), (path / "config.json").is_file()
    folder = path / "model" if is_run else path
    if not is_run and not (is_model and (path / _MODEL_WEIGHTS).exists()):
        return None
    if not (folder / _MODEL_WEIGHTS).exists():
        raise WeightsError(
            f"The run {str(path)!r} has no model yet.",
            f"a finished run has its weights in {str(folder / _MODEL_WEIGHTS)!r}",
            f"finish it with `regraft resume {shlex.quote(str(path))}`, or give a weights file",
        )
    if folder.is_symlink() or not is_own_file(folder / _MODEL_WEIGHTS):
        raise WeightsError(
            f"{str(folder / _MODEL_WEIGHTS)!r} is refused: it is a link, or not a regular file.",
            "the weights of a model folder lie in the folder itself",
            "give the path of the weights file",
        )
    return folder / _MODEL_WEIGHTS


def _reader(name: str) -> Any:
    if name not in FORMATS:
        raise WeightsError(
            f"{name!r} is not a weight format that regraft reads{did_you_mean(name, FORMATS)}",
            "one of: " + ", ".join(FORMATS),
            "leave `format` out to have it detected from the content",
        )
    return importlib.import_module(READERS[name])


def _detect(path: Path) -> Any:
    head = b""
    if path.is_file():
        with path.open("rb") as stream:
            head = stream.read(4096)
        if not head:
            raise WeightsError(
                f"{str(path)!r} is empty (0 bytes).",
                "a weights file",
                "download or copy it again",
            )
    elif path.exists() and not path.is_dir():
        raise WeightsError(
            f"{str(path)!r} is not a regular file.",
            "a weights file, not a pipe or a device",
            "give the path of the file itself",
        )
    for name in FORMATS:
        reader = _reader(name)
        if reader.sniff(path, head):
            return reader
    raise _unknown_folder(path) if path.is_dir() else _unknown_file(path, head)


def _unknown_folder(folder: Path) -> WeightsError:
    inside = sorted(path.name for path in islice(folder.iterdir(), 10_000) if path.name.endswith(SUFFIXES))
    several = f" It holds {', '.join(map(repr, inside[:5]))}{', ...' if inside[5:] else ''}." if inside else ""
    return WeightsError(
        f"{str(folder)!r} is a folder without weights.{several}",
        "a weights file, a run, a model folder, a SavedModel, or a folder with an index of shards",
        f"Name the file: {str(folder / inside[0])!r}." if inside else "Check the path; `ls` the folder.",
    )


def _unknown_file(path: Path, head: bytes) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} has an unknown weight format: it starts with {head[:16]!r}{_looks_like(head)}.",
        "one of: " + ", ".join(FORMATS),
        "if it was downloaded, download it again; if it is a custom format, save the tensors as .safetensors",
    )


def _looks_like(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return " (a web page, not weights: the download went to a login or error page)"
    if text.startswith(b"version https://git-lfs"):
        return " (a Git LFS pointer, not weights: run `git lfs pull`)"
    return ""
