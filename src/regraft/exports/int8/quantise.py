"""A sealed model with its convolutions and linear layers in 8-bit integers; pixel program and normalisation stay."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from regraft.errors import SettingsError

__all__ = ["WAYS", "Way", "layers_of", "quantised", "ranges_of"]

Pixels = npt.NDArray[np.uint8]
_LAYERS = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu", "Resize")
_ERRORS, _WARNINGS = 3, 2  # of onnxruntime
_PIXELS = "pixels"  # the node behind which the network begins
_TYPICALITY = "typicality."  # how the names of its tensors begin
_LARGE, _LARGEST_HALF = 10_000, 60_000.0


@dataclass(frozen=True)
class Way:
    """How floats become integers.

    Attributes:
        ranges: How the range of an activation is found: `minmax`, `percentile`, `entropy`.
        per_channel: Whether each output channel of a layer has a scale of its own.
    """

    ranges: str
    per_channel: bool

    def __str__(self) -> str:
        return f"{self.ranges}, {'per channel' if self.per_channel else 'per tensor'}"


WAYS = tuple(Way(ranges, per_channel) for ranges in ("minmax", "percentile") for per_channel in (True, False))


def layers_of(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that can be integers, in the order in which they are computed."""
    return [node.name for node in _network(model) if node.op_type in _LAYERS]


def ranges_of(model: onnx.ModelProto, batches: Iterable[Pixels], way: str) -> Any:
    """Return the range of each activation over images of the network's size, uint8 (N, h, w, C).

    Args:
        model: In floats.
        batches: The images.
        way: As `Way.ranges`.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self, images: Pixels) -> None:
            self._coming = iter([{"images": images, "resize": np.asarray(False)}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._coming, None)

    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    with tempfile.TemporaryDirectory(prefix="regraft-int8-") as folder, _tools():
        plain, augmented = Path(folder) / "plain.onnx", str(Path(folder) / "augmented.onnx")
        onnx.save(_inferred(model), plain)
        names = sorted({node.op_type for node in _network(model)} & {*_LAYERS, *_BETWEEN})
        more = {"percentile": 99.99} if way == "percentile" else {}
        calibrator = create_calibrator(
            plain, names, augmented_model_path=augmented, calibrate_method=methods[way], extra_options=more
        )
        for images in batches:  # one by one: it holds all activations of what it is given
            calibrator.collect_data(Reader(images))
        return calibrator.compute_data()


def quantised(model: onnx.ModelProto, ranges: Any, way: Way, in_floats: Sequence[str] = ()) -> onnx.ModelProto:
    """Return the model with integers, without metadata.

    Args:
        model: In floats.
        ranges: From `ranges_of`.
        way: How.
        in_floats: Names of layers that stay.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    inside = {node.name for node in _network(model) if node.op_type in (*_LAYERS, *_BETWEEN)} - set(in_floats)
    outside = [node.name for node in model.graph.node if node.name not in inside]
    with _tools():
        quantizer = QDQQuantizer(
            _inferred(model),
            way.per_channel,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            sorted(inside),
            outside,
            [*_LAYERS, *_BETWEEN],
            {"WeightSymmetric": True, "ActivationSymmetric": False, "AddQDQPairToWeight": False},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made = quantizer.model.model
    _halve(made)
    del made.metadata_props[:], made.graph.value_info[:]
    onnx.checker.check_model(made)
    result: onnx.ModelProto = made
    return result


def _halve(model: onnx.ModelProto) -> None:
    """Store what is large of the typicality in 16 bits: features of integers have no more digits than that."""
    for tensor in list(model.graph.initializer):
        if not tensor.name.startswith(_TYPICALITY) or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _LARGE or np.abs(values).max() > _LARGEST_HALF:
            continue
        half = f"{tensor.name}_half"
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float16), half))
        cast = onnx.helper.make_node("Cast", [half], [tensor.name], name=f"{half}_cast", to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    inferred = onnx.shape_inference.infer_shapes(model)
    add_infer_metadata(inferred)
    return inferred


def _network(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of the network: what leads to its answer, from its first layer to its last."""
    nodes = list(model.graph.node)
    makers = {output: node for node in nodes for output in node.output}
    asked, seen = [model.graph.output[0].name], set()
    while asked:
        node = makers.get(asked.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            asked += node.input
    start = next(place for place, node in enumerate(nodes) if node.name == _PIXELS)
    path = [node for node in nodes[start + 1 :] if node.name in seen]
    places = [place for place, node in enumerate(path) if node.op_type in _LAYERS]
    return path[places[0] : places[-1] + 1] if places else []


@contextlib.contextmanager
def _tools() -> Iterator[None]:
    """Keep what onnxruntime's tools print off the terminal, and say what they cannot do.

    Raises:
        SettingsError: They cannot make integers of the network.
    """
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:  # whatever onnxruntime's tools raise
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"onnxruntime cannot make int8 of this network ({type(error).__name__}: {reason}).", "", "leave out --int8"
        ) from error
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
        logging.disable(before)
