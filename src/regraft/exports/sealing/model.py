"""The sealed ONNX model: images of any size in, what is said of them out."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from regraft.data.decode.decode import PixelProgram
from regraft.errors import SettingsError
from regraft.exports.sealing.network import SealedNetwork
from regraft.exports.sealing.nodes import Nodes
from regraft.exports.sealing.resampling import resized
from regraft.exports.sealing.unsupported import unsupported_layer
from regraft.exports.sealing.upscaling import masks

__all__ = ["OPSET", "sealed_model"]

OPSET = 18
_IR_VERSION = 10
_MOST_BYTES = 1_900_000_000  # protobuf holds 2 GB
_PIXELS, _RESIZE, _SIZE, _MASK, _CONFIDENCE = "pixels", "resize", "size", "mask", "confidence"


def sealed_model(network: SealedNetwork, program: PixelProgram) -> onnx.ModelProto:
    """Return the model, without metadata.

    Its input `images` is uint8 (N, height, width, channels), all of one size. Two more may be left out: `resize` false
    says that the images went through the pixel program already; `size`, of a network for segmentation, says height and
    width of the masks.

    Args:
        network: What stands at its end.
        program: What the network's images went through in training.

    Raises:
        SettingsError: The network computes something that ONNX does not have, or is larger than a file may be.
    """
    _require_small(network)
    model = _exported(network, program)
    graph = model.graph
    nodes = Nodes()
    nchw = nodes("Transpose", "images", perm=[0, 3, 1, 2])
    pixels = nodes.choose(
        _RESIZE,
        lambda inner: resized(inner, nchw, program, program.beside),
        lambda inner: inner("Identity", nchw),
    )
    nodes.made.append(helper.make_node("Identity", [pixels], [_PIXELS], name=_PIXELS))
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", program.num_channels])
    ]
    inputs.append(helper.make_tensor_value_info(_RESIZE, TensorProto.BOOL, []))
    graph.initializer.append(numpy_helper.from_array(np.asarray(True), _RESIZE))
    behind = Nodes("masks")
    if network.output == "segmentation":
        inputs.append(helper.make_tensor_value_info(_SIZE, TensorProto.INT64, [2]))
        graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.int64), _SIZE))
        _add_masks(graph, behind, program)
    made = [*nodes.made, *graph.node, *behind.made]
    del graph.node[:], graph.input[:]
    graph.node.extend(made)
    graph.input.extend(inputs)
    onnx.checker.check_model(model)
    return model


def _add_masks(graph: onnx.GraphProto, nodes: Nodes, program: PixelProgram) -> None:
    """Turn the maps, the only output, into masks and their confidence."""
    (maps,) = (output.name for output in graph.output)
    shape = nodes("Shape", "images")
    own = nodes("Slice", shape, nodes.constant([1], np.int64), nodes.constant([3], np.int64))
    asked = nodes("Greater", _SIZE, nodes.constant([0, 0], np.int64))
    results = masks(nodes, maps, nodes("Where", asked, _SIZE, own), program)
    for result, name in zip(results, (_MASK, _CONFIDENCE), strict=True):
        nodes.made.append(helper.make_node("Identity", [result], [name], name=name))
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info(_MASK, TensorProto.UINT8, ["batch", "mask_height", "mask_width"]),
            helper.make_tensor_value_info(_CONFIDENCE, TensorProto.FLOAT, ["batch"]),
        ]
    )


def _require_small(network: nn.Module) -> None:
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if num_bytes > _MOST_BYTES:
        raise SettingsError(
            f"The network has {num_bytes / 1e9:.1f} GB of weights in fp32, and one ONNX file holds 2 GB.",
            "a smaller network",
            "`rg.load_model(RUN)` and `torch.export` for one of this size",
        )


def _exported(network: SealedNetwork, program: PixelProgram) -> onnx.ModelProto:
    """Return the network from pixels of its size on, as torch exports it, without what torch notes of its source."""
    example = torch.zeros((2, program.num_channels, *program.size), dtype=torch.uint8)
    try:
        model = traced(network, (example,), (_PIXELS,), network.output_names)
    except Exception as error:  # torch raises whatever the network's code raises
        raise unsupported_layer(network, example, error, lambda module, given: traced(module, given)) from error
    model.ir_version = _IR_VERSION
    model.producer_name = "regraft"
    return model


def traced(
    module: nn.Module, given: tuple[torch.Tensor, ...], inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """Return a module as an ONNX model, for any number of images."""
    names: dict[str, Any] = {"input_names": list(inputs)} if inputs else {}
    names |= {"output_names": list(outputs)} if outputs else {}
    shapes = tuple({0: torch.export.Dim("batch")} for _ in given)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, given, dynamo=True, opset_version=OPSET, dynamic_shapes=shapes, verbose=False, **names
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    if program is None:
        raise RuntimeError("torch exported nothing")
    model = program.model_proto
    _strip(model)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Drop what torch notes beside the graph: lines of source code and the paths of their files."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
