"""Layout steps against the operations that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.weights.axes import (
    Fill,
    Flip,
    Subtract,
    SumChannels,
    Take,
    Transpose,
    WidenChannels,
    convert,
    kernel_steps,
    torch_shape,
)

_random = np.random.default_rng(0)


def _values(*shape: int) -> np.ndarray:
    return _random.standard_normal(shape).astype(np.float32)


def _converted(kernel: np.ndarray, axes: str, target: tuple[int, ...], **how: object) -> torch.Tensor:
    steps = kernel_steps(kernel.shape, axes, target, **how)  # type: ignore[arg-type]
    assert steps is not None
    return torch.from_numpy(convert([kernel], steps))


def test_convolution_and_dense_kernels() -> None:
    kernel = _values(3, 3, 4, 5)
    assert torch.equal(_converted(kernel, "HWIO", (5, 4, 3, 3)), torch.from_numpy(kernel).permute(3, 2, 0, 1))
    dense = _values(6, 2)
    assert torch.equal(_converted(dense, "IO", (2, 6)), torch.from_numpy(dense).T)
    assert torch.equal(_converted(dense, "IO", (2, 6, 1, 1))[:, :, 0, 0], torch.from_numpy(dense).T)


def test_depthwise_kernels_keep_the_channel_first() -> None:
    kernel = _values(3, 3, 4, 2)  # channel c, multiplier m -> output c * 2 + m
    result = _converted(kernel, "HWCM", (8, 1, 3, 3))
    for channel in range(4):
        for multiplier in range(2):
            np.testing.assert_array_equal(result[channel * 2 + multiplier, 0], kernel[:, :, channel, multiplier])


def test_the_first_dense_kernel_behind_a_flatten() -> None:
    features = torch.from_numpy(_values(2, 5, 3, 4))  # N, C, H, W
    kernel = _values(3 * 4 * 5, 7)  # rows as a flatten of NHWC gives them
    expected = features.permute(0, 2, 3, 1).flatten(1) @ torch.from_numpy(kernel)
    dense = _converted(kernel, "IO", (7, 60), flattened=(5, 3, 4), rows="HWC")
    torch.testing.assert_close(torch.nn.functional.linear(features.flatten(1), dense), expected)
    window = _converted(kernel, "IO", (7, 5, 3, 4), rows="HWC")
    torch.testing.assert_close(torch.nn.functional.conv2d(features, window).flatten(1), expected)


def test_rows_of_nchw_features_stay() -> None:
    features, kernel = torch.from_numpy(_values(2, 5, 3, 4)), _values(7, 60)
    window = _converted(kernel, "OI", (7, 5, 3, 4), rows="CHW")
    expected = features.flatten(1) @ torch.from_numpy(kernel).T
    torch.testing.assert_close(torch.nn.functional.conv2d(features, window).flatten(1), expected)


@pytest.mark.parametrize(
    ("shape", "axes", "target"),
    [
        ((3, 3, 4, 5), "HWIO", (5, 4, 5, 5)),
        ((3, 3, 4, 5), "HWIO", (4, 5, 3, 3)),
        ((6, 2), "IO", (6, 2)),
        ((6, 2), "IO", (2, 6, 2, 1)),
        ((4,), "C", (5,)),
    ],
)
def test_says_what_does_not_fit(shape: tuple[int, ...], axes: str, target: tuple[int, ...]) -> None:
    assert kernel_steps(shape, axes, target) is None


def test_steps_of_two_sources_and_of_none() -> None:
    mean, bias = _values(4), _values(4)
    np.testing.assert_array_equal(convert([mean, bias], [Subtract()]), mean - bias)
    np.testing.assert_array_equal(convert([], [Fill(1.5, (3,))]), np.full(3, 1.5, np.float32))


def test_stems_and_classes() -> None:
    kernel = _values(4, 3, 2, 2)
    np.testing.assert_array_equal(convert([kernel], [Flip(1)]), kernel[:, ::-1])
    np.testing.assert_array_equal(convert([kernel], [Take((2, 0), 0)]), kernel[[2, 0]])
    np.testing.assert_allclose(convert([kernel], [SumChannels()])[:, 0], kernel.sum(1), rtol=1e-6)
    wide = convert([kernel], [WidenChannels(5)])
    np.testing.assert_allclose(wide, kernel[:, [0, 1, 2, 0, 1]] * (3 / 5), rtol=1e-6)


@settings(deadline=None)
@given(st.permutations(range(4)), st.tuples(*[st.integers(1, 9)] * 4))
def test_tiles_do_not_show(axes: list[int], shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(convert([array], [Transpose(tuple(axes))]), array.transpose(axes))


@pytest.mark.parametrize("shape", [(7, 7, 512, 300), (3, 3, 500, 400), (1500, 1100), (1, 1, 2000, 1000)])
def test_large_transposes_go_by_tiles(shape: tuple[int, ...]) -> None:
    array = _values(*shape)
    order = tuple(reversed(range(len(shape)))) if len(shape) == 2 else (3, 2, 0, 1)
    result = convert([array], [Transpose(order)])
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, array.transpose(order))


def test_torch_shapes() -> None:
    assert torch_shape((3, 3, 4, 5), "HWIO") == (5, 4, 3, 3)
    assert torch_shape((3, 3, 4, 2), "HWCM") == (8, 1, 3, 3)
    assert torch_shape((3, 3, 5, 4), "HWOI") == (4, 5, 3, 3)
    assert torch_shape((2, 6), None) == (2, 6)
