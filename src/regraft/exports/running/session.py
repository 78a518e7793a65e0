"""A sealed file, opened by what runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import SettingsError, StorageError
from regraft.exports.running.engine import Engine
from regraft.exports.running.guard import require_unchanged
from regraft.exports.running.onnx_engine import EXTRA, OnnxEngine
from regraft.exports.running.openvino_engine import OpenVinoEngine
from regraft.exports.seal import Seal
from regraft.machine.budget import num_cpus

__all__ = ["EXTRA", "SealedSession"]

Pixels = npt.NDArray[np.uint8]


class SealedSession:
    """A sealed file, ready to run.

    Args:
        file: A path, the bytes of an .onnx file, or what has opened one.
        threads: None takes all processors.
        name: What the file is called in errors, where it is not given by its path.

    Attributes:
        seal: What the file says of itself.
        outputs: The names of what it gives.
        resizes: Whether it takes images of any size.

    Raises:
        SettingsError: What runs it is not installed, or there is no such file.
        StorageError: It is damaged, was changed, or regraft did not write it.
    """

    def __init__(self, file: str | Path | bytes | Engine, *, threads: int | None = None, name: str = "the export"):
        self._name = str(file) if isinstance(file, str | Path) else name
        self._engine = _opened(file, threads or num_cpus(), self._name)
        self.seal = Seal.from_metadata(self._engine.metadata, self._name)
        self.outputs: list[str] = list(self._engine.widths)
        self.resizes = self._engine.resizes
        self._require_fitting(self._name)
        require_unchanged(self._engine.metadata, self._engine.network, self._name)

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
        given = self._engine.run(feeds)
        if not all(np.isfinite(values).all() for values in given if values.dtype.kind == "f"):
            raise StorageError(
                f"{self._name!r} gives numbers that are not finite.",
                "the weights that were exported",
                "export it again, or restore it from a copy",
            )
        return dict(zip(self.outputs, given, strict=True))

    def _require_fitting(self, name: str) -> None:
        """Raise where the metadata belong to another network: class names that its probabilities do not have."""
        widths = self._engine.widths
        wanted = "mask" if self.seal.output == "segmentation" else "probabilities"
        num = widths.get("probabilities")
        if wanted not in widths or (wanted == "probabilities" and num != len(self.seal.class_names)):
            gives = f"{num} probabilities" if isinstance(num, int) else "no such output"
            raise StorageError(
                f"{name!r} names {len(self.seal.class_names)} classes, and its network has {gives}.",
                "the class names of this network",
                "export it again, or restore it from a copy",
            )


def _opened(file: str | Path | bytes | Engine, threads: int, name: str) -> Engine:
    if isinstance(file, bytes):
        return OnnxEngine(file, threads, name)
    if not isinstance(file, str | Path):
        return file
    path = Path(file)
    if not path.is_file():
        raise SettingsError(
            f"There is no file {name!r}.", "a file that `regraft export` wrote", "`regraft export RUN -o NAME.onnx`"
        )
    return OpenVinoEngine(path, threads, name) if path.suffix.lower() == ".xml" else OnnxEngine(path, threads, name)
