"""The features that a delivered network's classifier reads, of images as files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from regraft.compute.graph import trace_graph
from regraft.compute.numerics import Numerics
from regraft.compute.program import InferenceProgram, joint_prefix, program_batch_size
from regraft.data.cache.stream import DecodedStream
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.settings.head import Head

__all__ = ["MOST_FEATURES", "FeatureProgram", "Features", "classifier_of", "network_key"]

MOST_FEATURES = 4096  # whose products are 67 MB
_OUTPUTS = ("softmax", "binary")
_SILENT = (nn.Identity, nn.Dropout)  # in evaluation mode


class Features(NamedTuple):
    """What became of some image files.

    Attributes:
        values: float32 (readable images, features).
        rows: The position of each readable image among the files.
        reasons: Why an image cannot be used, by its position.
    """

    values: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    reasons: dict[int, str]


class FeatureProgram:
    """A delivered network up to its classifier, in fp32, ready for many images.

    Args:
        model: From `load_model`.
        numerics: Device, layout and threads.

    Raises:
        SettingsError: It gives images something else than one class each, or has another head than one linear layer.
    """

    def __init__(self, model: nn.Module, numerics: Numerics) -> None:
        _, classifier, boundary = _split(model)
        self.num_features = classifier.in_features
        prefix = joint_prefix(model, [[boundary]])
        if prefix is None:
            raise _no_linear_head(model)
        preprocessing = preprocessing_of(model)
        self._pixels, self._threads = preprocessing.pixels, numerics.threads
        self._normaliser = Normaliser(preprocessing, numerics.device)
        self._program = InferenceProgram(prefix[0], numerics, program_batch_size(numerics))

    def __call__(
        self, paths: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Features:
        """Return the features of image files.

        Args:
            paths: The files.
            progress: Called with (files done, files in all).
        """
        stream = DecodedStream(
            paths,
            self._pixels,
            batch_size=self._program.batch_size,
            threads=self._threads,
            allocate=self._normaliser.allocate,
        )
        values: list[npt.NDArray[np.float32]] = [np.zeros((0, self.num_features), np.float32)]
        reasons: dict[int, str] = {}
        done = 0
        for batch in stream:
            good = [row for row, reason in enumerate(batch.reasons) if reason is None]
            reasons |= {done + row: reason for row, reason in enumerate(batch.reasons) if reason is not None}
            if good:
                (features,) = self._program(self._normaliser(self._normaliser.pixels(batch.images)))
                values.append(features.float().cpu().numpy()[good])
            done += len(batch.paths)
            progress(done, len(paths))
        rows = np.array([row for row in range(done) if row not in reasons], dtype=np.int64)
        return Features(np.concatenate(values), rows, reasons)


def classifier_of(model: nn.Module) -> nn.Linear:
    """Return the linear layer that the network ends in.

    Raises:
        SettingsError: It gives images something else than one class each, or ends in another layer.
    """
    return _split(model)[1]


def network_key(model: nn.Module) -> str:
    """Return a hash of all that the features depend on: every tensor but the classifier's, and the preprocessing."""
    name, _, _ = _split(model)
    digest = hashlib.sha256(json.dumps(preprocessing_of(model).to_dict(), sort_keys=True).encode())
    for key, tensor in sorted(model.state_dict().items()):
        if key.rpartition(".")[0] != name:
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(model: nn.Module) -> tuple[str, nn.Linear, str]:
    """Return the classifier's name, the classifier, and the name of the node of the graph that it reads.

    Raises:
        SettingsError: There is no such layer.
    """
    info = info_of(model)
    if info.output not in _OUTPUTS:
        gives = "names the class of every pixel" if info.output == "segmentation" else "gives images several labels"
        raise SettingsError(
            f"This model {gives}, and classes are added to models that give each image one class.",
            "a run on images with one label each",
            "train again with the new images: `regraft train`",
        )
    if Head(**info.args.get("head", {})).hidden:
        raise SettingsError(
            "The head of this model has hidden layers, and was trained for the old classes alone.",
            "a head that is one linear layer on the network's features",
            "train again with the new images: `regraft train`",
        )
    graph = trace_graph(model.eval())
    node = None if graph is None else _classifier_node(model, graph)
    if node is None:
        raise _no_linear_head(model)
    name, layer = str(node.target), model.get_submodule(str(node.target))
    if not isinstance(layer, nn.Linear):
        raise _no_linear_head(model)
    return name, layer, node.all_input_nodes[0].name


def _classifier_node(model: nn.Module, graph: fx.Graph) -> fx.Node | None:
    """Return the node of the linear layer whose output is the network's; None where another layer comes last."""
    modules = dict(model.named_modules())
    (output,) = (node for node in graph.nodes if node.op == "output")
    node = output.args[0]
    while isinstance(node, fx.Node) and isinstance(modules.get(str(node.target)), _SILENT):
        node = node.all_input_nodes[0]
    layer = modules.get(str(node.target)) if isinstance(node, fx.Node) and node.op == "call_module" else None
    fits = type(layer) is nn.Linear and layer.bias is not None and layer.in_features <= MOST_FEATURES
    return node if fits else None


def _no_linear_head(model: nn.Module) -> SettingsError:
    return SettingsError(
        f"The last layer of {info_of(model).architecture!r} is not one that classes can be added to.",
        f"one linear layer with a bias, on at most {MOST_FEATURES:,} pooled features",
        "train again with the new images: `regraft train`",
    )
