"""Networks as graphs: where the frozen part ends, and a fast inference copy of it.

A model is traced once (torch.fx, with timm's own list of what must not be traced into). Every node that depends on
something that trains, or that acts randomly while training, belongs to the *tail*; all others are the *prefix*. The
prefix is run as a copy of its own: batch norms folded into convolutions, inference mode, the run's precision and
layout. The model itself and its state-dict keys are never touched.
"""

from __future__ import annotations

import copy
import hashlib
import operator
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from regraft.compute.graph import drop_unused, trace_evaluation, trace_graph
from regraft.compute.kernels.fused import CONVOLUTIONS, FusedConv2d, fuse_convolutions
from regraft.compute.numerics import Numerics, exact_products

__all__ = [
    "InferenceProgram",
    "SplitProgram",
    "inference_program",
    "joint_prefix",
    "lay_out",
    "prefix_key",
    "program_batch_size",
    "split_program",
    "tail_program",
]


def program_batch_size(numerics: Numerics) -> int:
    """Return the number of images that an inference program takes at a time.

    On a CPU small batches keep activations in the cache, which its processors share. EfficientNet-lite0 at 224 px, two
    batches at once on two processors with AVX-512: in bf16 249 images/s at 8, 251 at 16, 216 at 32; in fp32 136 at 8,
    120 at 16 and 121 at 32.
    """
    if torch.device(numerics.device).type != "cpu":
        return 128
    return 8 if numerics.precision == "fp32" else 16


class InferenceProgram:
    """A folded, inference-mode copy of a network (or of its frozen part), always run with one batch shape.

    The same sample gives the same bits wherever it stands in a batch and however full the batch is, because the
    last batch is padded: that is what makes cached and recomputed features interchangeable.
    """

    def __init__(self, module: nn.Module, numerics: Numerics, batch_size: int) -> None:
        self.numerics = numerics
        self.batch_size = batch_size
        self.module = module.eval().requires_grad_(False)
        lay_out(self.module.to(numerics.device, numerics.dtype), numerics)
        if isinstance(module, fx.GraphModule):
            self.module = fuse_convolutions(module, numerics)

    @torch.no_grad()  # inference mode would make outputs that the tail's backward may not use
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run up to any number of images, or of their features; outputs stay in the program's precision, on its device.

        Args:
            inputs: Images (N, C, H, W), or the features at the end of a frozen part.
        """
        parts = zip(*(torch.split(tensor, self.batch_size) for tensor in inputs), strict=True)
        with exact_products() if self.numerics.precision == "fp32" else nullcontext():
            chunks = [self._run(part) for part in parts]
        if len(chunks) == 1:
            return chunks[0]
        return tuple(torch.cat(outputs) for outputs in zip(*chunks, strict=True))

    def release(self) -> None:
        """Give the weights' memory back now; a graph is a ring of objects, which Python only collects now and then."""
        for module in self.module.modules():
            module._parameters.clear()
            module._buffers.clear()
            if isinstance(module, FusedConv2d):
                module.forget()

    def _run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        num_images = len(inputs[0])
        outputs = self.module(*(self._laid_out(tensor) for tensor in inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(output[:num_images] for output in outputs)

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """Return a whole batch of an input, with zeros behind the last image, as the program computes it."""
        missing = self.batch_size - len(tensor)
        if missing:
            tensor = torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))])
        numerics = self.numerics
        layout = numerics.memory_format if tensor.ndim == 4 else torch.preserve_format
        return tensor.to(device=numerics.device, dtype=numerics.dtype, memory_format=layout)


