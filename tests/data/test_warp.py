"""Geometry against torchvision, scipy and Keras's composition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from regraft.data.augment.warp import affine_matrices, warp

BORDER = 6  # pixels at the edge where torchvision fades into its fill colour


def photo(height: int = 64, width: int = 64, *, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """A smooth picture with every colour in it, uint8 (C, H, W), as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (channels, 7, 7)).astype(np.float64)
    zoomed = ndimage.zoom(coarse, (1, height / 7, width / 7), order=3, mode="nearest")
    return torch.from_numpy(np.clip(zoomed, 0, 255).astype(np.uint8))


def inner_difference(ours: torch.Tensor, theirs: torch.Tensor, seen: torch.Tensor) -> float:
    """The largest difference in grey levels among the pixels that look at the inside of the picture."""
    return float((ours - theirs.float()).abs()[..., seen].max())


def looks_inside(matrix: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Which output pixels see input pixels away from the border."""
    ys, xs = np.mgrid[:height, :width]
    x, y = np.einsum("ij,jhw->ihw", matrix, np.stack([xs, ys, np.ones_like(xs)]))
    inside = (x > BORDER) & (x < width - 1 - BORDER) & (y > BORDER) & (y < height - 1 - BORDER)
    assert inside.mean() > 0.1
    return torch.from_numpy(inside)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"rotation": 23.0}, {"angle": -23.0}),
        ({"rotation": -140.0}, {"angle": 140.0}),
        ({"shift_x": 7.0, "shift_y": -3.0}, {"translate": [-7, 3]}),
        ({"zoom_x": 1.25, "zoom_y": 1.25}, {"scale": 0.8}),
        ({"zoom_x": 0.8, "zoom_y": 0.8}, {"scale": 1.25}),
        # Keras's shear also presses the rows together by the cosine; divided out, it is torchvision's.
        ({"shear": 15.0, "zoom_y": 1 / math.cos(math.radians(15))}, {"shear": [-15.0, 0.0]}),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (48, 81)])
def test_single_geometry_equals_torchvision(ours: dict, theirs: dict, size: tuple[int, int]) -> None:
    image = photo(*size)
    matrices = affine_matrices(size, **ours)
    arguments = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | theirs
    expected = tv.affine(image, interpolation=InterpolationMode.BILINEAR, fill=[0.0], **arguments)
    result = warp(image[None], matrices, fill="constant")[0]
    assert inner_difference(result, expected, looks_inside(matrices[0], *size)) <= 1


def keras_affine(
    image: np.ndarray, theta: float, tx: float, ty: float, shear: float, zx: float, zy: float, mode: str
) -> np.ndarray:
    """Keras's apply_affine_transform from its description: 3x3 products about the centre, then rows before columns."""
    turn, tilt = np.deg2rad(theta), np.deg2rad(shear)
    product = (
        np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
        @ np.array([[1, -np.sin(tilt), 0], [0, np.cos(tilt), 0], [0, 0, 1]])
        @ np.diag([zx, zy, 1])
    )
    height, width = image.shape[1:]
    x, y = width / 2 - 0.5, height / 2 - 0.5
    centred = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ product @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    rows_first = swap @ centred @ swap
    return np.stack(
        [ndimage.affine_transform(plane, rows_first[:2, :2], rows_first[:2, 2], order=1, mode=mode) for plane in image]
    )


@given(
    theta=st.floats(-180, 180),
    tx=st.floats(-20, 20),
    ty=st.floats(-20, 20),
    shear=st.floats(-40, 40),
    zx=st.floats(0.5, 1.5),
    zy=st.floats(0.5, 1.5),
    mode=st.sampled_from(["nearest", "reflect"]),
    size=st.sampled_from([(32, 32), (40, 40), (24, 37)]),
)
@settings(max_examples=60, deadline=None)
def test_composed_geometry_equals_keras(theta, tx, ty, shear, zx, zy, mode, size) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3, *size)).astype(np.float32)
    expected = keras_affine(noise, theta, tx, ty, shear, zx, zy, mode)
    matrices = affine_matrices(size, rotation=theta, shift_x=tx, shift_y=ty, shear=shear, zoom_x=zx, zoom_y=zy)
    result = warp(torch.from_numpy(noise)[None], matrices, fill=mode)[0].numpy()
    assert np.abs(result - expected).max() <= 1


@pytest.mark.oracle
def test_geometry_equals_keras_itself() -> None:
    keras_image = pytest.importorskip("keras.src.legacy.preprocessing.image", reason="keras is not installed here")
    image = photo(50, 50).numpy().astype(np.float32)
    options = {"theta": 33.0, "tx": 4.0, "ty": -6.5, "shear": 12.0, "zx": 0.85, "zy": 1.2}
    expected = keras_image.apply_affine_transform(
        image, **options, row_axis=1, col_axis=2, channel_axis=0, fill_mode="reflect", order=1
    )
    matrices = affine_matrices((50, 50), rotation=33.0, shift_x=4.0, shift_y=-6.5, shear=12.0, zoom_x=0.85, zoom_y=1.2)
    assert np.abs(warp(torch.from_numpy(image)[None], matrices, fill="reflect")[0].numpy() - expected).max() <= 1


def test_constant_fill_takes_the_colour_beyond_the_border() -> None:
    image = photo()[None]
    away = affine_matrices((64, 64), shift_x=1000.0)
    result = warp(image, away, fill="constant", constant=(10.0, 20.0, 30.0))
    assert torch.equal(result, torch.tensor([10.0, 20.0, 30.0]).reshape(1, 3, 1, 1).expand(1, 3, 64, 64))
