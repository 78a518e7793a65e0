"""The audit finds each way in which a freeze can break, and finds nothing where none is broken."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regraft.errors import RegraftError
from regraft.plan.freezing.audit import Snapshot, digest
from regraft.plan.freezing.freeze import Freeze, freeze, unfreeze


def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3)


def optimizer_of(model: nn.Module, plan: Freeze) -> torch.optim.Optimizer:
    parameters = dict(model.named_parameters())
    return torch.optim.SGD([parameters[name] for name in plan.trainable], lr=0.1, momentum=0.9, weight_decay=0.01)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 2) -> None:
    for _ in range(count):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(4, 3, 64, 64)).square().mean().backward()
        optimizer.step()


def test_a_stage_that_kept_its_promises() -> None:
    model = network()
    plan = freeze(model, "layer4,head", bn={"layer4": "train"})
    snapshot = Snapshot.take(model, plan)
    start = model.fc.weight.detach().clone()
    optimizer = optimizer_of(model, plan)
    steps(model, optimizer)
    audit = snapshot.audit(model, optimizer, {"fc.weight": 0.5}, stage="top")
    audit.raise_if_violated()
    entry = audit.to_dict()
    assert set(entry) == {
        "stage",
        "verdict",
        "num_frozen",
        "num_trainable",
        "frozen",
        "trainable",
        "buffers_moved",
        "violations",
        "optimizer_equals_trainable",
    }
    assert (entry["stage"], entry["verdict"], entry["optimizer_equals_trainable"]) == ("top", "ok", True)
    assert entry["num_frozen"] == len(entry["frozen"]) == len(plan.frozen) + len(plan.still)
    assert entry["num_trainable"] == len(plan.trainable)
    head = next(tensor for tensor in entry["trainable"] if tensor["name"] == "fc.weight")
    assert head["shape"] == [3, 96]
    assert head["grad_norm"] == 0.5
    assert math.isclose(head["moved"], float((model.fc.weight - start).detach().norm()), rel_tol=1e-5)
    assert all(name.startswith("layer4.") for name in entry["buffers_moved"])
    assert "layer4.0.bn1.running_mean" in entry["buffers_moved"]
    assert json.loads(json.dumps(entry)) == entry


def poke_parameter(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        model.conv1[0].weight[0, 0, 0, 0].add_(1e-6)


def poke_buffer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.bn1.running_mean[0] += 1e-6


def count_batches(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.bn1.num_batches_tracked += 1


def flip_a_zero(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """-0.0 equals 0.0 by value, not by its bytes."""
    model.bn1.running_mean[0] *= -1.0


def lose_the_freeze(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    unfreeze(model)


def freeze_the_head(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.fc.weight.requires_grad_(False)


def wake_a_norm(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.bn1.training = True


def swap_a_module(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    norm = nn.BatchNorm2d(model.bn1.num_features)
    norm.load_state_dict(model.bn1.state_dict())
    norm.requires_grad_(False)
    model.bn1 = norm.eval()


def swap_the_head(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    twin = nn.Linear(96, 3)
    twin.load_state_dict(model.fc.state_dict())
    model.fc = twin


def add_a_frozen_one(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.add_param_group({"params": [model.bn1.weight]})


def add_a_stranger(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})


def forget_one(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    del optimizer.param_groups[0]["params"][-1]


def add_one_twice(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["params"].append(model.fc.weight)


def add_a_buffer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.register_buffer("more", torch.zeros(1))


def drop_a_layer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.bn1 = nn.Identity()


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (poke_parameter, "conv1.0.weight is a frozen parameter, but its bytes have changed."),
        (poke_buffer, "bn1.running_mean is a frozen buffer, but its bytes have changed."),
        (count_batches, "bn1.num_batches_tracked is a frozen buffer"),
        (flip_a_zero, "bn1.running_mean is a frozen buffer"),
        (lose_the_freeze, "conv1.0.weight is frozen, but it gets gradients again."),
        (freeze_the_head, "fc.weight should train, but it no longer gets gradients."),
        (wake_a_norm, "bn1 is frozen, but it follows `.train()` again"),
        (swap_a_module, "bn1 is frozen, but it follows `.train()` again"),
        (swap_the_head, "fc.weight should train, but it is not in the optimizer."),
        (add_a_frozen_one, "bn1.weight is frozen, but it is in the optimizer."),
        (add_a_stranger, "The optimizer has a tensor of shape (2,) that is not in the model."),
        (forget_one, "fc.bias should train, but it is not in the optimizer."),
        (add_one_twice, "fc.weight is in the optimizer twice."),
        (add_a_buffer, "more was not in the model when the stage began."),
        (drop_a_layer, "bn1.weight was in the model when the stage began and is no longer."),
    ],
)
def test_each_broken_promise_is_told(
    break_it: Callable[[nn.Module, torch.optim.Optimizer], None], sentence: str
) -> None:
    model = network()
    plan = freeze(model, "head")
    snapshot = Snapshot.take(model, plan)
    optimizer = optimizer_of(model, plan)
    assert snapshot.audit(model, optimizer).verdict == "ok"
    break_it(model, optimizer)
    audit = snapshot.audit(model, optimizer, stage="head")
    assert audit.verdict == "violated"
    assert any(line.startswith(sentence) for line in audit.violations), audit.violations
    with pytest.raises(RegraftError, match="stage 'head'") as caught:
        audit.raise_if_violated()
    assert caught.value.details == audit.violations


def test_freezing_by_requires_grad_alone_is_caught() -> None:
    """fastai's and Lightning's way: the statistics of the frozen body move with each batch (M8, M10)."""
    model = network()
    plan = freeze(model, "head")
    snapshot = Snapshot.take(model, plan)
    optimizer = optimizer_of(model, plan)
    unfreeze(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in plan.trainable)
    steps(model, optimizer)
    audit = snapshot.audit(model, optimizer)
    assert "bn1.running_var is a frozen buffer, but its bytes have changed." in audit.violations
    assert not any("parameter" in line for line in audit.violations)


def test_an_optimizer_that_drops_parameters_equal_by_value_is_caught() -> None:
    """Lightning's `unfreeze_and_add_param_group` (M7)."""
    model = network()
    plan = freeze(model, "layer4,head")
    snapshot = Snapshot.take(model, plan)
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if name in plan.trainable and not any(torch.equal(parameter, other) for other in kept):
            kept.append(parameter)
    audit = snapshot.audit(model, torch.optim.SGD(kept, lr=0.1))
    assert "layer4.0.bn2.weight should train, but it is not in the optimizer." in audit.violations
    assert not audit.optimizer_equals_trainable


