"""The shared corpus of real weight files: what a case's file should do, computed from its map and its reference."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.weights.file import WeightFile

REPOSITORY = Path(__file__).parents[3]


def case(name: str) -> Path:
    """The folder of a case, or skip."""
    shared = Path(os.environ.get("REGRAFT_SHARED", REPOSITORY.parent / "shared"))
    folder = shared / "weights" / name
    if not folder.is_dir():
        pytest.skip(f"the shared weight files are not here ({name}; set REGRAFT_SHARED)")
    return folder


def logits_error(folder: Path, weights: WeightFile) -> float:
    """Relative error of the target model's logits, filled from the file as the case's map says."""
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("targets", folder.parent / "targets.py")
    assert spec
    assert spec.loader
    targets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(targets)
    model = targets.build(json.loads((folder / "case.json").read_text())["target"])
    state = model.state_dict()
    for target, (transform, sources) in json.loads((folder / "map.json").read_text()).items():
        value = transformed(transform, [weights.tensors[name].load() for name in sources if name in weights.tensors])
        state[target].copy_(torch.from_numpy(np.ascontiguousarray(value)).reshape(state[target].shape))
    expected = np.load(folder / "expected.npz")
    with torch.no_grad():
        got = model(torch.from_numpy(expected["x_nchw"])).numpy()
    return float(np.abs(got - expected["logits"]).max() / np.abs(expected["logits"]).max())


def transformed(transform: str, values: list[np.ndarray]) -> np.ndarray:
    word, _, arguments = transform.partition(":")
    first: Any = values[0]
    if word == "conv":
        return first.transpose(3, 2, 0, 1)
    if word == "dw":
        return first.transpose(2, 3, 0, 1)
    if word == "lin":
        return first.T
    if word == "zeros":
        return np.zeros_like(first)
    if word == "fcnchw":
        height, width, channels = map(int, arguments.split(","))
        return first.reshape(height, width, channels, -1).transpose(3, 2, 0, 1).reshape(first.shape[1], -1)
    assert word in ("id", "div"), word  # the reader has divided already
    return first
