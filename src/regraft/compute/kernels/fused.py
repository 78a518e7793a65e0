"""Convolutions together with what follows them, in one pass over memory: how a frozen part runs on a CPU.

A convolution, the shortcut that is added to its output, and the activation are three passes over the same images when
they are called one after the other. oneDNN computes all of it in one call, and keeps the weights in its own layout from
the first call on (`torch.ops.mkldnn`, what torch.compile calls as well, without a compiler).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, get_same_padding, pad_same
from torch import Tensor, fx, nn

from regraft.compute.kernels.fast_layers import fast_layers
from regraft.compute.kernels.narrow import is_narrow, output_size
from regraft.compute.numerics import Numerics

__all__ = ["CONVOLUTIONS", "FusedConv2d", "fuse_convolutions"]

# Convolutions whose whole work is known here: timm's pads as TensorFlow does, and then is torch's.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)


Pair = tuple[int, int]


class Activation(NamedTuple):
    """An activation as oneDNN knows it."""

    name: str
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


_NONE = Activation("none")
_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda module: Activation("relu"),
    nn.ReLU6: lambda module: Activation("hardtanh", (0.0, 6.0)),
    nn.Hardtanh: lambda module: Activation("hardtanh", (module.min_val, module.max_val)),
    nn.Hardswish: lambda module: Activation("hardswish"),
    nn.SiLU: lambda module: Activation("swish"),
    nn.Sigmoid: lambda module: Activation("sigmoid"),
    nn.LeakyReLU: lambda module: Activation("leaky_relu", (module.negative_slope,)),
    nn.GELU: lambda module: Activation("gelu", (), module.approximate),
}
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class FusedConv2d(nn.Module):
    """activation(conv(images) + other), for inference on a CPU; `other` is left out where nothing is added.

    Args:
        conv: The convolution.
        activation: What comes last, one of those that oneDNN knows; None for nothing.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.activation = conv, activation
        self._packed: dict[tuple[Pair, Pair], Tensor] = {}

    def forward(self, images_NCHW: Tensor, other_NCHW: Tensor | None = None) -> Tensor:
        conv, before = self.conv, images_NCHW
        padding, missing = _pair(conv.padding), (0, 0)
        if isinstance(conv, Conv2dSame):
            padding, missing = _same_padding(conv, images_NCHW)
            if missing != (0, 0) and not _is_depthwise(conv):
                images_NCHW, padding, missing = _padded(conv, images_NCHW), (0, 0), (0, 0)
        images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
        if not self._is_usual(images_NCHW, padding, missing, other_NCHW):
            return self._one_by_one(before, other_NCHW)
        how = (padding, conv.stride, conv.dilation, conv.groups)
        if (padding, missing) not in self._packed:
            weight = F.pad(conv.weight, (missing[1], 0, missing[0], 0))
            self._packed[padding, missing] = torch.ops.mkldnn._reorder_convolution_weight(
                weight, *how, images_NCHW.shape
            )
        name, scalars, algorithm = _known(self.activation) or _NONE
        operands = (self._packed[padding, missing], conv.bias, *how)
        result: Tensor
        if other_NCHW is None:
            result = torch.ops.mkldnn._convolution_pointwise(images_NCHW, *operands, name, scalars, algorithm)
        else:
            last = None if self.activation is None else name
            result = torch.ops.mkldnn._convolution_pointwise(
                images_NCHW, other_NCHW, *operands, "add", 1.0, last, scalars, algorithm
            )
        return result

    def _is_usual(self, images_NCHW: Tensor, padding: Pair, missing: Pair, other_NCHW: Tensor | None) -> bool:
        """Return whether oneDNN supports this convolution, and computes it correctly."""
        conv = self.conv
        if max(conv.dilation) > 1:
            return other_NCHW is None
        how = (_pair(conv.stride), padding)
        if images_NCHW.dtype == torch.bfloat16 and is_narrow(images_NCHW, conv.weight, *how, conv.groups):
            return False
        if other_NCHW is None:
            return True
        return missing == (0, 0) and other_NCHW.shape == (
            len(images_NCHW),
            conv.out_channels,
            *output_size(images_NCHW, conv.weight, *how),
        )

    def _one_by_one(self, images_NCHW: Tensor, other_NCHW: Tensor | None) -> Tensor:
        conv = self.conv
        if isinstance(conv, Conv2dSame):
            images_NCHW = _padded(conv, images_NCHW)
        images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
        with fast_layers():
            result = torch.conv2d(
                images_NCHW, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
            )
        result = result if other_NCHW is None else result + other_NCHW
        return result if self.activation is None else self.activation(result)

    def forget(self) -> None:
        """Drop the weights in oneDNN's layout; the next call makes them again."""
        self._packed = {}

    def _apply(self, *args: Any, **kwargs: Any) -> FusedConv2d:
        self.forget()  # other devices and precisions have their own layout
        return super()._apply(*args, **kwargs)  # type: ignore[no-any-return, no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": {}}  # cannot be copied


