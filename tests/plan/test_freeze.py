"""Freezing: what is still stays still through everything that people do to a model, and unfreezing undoes it."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import EvoNorm2dB0
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, set_info
from regraft.models.describe.provenance import Provenance
from regraft.plan.freezing.eval_lock import is_eval_locked
from regraft.plan.freezing.freeze import Freeze, freeze, unfreeze


def resnet(**arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3, drop_path_rate=0.5, **arguments)


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}


IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, seed: int = 0) -> None:
    """One forward and backward pass in train mode, as any loop does it."""
    torch.manual_seed(seed)
    model.train()
    model(IMAGES).square().mean().backward()


class Net(nn.Module):
    """conv, BN, dropout, conv, BN, dropout, then a head with its own norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.join = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        self(torch.zeros(2, 3, 12, 12))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.join(self.body(self.stem(images))))


def net(new: tuple[str, ...] = ("head",)) -> Net:
    torch.manual_seed(0)
    model = Net()
    info = info_of(model)
    info.head, info.origin = ("head",), Provenance(new_layers=tuple(new))
    set_info(model, info)
    return model


def test_only_the_selected_layers_get_gradients() -> None:
    model = resnet()
    plan = freeze(model, "layer4.0.conv1,head")
    step(model)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(plan.trainable)
    assert plan.trainable == ("layer4.0.conv1.weight", "fc.weight", "fc.bias")
    assert set(plan.trainable) | set(plan.frozen) == {name for name, _ in model.named_parameters()}
    assert plan.layers == ("layer4.0.conv1", "fc")


def test_freezing_swaps_no_module_and_keeps_the_state_dict() -> None:
    model = resnet()
    modules, keys = dict(model.named_modules()), list(model.state_dict())
    freeze(model, "head")
    assert dict(model.named_modules()) == modules
    assert list(model.state_dict()) == keys
    fresh = resnet()
    assert fresh.load_state_dict(model.state_dict(), strict=True).missing_keys == []


def test_statistics_of_frozen_layers_stand_still_and_batches_do_not_matter() -> None:
    model = resnet()
    freeze(model, "head")
    before = buffers(model)
    model.train()
    one = model.forward_features(IMAGES[:1])
    many = model.forward_features(IMAGES)[:1]
    torch.testing.assert_close(one, many)
    assert changed(before, model) == set()


def test_dropout_and_drop_path_are_off_in_frozen_parts_only() -> None:
    model = net()
    freeze(model, "head")
    model.train()
    modules = dict(model.named_modules())
    off = {name for name, module in modules.items() if isinstance(module, nn.Dropout) and not module.training}
    assert off == {"stem.2", "body.2"}  # `join` and `head.3` feed layers that train
    freeze(model, "body,head")
    off = {name for name, module in modules.items() if isinstance(module, nn.Dropout) and not module.training}
    assert off == {"stem.2"}


def test_a_dropout_between_two_frozen_layers_of_a_mixed_container_is_off() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2))
    freeze(model, "4")
    model.train()
    assert [module.training for module in model] == [False, False, False, True, True]


def test_functional_dropout_of_a_frozen_block_is_off() -> None:
    model = timm.create_model("densenet121", num_classes=2, growth_rate=4, block_config=(1, 1), drop_rate=0.5)
    freeze(model, "head")
    model.train()
    torch.testing.assert_close(model.forward_features(IMAGES), model.forward_features(IMAGES))


def test_functional_dropout_before_a_head_that_trains_stays_on() -> None:
    """timm's EfficientNet drops in the model's own forward, by the model's own flag."""
    model = timm.create_model("test_efficientnet", num_classes=2, drop_rate=0.5, drop_path_rate=0.5)
    freeze(model, "head")
    model.train()
    torch.testing.assert_close(model.forward_features(IMAGES), model.forward_features(IMAGES), rtol=0, atol=0)
    assert not torch.equal(model(IMAGES), model(IMAGES))
    model.eval()
    assert torch.equal(model(IMAGES), model(IMAGES))


