"""What decoders inside ONNX make of image files: why no sealed file takes the bytes of a file.

    uv run --with onnxruntime-extensions==0.15.2 python benchmarks/encoded_bytes.py [--images 240]

The standard operator ImageDecoder (opset 20) and DecodeImage of onnxruntime-extensions read the odd images that every
export is proven on; their pixels are compared with those that a network is trained on, read upright and not resized.
Then DecodeImage is given damaged files, each in a process of its own, which has 20 seconds.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.synchronize import Event

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime_extensions import __version__ as extensions_version
from onnxruntime_extensions import get_library_path
from PIL import Image

from regraft.data.decode.decode import PixelProgram, upright_or_reason
from regraft.exports.proving.odd_images import odd_images

Pixels = npt.NDArray[np.uint8]
EXTENSIONS = "com.microsoft.extensions"
SECONDS = 20
SAME = "the same bytes"


def decoder(operator: str, domain: str) -> Callable[[bytes], Pixels]:
    """A session of one operator, bytes to pixels."""
    node = helper.make_node(operator, ["data"], ["image"], domain=domain)
    data = helper.make_tensor_value_info("data", TensorProto.UINT8, ["length"])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, None)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(EXTENSIONS, 1)]
    model = helper.make_model(helper.make_graph([node], "decoder", [data], [image]), opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(get_library_path())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda file: session.run(None, {"data": np.frombuffer(file, np.uint8)})[0]


def compared(decode: Callable[[bytes], Pixels], file: bytes) -> str:
    """What one file becomes."""
    wanted = upright_or_reason(file, PixelProgram((32, 32), draft=False))
    if Image.open(io.BytesIO(file)).format not in ("JPEG", "PNG"):
        return "not read"  # whatever is no PNG goes to the JPEG library, which ends the process
    try:
        found = decode(file)
    except Exception as error:  # onnxruntime raises classes of its own
        return type(error).__name__
    if isinstance(wanted, str) or found.shape != wanted.shape:
        return f"shape {found.shape[2:]}" if isinstance(wanted, str) or found.shape[:2] == wanted.shape[:2] else "lying"
    apart = min((np.abs(found[..., ::step].astype(int) - wanted) for step in (1, -1)), key=lambda values: values.mean())
    return SAME if not apart.any() else f"bytes differ by {apart.mean():4.1f}, at most {apart.max():3}"


def damaged() -> dict[str, bytes]:
    """Files that are not whole."""
    rough = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image, files = Image.fromarray(rough).resize((300, 200)), {}
    for kind in ("JPEG", "PNG"):
        stream = io.BytesIO()
        image.save(stream, kind)
        files[f"half of a {kind}"] = stream.getvalue()[: len(stream.getvalue()) // 2]
    return {**files, "text": b"This is not an image, and long enough to be asked."}


def survives(file: bytes) -> str:
    """What becomes of a process that decodes it."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=attempt, args=(file, begun))
    process.start()
    begun.wait()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        return f"no answer in {SECONDS} s"
    return {0: "an error", 3: "pixels"}.get(process.exitcode or 0, f"the process ended with {process.exitcode}")


def attempt(file: bytes, begun: Event) -> None:
    """Decode, in a process of its own."""
    decode = decoder("DecodeImage", EXTENSIONS)
    begun.set()
    try:
        decode(file)
    except Exception:  # what is wanted
        raise SystemExit(0) from None
    raise SystemExit(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=240)
    num = parser.parse_args().images
    print(
        f"onnxruntime {onnxruntime.__version__}, onnxruntime-extensions {extensions_version}, onnx {onnx.__version__}"
    )
    try:
        decoder("ImageDecoder", "")
        print("ImageDecoder: runs")
    except Exception as error:  # onnxruntime raises classes of its own
        print(f"ImageDecoder: {' '.join(str(error).split())}")
    decode, found = decoder("DecodeImage", EXTENSIONS), defaultdict(list)
    rough = np.random.default_rng(0).integers(0, 256, (8, 7, 7, 3), dtype=np.uint8)
    contents = [np.asarray(Image.fromarray(one).resize((96, 96))) for one in rough]
    for kind, file in odd_images(num, contents):
        found[kind, str(Image.open(io.BytesIO(file)).format)].append(compared(decode, file))
    for (kind, form), said in sorted(found.items()):
        same, *others = sum(one == SAME for one in said), *sorted({one for one in said if one != SAME})[-1:]
        print(f"DecodeImage: {kind}, {form}: {same} of {len(said)} the same{''.join(f'; {one}' for one in others)}")
    for name, file in damaged().items():
        print(f"DecodeImage: {name}: {survives(file)}")


if __name__ == "__main__":
    main()
