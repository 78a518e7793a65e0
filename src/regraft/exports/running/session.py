"""A sealed file, opened by onnxruntime."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import SettingsError, StorageError
from regraft.exports.running.guard import network_sha256, require_unchanged
from regraft.exports.seal import Seal
from regraft.machine.budget import num_cpus

__all__ = ["EXTRA", "SealedSession"]

Pixels = npt.NDArray[np.uint8]
EXTRA = "pip install 'regraft[onnx]'"
_QUIET = 3  # errors alone


class SealedSession:
    """A sealed file, ready to run.

    Args:
        file: A path, or the bytes of a file.
        threads: None takes all processors.
        name: What the file is called in errors, where it is given as bytes.

    Attributes:
        seal: What the file says of itself.
        outputs: The names of what it gives.

    Raises:
        SettingsError: onnxruntime is not installed, or there is no such file.
        StorageError: It is damaged, or regraft did not write it.
    """

    def __init__(self, file: str | Path | bytes, *, threads: int | None = None, name: str = "the export") -> None:
        runtime = _runtime()
        name = name if isinstance(file, bytes) else str(file)
        if not isinstance(file, bytes) and not Path(file).is_file():
            raise SettingsError(
                f"There is no file {name!r}.", "a file that `regraft export` wrote", "`regraft export RUN -o NAME.onnx`"
            )
        self._name = name
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or num_cpus()
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
        texts = self._session.get_modelmeta().custom_metadata_map
        self.seal = Seal.from_metadata(texts, name)
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]
        self._require_fitting(name)
        require_unchanged(texts, network_sha256(file if isinstance(file, bytes) else Path(file)), name)

    def run(
        self, images_NHWC: Pixels, *, resize: bool = True, size: tuple[int, int] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Return what the file gives, by name.

        Args:
            images_NHWC: uint8, all of one size.
            resize: Whether they are to go through the pixel program; False where they have.
            size: Of a network for segmentation, height and width of the masks; None takes the images' own.

        Raises:
            StorageError: It gives numbers that are not finite, as damaged weights do.
        """
        feeds: dict[str, Any] = {"images": images_NHWC}
        if not resize:
            feeds["resize"] = np.asarray(False)
        if size is not None:
            feeds["size"] = np.asarray(size, np.int64)
        given: Sequence[Any] = self._session.run(None, feeds)
        if not all(np.isfinite(values).all() for values in given if values.dtype.kind == "f"):
            raise StorageError(
                f"{self._name!r} gives numbers that are not finite.",
                "the weights that were exported",
                "export it again, or restore it from a copy",
            )
        return dict(zip(self.outputs, given, strict=True))

    def _require_fitting(self, name: str) -> None:
        """Raise where the metadata belong to another network: class names that its probabilities do not have."""
        widths = {output.name: output.shape[-1] for output in self._session.get_outputs()}
        wanted = "mask" if self.seal.output == "segmentation" else "probabilities"
        num = widths.get("probabilities")
        if wanted not in widths or (wanted == "probabilities" and num != len(self.seal.class_names)):
            gives = f"{num} probabilities" if isinstance(num, int) else "no such output"
            raise StorageError(
                f"{name!r} names {len(self.seal.class_names)} classes, and its network has {gives}.",
                "the class names of this network",
                "export it again, or restore it from a copy",
            )


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        if importlib.util.find_spec("onnxruntime") is None:
            raise SettingsError("Running an .onnx file takes onnxruntime, which is not installed.", "", EXTRA) from None
        if _was_interrupted(error):
            raise KeyboardInterrupt from None
        raise SettingsError(
            f"onnxruntime is installed, and cannot be imported: {' '.join(str(error).split())[:300]}.",
            "",
            f"{EXTRA} --force-reinstall",
        ) from error
    return onnxruntime


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is what began an error: modules in C say that they failed to import instead."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