def test_a_frozen_network_is_the_same_function_in_train_and_eval_mode() -> None:
    model = resnet()
    freeze(model, "head")
    training = model.train().forward_features(IMAGES)
    torch.testing.assert_close(training, model.eval().forward_features(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("part", ["", "layer4", "layer4.0.bn1"])
def test_train_called_anywhere_does_not_wake_it(part: str) -> None:
    model = resnet()
    freeze(model, "head")
    model.get_submodule(part).train()
    assert not any(module.training for module in model.layer4.modules())


def test_it_survives_deepcopy_without_touching_the_original() -> None:
    model = resnet()
    freeze(model, "head")
    twin = copy.deepcopy(model)
    before, before_twin = buffers(model), buffers(twin)
    step(twin)
    assert changed(before_twin, twin) == set()
    unfreeze(twin)
    twin.train()
    assert twin.bn1.training
    model.train()
    assert not model.bn1.training
    assert changed(before, model) == set()


def test_it_survives_pickling() -> None:
    model = resnet()
    freeze(model, "head")
    twin = pickle.loads(pickle.dumps(model))
    before = buffers(twin)
    step(twin)
    assert changed(before, twin) == set()
    assert twin.fc.weight.grad is not None
    assert twin.conv1[0].weight.grad is None


def test_it_survives_torch_save() -> None:
    model = resnet()
    freeze(model, "head")
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    twin = torch.load(stream, weights_only=False)
    assert not twin.train().bn1.training


def test_it_survives_compile_and_tells_it_by_plain_names() -> None:
    model = resnet()
    compiled = torch.compile(model, backend="eager")
    plan = freeze(compiled, "head")
    assert plan.trainable == ("fc.weight", "fc.bias")
    before = buffers(model)
    step(compiled)
    step(compiled)
    assert changed(before, model) == set()


def test_it_survives_ddp_wrapping(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = resnet()
        freeze(model, "head")
        before = buffers(model)
        wrapped = nn.parallel.DistributedDataParallel(model)
        step(wrapped)
        assert changed(before, model) == set()
        assert freeze(wrapped, "layer4,head").layers[-1] == "fc"
        step(wrapped.module)
        assert changed(before, model) == set()  # affine-only: layer4's statistics do not move either
    finally:
        torch.distributed.destroy_process_group()


def test_unfreeze_gives_everything_back() -> None:
    model = resnet().train()
    freeze(model, "head")
    unfreeze(model)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("train" in module.__dict__ for module in model.modules())
    before = buffers(model)
    step(model)
    assert "bn1.running_mean" in changed(before, model)


def test_unfreeze_gives_back_the_mode_asked_for_last() -> None:
    model = resnet().train()
    freeze(model, "head")
    model.eval()
    assert not any(module.training for module in unfreeze(model).modules())


def test_freezing_again_replaces_the_earlier_plan() -> None:
    model = resnet()
    freeze(model, "head")
    second = freeze(model, "stage:-1,head")
    fresh = resnet()
    assert freeze(fresh, "stage:-1,head") == second
    model.train()
    fresh.train()
    assert [m.training for m in model.modules()] == [m.training for m in fresh.modules()]
    assert [is_eval_locked(m) for m in model.modules()] == [is_eval_locked(m) for m in fresh.modules()]


def test_a_users_own_train_override_is_called_and_given_back() -> None:
    model = net()
    calls: list[bool] = []

    def own(mode: bool = True) -> nn.Module:
        calls.append(mode)
        return nn.Module.train(model.stem, mode)

    model.stem.train = own
    freeze(model, "head")
    model.train()
    assert calls == [True]
    assert not model.stem.training
    unfreeze(model)
    assert model.stem.__dict__["train"] is own


def test_stale_gradients_of_frozen_layers_are_dropped() -> None:
    model = resnet()
    step(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    start = model.conv1[0].weight.clone()
    freeze(model, "head")
    optimizer.step()
    assert torch.equal(model.conv1[0].weight, start)


# batch-norm policies


def test_default_policy_of_each_kind_of_layer() -> None:
    plan = freeze(net(), "body,head")
    assert plan.bn == {"stem.1": "frozen", "body.1": "affine-only", "head.2": "train"}
    assert {"body.1.weight", "body.1.bias"} <= set(plan.trainable)
    assert plan.moving == ("head.2.running_mean", "head.2.running_var", "head.2.num_batches_tracked")


@pytest.mark.parametrize(
    ("policy", "statistics_move", "affine_trains"),
    [("train", True, True), ("affine-only", False, True), ("frozen", False, False)],
)
def test_each_policy(policy: str, statistics_move: bool, affine_trains: bool) -> None:
    model = net()
    plan = freeze(model, "body,head", bn={"body": policy})
    before = buffers(model)
    model.train()
    model(torch.randn(4, 3, 12, 12)).square().mean().backward()
    assert ("body.1.running_mean" in changed(before, model)) is statistics_move
    assert ("body.1.weight" in plan.trainable) is affine_trains
    assert (model.body[1].weight.grad is not None) is affine_trains
    assert "stem.1.running_mean" not in changed(before, model)


def test_one_policy_for_all_reaches_the_trained_part_alone() -> None:
    plan = freeze(net(), "body,head", bn="train")
    assert plan.bn == {"stem.1": "frozen", "body.1": "train", "head.2": "train"}


def test_a_policy_by_selector_may_unfreeze_norms_in_the_frozen_part_and_says_so() -> None:
    plan = freeze(net(), "head", bn={"backbone": "train"})
    assert {"stem.1.weight", "stem.1.running_mean"} <= {*plan.trainable, *plan.moving}
    assert "stem.0.weight" in plan.frozen


def test_norms_other_than_batch_norm_keep_statistics_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), EvoNorm2dB0(8), nn.Flatten(), nn.Linear(8 * 62 * 62, 2))
    before = buffers(model)
    plan = freeze(model, "3")
    step(model)
    assert plan.still == ("1.running_var",)
    assert changed(before, model) == set()
    freeze(model, "1,3", bn="train")
    step(model)
    assert changed(before, model) == {"1.running_var"}


# plans that contradict themselves


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(SettingsError, match="trains nothing"):
        freeze(resnet(), "none")


def test_norms_alone_under_frozen_is_refused() -> None:
    with pytest.raises(SettingsError, match="trains nothing"):
        freeze(resnet(), "type:BatchNorm2d", bn="frozen")


def test_a_random_head_may_not_be_frozen_until_it_was_trained() -> None:
    model = net()
    with pytest.raises(SettingsError, match=r"head is frozen.*random: head.1, head.4"):
        freeze(model, "body")
    with pytest.raises(SettingsError, match=r"random: head.1\."):
        freeze(model, "head.4")
    trained = freeze(model, "head").layers
    assert "head.1.weight" in freeze(model, "body", trained=trained).frozen


def test_a_refused_plan_leaves_the_model_as_it_was() -> None:
    model = net()
    freeze(model, "head")
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(SettingsError, match="head is frozen while its weights are random"):
        freeze(model, "body")
    assert [p.requires_grad for p in model.parameters()] == flags
    assert is_eval_locked(model.stem[1])


def test_a_pretrained_head_may_be_frozen() -> None:
    assert "head.1.weight" in freeze(net(new=()), "body").frozen


def test_a_parameter_shared_across_the_border_is_refused() -> None:
    model = net()
    model.extra = nn.Conv2d(4, 4, 3)
    model.extra.weight = model.body[0].weight
    with pytest.raises(SettingsError, match=r"shared by a trained and a frozen") as caught:
        freeze(model, "body,head")
    assert caught.value.details == ("body.0.weight = extra.weight",)
    assert "body.0.weight" in freeze(model, "body,extra,head").trainable


@pytest.mark.parametrize("bn", ["eval", {"body": "never"}])
def test_an_unknown_policy_is_refused(bn: str | dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"Unknown batch-norm policy"):
        freeze(net(), "all", bn=bn)


def test_a_policy_that_reaches_no_norm_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'body.0' matches no layer"):
        freeze(net(), "all", bn={"body.0": "train"})


def test_a_plan_is_plain_data() -> None:
    plan = freeze(net(), "body, head")
    written = plan.to_dict()
    assert written["selector"] == ["body", "head"]
    assert Freeze(**{k: tuple(v) if isinstance(v, list) else v for k, v in written.items()}) == plan


# defects of other tools, made again (the numbers are those of our notes on them)


def test_m6_frozen_norms_use_their_statistics_in_train_mode_too() -> None:
    """Lightning's `track_running_stats=False` normalised with the batch while training, with statistics after it."""
    model = net()
    with torch.no_grad():
        model.stem[1].running_mean.fill_(3.0)
    freeze(model, "head")
    images = torch.randn(4, 3, 12, 12)
    torch.testing.assert_close(model.train().stem(images), model.eval().stem(images), rtol=0, atol=0)
    assert model.stem[1].track_running_stats


def test_m7_parameters_that_are_equal_by_value_all_train() -> None:
    """Lightning dropped parameters whose values equal another's: fresh BN weights and biases are all alike."""
    model = net()
    assert torch.equal(model.stem[1].weight, model.body[1].weight)
    plan = freeze(model, "all")
    assert {"stem.1.weight", "body.1.weight", "stem.1.bias", "body.1.bias"} <= set(plan.trainable)


def test_m8_m10_nothing_of_a_frozen_batch_norm_moves_in_an_epoch() -> None:
    """Lightning and fastai moved weight, bias, mean, variance and counter of norms in a frozen body."""
    model = net()
    freeze(model, "head")
    before = {name: tensor.clone() for name, tensor in model.stem[1].state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()
        model(torch.randn(4, 3, 12, 12)).square().mean().backward()
        optimizer.step()
    assert len(before) == 5
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.stem[1].state_dict().items())


class Segmenter(nn.Module):
    """A module whose `train` leaves its encoder out, as in segmentation-models-pytorch (M17)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5), nn.Conv2d(4, 4, 3))
        self.decoder = nn.Conv2d(4, 1, 1)

    def train(self, mode: bool = True) -> Segmenter:
        self.training = mode
        self.decoder.train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


def test_m17_a_frozen_encoder_is_not_left_in_train_mode() -> None:
    model = Segmenter()
    freeze(model, "decoder")
    model.eval()
    images = torch.randn(2, 3, 12, 12)
    assert torch.equal(model(images), model(images))
