"""A network as a program of `torch.export`, proven: from pixels of its size to probabilities."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regraft.errors import SettingsError
from regraft.exports.proving.proof import prove
from regraft.exports.running.guard import guarded
from regraft.exports.running.session import SealedSession
from regraft.exports.sealed_run import Progress, SealedRun, verified
from regraft.exports.sealing.network import sealed_network

__all__ = ["METADATA_FILE", "as_torch_program"]

METADATA_FILE = "regraft.json"


class _TorchEngine:
    """A loaded program, as what runs a sealed file."""

    def __init__(
        self, program: torch.export.ExportedProgram, metadata: Mapping[str, str], widths: Mapping[str, int | None]
    ) -> None:
        self._module = program.module()
        self.metadata: Mapping[str, str] = metadata
        self.widths: Mapping[str, int | None] = widths
        self.network, self.resizes = metadata["model_sha256"], False

    @torch.no_grad()
    def run(self, feeds: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """Return what the program gives."""
        images = torch.from_numpy(np.ascontiguousarray(feeds["images"].transpose(0, 3, 1, 2)))
        given = self._module(images)
        return [one.numpy() for one in (given if isinstance(given, tuple | list) else (given,))]


def as_torch_program(file: SealedRun, name: str, verify: int, progress: Progress) -> tuple[SealedRun, bytes]:
    """Return a sealed file's network as the bytes of NAME.pt2, with what it says of itself among its extra files.

    Args:
        file: Proven as ONNX.
        name: What it is called in errors.
        verify: How many odd images are compared.
        progress: Called with (images compared, images in all).

    Raises:
        SettingsError: It is a network for segmentation.
        WeightsError: It does not say what the run says.
    """
    if file.seal.output == "segmentation":
        raise SettingsError("A .pt2 file names images, and this network names pixels.", "", "export it as .onnx")
    network = sealed_network(file.network)
    pixels = file.seal.preprocessing.pixels
    example = torch.zeros((2, pixels.num_channels, *pixels.size), dtype=torch.uint8)
    with torch.no_grad():
        made = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    widths: dict[str, int | None] = dict.fromkeys(network.output_names)
    widths["probabilities"] = len(file.seal.class_names)
    loaded = torch.export.load(io.BytesIO(_saved(made, file.seal.to_metadata())))
    texts = guarded(file.seal.to_metadata(), file.seal.model_sha256)
    session = SealedSession(_TorchEngine(loaded, texts, widths), name=name)
    probes = bool(file.seal.verified["num_probes"])
    proof = prove(session, file.network, file.contents, verify, probes=probes, progress=progress)
    values = verified(proof, file.seal.output)
    del values["opset"]
    seal = replace(file.seal, verified=values)
    return replace(file, seal=seal), _saved(made, seal.to_metadata())


def _saved(made: torch.export.ExportedProgram, texts: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    torch.export.save(made, stream, extra_files={METADATA_FILE: json.dumps(texts)})
    return stream.getvalue()
