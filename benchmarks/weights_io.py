"""Read, match and convert VGG16 with its top from a Keras .h5 (553 MB): against reading and copying its bytes once.

uv run python benchmarks/weights_io.py [--rounds 5] [--threads 2] [--folder DIR] [--tensors 10000 100000]

The file is written first (random values), so it lies in the page cache. In one process after all imports, in turn:
(a) the floor: read the bytes of the file and copy them once; (b) read_weights, match_weights and graft into a model
that was built before. Medians and the median of the rounds' ratios are printed, and by how much the process's peak
memory in (b) rose above what it held before, measured in a process of its own; the aim is file + 2 x largest tensor.
`--tensors` measures how reading and matching grow instead: narrow networks with so many tensors, in safetensors files
behind a prefix: a chain of convolutions and batch norms, a ViT, and a ViT in the names and the divided attention of
Hugging Face's library (aims: 10,000 within 5 s, 100,000 within 20 s), in seconds of the processor.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

MB = 1e6


def write_file(path: Path) -> None:
    """VGG16 with its top under Keras's names, random values."""
    from regraft.weights.writers import keras_h5
    from regraft.weights.writers.keras_tensor import KerasTensor

    random = np.random.default_rng(0)
    shapes: list[tuple[str, tuple[int, ...]]] = []
    channels = 3
    for block, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for conv in range(1, count + 1):
            shapes.append((f"block{block}_conv{conv}", (3, 3, channels, width)))
            channels = width
    shapes += [("fc1", (25088, 4096)), ("fc2", (4096, 4096)), ("predictions", (4096, 1000))]
    tensors = []
    for layer, shape in shapes:
        tensors.append(KerasTensor(layer, "kernel", random.standard_normal(shape, np.float32)))
        tensors.append(KerasTensor(layer, "bias", random.standard_normal(shape[-1:], np.float32)))
    keras_h5.write(path, tensors)


def floor(path: Path) -> None:
    """Read the bytes of the file and copy them once."""
    held = np.fromfile(path, np.uint8)
    held.copy()


def load(path: Path, model: object) -> None:
    """What regraft does."""
    import regraft as rg

    report = rg.match_weights(rg.read_weights(path), model)
    rg.graft(model, report.require("all"))


def seconds(work: object, *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


class Peak:
    """The process's largest resident memory while it is open, above what it held before, in bytes."""

    def __enter__(self) -> Peak:
        import psutil

        self._process = psutil.Process()
        self.baseline = self.highest = self._process.memory_info().rss
        self._open = True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._open:
            self.highest = max(self.highest, self._process.memory_info().rss)
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()

    @property
    def rise(self) -> int:
        return self.highest - self.baseline


def measure_memory(path: Path) -> None:
    """In a process of its own: the model is built, then (b) once."""
    import regraft as rg

    model = rg.build_model("vgg16")
    with Peak() as peak:
        load(path, model)
    print(peak.rise)


def chain(num_tensors: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """Convolutions and batch norms, and their file behind a prefix."""
    from torch import nn

    blocks = [nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)) for _ in range(num_tensors // 6)]
    model = nn.Sequential(*blocks)
    return model, {f"module.net.{name}": value for name, value in model.state_dict().items()}


def vit(num_tensors: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """A ViT of timm, and its file behind a prefix."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=32, embed_dim=8, depth=num_tensors // 12, num_heads=2, num_classes=3)
    return model, {f"model.backbone.{name}": value for name, value in model.state_dict().items()}


def divided_vit(num_tensors: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """A ViT of timm, and its file in Hugging Face's names, where query, key and value are three layers."""
    model, _ = vit(12 * num_tensors // 16)
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    found = {}
    for name, value in model.state_dict().items():
        path, _, kind = name.rpartition(".") if "." in name else (name, "", "")
        start = ""
        if path.startswith("blocks."):
            _, number, path = path.split(".", 2)
            start = f"encoder.layer.{number}."
        if path == "head":
            found[f"classifier.{kind}"] = value
        elif path == "attn.qkv":
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"vit.{start}attention.attention.{part}.{kind}"] = piece.contiguous()
        else:
            found["vit." + start + names[path] + (f".{kind}" if kind else "")] = value
    return model, found


def grow(counts: list[int], folder: Path, rounds: int) -> None:
    """Print how long files of so many tensors take."""
    import safetensors.torch
    import torch

    import regraft as rg

    torch.set_num_threads(1)
    print(f"{platform.machine()}, {date.today()}, load {os.getloadavg()[0]:.1f}; medians of {rounds}, one thread")
    for make in (chain, vit, divided_vit):
        for count in counts:
            model, tensors = make(count)
            path = folder / f"{make.__name__}.safetensors"
            safetensors.torch.save_file(tensors, path)
            took = []
            for _ in range(rounds):
                began = time.process_time()
                report = rg.match_weights(rg.read_weights(path), model)
                took.append(time.process_time() - began)
                report.require("all")
            print(
                f"{make.__name__}: {len(tensors):,} tensors of the file, {report.counts['matched']:,} of the network "
                f"matched, {statistics.median(took):.1f} s of the processor",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--tensors", type=int, nargs="*", help="measure the growth with their number instead")
    parser.add_argument("--memory", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.memory is not None:
        measure_memory(options.memory)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.tensors:
            grow(options.tensors, Path(folder), options.rounds)
            return
        path = Path(folder) / "vgg16.h5"
        write_file(path)
        compare(path, options.rounds, options.threads)


def compare(path: Path, rounds: int, threads: int) -> None:
    import torch

    import regraft as rg

    torch.set_num_threads(threads)
    model = rg.build_model("vgg16")
    load(path, model), floor(path)
    pairs = [(seconds(floor, path), seconds(load, path, model)) for _ in range(rounds)]
    ratio = statistics.median(ours / least for least, ours in pairs)
    rise = int(subprocess.check_output([sys.executable, __file__, "--threads", str(threads), "--memory", str(path)]))
    size, largest = path.stat().st_size, 25088 * 4096 * 4
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, {threads} threads, {date.today()}, load {os.getloadavg()[0]:.1f}"
    )
    print(f"file {size / MB:.0f} MB; {rounds} rounds in turn")
    print(f"floor   {statistics.median(p[0] for p in pairs):.3f} s   read the bytes and copy them once")
    print(f"regraft {statistics.median(p[1] for p in pairs):.3f} s   read, match, convert, graft")
    print(f"ratio   {ratio:.2f}x (aim: at most 1.50x)")
    print(f"memory  {rise / MB:.0f} MB above baseline (aim: at most {(size + 2 * largest) / MB:.0f} MB)")


if __name__ == "__main__":
    main()
