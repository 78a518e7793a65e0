"""What each place of the last map adds to each class: one more output of a model that ends in pooling and one layer.

Behind global pooling and a linear layer a class's logit is the mean over the places of map times weights: the class
activation map (Zhou et al. 2016), which is what `regraft explain` finds by gradients in any network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.exports.page.frame import HEAT
from regraft.exports.running.session import SealedSession
from regraft.exports.sealed_run import SealedRun, with_metadata
from regraft.exports.sealing.nodes import Nodes

__all__ = ["with_heat"]

_STORED = ("DequantizeLinear", "Identity", "QuantizeLinear")  # how a value lies there
_RESHAPED = (*_STORED, "Flatten", "Reshape", "Squeeze")
_BEHIND = (*_STORED, "Cast", "Concat", "Div", "Mul", "Neg", "Reshape", "Sigmoid", "Softmax", "Sub", "Unsqueeze")
_LAYERS = ("Gemm", "MatMul")
_MEANS = ([2, 3], [-2, -1], [-1, -2])
Makers = Mapping[str, onnx.NodeProto]


def with_heat(file: SealedRun) -> SealedRun:
    """Return a sealed file with the output `heat` (N, classes, h, w); as it is where the network ends otherwise."""
    model = onnx.load_model_from_string(file.data)
    if file.seal.output == "segmentation" or not _add_heat(model, file.seal.output):
        return file
    data = with_metadata(model, file.seal)
    has_places = SealedSession(data).run(file.contents[0][None], resize=False)[HEAT][0, 0].size > 1
    return replace(file, data=data) if has_places else file


def _add_heat(model: onnx.ModelProto, output: str) -> bool:
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    layer = _last_layer(graph, makers)
    mean = None if layer is None else _back(layer.input[0], makers, _RESHAPED)
    if layer is None or mean is None or not _is_global_mean(mean, graph, makers):
        return False
    nodes = Nodes(HEAT)
    rows = layer.input[1] if _attribute(layer, "transB") else nodes("Transpose", layer.input[1], perm=[1, 0])
    if output == "softmax":  # of whose logits only differences mean anything
        rows = nodes("Sub", rows, nodes("ReduceMean", rows, nodes.constant([0], np.int64), keepdims=1))
    elif output == "binary":
        rows = nodes("Concat", nodes("Neg", rows), rows, axis=0)
    kernel = nodes("Unsqueeze", rows, nodes.constant([2, 3], np.int64))
    nodes.made.append(helper.make_node("Conv", [mean.input[0], kernel], [HEAT], name=HEAT))
    graph.node.extend(nodes.made)
    graph.output.append(helper.make_tensor_value_info(HEAT, TensorProto.FLOAT, ["batch", "classes", "rows", "columns"]))
    onnx.checker.check_model(model)
    return True


def _last_layer(graph: onnx.GraphProto, makers: Makers) -> onnx.NodeProto | None:
    """Return the layer that gives the logits; None where another operator stands between it and the probabilities."""
    asked, found = [graph.output[0].name], {}
    while asked:
        node = makers.get(asked.pop())
        if node is None or node.op_type == "Constant" or node.name in found:
            continue
        if node.op_type in _LAYERS:
            found[node.name] = node
        elif node.op_type == "Add" and (product := _product(node, makers)) is not None:
            found[product.name] = product
        elif node.op_type in _BEHIND:
            asked += node.input
        else:
            return None
    layers = list(found.values())
    return layers[0] if len(layers) == 1 and not _attribute(layers[0], "transA") else None


def _product(node: onnx.NodeProto, makers: Makers) -> onnx.NodeProto | None:
    """Return the product that a bias is added to."""
    made = [makers[name] for name in node.input if name in makers]
    return next((one for one in made if one.op_type == "MatMul"), None)


def _back(name: str, makers: Makers, passed: tuple[str, ...]) -> onnx.NodeProto | None:
    """Return the node that made a value, before others that left its numbers as they were."""
    node = makers.get(name)
    while node is not None and node.op_type in passed:
        node = makers.get(node.input[0])
    return node


def _is_global_mean(node: onnx.NodeProto, graph: onnx.GraphProto, makers: Makers) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = _attribute(node, "axes") or (_constant(node.input[1], graph, makers) if len(node.input) > 1 else None)
    return axes is not None and list(axes) in _MEANS


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)


def _constant(name: str, graph: onnx.GraphProto, makers: Makers) -> list[int] | None:
    for tensor in graph.initializer:
        if tensor.name == name:
            return [int(value) for value in numpy_helper.to_array(tensor).ravel()]
    node = makers.get(name)
    value = None if node is None else _attribute(node, "value")
    return [int(one) for one in numpy_helper.to_array(value).ravel()] if isinstance(value, TensorProto) else None
