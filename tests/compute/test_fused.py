"""Convolutions with what follows them in one call: the same output, and nothing joined that something else reads."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, fx, nn

from regraft.compute.kernels.fused import FusedConv2d
from regraft.compute.numerics import Numerics
from regraft.compute.program import InferenceProgram, inference_program

FP32 = Numerics("cpu", "fp32", channels_last=True, threads=1)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """Networks are built with random weights: the same ones each time."""
    torch.manual_seed(0)


def settled(model: nn.Module) -> nn.Module:
    """With batch norms that have seen something, and weights that keep numbers near 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def images(size: int = 64, num: int = 2) -> Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(1))


def kinds(program: InferenceProgram) -> Counter[str]:
    """How often each kind of layer is called."""
    assert isinstance(program.module, fx.GraphModule)
    called = [node for node in program.module.graph.nodes if node.op == "call_module"]
    return Counter(type(program.module.get_submodule(str(node.target))).__name__ for node in called)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "tf_efficientnet_lite0",
        "mobilenetv3_small_100",
        "efficientnet_b0",
        "vgg11_bn",
        "regnetx_002",
    ],
)
def test_the_output_is_that_of_the_network(name: str) -> None:
    arguments = {"mlp_ratio": 0.01} if name.startswith("vgg") else {}  # its dense layers hold most of its weights
    model = settled(timm.create_model(name, num_classes=5, **arguments))
    program = inference_program(model, FP32, batch_size=2)
    with torch.no_grad():
        wanted = model(images())
    torch.testing.assert_close(program(images())[0], wanted, atol=2e-5, rtol=2e-4)
    assert kinds(program)["FusedConv2d"] >= 8
    assert not kinds(program)["Conv2d"]


def test_nothing_but_convolutions_is_left_of_a_residual_network() -> None:
    left = kinds(inference_program(settled(timm.create_model("resnet18")), FP32, batch_size=1))
    assert not {"ReLU", "BatchNorm2d", "Identity"} & set(left)


def test_padding_as_tensorflow_does_is_kept() -> None:
    model = settled(timm.create_model("tf_efficientnet_lite0", num_classes=5))
    odd = images(75)
    with torch.no_grad():
        wanted = model(odd)
    program = inference_program(model, FP32, batch_size=2)
    torch.testing.assert_close(program(odd)[0], wanted, atol=2e-5, rtol=2e-4)
    assert not {"BatchNormAct2d", "ReLU6"} & set(kinds(program))


@pytest.mark.parametrize("groups", [1, 8], ids=["dense", "depthwise"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5, (3, 5)])
def test_every_padding_of_tensorflow_is_the_same(kernel: int | tuple[int, int], stride: int, groups: int) -> None:
    torch.manual_seed(0)
    fused = FusedConv2d(Conv2dSame(8, 8, kernel, stride, groups=groups), nn.ReLU6()).requires_grad_(False)
    for height, width in ((9, 12), (12, 9), (8, 8), (7, 7), (2, 5), (1, 1)):
        given = torch.randn(2, 8, height, width)
        torch.testing.assert_close(fused(given), fused.activation(fused.conv(given)), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bf16")
def test_bf16_is_as_near_as_before() -> None:
    model = settled(timm.create_model("resnet18", num_classes=5))
    exact = inference_program(model, FP32, 2)(images())[0]
    rounded = inference_program(model, Numerics("cpu", "bf16", True, 1), 2)(images())[0].float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        usual = model(images()).float()
    assert (rounded - exact).norm() <= 1.5 * (usual - exact).norm()


class Shapes(nn.Module):
    """What must not be joined: an output that is read twice, and an addition of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        read_twice = self.first(x)
        both = self.relu(read_twice) + read_twice
        spread = torch.relu(self.second(both) + x.mean((2, 3), keepdim=True))
        return self.relu(spread + self.third(spread))


def test_what_others_read_and_what_is_spread_is_computed_as_before() -> None:
    model = Shapes().eval()
    with torch.no_grad():
        wanted = model(images())
    torch.testing.assert_close(inference_program(model, FP32, batch_size=2)(images())[0], wanted)


def test_a_program_can_be_copied_and_moved_to_another_precision() -> None:
    program = inference_program(settled(timm.create_model("resnet18", num_classes=5)), FP32, batch_size=2)
    before = program(images())[0]
    torch.testing.assert_close(copy.deepcopy(program.module)(images())[0], before[0])
    program.module.double().float()
    assert torch.equal(program(images())[0], before)


def test_layers_of_other_machines_are_left_alone() -> None:
    contiguous = Numerics("cpu", "fp32", channels_last=False, threads=1)
    program = inference_program(settled(timm.create_model("resnet18")), contiguous, batch_size=1)
    assert not any(isinstance(module, FusedConv2d) for module in program.module.modules())