def _same_padding(conv: Conv2dSame, images_NCHW: Tensor) -> tuple[Pair, Pair]:
    """Return the symmetric padding, and the zeros before the kernel, that equal TensorFlow's SAME padding.

    TensorFlow puts one row (one column) less before the images than behind them where the number is odd. The same
    comes out when both sides get as many as the side behind, and the kernel begins with a row (a column) of zeros: so
    the images need not be copied into larger ones.

    Returns:
        Rows and columns on each side, and the rows and columns of zeros that the kernel needs.
    """
    sizes = zip(images_NCHW.shape[2:], conv.kernel_size, _pair(conv.stride), _pair(conv.dilation), strict=True)
    totals = [get_same_padding(*size) for size in sizes]
    return (-(-totals[0] // 2), -(-totals[1] // 2)), (totals[0] % 2, totals[1] % 2)


def _padded(conv: Conv2dSame, images_NCHW: Tensor) -> Tensor:
    padded: Tensor = pad_same(images_NCHW, conv.kernel_size, conv.stride, conv.dilation)
    return padded


def _is_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether each channel has a kernel of its own: then its zeros cost less than a copy of the images."""
    return conv.groups == conv.in_channels and max(conv.dilation) == 1


def fuse_convolutions(module: fx.GraphModule, numerics: Numerics) -> fx.GraphModule:
    """Return an inference graph with each convolution put together with what follows it, where oneDNN can.

    The output is the same up to the rounding of what no longer passes through memory. Anywhere else than on a CPU with
    channels-last images it is the graph itself, which never changes; layers are shared with it.
    """
    if not _is_possible(numerics):
        return module
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    module = fx.GraphModule(module, graph)
    for node in list(module.graph.nodes):
        if _is_convolution(module, node):
            _fuse(module, node)
    module.graph.lint()
    module.recompile()
    return module


def _is_possible(numerics: Numerics) -> bool:
    if torch.device(numerics.device).type != "cpu" or not numerics.channels_last:
        return False
    if not torch._C._has_mkldnn or numerics.precision not in ("fp32", "bf16"):
        return False
    return numerics.precision == "fp32" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_convolution(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    conv = module.get_submodule(str(node.target))
    if type(conv) not in CONVOLUTIONS or isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return False
    calls = [other for other in module.graph.nodes if other.op == "call_module" and other.target == node.target]
    return len(calls) == 1


def _fuse(module: fx.GraphModule, node: fx.Node) -> None:
    """Replace a convolution, and the addition and the activation behind it, by one node."""
    conv = module.get_submodule(str(node.target))
    last, other, activation = _only_reader(module, node), None, None
    if last is not None and _adds_shortcut(module, node, last):
        other = next(operand for operand in last.args if operand is not node and isinstance(operand, fx.Node))
        node = _moved(node, last, other)
        last = _only_reader(module, node)
    if last is not None:
        activation = _activation(module, last)
        if other is not None and not isinstance(activation, nn.ReLU):
            activation = None  # oneDNN knows no other one behind a sum
    module.set_submodule(str(node.target), FusedConv2d(conv, activation))  # type: ignore[arg-type]
    if last is not None and activation is not None:
        last.replace_all_uses_with(node)
        module.graph.erase_node(last)
        _drop_stills(module, node)


def _only_reader(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the one node that reads this one's output; what changes nothing (a folded batch norm) is taken away
    before it.
    """
    _drop_stills(module, node)
    return next(iter(node.users)) if len(node.users) == 1 else None


def _drop_stills(module: fx.GraphModule, node: fx.Node) -> None:
    for user in list(node.users):
        if user.op == "call_module" and type(module.get_submodule(str(user.target))) is nn.Identity:
            user.replace_all_uses_with(node)
            module.graph.erase_node(user)
            _drop_stills(module, node)
            return


def _adds_shortcut(module: fx.GraphModule, node: fx.Node, addition: fx.Node) -> bool:
    """Return whether this is the sum of the convolution's output and of something else, so that both can be computed
    here.
    """
    if addition.op != "call_function" or addition.target not in _ADDITIONS or addition.kwargs:
        return False
    operands = [operand for operand in addition.args if isinstance(operand, fx.Node)]
    if len(operands) != 2 or operands[0] is operands[1] or len(addition.args) != 2:
        return False
    if addition.target is operator.iadd and operands[0] is not node:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and len(source.users) == 1


def _moved(node: fx.Node, addition: fx.Node, other: fx.Node) -> fx.Node:
    """Return the convolution with its second operand, where the addition was."""
    graph = node.graph
    with graph.inserting_before(addition):
        joined = graph.call_module(str(node.target), (*node.args, other))
    addition.replace_all_uses_with(joined)
    graph.erase_node(addition)
    graph.erase_node(node)
    return joined


def _activation(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    if node.op == "call_function" and node.target in (torch.relu, torch.nn.functional.relu):
        return nn.ReLU()
    if node.op != "call_module":
        return None
    found = module.get_submodule(str(node.target))
    return found if _known(found) else None


def _known(activation: nn.Module | None) -> Activation | None:
    known = None if activation is None else _ACTIVATIONS.get(type(activation))
    return known(activation) if known else None


def _pair(setting: str | tuple[int, ...]) -> tuple[int, int]:
    return (0, 0) if isinstance(setting, str) else (setting[0], setting[1])
