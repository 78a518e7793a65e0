"""Split and folded programs compute what the model computes, for many networks and freeze plans."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import timm
import torch
from torch import Tensor, nn

from regraft.compute.numerics import Numerics
from regraft.compute.program import InferenceProgram, inference_program, split_program, tail_program
from regraft.errors import SettingsError
from regraft.plan.freezing.freeze import freeze

FP32 = Numerics("cpu", "fp32", True, 1)
BF16 = Numerics("cpu", "bf16", True, 1)

# Real architectures at small sizes: residual, dense, inverted-bottleneck, plain, grouped, branched, with groups norms.
MODELS = {
    "test_resnet": 64,
    "test_efficientnet": 64,
    "test_efficientnet_gn": 64,
    "test_convnext": 64,
    "test_byobnet": 64,
    "test_nfnet": 64,
    "test_mambaout": 64,
    "resnet18": 64,
    "resnet18d": 64,
    "seresnet18": 64,
    "densenet121": 64,
    "mobilenetv3_small_050": 64,
    "tf_efficientnet_lite0": 64,
    "regnetx_002": 64,
    "vgg11_bn": 32,
    "inception_v3": 96,
    "repvgg_a0": 64,
    "hrnet_w18_small": 64,
    "dla34": 64,
}
QUICK = {"test_resnet", "test_efficientnet", "test_efficientnet_gn", "test_convnext", "test_byobnet", "test_nfnet"}
QUICK |= {"test_mambaout"}
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
PLANS = [["head"], ["stage:-1", "head"], ["all"]]


def build(name: str, *, dropout: bool = False) -> nn.Module:
    """A model with statistics and affine parameters that are not the identity, so that folding has something to do."""
    torch.manual_seed(0)
    options = {} if dropout else {"drop_rate": 0.0, "drop_path_rate": 0.0}
    try:
        model = timm.create_model(name, num_classes=5, **options)
    except TypeError:
        model = timm.create_model(name, num_classes=5, drop_rate=0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def images(name: str, num: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 3, MODELS[name], MODELS[name], generator=generator)


def assert_close(given: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    scale = expected.abs().max().clamp(min=1e-6)
    assert float((given - expected).abs().max() / scale) <= tolerance


def fresh_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(model: nn.Module, before: dict[str, Tensor]) -> None:
    now = model.state_dict()
    assert list(now) == list(before)
    assert all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_a_folded_network_gives_the_same_logits(name: str) -> None:
    model = build(name)
    before, x = fresh_state(model), images(name)
    with torch.no_grad():
        expected = model(x)
    (logits,) = inference_program(model, FP32, 4)(x)
    assert_close(logits, expected)
    assert_same_state(model, before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("plan", PLANS, ids="+".join)
@pytest.mark.parametrize("name", NAMES)
def test_prefix_and_tail_are_the_whole_model(name: str, plan: list[str]) -> None:
    model = build(name)
    frozen = freeze(model, plan, new=())
    before, x = fresh_state(model), images(name)
    program = split_program(model)
    assert (program.prefix is None) == (plan == ["all"]), "a frozen part has a prefix of its own"
    features = InferenceProgram(program.prefix, FP32, 4)(x) if program.prefix is not None else (x,)

    model.eval()
    with torch.no_grad():
        assert_close(program(features, training=False), model(x))
    model.train()
    expected = copy.deepcopy(model)(x).detach()
    logits = program(features, training=True)
    assert_close(logits.detach(), expected)
    if program.prefix is not None:
        assert_same_state(model, before)

    logits.square().sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == set(frozen.trainable)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("numerics", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["test_resnet", "tf_efficientnet_lite0", "test_convnext"])
def test_a_samples_features_do_not_depend_on_its_place_or_on_the_fill_of_the_batch(
    name: str, numerics: Numerics
) -> None:
    model = build(name)
    freeze(model, "head", new=())
    program = InferenceProgram(split_program(model).prefix or model, numerics, 4)
    x = images(name, 7)
    (features,) = program(x)
    (backwards,) = program(x.flip(0))
    assert torch.equal(backwards.flip(0), features)
    for row in range(7):
        assert torch.equal(program(x[row : row + 1])[0][0], features[row])


def test_a_plain_head_on_a_frozen_backbone_is_one_linear_layer() -> None:
    model = build("test_efficientnet")
    freeze(model, "head", new=())
    assert split_program(model).is_linear is model.get_submodule("classifier")
    freeze(model, ["stage:-1", "head"], new=())
    assert split_program(model).is_linear is None


def test_dropout_in_the_tail_is_on_in_training_and_off_in_evaluation() -> None:
    model = timm.create_model("test_efficientnet", num_classes=5, drop_rate=0.5)
    freeze(model, "head", new=())
    program = split_program(model)
    assert program.prefix is not None
    assert program.is_linear is None
    features = InferenceProgram(program.prefix, FP32, 4)(images("test_efficientnet"))
    model.train()
    torch.manual_seed(0)
    first = program(features, training=True)
    assert not torch.equal(first, program(features, training=True))
    torch.manual_seed(0)
    assert torch.equal(first, program(features, training=True))
    model.eval()
    assert torch.equal(program(features, training=False), program(features, training=False))


class PositionalDropout(nn.Module):
    """A frozen convolution, functional dropout switched by position, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return self.fc(nn.functional.dropout(x, 0.5, self.training))


