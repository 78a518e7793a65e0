"""A sealed .onnx file, run by onnxruntime."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from regraft.errors import SettingsError, StorageError
from regraft.exports.running.engine import was_interrupted
from regraft.exports.running.guard import network_sha256

__all__ = ["EXTRA", "OnnxEngine"]

EXTRA = "pip install 'regraft[onnx]'"
_QUIET = 3  # errors alone


class OnnxEngine:
    """An .onnx file, opened.

    Args:
        file: Its path, or its bytes.
        threads: How many compute.
        name: What it is called in errors.

    Raises:
        SettingsError: onnxruntime is not installed.
        StorageError: It is damaged.
    """

    def __init__(self, file: Path | bytes, threads: int, name: str) -> None:
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _QUIET
        try:
            self._session = runtime.InferenceSession(
                file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own, which it does not name
            reason = " ".join(str(error).split())[:200]
            raise StorageError(
                f"{name!r} cannot be read by onnxruntime ({type(error).__name__}: {reason}).",
                "a whole .onnx file",
                "export it again, or restore it from a copy",
            ) from error
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        lasts = {output.name: output.shape[-1] for output in self._session.get_outputs()}
        self.widths: Mapping[str, int | None] = {
            name: last if isinstance(last, int) else None for name, last in lasts.items()
        }
        self.network = network_sha256(file)
        self.resizes = True

    def run(self, feeds: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """Return what the file gives."""
        given: list[npt.NDArray[Any]] = self._session.run(None, dict(feeds))
        return given


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        if importlib.util.find_spec("onnxruntime") is None:
            raise SettingsError("Running an .onnx file takes onnxruntime, which is not installed.", "", EXTRA) from None
        if was_interrupted(error):
            raise KeyboardInterrupt from None
        raise SettingsError(
            f"onnxruntime is installed, and cannot be imported: {' '.join(str(error).split())[:300]}.",
            "",
            f"{EXTRA} --force-reinstall",
        ) from error
    return onnxruntime
