"""What a delivered network for masks keeps of its validation images: a temperature."""

from __future__ import annotations

import numpy as np
from torch import nn

from regraft.evaluation.masks import MaskPredictor
from regraft.evaluation.trust.pixel_temperature import FEWEST_WITH_MASKS, PixelTemperature
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.training.loop.session import Session
from regraft.training.trust.kept import rows_with_masks
from regraft.wording import quantity

__all__ = ["know_pixels"]


def know_pixels(session: Session, model: nn.Module) -> None:
    """Store a temperature that is fitted on the pixels of validation images, at the size that the network sees.

    Args:
        session: A run at its end.
        model: The network that it delivers.
    """
    info, num, program = info_of(model), len(session.pixels["val"]), preprocessing_of(model).pixels
    if program.resize == "crop":
        return  # then some pixels have no class
    if num < FEWEST_WITH_MASKS:
        few = quantity(num, "validation image")
        session.sinks.line(f"probabilities of pixels are raw: {few}, and a temperature takes {FEWEST_WITH_MASKS}")
        return
    predictor, fitted = MaskPredictor(model, session.engine.numerics), PixelTemperature()
    images = session.images.sized(program.size)
    pixels = images.pixels["val"]
    for row in rows_with_masks(num):
        image = np.empty((1, *pixels.program.row_shape), np.uint8)
        pixels.fill(row[None], image)
        fitted.take(predictor.run(image)[0], images.targets_at("val", row[None])[0])
    info.calibration = fitted.fit()
    if info.calibration is not None:
        (temperature,) = info.calibration.temperatures
        told = "the network's own; none is surely better" if temperature == 1 else f"temperature {temperature:.3g}"
        looked = quantity(info.calibration.num_images, "validation image")
        session.sinks.line(f"probabilities of pixels: {told}, from {looked}")
