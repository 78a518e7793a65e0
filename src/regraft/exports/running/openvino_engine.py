"""A sealed OpenVINO model (NAME.xml with NAME.bin), run by OpenVINO."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import SettingsError, StorageError

__all__ = ["METADATA", "OPENVINO_EXTRA", "OpenVinoEngine", "openvino_sha256"]

OPENVINO_EXTRA = "pip install 'regraft[openvino]'"
METADATA = ["regraft", "metadata"]  # where they are among what the model notes of itself
_END = b"</edges>"  # of what computes, in NAME.xml


class OpenVinoEngine:
    """An OpenVINO model, opened.

    Args:
        file: The path of NAME.xml, or a model of OpenVINO's.
        threads: How many compute.
        name: What it is called in errors.

    Raises:
        SettingsError: OpenVINO is not installed.
        StorageError: It is damaged.
    """

    def __init__(self, file: Path | Any, threads: int, name: str) -> None:
        if importlib.util.find_spec("openvino") is None:
            raise SettingsError("Running an .xml file takes openvino, which is not installed.", "", OPENVINO_EXTRA)
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(str(file)) if isinstance(file, Path) else file
            options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
            self._compiled = core.compile_model(model, "CPU", options)
            texts = json.loads(model.get_rt_info(METADATA).astype(str)) if model.has_rt_info(METADATA) else {}
            self.metadata: Mapping[str, str] = {str(key): str(text) for key, text in texts.items()}
            self.network = openvino_sha256(file) if isinstance(file, Path) else ""
        except Exception as error:  # OpenVINO raises whatever its plugins raise
            reason = " ".join(str(error).split())[:200]
            raise StorageError(
                f"{name!r} cannot be read by OpenVINO ({type(error).__name__}: {reason}).",
                "a whole .xml file with its .bin file beside it",
                "export it again, or restore both from a copy",
            ) from error
        self._most = 0
        self.resizes = True
        self._inputs = {given.get_any_name() for given in model.inputs}
        self.widths: Mapping[str, int | None] = {output.get_any_name(): _last(output) for output in model.outputs}

    def run(self, feeds: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """Return what the model gives."""
        fed = {"resize": np.asarray(True), "size": np.zeros(2, np.int64), **feeds}
        inputs = {name: value for name, value in fed.items() if name in self._inputs}
        num = len(feeds["images"])
        if num > self._most:  # 2026.4: where the memory of a choice grows, the first result is not what was computed
            self._compiled(inputs)
            self._most = num
        given = self._compiled(inputs)
        return [np.array(given[output]) for output in self._compiled.outputs]


def openvino_sha256(xml: Path) -> str:
    """Return the hash of what a model computes: its graph, without what it notes of itself, and its weights."""
    digest = hashlib.sha256(xml.read_bytes().rpartition(_END)[0])
    with xml.with_suffix(".bin").open("rb") as stream:
        digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _last(output: Any) -> int | None:
    shape = output.get_partial_shape()
    last = shape[len(shape) - 1]
    return int(last.get_length()) if last.is_static else None
