"""What runs on CUDA devices alone: `uv run pytest -m gpu`. Nothing here has met a device yet (docs/distributed.md)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim import SGD, Adam, AdamW, Optimizer

import regraft as rg
from regraft.compute.eager_optimizers import eager
from regraft.compute.numerics import Numerics, choose_numerics
from regraft.compute.program import inference_program
from regraft.training.engine import Engine
from regraft.training.features.feature_store import Features
from tests.conftest import TINY_MODEL, Cli, needs_cuda

pytestmark = [pytest.mark.gpu, needs_cuda]
TWO = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
TINY = ("--model", TINY_MODEL, "--image-size", "32", "--set", "model.weights=none", "--set", "data.batch_size=8")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_trains_predicts_and_goes_on(precision: str, tiny_photos: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "run"
    device = ("--device", "cuda", "--precision", precision)
    trained = cli("train", tiny_photos, *TINY, *device, "--epochs", "2", "--out", out)
    assert trained.code == 0, trained.err
    weights = load_file(out / "model" / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    rows = [cli("predict", out, tiny_photos / "blue", "--json", "--device", name) for name in ("cuda", "cpu")]
    assert [row.code for row in rows] == [0, 0]
    names = [[line.split('"prediction"')[1][:12] for line in row.out.splitlines()] for row in rows]
    assert names[0] == names[1]
    more = ("--set", "stages.1.epochs=3", "--allow-change", "stages.1.epochs")
    resumed = cli("resume", out, *more)
    assert resumed.code == 0, resumed.err


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-4), ("bf16", 0.05), ("fp16", 0.01)])
def test_a_program_gives_the_numbers_of_the_processor(precision: Any, apart: float, channels_last: bool) -> None:
    model = rg.build_model("tf_efficientnet_lite0", seed=0).eval()
    images = torch.rand(5, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    cpu = choose_numerics("cpu", "fp32", 1)
    there = Numerics("cuda", precision, channels_last, 1, precision)
    (wanted,), (found,) = (inference_program(model, numerics, 4)(images) for numerics in (cpu, there))
    assert found.device.type == "cuda"
    assert float((found.float().cpu() - wanted).abs().max() / wanted.abs().max()) <= apart


@pytest.mark.parametrize(
    ("kind", "arguments"), [(SGD, {"momentum": 0.9, "nesterov": True}), (Adam, {}), (AdamW, {"weight_decay": 0.05})]
)
def test_fused_optimizers_step_as_torch_s_own(kind: type[Optimizer], arguments: dict[str, Any]) -> None:
    stepped = []
    for chosen in (kind, eager(kind)):
        torch.manual_seed(0)
        layer = torch.nn.Linear(16, 4).cuda()
        optimizer = chosen(layer.parameters(), lr=0.1, fused=True, **arguments)  # type: ignore[call-arg]
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(2, 16, device="cuda")).square().sum().backward()
            optimizer.step()  # type: ignore[call-arg]
        stepped.append(layer.weight.detach().cpu())
    assert torch.equal(*stepped)


def test_features_come_from_pinned_memory_with_their_bits() -> None:
    made = torch.rand(6, 8, 4, 4, device="cuda").to(memory_format=torch.channels_last)
    for tier in ("device", "memory"):
        kept = Features(6, [made[:2]], tier)  # type: ignore[arg-type]
        kept.write(0, [made])
        assert kept.parts[0].is_pinned() == (tier == "memory")
        (found,) = kept.read(torch.tensor([5, 0, 3]))
        torch.cuda.synchronize()
        assert torch.equal(found, made[[5, 0, 3]])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_computes_in_its_precision_with_channels_last(precision: Any) -> None:
    engine = Engine(replace(choose_numerics("cuda", "fp32", 1), precision=precision))
    layer = engine.place(torch.nn.Conv2d(3, 8, 3))
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    with engine.autocast():
        output = layer(torch.rand(2, 3, 8, 8, device="cuda").to(memory_format=torch.channels_last))
    assert output.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    optimizer = engine.optimizer(torch.optim.SGD(layer.parameters(), 0.1))
    engine.backward(output.float().square().mean())
    assert float(engine.gradient_norm(layer.parameters(), 1.0)) > 0
    optimizer.step()
    assert layer.weight.dtype == torch.float32
    assert bool(engine.scaler_state()) == (precision == "fp16")


@TWO
@pytest.mark.parametrize("bn", ["affine-only", "train"])
def test_two_devices_share_a_run(bn: str, tiny_photos: Path, tmp_path: Path) -> None:
    """By NCCL, with synchronised batch norms where they train; up to rounding the weights of one device."""
    options = ("train", str(tiny_photos), *TINY, "--device", "cuda", "--precision", "fp32", "--stages", "all")
    options = (*options, "--epochs", "1", "--set", f"all.bn={bn}", "--set", "all.accumulate=2")
    launched = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "regraft")
    weights = []
    for name, start in (("one", ("-m", "regraft")), ("two", launched)):
        out = tmp_path / name
        done = subprocess.run([sys.executable, *start, *options, "--out", str(out)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        weights.append(load_file(out / "model" / "model.safetensors"))
    one, two = weights
    assert one.keys() == two.keys()
    assert max(float((one[key].float() - two[key].float()).abs().max()) for key in one) <= 1e-3
