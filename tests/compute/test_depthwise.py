"""Depthwise convolutions in bf16: the fast backward pass gives the gradients of the slow one, and is really taken."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import regraft as rg
from regraft.compute.kernels import depthwise
from regraft.compute.kernels.fast_layers import fast_layers


def gradients(images: Tensor, weight: Tensor, bias: Tensor | None, gradient: Tensor, **where: int) -> list[Tensor]:
    leaves = [leaf.clone().requires_grad_() for leaf in (images, weight, bias) if leaf is not None]
    output = functional.conv2d(
        leaves[0], leaves[1], leaves[2] if bias is not None else None, groups=len(weight), **where
    )
    (output.double() * gradient.double()).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@settings(max_examples=120, deadline=None)
@given(
    kernel=st.sampled_from([2, 3, 4, 5, 7]),
    stride=st.sampled_from([1, 2]),
    padding=st.integers(0, 3),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    channels=st.sampled_from([16, 48]),
    biased=st.booleans(),
)
def test_gradients_are_those_of_double_precision(
    kernel: int, stride: int, padding: int, size: tuple[int, int], channels: int, biased: bool
) -> None:
    """bf16 keeps 8 bits, so a sum of such products is right to about 1 % of the largest gradient."""
    torch.manual_seed(kernel * 100 + stride * 10 + padding)
    padding = min(padding, kernel - 1)
    assume(min(size) + 2 * padding >= kernel)
    images = torch.randn(2, channels, *size).bfloat16()
    weight = torch.randn(channels, 1, kernel, kernel).bfloat16()
    bias = torch.randn(channels).bfloat16() if biased else None
    where = {"stride": stride, "padding": padding}
    gradient = torch.randn_like(functional.conv2d(images, weight, groups=channels, **where))
    exact = gradients(images.double(), weight.double(), None if bias is None else bias.double(), gradient, **where)
    with fast_layers():
        fast = gradients(images, weight, bias, gradient, **where)
    for ours, right in zip(fast, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert float((ours.double() - right).abs().max()) <= 0.012 * float(right.abs().max()) + 1e-6


@pytest.mark.parametrize(("precision", "taken"), [("bf16", True), ("fp32", False)])
def test_a_stage_takes_it_in_bf16_only(precision: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.compute.numerics import choose_numerics
    from regraft.training.engine import Engine

    calls = []
    original = depthwise._Depthwise.apply
    monkeypatch.setattr(depthwise._Depthwise, "apply", lambda *args: calls.append(1) or original(*args))
    model = rg.build_model("test_efficientnet").train()
    with Engine(choose_numerics("cpu", precision, 1)).autocast():
        model(torch.randn(2, 3, 64, 64)).sum().backward()
    depthwise_layers = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]
    assert depthwise_layers
    assert bool(calls) == taken
    assert all(layer.weight.grad is not None for layer in depthwise_layers)
    assert all(layer.weight.grad.dtype == torch.float32 for layer in depthwise_layers if layer.weight.grad is not None)


def test_what_it_is_not_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise._Depthwise, "apply", lambda *args: pytest.fail("taken"))
    images = torch.randn(2, 16, 8, 8).bfloat16().requires_grad_()
    with fast_layers():
        functional.conv2d(images, torch.randn(16, 16, 3, 3).bfloat16())  # dense
        functional.conv2d(images, torch.randn(16, 1, 3, 3).bfloat16(), groups=16, dilation=2)
        functional.conv2d(images, torch.randn(32, 1, 3, 3).bfloat16(), groups=16)  # two outputs a channel
        functional.conv2d(images.float(), torch.randn(16, 1, 3, 3), groups=16)
        with torch.no_grad():
            functional.conv2d(images, torch.randn(16, 1, 3, 3).bfloat16(), groups=16)
