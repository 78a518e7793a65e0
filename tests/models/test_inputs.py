"""Pixels become a network's input: the order of channels, grey, mean and std."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.preprocess import Channels, Preprocessing
from regraft.models.describe.inputs import Normaliser

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)


def test_colour_is_normalised_in_the_order_of_the_network() -> None:
    normaliser = Normaliser(Preprocessing(PixelProgram((5, 7)), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "BGR"))
    images = normaliser(normaliser.pixels(PIXELS))
    expected = (PIXELS[..., ::-1] / 255 - (0.1, 0.2, 0.3)) / (0.4, 0.5, 0.6)
    assert torch.allclose(images, torch.tensor(expected).permute(0, 3, 1, 2).float(), atol=1e-5)


def test_grey_is_what_pillow_calls_grey() -> None:
    normaliser = Normaliser(Preprocessing(PixelProgram((5, 7)), (0.0,), (1 / 255,), "L"))
    images = normaliser(normaliser.pixels(PIXELS))
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in PIXELS])
    assert images.shape == (2, 1, 5, 7)
    assert (images[:, 0] - torch.from_numpy(grey)).abs().max() <= 0.51  # Pillow rounds


@pytest.mark.parametrize(
    ("channels", "shown"),
    [
        ("RGB", [0, 1, 2]),
        ("BGR", [2, 1, 0]),
        (("NIR", "B", "G", "R"), [3, 2, 1]),
        (("a", "b", "c", "d"), [0, 1, 2]),
        (("a", "b"), [0, 0, 0]),
    ],
)
def test_what_a_person_is_shown_of_an_input(channels: Channels, shown: list[int]) -> None:
    numbers = (0.5,) * len(channels), (0.2,) * len(channels)
    normaliser = Normaliser(Preprocessing(PixelProgram((5, 7)), *numbers, channels))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, len(channels)), dtype=np.uint8)
    images = normaliser(normaliser.pixels(pixels))
    assert images.shape == (2, len(channels), 5, 7)
    expected = pixels if isinstance(channels, str) else pixels[..., shown]
    np.testing.assert_array_equal(normaliser.undone(images), expected)
