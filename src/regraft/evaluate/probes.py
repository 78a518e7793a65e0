"""Golden probes: a few inputs with the logits that the model gave when it was written, replayed by every export."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.models.inputs import Normaliser

__all__ = ["NUM_PROBES", "make_probes"]

NUM_PROBES = 8


def make_probes(model: nn.Module, images_NHWC: npt.NDArray[np.uint8], normaliser: Normaliser) -> dict[str, Tensor]:
    """The probes of a model: `images` (N, 3, H, W), normalised, and `logits` (N, classes), both fp32 on the CPU.

    Args:
        model: On the CPU; it is run in evaluation mode and fp32, whatever it was trained with.
        images_NHWC: Pixels of real images; the first `NUM_PROBES` are taken.
        normaliser: The model's own.
    """
    was_training = model.training
    # Laid out as they are stored: on another layout the same network gives other last bits.
    images = normaliser(normaliser.pixels(images_NHWC[:NUM_PROBES])).cpu().contiguous()
    try:
        with torch.no_grad():
            logits = model.eval()(images)
    finally:
        model.train(was_training)
    return {"images": images, "logits": logits.float().contiguous()}