class Noisy(PositionalDropout):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return self.fc(x + torch.rand_like(x))


@pytest.mark.parametrize("kind", [PositionalDropout, Noisy])
def test_what_acts_randomly_is_never_in_the_prefix(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind()
    freeze(model, "fc", new=())
    program = split_program(model)
    assert program.prefix is not None
    assert program.is_linear is None
    features = InferenceProgram(program.prefix, FP32, 4)(torch.ones(2, 3, 8, 8))
    model.train()
    assert not torch.equal(program(features, training=True), program(features, training=True))


class Untraceable(nn.Module):
    """Numbers decide the path, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).mean((2, 3))
        if float(x.sum()) > 1e9:
            x = -x
        return self.fc(x)


def test_a_model_that_cannot_be_traced_runs_whole() -> None:
    torch.manual_seed(0)
    model = Untraceable()
    frozen = freeze(model, "fc", new=())
    program = split_program(model)
    assert program.prefix is None
    x = torch.randn(3, 3, 8, 8)
    model.train()
    logits = program((x,), training=True)
    assert torch.equal(logits, model(x))
    logits.sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == set(frozen.trainable)
    model.eval()
    with torch.no_grad():
        assert_close(inference_program(model, FP32, 4)(x)[0], model(x))


class Tied(nn.Module):
    """One convolution and one norm, each called twice: folding one into the other would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.other = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv(x)
        return self.fc((self.norm(first) + self.other(self.conv(first)) + first).mean((2, 3)))


def test_what_is_called_twice_or_read_twice_is_not_folded() -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    for norm in (model.norm, model.other):
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.running_mean, -1, 1)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert_close(inference_program(model, FP32, 4)(x)[0], model(x))


def test_splitting_leaves_the_mode_as_it_was() -> None:
    model = build("test_resnet")
    freeze(model, "head", new=())
    for mode in (True, False):
        model.train(mode)
        modes = {name: module.training for name, module in model.named_modules()}
        split_program(model)
        assert {name: module.training for name, module in model.named_modules()} == modes


def test_no_images_give_no_rows() -> None:
    (logits,) = inference_program(build("test_resnet"), FP32, 4)(torch.zeros(0, 3, 64, 64))
    assert logits.shape == (0, 5)


def test_nothing_to_train_is_refused_before_any_split() -> None:
    with pytest.raises(SettingsError, match="matches no layer"):
        freeze(build("test_resnet"), "no_such_layer")


class InPlace(nn.Module):
    """Adds onto what two layers read, by a call whose result nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images)
        features.add_(self.second(features.mean((2, 3), keepdim=True)))
        result: torch.Tensor = self.head(features.mean((2, 3)))
        return result


def test_a_model_that_works_in_place_on_shared_values_runs_whole() -> None:
    torch.manual_seed(0)
    model = InPlace().eval()
    for module in (model.first, model.second):
        module.requires_grad_(False)
    program = split_program(model)
    assert program.prefix is None
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(program((images,), training=False), model(images))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("plan", [["head"], ["all"]], ids="+".join)
def test_a_released_program_holds_no_weights_and_takes_none_from_the_model(plan: list[str]) -> None:
    """Without it, each validation would keep a copy of the network until Python happens to collect its garbage."""
    model = build("test_resnet")
    freeze(model, plan, new=())
    before, program = fresh_state(model), split_program(model)
    tail = tail_program(program, FP32, 2)
    inputs = images("test_resnet")
    features = InferenceProgram(copy.deepcopy(program.prefix), FP32, 2)(inputs) if program.prefix else (inputs,)
    tail(*features)
    weights = [weakref.ref(parameter) for parameter in tail.module.parameters()]
    assert weights
    gc.disable()
    try:
        tail.release()
        assert all(weight() is None for weight in weights)
    finally:
        gc.enable()
    assert_same_state(model, before)
