"""The state of every optimizer goes into a file and comes back to the same bits."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import regraft as rg
from regraft.settings.optimizers import OPTIMIZERS
from regraft.training.checkpoint.state import group_values, optimizer_tensors, optimizer_values, restore_optimizer
from regraft.training.objective.optim import build_optimizer


@functools.cache
def _known() -> nn.Module:
    """A network that is described once: of another one, each optimizer asks anew what its head and its input are."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)]
    return rg.adapt(nn.Sequential(*layers), classes=list("abc"), image_size=8)


def small() -> nn.Module:
    return copy.deepcopy(_known())


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        images, labels = torch.randn(6, 3, 8, 8), torch.randint(0, 3, (6,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("auto", "lbfgs")])
def test_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    stage = rg.Stage("a", train="all", optimizer=name, weight_decay=0.01, lr={"0": 1e-3, "!0": 1e-2})
    model = small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, stage)
    start = group_values(optimizer)
    steps(model, optimizer, range(3))
    kept = {key: tensor.contiguous() for key, tensor in optimizer_tensors(optimizer).items()}  # as the saver does
    save_file(kept, tmp_path / "state.safetensors")
    values = json.loads(json.dumps(optimizer_values(optimizer, start)))
    again = copy.deepcopy(model)
    resumed = build_optimizer(again, stage)
    restore_optimizer(resumed, load_file(tmp_path / "state.safetensors"), values)
    steps(model, optimizer, range(3, 6))
    steps(again, resumed, range(3, 6))
    for (key, first), second in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second), key


def test_an_optimizer_that_keeps_something_else_is_refused() -> None:
    model = small()
    optimizer = build_optimizer(model, rg.Stage("a", train="all", optimizer="sgd"))
    optimizer.state[next(model.parameters())]["list"] = [1, 2]
    with pytest.raises(TypeError, match="keeps a list"):
        optimizer_tensors(optimizer)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_steps_in_one_pass_are_those_of_torch(name: str) -> None:
    """Channels-last and depthwise kernels included: a fused step goes through the memory of four tensors at once."""
    models = [
        rg.adapt(rg.build_model("test_efficientnet", seed=0), classes=list("abc"), image_size=32) for _ in range(2)
    ]
    optimizers = []
    for model, fused in zip(models, (True, False), strict=True):
        model.to(memory_format=torch.channels_last)
        arguments = {} if fused else {"fused": False}
        stage = rg.Stage("all", train="all", optimizer=name, lr=0.01, weight_decay=0.1, optimizer_args=arguments)
        (planned,) = rg.make_plan(model, [stage]).stages
        optimizers.append(build_optimizer(model, planned))
        assert all(bool(group["fused"]) is fused for group in optimizers[-1].param_groups)
        steps(model, optimizers[-1], range(4))
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
