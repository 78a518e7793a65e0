"""Golden probes: a few inputs with the logits that the model gave when it was written, replayed by every export."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.models.describe.inputs import Normaliser
from regraft.models.describe.outputs import output_of

__all__ = ["NUM_PROBES", "make_probes"]

NUM_PROBES = 8
_NUM_MAPS, _MAP_SIDE = 2, 96  # logits of every pixel would be many times as large as the weights


def make_probes(model: nn.Module, images_NHWC: npt.NDArray[np.uint8], normaliser: Normaliser) -> dict[str, Tensor]:
    """Return the probes of a model: `images` (N, 3, H, W), normalised, and `logits` (N, classes), both fp32 on the CPU.

    Of a network for segmentation they are cut out of the middle of two images, and the logits are (N, classes, H, W).

    Args:
        model: On the CPU; it is run in evaluation mode and fp32, whatever it was trained with.
        images_NHWC: Pixels of real images; the first `NUM_PROBES` are taken.
        normaliser: The model's own.
    """
    if output_of(model) == "segmentation":
        images_NHWC = _cut_out(images_NHWC[:_NUM_MAPS])
    was_training = model.training
    # Laid out as they are stored: on another layout the same network gives other last bits.
    images = normaliser(normaliser.pixels(images_NHWC[:NUM_PROBES])).cpu().contiguous()
    try:
        with torch.no_grad():
            logits = model.eval()(images)
    finally:
        model.train(was_training)
    return {"images": images, "logits": logits.float().contiguous()}


def _cut_out(images_NHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the middle of the images, at most `_MAP_SIDE` pixels high and wide."""
    height, width = images_NHWC.shape[1:3]
    top, left = max(0, height - _MAP_SIDE) // 2, max(0, width - _MAP_SIDE) // 2
    return images_NHWC[:, top : top + _MAP_SIDE, left : left + _MAP_SIDE]
