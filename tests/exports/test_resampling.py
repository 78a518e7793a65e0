"""Resizing as ONNX nodes gives the very bytes that Pillow gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.decode import resized as resized_by_pillow
from regraft.exports.sealing.nodes import Nodes
from regraft.exports.sealing.resampling import resized

BACKGROUND = (10, 200, 30)
SIZES = ((1, 1), (1, 7), (48, 64), (32, 32), (33, 31), (40, 320), (320, 40), (257, 129), (500, 374), (1, 1500))
SLOW_SIZES = (*SIZES, (900, 1200), (600, 75), (2000, 1500), (129, 4000))


def session(program: PixelProgram) -> Any:
    nodes = Nodes()
    out = nodes("Identity", resized(nodes, "images", program, program.beside))
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, "h", "w"])
    result = helper.make_tensor_value_info(out, TensorProto.UINT8, ["n", 3, *program.size])
    graph = helper.make_graph(nodes.made, "resizing", [given], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def programs() -> list[PixelProgram]:
    found = []
    for interpolation in ("bicubic", "bilinear", "lanczos", "nearest"):
        for resize, fraction in (("squash", 1.0), ("crop", 1.0), ("crop", 0.875), ("pad", 1.0)):
            for size, stored in (((32, 32), None), ((24, 40), (37, 29))):
                found.append(PixelProgram(size, resize, interpolation, BACKGROUND, fraction, stored))  # type: ignore[arg-type]
    return found


def require_equal(program: PixelProgram, sizes: tuple[tuple[int, int], ...]) -> None:
    run = session(program).run
    for height, width in sizes:
        pixels = np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels = (pixels > 128).astype(np.uint8) * 255 if height % 2 else pixels  # edges that overshoot
        wanted = np.asarray(resized_by_pillow(Image.fromarray(pixels), program, program.background))
        batch = np.stack([pixels, 255 - pixels]).transpose(0, 3, 1, 2)
        found = run(None, {"images": batch})[0].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(found[0], wanted, err_msg=f"{program} of {height} x {width}")


def test_every_policy_and_filter_is_pillows_to_the_bit() -> None:
    for program in programs()[::3]:
        require_equal(program, SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("program", programs(), ids=str)
def test_of_large_images_too(program: PixelProgram) -> None:
    require_equal(program, SLOW_SIZES)
