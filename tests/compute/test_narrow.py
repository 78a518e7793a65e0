"""Tall outputs of one pixel's width in bf16, which oneDNN leaves unwritten, are right in training and in inference."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regraft.compute.kernels.fast_layers import fast_layers
from regraft.compute.kernels.narrow import is_narrow
from regraft.compute.numerics import Numerics
from regraft.compute.program import inference_program

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bf16"),
]
SHAPES = [(2, (4, 3), 2, 0), (3, (4, 2), 2, 1), (3, (5, 4), 2, 0), (1, (7, 2), 2, 0), (2, (5, 1), 4, 1)]


@pytest.mark.parametrize(("kernel", "size", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_output_and_gradients(kernel: int, size: tuple[int, int], stride: int, padding: int, training: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 272, kernel, stride, padding)
    images = torch.randn(2, 256, *size).bfloat16()
    assert is_narrow(images, conv.weight, (stride, stride), (padding, padding), 1)
    conv = conv.bfloat16()
    wanted = conv.double()(images.double())
    wanted.square().sum().backward()
    exact = conv.weight.grad
    conv.zero_grad()
    conv.bfloat16()
    with fast_layers(), torch.set_grad_enabled(training):
        output = conv(images)
    assert float((output.double() - wanted).detach().abs().max()) <= 0.012 * float(wanted.detach().abs().max())
    if training:
        output.double().square().sum().backward()
        assert exact is not None
        assert conv.weight.grad is not None
        assert float((conv.weight.grad.double() - exact).abs().max()) <= 0.03 * float(exact.abs().max())


def test_a_tall_picture_is_predicted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 256, 3, 2, 1), nn.ReLU(), nn.Conv2d(256, 272, 3, 2, 1), nn.ReLU()).eval()
    images = torch.randn(2, 3, 16, 4)
    exact = inference_program(model, Numerics("cpu", "fp32", True, 1), 2)(images)[0]
    rounded = inference_program(model, Numerics("cpu", "bf16", True, 1), 2)(images)[0].float()
    assert exact.shape[2:] == (4, 1)
    assert float((rounded - exact).abs().max()) <= 0.05 * float(exact.abs().max())