def lay_out(module: nn.Module, numerics: Numerics) -> None:
    """Lay the module's weights of four axes out in memory as images are, in place.

    `Module.to(memory_format=...)` does the same, but fails where there are weights of five axes (LambdaNetworks).
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=numerics.memory_format)


@dataclass(frozen=True)
class SplitProgram:
    """A model cut where its frozen part ends.

    Attributes:
        prefix: The frozen part as a graph of its own copies, images -> features; None when nothing is frozen.
        tail_train: features -> logits with the model's own modules, as traced in training mode.
        tail_eval: The same as traced in evaluation mode; the model itself where there is no prefix.
        is_linear: The head when the tail is one linear layer on one feature vector, else None.
        boundary: The names of the features' nodes in the graph of the whole model.
    """

    prefix: fx.GraphModule | None
    tail_train: Callable[..., Tensor]
    tail_eval: nn.Module
    is_linear: nn.Linear | None
    boundary: tuple[str, ...] = ()

    def __call__(self, features: Sequence[Tensor], *, training: bool) -> Tensor:
        logits: Tensor = (self.tail_train if training else self.tail_eval)(*features)
        return logits


def inference_program(model: nn.Module, numerics: Numerics, batch_size: int) -> InferenceProgram:
    """Return the whole model, images -> (logits,), as a fast inference copy."""
    duplicate = copy.deepcopy(model).eval()
    graph = trace_graph(duplicate)
    module = duplicate if graph is None else fold_batch_norms(fx.GraphModule(duplicate, graph))
    return InferenceProgram(module, numerics, batch_size)


def tail_program(program: SplitProgram, numerics: Numerics, batch_size: int) -> InferenceProgram:
    """Return the layers behind the frozen part as a fast inference copy of this moment: features -> (logits,)."""
    tail = program.tail_eval
    if not isinstance(tail, fx.GraphModule):  # the whole model: nothing is frozen, or it cannot be traced
        return inference_program(tail, numerics, batch_size)
    return InferenceProgram(fold_batch_norms(copy.deepcopy(tail)), numerics, batch_size)


def split_program(model: nn.Module) -> SplitProgram:
    """Cut `model` at the end of what is frozen (`requires_grad` of its parameters, `training` of its modules).

    A model that cannot be traced, or that changes in place what others of its layers read, has no prefix: it runs
    whole, which is slower and gives the same result.
    """
    was_training = model.training
    try:
        graphs = [trace_graph(model.train(mode)) for mode in (True, False)]
    finally:
        model.train(was_training)
    if graphs[0] is None or graphs[1] is None or any(_overwrites(model, node) for node in graphs[1].nodes):
        return SplitProgram(prefix=None, tail_train=model, tail_eval=model, is_linear=None)
    model.train()
    try:
        moving = _moving_nodes(model, graphs[0])
    finally:
        model.train(was_training)
    names = _boundary(graphs[0], moving)
    if names != _boundary(graphs[1], moving) or _is_input(graphs[0], names, moving):
        return SplitProgram(prefix=None, tail_train=model, tail_eval=model, is_linear=None)
    tails = [fx.GraphModule(model, _tail_graph(graph, moving, names)) for graph in graphs if graph is not None]
    prefix = _folded_prefix(model, graphs[1], names)
    return SplitProgram(prefix, tails[0], tails[1], _only_linear(model, graphs[0], moving), tuple(names))


def joint_prefix(
    model: nn.Module, boundaries: Sequence[Sequence[str]]
) -> tuple[fx.GraphModule, tuple[tuple[int, ...], ...]] | None:
    """Return the prefix that ends at several boundaries at once, and which of its outputs are the features of each.

    Where one boundary lies behind another, what is folded or computed in place may differ from the single prefixes:
    compare the outputs before relying on them. None for a model that cannot be traced.
    """
    graph = trace_evaluation(model)
    if graph is None:
        return None
    wanted = {name for boundary in boundaries for name in boundary}
    names = [node.name for node in graph.nodes if node.name in wanted]
    places = tuple(tuple(names.index(name) for name in boundary) for boundary in boundaries)
    return _folded_prefix(model, graph, names), places


def prefix_key(prefix: fx.GraphModule) -> str:
    """Return a hash of what a prefix computes: its graph, its weights and its buffers, as 64 hex digits."""
    digest = hashlib.sha256(prefix.code.encode())
    for name, tensor in sorted(prefix.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _folded_prefix(model: nn.Module, graph: fx.Graph, names: Sequence[str]) -> fx.GraphModule:
    prefix = fx.GraphModule(copy.deepcopy(model).eval(), _prefix_graph(graph, names))
    prefix.delete_all_unused_submodules()
    return fold_batch_norms(prefix)


def fold_batch_norms(module: fx.GraphModule) -> fx.GraphModule:
    """Fold every evaluation-mode batch norm into the convolution before it, in place, where nothing else reads it."""
    modules = dict(module.named_modules())
    for node in list(module.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        source = node.args[0] if norm is not None and node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        conv = modules[str(source.target)]
        if type(conv) not in CONVOLUTIONS or len(source.users) != 1 or norm.running_mean is None:
            continue
        if _num_calls(module.graph, source.target) != 1 or _num_calls(module.graph, node.target) != 1:
            continue
        _fold(conv, norm)
        parent, _, name = str(node.target).rpartition(".")
        setattr(module.get_submodule(parent), name, _after_norm(norm))
    module.recompile()
    return module


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = weight, bias


def _after_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """Return the activation inside a batch norm (timm's BatchNormAct2d), else the identity."""
    if not isinstance(norm, BatchNormAct2d):
        return nn.Identity()
    activation: nn.Module = norm.act
    if hasattr(activation, "inplace"):
        activation.inplace = True  # type: ignore[assignment]  # the convolution's output has no other reader
    return activation


def _moving_nodes(model: nn.Module, graph: fx.Graph) -> set[str]:
    """Return names of the nodes whose value can change during training, for one and the same image."""
    moving: set[str] = set()
    of_images: set[str] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source.name in of_images for source in node.all_input_nodes):
            of_images.add(node.name)
        if any(source.name in moving for source in node.all_input_nodes) or _moves(model, node, of_images):
            moving.add(node.name)
    # Shapes are read again from the stored features, so that only tensors cross the boundary.
    for node in reversed(graph.nodes):
        if _reads_shape(node) and any(user.name in moving for user in node.users):
            moving.add(node.name)
    return moving


