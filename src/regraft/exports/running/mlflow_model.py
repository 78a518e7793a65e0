"""What MLflow loads of a folder that `regraft export --to mlflow` wrote. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regraft.data.decode.memory import MemoryImage
from regraft.errors import SettingsError
from regraft.evaluation.mask_files import mask_png
from regraft.exports.running.predictor import SealedMaskPredictor, SealedPredictor
from regraft.exports.running.session import SealedSession

__all__ = ["COLUMN", "FILE", "MlflowModel"]

COLUMN = "image"
FILE = "model.onnx"
_ASKED = ("threshold", "sets", "reject")


class MlflowModel:
    """A sealed file that answers as MLflow asks: the bytes of images in, a table with a row for each out.

    Args:
        file: Its path.
    """

    def __init__(self, file: Path) -> None:
        self._session = SealedSession(file)

    def predict(self, images: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return `rows` as a table of pandas.

        Args:
            images: As for `rows`.
            params: As for `rows`.
        """
        import pandas

        return pandas.DataFrame(self.rows(images, params))

    def rows(self, images: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return what is said of each image, in their order, as `regraft predict --json` does.

        Args:
            images: The bytes of image files: a list of them, or a table with a column `image`. Paths are not opened:
                who asks a server must not choose which of its files it reads.
            params: `threshold`, `sets` and `reject`, as for `rg.predict`; of a network for segmentation none.

        Raises:
            SettingsError: Something else was given.
        """
        contents = list(_contents(images))
        if self._session.seal.output == "segmentation":
            masks = SealedMaskPredictor(self._session)
            return [
                {**_row(one.to_dict()), "mask_png": None if one.mask is None else mask_png(one.mask, masks.palette)}
                for one in masks.predict(contents)
            ]
        asked: dict[str, Any] = {name: (params or {}).get(name) for name in _ASKED}
        predictor = SealedPredictor(self._session, **{**asked, "reject": bool(asked["reject"])})
        return [_row(one.to_dict()) for one in predictor.predict(contents)]


def _load_pyfunc(path: str) -> MlflowModel:
    """Load the file that lies beside MLmodel: MLflow asks for a function of this name."""
    return MlflowModel(Path(path))


def _row(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "path"}


def _contents(images: Any) -> Iterator[MemoryImage]:
    for number, data in enumerate(images[COLUMN] if hasattr(images, "columns") else images):
        if not isinstance(data, bytes | bytearray | memoryview):
            raise SettingsError(
                f"Image {number} is {type(data).__name__}, and not the bytes of a file.",
                f"a table whose column {COLUMN!r} holds bytes",
                "`pandas.DataFrame({'image': [open(path, 'rb').read() for path in paths]})`",
            )
        yield MemoryImage(str(number), bytes(data))
