"""Optimizers without torch's wrappers step as torch's own do, to the last bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer

from regraft.compute.eager_optimizers import eager


def stepped(kind: type[Optimizer], model: nn.Module, arguments: dict[str, Any]) -> tuple[nn.Module, Optimizer]:
    model = copy.deepcopy(model)
    optimizer = kind(model.parameters(), **arguments)
    images, wanted = torch.linspace(-1, 1, 32).view(4, 8), torch.linspace(0, 1, 12).view(4, 3)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (model(images) - wanted).square().mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    for _ in range(3):
        optimizer.step(loss)  # type: ignore[no-untyped-call]
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return model, optimizer


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True}),
        (Adam, {"lr": 0.01, "fused": True}),
        (AdamW, {"lr": 0.01, "weight_decay": 0.05}),
        (LBFGS, {"max_iter": 4, "line_search_fn": "strong_wolfe"}),
    ],
)
def test_steps_are_the_same_bits(kind: type[Optimizer], arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    first, own = stepped(kind, model, arguments)
    second, other = stepped(eager(kind), model, arguments)
    assert not torch.equal(first.weight, model.weight)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))
    assert isinstance(other, kind)
    assert eager(kind) is type(other)
    assert repr(other) == repr(own)
    assert torch.is_grad_enabled()


def test_hooks_around_a_step_are_called() -> None:
    called = []
    model = nn.Linear(2, 1)
    optimizer = eager(SGD)(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()  # type: ignore[call-arg]
    assert called == ["before", "after"]