_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def _overwrites(model: nn.Module, node: fx.Node) -> bool:
    """Return whether a node works in place on a value that other nodes read: then the order of all of them counts."""
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    in_place = name.endswith("_") and not name.endswith("__")
    if node.op == "call_module":
        in_place = getattr(model.get_submodule(str(node.target)), "inplace", False) is True
    elif node.op == "call_function":
        in_place = in_place or node.kwargs.get("inplace") is True or node.target in _IN_PLACE
    elif node.op != "call_method":
        return False
    source = node.args[0] if node.args else None
    return in_place and isinstance(source, fx.Node) and len(source.users) > 1


def _reads_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim", "device", "dtype")
    if node.op == "call_function" and node.target is operator.getitem:
        source = node.args[0]
        return isinstance(source, fx.Node) and _reads_shape(source)
    return False


def _moves(model: nn.Module, node: fx.Node, of_images: Collection[str]) -> bool:
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return any(p.requires_grad for p in module.parameters()) or any(map(_acts_in_training, module.modules()))
    if node.op == "get_attr":
        value = model
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return isinstance(value, Tensor) and value.requires_grad
    return node.op == "call_function" and _varies(node, of_images)


_RANDOM = ("Dropout", "DropPath", "DropBlock", "StochasticDepth")
_NOISE = ("rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "normal")


def _varies(node: fx.Node, of_images: Collection[str]) -> bool:
    """Return whether a function gives something else at each call: noise, dropout that is on, statistics of the batch.

    The statistics of a weight (weight standardisation) are no statistics of the batch.
    """
    name = getattr(node.target, "__name__", "")
    if name in _NOISE:
        return True
    if "drop" not in name:
        return node.name in of_images and bool(node.kwargs.get("training", False))
    given = [*node.args[1:], *node.kwargs.values()]  # x, p and training, by place or by name
    return True in [value for value in given if isinstance(value, bool)] or not any(
        isinstance(value, bool) for value in given
    )


def _acts_in_training(module: nn.Module) -> bool:
    """Return whether a module computes something else while training: batch statistics, dropout."""
    if not module.training:
        return False
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return True
    if isinstance(says := getattr(module, "acts_in_training", None), bool):
        return says
    if not any(word in type(module).__name__ for word in _RANDOM):
        return False
    return bool(getattr(module, "p", getattr(module, "drop_prob", 1.0)))


def _boundary(graph: fx.Graph, moving: set[str]) -> list[str]:
    """Return names of the still nodes that moving ones read, in execution order."""
    return [
        node.name
        for node in graph.nodes
        if node.name not in moving and node.op != "get_attr" and any(user.name in moving for user in node.users)
    ]


def _is_input(graph: fx.Graph, names: Sequence[str], moving: set[str]) -> bool:
    """Return whether nothing is frozen before what trains, which reads the image itself (not just its shape)."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    read = [node for node in inputs if any(user.name in moving and not _reads_shape(user) for user in node.users)]
    crossing = set(names) & {node.name for node in inputs}
    computes = any(node.op == "call_module" and node.name not in moving for node in graph.nodes)
    return bool(read) or set(names) == crossing or (bool(crossing) and not computes)


def _prefix_graph(graph: fx.Graph, names: Sequence[str]) -> fx.Graph:
    prefix = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "output":
            values[node] = prefix.node_copy(node, lambda n: values[n])
    prefix.output(tuple(value for node, value in values.items() if node.name in names))
    drop_unused(prefix)
    return prefix


def _tail_graph(graph: fx.Graph, moving: set[str], names: Sequence[str]) -> fx.Graph:
    tail = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.name in names:
            values[node] = tail.placeholder(node.name)
    for node in graph.nodes:
        if node.name in moving or node.op == "get_attr":
            values[node] = tail.node_copy(node, lambda n: values[n])
    drop_unused(tail)
    return tail


def _only_linear(model: nn.Module, graph: fx.Graph, moving: set[str]) -> nn.Linear | None:
    nodes = [node for node in graph.nodes if node.name in moving and node.op != "output"]
    if len(nodes) != 1 or nodes[0].op != "call_module":
        return None
    module = model.get_submodule(str(nodes[0].target))
    return module if type(module) is nn.Linear else None


def _num_calls(graph: fx.Graph, target: object) -> int:
    return sum(node.op == "call_module" and node.target == target for node in graph.nodes)
