"""Device, precision, memory layout and threads: what a run computes with.

Precision and layout change speed about five-fold on processors with bf16 matrix units, so they are chosen, said,
stored in the resolved recipe and used again by resume. Two precisions are kept apart: the one of training steps, which
may be rounded, and the one of all that is said or chosen (validation, selection, evaluation, prediction), which is fp32
unless somebody asks for another, so that a network gives the same classes on every machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from regraft.errors import SettingsError, did_you_mean
from regraft.machine.budget import num_cpus
from regraft.machine.processes import num_local_processes

__all__ = ["Numerics", "Precision", "choose_numerics", "exact_products", "require_precision"]

Precision = Literal["fp32", "bf16", "fp16"]
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """What a run computes with.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: The precision of activations in training; parameters of what trains are always kept in fp32.
        channels_last: Whether images are laid out NHWC in memory.
        threads: CPU threads.
        inference: The precision of validation, selection, evaluation and prediction.
    """

    device: str
    precision: Precision
    channels_last: bool
    threads: int
    inference: Precision = "fp32"

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def for_inference(self) -> Numerics:
        """What is said or chosen is computed with: the same, with the precision of inference."""
        return replace(self, precision=self.inference)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_numerics(
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    *,
    channels_last: bool = True,
    inference: str = "auto",
) -> Numerics:
    """Resolve `auto`, check what was asked for against this machine and set torch's thread count.

    Args:
        device: `auto` takes the fastest that is there.
        precision: Of training; `auto` takes the fastest on this device.
        threads: CPU threads; None takes all.
        channels_last: Whether images are laid out NHWC in memory.
        inference: The precision of what is said or chosen; `auto` is fp32, or what `precision` asks for by name.

    Raises:
        SettingsError: A device that this machine or this torch does not have, an unknown precision.
    """
    for name in (precision, inference):
        if name not in PRECISIONS:
            raise SettingsError(
                f"Unknown precision {name!r}{did_you_mean(name, PRECISIONS)}",
                "one of: " + ", ".join(PRECISIONS),
                "`--precision auto`, or leave it out",
            )
    device = _device(device)
    kind = torch.device(device).type
    for name in (precision, inference):
        require_precision(device, name)
    if threads is not None and threads < 1:
        raise SettingsError(f"threads is {threads}.", "at least one thread", "leave it out for all of them")
    threads = threads or max(1, num_cpus() // num_local_processes())
    torch.set_num_threads(threads)
    inference = inference if inference != "auto" else "fp32" if precision == "auto" else precision
    chosen = _default_precision(kind) if precision == "auto" else precision
    return Numerics(device, chosen, channels_last, threads, inference)  # type: ignore[arg-type]


def require_precision(device: str, precision: str) -> None:
    """Raise SettingsError where this device does not compute in this precision."""
    if precision == "fp16" and torch.device(device).type != "cuda":
        raise SettingsError(
            f"Precision fp16 was asked for on {device!r}.",
            "fp16 is for CUDA devices only; a CPU computes it slowly",
            "`--precision bf16` or `--precision fp32`",
        )


def _device(device: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    kind, _, number = device.partition(":")
    if kind not in available or (number and not number.isdigit()):
        raise SettingsError(
            f"Unknown device {device!r}{did_you_mean(device, DEVICES)}",
            "one of: " + ", ".join(DEVICES),
            "`--device auto`, or leave it out",
        )
    if not available[kind]:
        raise SettingsError(
            f"Device {device!r} was asked for, but this machine has none that torch {torch.__version__} can use.",
            "one that is available here: " + ", ".join(name for name, here in available.items() if here),
            "`--device auto`, or install the driver and a torch build for it",
        )
    _check_number(device, kind, number)
    return device


def _check_number(device: str, kind: str, number: str) -> None:
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if number and int(number) >= count:
        raise SettingsError(
            f"Device {device!r} was asked for, but this machine has {count} of that kind.",
            f"they count from {kind}:0 to {kind}:{count - 1}",
            f"`--device {kind}`, or leave it out",
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
    """Return the row of the table for a kind of device of this machine."""
    if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "cuda with bf16"
    if kind == "cpu" and torch.cpu._is_amx_tile_supported():
        return "cpu with AMX"
    if kind == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "cpu with AVX-512 BF16"
    return kind


class _Products:
    """How torch multiplies fp32 numbers, process-wide: exactly while anybody needs it, else as the user has set it."""

    _KINDS: ClassVar[tuple[Any, ...]] = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
        torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    )

    def __init__(self) -> None:
        self._lock, self._num_users = threading.Lock(), 0
        self._before: list[str] = []

    @contextmanager
    def exact(self) -> Iterator[None]:
        with self._lock:
            if self._num_users == 0:
                self._before = [kind.fp32_precision for kind in self._KINDS]
                self._set(["ieee"] * len(self._KINDS))
            self._num_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_users -= 1
                if self._num_users == 0:
                    self._set(self._before)

    def _set(self, precisions: list[str]) -> None:
        for kind, precision in zip(self._KINDS, precisions, strict=True):
            kind.fp32_precision = precision


_products = _Products()


def exact_products() -> AbstractContextManager[None]:
    """Return a context in which products of fp32 numbers are not rounded to tf32 or bf16, whatever the user's settings
    say.

    torch rounds them in convolutions on CUDA unless told otherwise, and in matrix products where
    `torch.set_float32_matmul_precision` allows it. Threads may enter it at the same time.
    """
    return _products.exact()
