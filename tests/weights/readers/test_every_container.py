"""Containers of other frameworks through the command line: known by content, exit code 4 where they are cut."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from other_files import TfliteModel, darknet, mxnet, packed
from tests.conftest import Cli

KERNEL, BIAS = np.ones((4, 3, 3, 3), "f4"), np.ones(4, "f4")
STATE = {"conv.weight": KERNEL, "conv.bias": BIAS}
CFG = "[net]\nchannels=3\n[convolutional]\nfilters=4\nsize=3\n"


def _tflite() -> bytes:
    model = TfliteModel()
    kernel = model.tensor("conv", np.ascontiguousarray(KERNEL.transpose(0, 2, 3, 1)))
    model.operator(3, [model.tensor("x"), kernel, model.tensor("bias", BIAS)])
    return model.content()


FILES: dict[str, Callable[[], bytes]] = {
    "pkl": lambda: pickle.dumps(STATE),
    "pdparams": lambda: pickle.dumps({**STATE, "StructuredToParameterName@@": {"conv.weight": "conv2d_0.w_0"}}),
    "flax_msgpack": lambda: packed({"params": {"conv": {"kernel": KERNEL.transpose(2, 3, 1, 0), "bias": BIAS}}}),
    "mxnet_params": lambda: mxnet({"arg:conv_weight": KERNEL, "arg:conv_bias": BIAS}),
    "darknet": lambda: darknet([BIAS, KERNEL]),
    "tflite": _tflite,
}


@pytest.mark.parametrize("kind", FILES)
def test_inspect_knows_it_under_any_name_and_match_refuses_a_part_of_it(cli: Cli, tmp_path: Path, kind: str) -> None:
    content, path = FILES[kind](), tmp_path / "file"
    path.write_bytes(content)
    path.with_suffix(".cfg").write_text(CFG)
    result = cli("inspect", path, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["format"], found["num_tensors"]) == (kind, 2)
    path.write_bytes(content[: len(content) // 2 // 4 * 4])
    result = cli("match", path, "--model", "test_resnet")
    assert result.code == 4
    assert "try:" in result.err
