"""Training on a CPU in bf16: which of torch's calls are computed in another way, to be faster or to be right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from regraft.compute.kernels.dense import dense_convolution, is_faster_as_product
from regraft.compute.kernels.depthwise import depthwise_convolution, is_depthwise
from regraft.compute.kernels.narrow import is_narrow, narrow_convolution
from regraft.compute.kernels.upsample import doubled, is_doubling

__all__ = ["fast_layers"]


@contextmanager
def fast_layers() -> Iterator[None]:
    """Open a context in which bf16 layers on the CPU (autocast too) compute correctly, and train fast."""
    with _Mode():
        yield


class _Mode(TorchFunctionMode):
    """Takes the calls that gain from it; everything else goes on as it was."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs and len(args) == 7:
            result = _convolved(*args)
            if result is not None:
                return result
        if func is F.interpolate and torch.is_grad_enabled() and len(args) == 1 and is_doubling(args[0], **kwargs):
            return doubled(args[0], kwargs.get("mode", "nearest"))
        return func(*args, **kwargs)


def _convolved(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor | None:
    """Return the convolution, or None where torch's own is as fast."""
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
    usual = images.ndim == 4 and not isinstance(padding, str) and tuple(dilation) == (1, 1)
    if precision != torch.bfloat16 or images.device.type != "cpu" or not usual:
        return None
    how = tuple(stride), tuple(padding)
    if is_narrow(images, weight, *how, groups):
        compute = narrow_convolution
    elif not torch.is_grad_enabled():
        return None
    elif is_depthwise(weight, *how, groups):
        compute = depthwise_convolution
    elif is_faster_as_product(images, weight, *how, groups):
        compute = dense_convolution
    else:
        return None
    result = compute(images.to(torch.bfloat16), weight.to(torch.bfloat16), *how)
    return result if bias is None else result + bias.to(torch.bfloat16).view(1, -1, 1, 1)
