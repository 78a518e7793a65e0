"""How small and how fast a sealed file in int8 is beside the same one in floats, in the same run.

    uv run python benchmarks/export_int8.py [--models resnet50 efficientnet_lite0] [--threads N] [--repeats 10]
    uv run python benchmarks/export_int8.py --run RUN     # and how accurate: what `regraft export --int8` measures

Networks have random weights, which change neither. Each batch goes through one file and then through the other; the
ratio is that of the fastest passes. The pixel program is left out, as `regraft predict` does it while it decodes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from PIL import Image

import regraft as rg
from peers import machine
from regraft.exports.int8.quantise import WAYS, quantised, ranges_of
from regraft.exports.sealing.model import sealed_model
from regraft.exports.sealing.network import sealed_network
from regraft.models.describe.info import preprocessing_of


def clouds(num: int, size: int) -> npt.NDArray[np.uint8]:
    """Images with large shapes."""
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (num, 12, 12, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in rough])


def opened(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measured(name: str, threads: int, repeats: int, batch: int) -> str:
    """One line on a network."""
    torch.manual_seed(0)
    model = rg.adapt(rg.build_model(name), classes=[f"class {n}" for n in range(10)], image_size=224)
    floats = sealed_model(sealed_network(model.eval()), preprocessing_of(model).pixels)
    integers = quantised(floats, ranges_of(floats, [clouds(8, 224)], WAYS[0].ranges), WAYS[0])
    sizes = [len(one.SerializeToString()) for one in (floats, integers)]
    sessions = [opened(one, threads) for one in (floats, integers)]
    feeds = {"images": clouds(batch, 224), "resize": np.asarray(False)}
    times: list[list[float]] = [[], []]
    for _ in range(repeats):
        for session, taken in zip(sessions, times, strict=True):
            begun = time.perf_counter()
            session.run(None, feeds)
            taken.append(time.perf_counter() - begun)
    fp32, int8 = (1000 * min(taken) / batch for taken in times)
    return (
        f"{name}: {fp32:.1f} ms an image in floats, {int8:.1f} in int8: {fp32 / int8:.2f} x as fast; "
        f"{sizes[0] / 1e6:.1f} MB and {sizes[1] / 1e6:.1f}: {sizes[1] / sizes[0]:.3f} x the size"
    )


def instructions() -> str:
    """Which instructions for integers this processor has, of those that onnxruntime uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return "unknown"
    return ", ".join(flag for flag in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if flag in flags) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["resnet50", "efficientnet_lite0"])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    print(machine())
    print(f"instructions: {instructions()}; onnxruntime {onnxruntime.__version__}, {arguments.threads} threads")
    for name in arguments.models:
        print(measured(name, arguments.threads, arguments.repeats, arguments.batch))
    if arguments.run is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(rg.export(arguments.run, Path(folder) / "int8.onnx", int8=True))


if __name__ == "__main__":
    main()
