"""Device, precision, memory layout and threads: what a run computes with.

Precision and layout change speed about five-fold on processors with bf16 matrix units, so they are chosen, said,
stored in the resolved recipe and used again by resume, evaluate and predict.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from regraft.errors import SettingsError
from regraft.run.processes import num_local_processes

__all__ = ["Numerics", "Precision", "choose_numerics", "keep_freed_memory", "require_precision"]

Precision = Literal["fp32", "bf16", "fp16"]
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """What a run computes with.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: The precision of activations; parameters of what trains are always kept in fp32.
        channels_last: Whether images are laid out NHWC in memory.
        threads: CPU threads.
    """

    device: str
    precision: Precision
    channels_last: bool
    threads: int

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_numerics(
    device: str = "auto", precision: str = "auto", threads: int | None = None, *, channels_last: bool = True
) -> Numerics:
    """Resolve `auto`, check what was asked for against this machine and set torch's thread count.

    Raises:
        SettingsError: A device that this machine or this torch does not have, an unknown precision.
    """
    if precision not in PRECISIONS:
        raise SettingsError(
            f"Unknown precision {precision!r}.",
            "Expected one of: " + ", ".join(PRECISIONS) + ".",
            "Type `--precision auto`, or leave it out.",
        )
    device = _device(device)
    kind = torch.device(device).type
    require_precision(device, precision)
    if threads is not None and threads < 1:
        raise SettingsError(f"threads is {threads}.", "Expected at least one thread.", "Leave it out for all of them.")
    threads = threads or max(1, _available_cpus() // num_local_processes())
    torch.set_num_threads(threads)
    chosen = _default_precision(kind) if precision == "auto" else precision
    return Numerics(device=device, precision=chosen, channels_last=channels_last, threads=threads)  # type: ignore[arg-type]


def require_precision(device: str, precision: str) -> None:
    """Raise SettingsError where this device does not compute in this precision."""
    if precision == "fp16" and torch.device(device).type != "cuda":
        raise SettingsError(
            f"Precision fp16 was asked for on {device!r}.",
            "fp16 is for CUDA devices only; a CPU computes it slowly.",
            "Type `--precision bf16` or `--precision fp32`.",
        )


def _device(device: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    kind, _, number = device.partition(":")
    if kind not in available or (number and not number.isdigit()):
        raise SettingsError(
            f"Unknown device {device!r}.",
            "Expected one of: " + ", ".join(DEVICES) + ".",
            "Type `--device auto`, or leave it out.",
        )
    if not available[kind]:
        raise SettingsError(
            f"Device {device!r} was asked for, but this machine has none that torch {torch.__version__} can use.",
            "Available here: " + ", ".join(name for name, here in available.items() if here) + ".",
            "Type `--device auto`, or install the driver and a torch build for it.",
        )
    _check_number(device, kind, number)
    return device


def _check_number(device: str, kind: str, number: str) -> None:
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if number and int(number) >= count:
        raise SettingsError(
            f"Device {device!r} was asked for, but this machine has {count} of that kind.",
            f"They count from {kind}:0 to {kind}:{count - 1}.",
            f"Type `--device {kind}`, or leave it out.",
        )


# The fastest precision of a training step by what the processor or the GPU computes, always the same one. Measured with
# benchmarks/numerics.py: the processor with AMX, on families of networks, bf16 against fp32: residual (ResNet50) 2.2
# times as fast, ConvNeXt 2.2, ViT 2.0, depthwise (EfficientNet-Lite0) 1.3, depthwise with squeeze-and-excitation
# (MobileNetV3) 0.93. No family is more than 10 % faster in another, so all share a row. The other rows follow from what
# the hardware has, and `--numerics measure` finds out.
_TABLE: dict[str, Precision] = {
    "cpu with AMX": "bf16",
    "cpu with AVX-512 BF16": "bf16",
    "cpu": "fp32",
    "cuda with bf16": "bf16",
    "cuda": "fp32",
    "mps": "fp32",
}


def _default_precision(kind: str) -> Precision:
    return _TABLE[_hardware(kind)]


def _hardware(kind: str) -> str:
    """The row of the table for a kind of device of this machine."""
    if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "cuda with bf16"
    if kind == "cpu" and torch.cpu._is_amx_tile_supported():
        return "cpu with AMX"
    if kind == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "cpu with AVX-512 BF16"
    return kind


def _available_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of returning them to the system.

    Activations of a CNN are tens of MB that are freed and allocated again at every layer; handing the pages back
    each time costs more than many of the layers (EfficientNet-lite0 at 224 px, bf16, batch 32: 104 -> 144 images/s
    on 2 cores). Does nothing elsewhere than on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
    except (OSError, AttributeError):
        return
