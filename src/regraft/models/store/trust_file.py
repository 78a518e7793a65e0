"""trust.safetensors of a model folder: what its predictions are judged by, written and read without trust."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regraft.errors import StorageError
from regraft.models.describe.trust import Detector, Trust

__all__ = ["TRUST", "read_trust", "write_trust"]

TRUST = "trust.safetensors"
_NONCONFORMITY, _TYPICAL, _DETECTOR = "nonconformity", "typical", "detector."
_LARGEST = 64 << 20  # bytes


def write_trust(path: Path, trust: Trust) -> None:
    """Write the file; its bytes follow from the content alone."""
    tensors: dict[str, Tensor] = {}
    if trust.nonconformity is not None:
        tensors[_NONCONFORMITY] = trust.nonconformity
    if trust.detector is not None:
        tensors[_TYPICAL] = trust.detector.typical
        tensors |= {_DETECTOR + name: tensor for name, tensor in trust.detector.tensors.items()}
    facts = {"kind": trust.detector.kind if trust.detector else "", "notes": dict(trust.notes)}
    metadata = {"trust": json.dumps(facts, sort_keys=True)}
    save_file({name: tensor.contiguous() for name, tensor in sorted(tensors.items())}, path, metadata=metadata)


def read_trust(path: Path) -> Trust | None:
    """Return what a model folder keeps; None where there is none, as of older versions.

    Raises:
        StorageError: The file is damaged, or too large to be one.
    """
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["trust"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _trust(facts["kind"], dict(facts["notes"]), tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise StorageError(
            f"{str(path)!r} is damaged or was not written by regraft ({type(error).__name__}: {error}).",
            "what regraft wrote there",
            "restore the folder from a copy; without the file the model predicts, but not with --sets or --reject",
        ) from error


def _trust(kind: object, notes: dict[str, str], tensors: dict[str, Tensor]) -> Trust:
    if not isinstance(kind, str) or not all(isinstance(text, str) for text in notes.values()):
        raise ValueError("kind or notes are no texts")
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in tensors.values()):
        raise ValueError("a number is not finite")
    detector = None
    if kind:
        own = {name.removeprefix(_DETECTOR): value for name, value in tensors.items() if name.startswith(_DETECTOR)}
        detector = Detector(kind, own, _ascending(tensors[_TYPICAL]))
    scores = tensors.get(_NONCONFORMITY)
    return Trust(None if scores is None else _ascending(scores), detector, notes)


def _ascending(scores: Tensor) -> Tensor:
    if scores.ndim != 1 or not len(scores) or bool((scores.diff() < 0).any()):
        raise ValueError("scores are not a list in ascending order")
    return scores