def test_a_freeze_lost_on_resume_is_caught() -> None:
    """Lightning #21901: the resumed model has the weights, but not the freeze, of the one that was saved."""
    model = network()
    plan = freeze(model, "head")
    snapshot = Snapshot.take(model, plan)
    resumed = network()
    resumed.load_state_dict(model.state_dict())
    lost = snapshot.audit(resumed, torch.optim.SGD(resumed.parameters(), lr=0.1))
    assert "conv1.0.weight is frozen, but it is in the optimizer." in lost.violations
    plan = freeze(resumed, "head")
    assert snapshot.audit(resumed, optimizer_of(resumed, plan)).verdict == "ok"


def test_a_snapshot_is_independent_of_the_model() -> None:
    model = network()
    snapshot = Snapshot.take(model, freeze(model, "head"))
    start = snapshot.starts["fc.weight"].clone()
    with torch.no_grad():
        model.fc.weight.zero_()
    assert torch.equal(snapshot.starts["fc.weight"], start)
    assert set(snapshot.starts) == {"fc.weight", "fc.bias"}  # frozen tensors are not copied


def test_wrapped_models_are_audited_by_their_own_names() -> None:
    model = network()
    compiled = torch.compile(model, backend="eager")
    plan = freeze(compiled, "head")
    snapshot = Snapshot.take(compiled, plan)
    assert snapshot.audit(compiled, optimizer_of(model, plan)).verdict == "ok"


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 2**31),
)
def test_a_digest_is_a_function_of_type_shape_and_bytes(dtype: torch.dtype, shape: list[int], seed: int) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    assert digest(tensor) == digest(tensor.clone())
    assert digest(tensor) != digest(tensor.reshape(*tensor.shape, 1))
    if tensor.numel():
        other = tensor.clone()
        other.view(-1)[-1] = not other.view(-1)[-1] if dtype is torch.bool else other.view(-1)[-1] * 2 + 1
        assert digest(tensor) != digest(other) or torch.equal(tensor, other)


def test_a_digest_does_not_depend_on_memory_layout() -> None:
    images = torch.randn(2, 3, 4, 5)
    assert digest(images) == digest(images.to(memory_format=torch.channels_last))
