"""Doubled maps: the same output and gradients as torch's, and taken in training on a CPU only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import regraft as rg
from regraft.compute.kernels import upsample
from regraft.compute.kernels.fast_layers import fast_layers
from regraft.compute.numerics import choose_numerics
from regraft.training.engine import Engine


def run(maps: Tensor, gradient: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    leaf = maps.clone().requires_grad_()
    corners = {"align_corners": False} if mode == "bilinear" else {}
    grown = functional.interpolate(leaf, size=gradient.shape[-2:], mode=mode, **corners)
    grown.backward(gradient)
    assert leaf.grad is not None
    return grown.detach(), leaf.grad


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["nearest", "bilinear"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_gradients_are_torchs(mode: str, size: tuple[int, int], channels_last: bool, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 5, *size, generator=random)
    gradient = torch.randn(2, 5, 2 * size[0], 2 * size[1], generator=random)
    if channels_last:
        maps, gradient = (maps.contiguous(memory_format=torch.channels_last) for maps in (maps, gradient))
    with fast_layers():
        ours = run(maps, gradient, mode)
    assert upsample.is_doubling(maps, size=gradient.shape[-2:], mode=mode)
    torch.testing.assert_close(ours, run(maps, gradient, mode), rtol=1e-6, atol=1e-6)


def test_gradients_of_bf16_are_those_of_their_sums() -> None:
    maps, gradient = torch.randn(1, 16, 6, 4).bfloat16(), torch.randn(1, 16, 12, 8).bfloat16()
    with fast_layers():
        _, ours = run(maps, gradient, "nearest")
    sums = gradient.double().unflatten(2, (6, 2)).unflatten(4, (4, 2)).sum((3, 5))
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), sums, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (12, 9), "mode": "nearest"},
        {"size": (12, 8), "mode": "bilinear", "align_corners": True},
        {"size": (12, 8), "mode": "bilinear", "antialias": True},
        {"size": (12, 8), "mode": "bicubic"},
        {"scale_factor": 2.0, "mode": "nearest"},
    ],
)
def test_what_it_is_not_for_is_left_alone(arguments: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.compute.kernels.fast_layers.doubled", lambda *_, **__: pytest.fail("taken"))
    maps = torch.randn(1, 3, 6, 4, requires_grad=True)
    expected = functional.interpolate(maps, **arguments)
    with fast_layers():
        assert torch.equal(functional.interpolate(maps, **arguments), expected)
        assert torch.equal(functional.interpolate(input=maps, **arguments), expected)


def test_other_spellings_of_the_call_work() -> None:
    maps = torch.randn(1, 3, 6, 4, requires_grad=True)
    expected = functional.interpolate(maps, (12, 8), None, "bilinear", False)
    with fast_layers():
        assert torch.equal(functional.interpolate(maps, (12, 8), None, "bilinear", False), expected)
        assert torch.equal(functional.interpolate(input=maps, size=(12, 8), mode="bilinear"), expected)
    assert not upsample.is_doubling(maps.bfloat16(), size=(12, 8), mode="bilinear")


def test_a_unet_in_training_takes_both(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for kind in (upsample._Nearest, upsample._Linear):
        monkeypatch.setattr(kind, "apply", lambda maps, kind=kind, run=kind.apply: taken.append(kind) or run(maps))
    model = rg.build_model("unet", encoder="test_efficientnet", num_classes=3).train()
    with Engine(choose_numerics("cpu", "bf16", 1)).autocast():
        model(torch.randn(1, 3, 64, 64)).sum().backward()
        assert {upsample._Nearest, upsample._Linear} == set(taken)
        before = len(taken)
        with torch.no_grad():
            model(torch.randn(1, 3, 64, 64))
    assert len(taken) == before
