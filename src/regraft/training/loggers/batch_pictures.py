"""The first training images of each stage as the network sees them, kept in the run folder for the report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from regraft import commit
from regraft.training.callbacks import Callback

if TYPE_CHECKING:
    from regraft.training.views import StageView

__all__ = ["BatchPictures"]

_SIDE = 160  # pixels, of an image in the picture
_COLUMNS, _GAP = 4, 2
_QUALITY = 85


class BatchPictures(Callback):
    """Writes `batches/<number of the stage>.jpg` once: augmented images, masks in their colours beside them."""

    def __str__(self) -> str:
        return "batches/"

    def on_step_end(self, stage: StageView, loss: float) -> None:
        """Save the first batch of a stage that takes steps."""
        if stage.progress.epoch == 0 and stage.progress.batch == 1:
            self._write(stage)

    def on_epoch_end(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Save a batch of a stage that is solved, which has no steps."""
        if stage.is_solved and stage.progress.epoch == 1:
            self._write(stage)

    def _write(self, stage: StageView) -> None:
        if stage.source.shown is None:
            return
        images, masks = stage.session.normaliser.undone(stage.source.shown), stage.source.shown_masks
        palette = stage.session.palette
        if masks is not None and palette is not None:
            images = np.stack([images, palette[masks.numpy()]], axis=1).reshape(-1, *images.shape[1:])
        folder = stage.session.run_folder.batches
        folder.mkdir(exist_ok=True)
        commit.write_bytes(folder / f"{stage.progress.stage}.jpg", _picture(images))


def _picture(images_NHWC: Any) -> bytes:
    """Return a JPEG file of the images side by side, each at most 160 pixels a side."""
    num, height, width, _ = images_NHWC.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = min(_COLUMNS, num)
    rows = -(-num // columns)
    grid = Image.new("RGB", (columns * (size[0] + _GAP) - _GAP, rows * (size[1] + _GAP) - _GAP), "white")
    for place, image in enumerate(images_NHWC):
        small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        grid.paste(small, (place % columns * (size[0] + _GAP), place // columns * (size[1] + _GAP)))
    stream = io.BytesIO()
    grid.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
