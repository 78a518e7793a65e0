"""A weight file as a value: names, shapes, dtypes and axes of every tensor, read lazily, without torch.

`read_weights` looks at the content (never at the suffix alone), picks the one reader that knows it and
returns a `WeightFile`. Nothing is executed and nothing but the parts that the format names is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError

__all__ = ["FORMATS", "SourceTensor", "WeightFile", "read_weights"]

# One spelling per format everywhere: reader module = `WeightFile.format` = word in errors = docs page.
# Order matters: the first reader whose `sniff` says yes reads the file.
FORMATS = (
    "safetensors",
    "keras_h5",
    "keras_v3",
    "npz",
    "npy",
    "torch_pth",
    "tf_checkpoint",
    "onnx",
    "caffemodel",
)


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
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layer: str
    load: Callable[[], NDArray[Any]] = field(repr=False, compare=False)
    role: str | None = None
    axes: str | None = None

    @property
    def num_values(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


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

    @property
    def num_parameters(self) -> int:
        return sum(tensor.num_values for tensor in self)


def read_weights(path: str | Path, *, format: str | None = None, key: str | None = None) -> WeightFile:
    """Read any weight file that regraft knows.

    Args:
        path: A file, or the folder of a format that is a folder (TensorFlow SavedModel, sharded sets).
        format: One of `FORMATS`, to skip the detection.
        key: Which set of tensors to take when the file holds several (`state_dict_ema`); `--from KEY`.

    Raises:
        WeightsError: No such file, no known format, a damaged or hostile file.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(
            f"There is no weights file {str(path)!r}.",
            "A file in one of these formats was expected: " + ", ".join(FORMATS) + ".",
            "Check the spelling of the path; `ls` its folder.",
        )
    reader = _reader(format) if format else _detect(path)
    weights: WeightFile = reader.read(path, key=key)
    return weights


def _reader(name: str) -> Any:
    if name not in FORMATS:
        raise WeightsError(
            f"{name!r} is not a weight format that regraft reads.",
            "Expected one of: " + ", ".join(FORMATS) + ".",
            "Leave `format` out to have it detected from the content.",
        )
    return importlib.import_module(f"regraft.weights.readers.{name}")


def _detect(path: Path) -> Any:
    head = b""
    if path.is_file():
        with path.open("rb") as stream:
            head = stream.read(4096)
        if not head:
            raise WeightsError(
                f"{str(path)!r} is empty (0 bytes).",
                "A weights file was expected.",
                "Download or copy it again.",
            )
    for name in FORMATS:
        reader = _reader(name)
        if reader.sniff(path, head):
            return reader
    raise WeightsError(
        f"{str(path)!r} is in no weight format that regraft knows: it starts with {head[:16]!r}{_looks_like(head)}.",
        "Expected one of: " + ", ".join(FORMATS) + ".",
        "If it was downloaded, download it again; if it is a format of its own, save the tensors as .safetensors.",
    )


def _looks_like(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return " (a web page, not weights: the download went to a login or error page)"
    if text.startswith(b"version https://git-lfs"):
        return " (a Git LFS pointer, not weights: run `git lfs pull`)"
    return ""
