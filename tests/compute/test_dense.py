"""Convolutions as matrix products in bf16: the same output and gradients, and taken where they are faster only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from regraft.compute.kernels import dense
from regraft.compute.kernels.fast_layers import fast_layers
from regraft.compute.numerics import choose_numerics
from regraft.training.engine import Engine

pytestmark = pytest.mark.usefixtures("one_thread")


def gradients(images: Tensor, weight: Tensor, bias: Tensor | None, gradient: Tensor, **where: int) -> list[Tensor]:
    leaves = [leaf.clone().requires_grad_() for leaf in (images, weight, bias) if leaf is not None]
    output = functional.conv2d(leaves[0], leaves[1], leaves[2] if bias is not None else None, **where)
    (output.double() * gradient.double()).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 2]),
    padding=st.integers(0, 1),
    size=st.tuples(st.integers(3, 5), st.integers(3, 5)),
    biased=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_double_precision(
    kernel: int, stride: int, padding: int, size: tuple[int, int], biased: bool
) -> None:
    """bf16 keeps 8 bits, so a sum of such products is right to about 1 % of the largest value."""
    assume(stride == 1 or (size[1] + 2 * padding - kernel) // stride > 0)  # tests/compute/test_narrow.py
    torch.manual_seed(kernel * 100 + stride * 10 + padding)
    padding = min(padding, kernel - 1)
    channels = (64, 96) if kernel == 1 else (256, 272)
    images = torch.randn(2, channels[0], *size).bfloat16().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels[1], channels[0], kernel, kernel).bfloat16()
    bias = torch.randn(channels[1]).bfloat16() if biased else None
    where = {"stride": stride, "padding": padding}
    gradient = torch.randn_like(functional.conv2d(images, weight, **where))
    exact = gradients(images.double(), weight.double(), None if bias is None else bias.double(), gradient, **where)
    assert dense.is_faster_as_product(images, weight, (stride, stride), (padding, padding), 1)
    with fast_layers():
        fast = gradients(images, weight, bias, gradient, **where)
    for ours, right in zip(fast, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert ours.shape == right.shape
        assert float((ours.double() - right).abs().max()) <= 0.012 * float(right.abs().max()) + 1e-6
    assert fast[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("channels", "kernel", "size", "taken"),
    [(64, 1, 20, True), (32, 1, 20, False), (256, 3, 6, True), (256, 3, 7, False), (128, 3, 5, False)],
)
def test_it_is_taken_where_it_is_faster(channels: int, kernel: int, size: int, taken: bool) -> None:
    images = torch.randn(1, channels, size, size).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64 if kernel == 1 else 256, channels, kernel, kernel)
    padding = (kernel // 2, kernel // 2)
    assert dense.is_faster_as_product(images, weight, (1, 1), padding, 1) == taken
    assert not dense.is_faster_as_product(torch.randn(1, channels, size, size), weight, (1, 1), padding, 1)
    assert not dense.is_faster_as_product(images, weight, (1, 1), padding, 2)


@pytest.mark.parametrize(("precision", "taken"), [("bf16", True), ("fp32", False)])
def test_a_step_takes_it_in_bf16_only(precision: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = dense._Pointwise.apply
    monkeypatch.setattr(dense._Pointwise, "apply", lambda *args: calls.append(1) or original(*args))
    engine = Engine(choose_numerics("cpu", precision, 1))
    conv = engine.place(nn.Conv2d(64, 64, 1))
    with engine.autocast():
        conv(torch.randn(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert bool(calls) == taken
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32
