"""A sealed file as an OpenVINO model, proven again: another program computes it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch

from regraft.exports.proving.proof import prove
from regraft.exports.running.guard import guarded
from regraft.exports.running.openvino_engine import METADATA, OpenVinoEngine, openvino_sha256
from regraft.exports.running.session import SealedSession
from regraft.exports.sealed_run import Progress, SealedRun, verified

__all__ = ["as_openvino"]

_OPTIONAL = ("resize", "size")


def as_openvino(file: SealedRun, name: str, verify: int, progress: Progress) -> tuple[SealedRun, Mapping[str, bytes]]:
    """Return a sealed file as NAME.xml and NAME.bin: what it says of itself, and the bytes by suffix.

    OpenVINO computes what ONNX has in fp64 and in whole numbers of 64 bits in 32 bits, so that single pixels may be
    resized to the next byte: the proof says what that does to the answers.

    Args:
        file: Proven as ONNX.
        name: What it is called in errors.
        verify: How many odd images are compared.
        progress: Called with (images compared, images in all).

    Raises:
        WeightsError: It does not say what the run says.
    """
    import openvino

    model = openvino.Core().read_model(model=_with_all_inputs(file.data), weights=b"")
    with tempfile.TemporaryDirectory(prefix="regraft-openvino-") as folder:
        path = Path(folder) / "model.xml"
        _save(openvino, model, path, file.seal.to_metadata())
        session = SealedSession(path, threads=torch.get_num_threads())
        probes = bool(file.seal.verified["num_probes"])
        proof = prove(session, file.network, file.contents, verify, probes=probes, progress=progress)
        seal = replace(file.seal, verified=verified(proof, file.seal.output))
        del session  # which holds the files
        _save(openvino, model, path, seal.to_metadata())
        OpenVinoEngine(path, torch.get_num_threads(), name)
        return replace(file, seal=seal), {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".bin", ".xml")}


def _with_all_inputs(data: bytes) -> bytes:
    """Return the model with all of its inputs required: OpenVINO takes one that may be left out for a constant."""
    model = onnx.load_model_from_string(data)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in _OPTIONAL]
    del model.graph.initializer[:], model.metadata_props[:]
    model.graph.initializer.extend(kept)
    return bytes(model.SerializeToString())


def _save(openvino: Any, model: Any, path: Path, texts: Mapping[str, str]) -> None:
    """Write the model with its metadata, and with what notices changes."""
    openvino.save_model(model, str(path), compress_to_fp16=False)
    model.set_rt_info(json.dumps(guarded(texts, openvino_sha256(path))), METADATA)
    openvino.save_model(model, str(path), compress_to_fp16=False)
