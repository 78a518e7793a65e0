"""What is written beside a sealed file: a script that runs it without regraft, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.exports.seal import Seal

__all__ = ["card_text", "script_text"]


def script_text(seal: Seal, name: str) -> str:
    """Return a script that runs the file `name`, which lies beside it, with its runtime, NumPy and Pillow alone."""
    program = seal.preprocessing.pixels
    read = _READ_BANDS if program.bands else _READ.format(needed=_needed(seal), background=program.background)
    images = "ARRAY.npy" if program.bands else "PHOTO"
    runtime = "openvino" if name.lower().endswith(".xml") else "onnxruntime"
    needs = f"{runtime} numpy pillow" if seal.output == "segmentation" or not program.bands else f"{runtime} numpy"
    imports = "from PIL import Image, ImageOps\n" if not program.bands else ""
    imports = imports or ("from PIL import Image\n" if seal.output == "segmentation" else "")
    return _SCRIPT.format(
        name=name,
        images=images,
        needs=needs,
        runtime=runtime,
        imports=imports,
        opened=_OPENED[runtime].replace("NAME", repr(name)).rstrip("\n"),
        read=read,
        say=_SAY[seal.output].strip("\n"),
    )


def card_text(seal: Seal, card: str, name: str, *, runs: str = "") -> str:
    """Return the card of the file `name`: that of the model folder, and how the file was proven.

    Args:
        seal: What the file says of itself.
        card: README.md of the model folder; empty where there is none.
        name: Of the file.
        runs: What runs it, a sentence; empty for `regraft predict` and the script beside it.
    """
    program = seal.preprocessing.pixels
    height, width = program.size
    channels = program.num_channels
    verified = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in _told(seal.verified).items())
    if name.lower().endswith(".pt2"):
        return _TORCH_CARD.format(
            card=_of_the_file(card).rstrip() or "# " + seal.architecture,
            name=name,
            size=f"{channels}, {height}, {width}",
            gives=_GIVES[seal.output],
            license=seal.license,
            sha256=seal.model_sha256,
            verified=verified,
        )
    return f"""{_of_the_file(card).rstrip() or "# " + seal.architecture}

## {name}

Input `images`: uint8 (N, height, width, {channels}), any height and width, after decoding and turning upright. The file
itself resizes to {width}x{height} ({program.resize}, {program.interpolation}), normalises, and gives
{_GIVES[seal.output]}. Its metadata have the class names, thresholds, temperatures and preprocessing.
Pretrained weights: {seal.license}. SHA-256 of the exported weights: {seal.model_sha256}.

{runs or f"`regraft predict {name} IMAGES`, and the script beside it run the file."}

Compared with the run before it was written:

{verified}
"""


def _of_the_file(card: str) -> str:
    """Return a model folder's card without what it says of that folder, which does not lie beside the file."""
    kept = card.partition("\n## Loading\n")[0].replace("`config.json`", "its metadata")
    return kept.replace("library_name: timm\n", "library_name: onnx\n").replace(
        "library_name: regraft\n", "library_name: onnx\n"
    )


def _told(verified: Mapping[str, Any]) -> dict[str, str]:
    return {key: f"{value:.2g}" if isinstance(value, float) else str(value) for key, value in verified.items()}


def _needed(seal: Seal) -> str:
    """Return the lines that say how large a JPEG file has to be decoded, as it was for training."""
    program = seal.preprocessing.pixels
    if not program.draft:
        return ""
    height, width = program.stored or program.size
    if program.resize == "squash":
        return _DRAFT.format(height=height, width=width, smaller="x, y")
    which = "max" if program.resize == "crop" else "min"
    fraction = "" if program.crop_fraction == 1 else f" / {program.crop_fraction!r}"
    smaller = f"[max(1, round(side * {which}(x / image.width, y / image.height){fraction})) for side in image.size]"
    return _DRAFT.format(height=height, width=width, smaller=smaller)


_TORCH_CARD = """{card}

## {name}

A program of `torch.export`: `torch.export.load("{name}", extra_files=found)` with `found = {{"regraft.json": ""}}`.
Input: uint8 (N, {size}), after the pixel program that `preprocessing` in `regraft.json` describes: this file
does not resize. It normalises, and gives {gives}. Class names, thresholds and temperatures are in
`regraft.json` too.
Pretrained weights: {license}. SHA-256 of the exported weights: {sha256}.

Compared with the run before it was written:

{verified}
"""
_GIVES = {
    "softmax": "the `probabilities` (N, classes)",
    "binary": "the `probabilities` (N, 2)",
    "multilabel": "the `probabilities` (N, labels)",
    "segmentation": "a `mask` (N, height, width) of positions in the class names, with its mean `confidence`",
}
_OPENED = {
    "onnxruntime": """options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # errors
session = onnxruntime.InferenceSession(Path(__file__).with_name(NAME), options, providers=["CPUExecutionProvider"])
told = session.get_modelmeta().custom_metadata_map

def run(pixels):
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"images": pixels[None]})))
""",
    "openvino": """model = openvino.Core().read_model(Path(__file__).with_name(NAME))
told = json.loads(model.get_rt_info(["regraft", "metadata"]).astype(str))
compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
asked = {one.get_any_name() for one in model.inputs}

def run(pixels):
    more = {"resize": np.asarray(True), "size": np.asarray(pixels.shape[:2])}  # of pixels that are not resized yet
    given = compiled({"images": pixels[None], **{key: value for key, value in more.items() if key in asked}})
    return {one.get_any_name(): given[one] for one in compiled.outputs}
""",
}
_SCRIPT = '''"""Run {name}: python {{this file}} {images} ...   (pip install {needs})"""

import json, sys
from pathlib import Path

import numpy as np
import {runtime}
{imports}
{opened}
names, thresholds = json.loads(told["class_names"]), json.loads(told["thresholds"])

{read}

for path in sys.argv[1:] or sys.exit("usage: python " + sys.argv[0] + " IMAGES"):
    try:
        pixels = read(path)
    except Exception as error:
        print(path, "cannot be read:", error, file=sys.stderr)
        continue
    given = run(pixels)
{say}
'''
_DRAFT = """
    x, y = ({width}, {height}) if image.getexif().get(274, 1) < 5 else ({height}, {width})
    image.draft(None, ({smaller}))  # JPEG files are decoded as small as they were for training"""
_READ = """def read(path):
    image = Image.open(path){needed}
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # the high byte
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("it holds numbers for which no black and no white is stated")
    if image.has_transparency_data:
        canvas = Image.new("RGB", image.size, {background})
        canvas.paste(image.convert("RGBA"), mask=image.convert("RGBA").getchannel("A"))
        image = canvas
    return np.asarray(image.convert("RGB"))"""
_READ_BANDS = """def read(path):
    return np.load(path)  # uint8 (height, width, bands)"""
_SAY = {
    "softmax": """
    shares = given["probabilities"][0]
    print(path, names[shares.argmax()], f"{shares.max():.4f}", sep="\\t")
""",
    "binary": """
    shares = given["probabilities"][0]
    place = int(shares[1] >= thresholds[names[1]])
    print(path, names[place], f"{shares[place]:.4f}", sep="\\t")
""",
    "multilabel": """
    shares = dict(zip(names, given["probabilities"][0]))
    chosen = sorted((name for name in names if shares[name] >= thresholds[name]), key=lambda name: -shares[name])
    print(path, "|".join(chosen) or "(no label)", "|".join(f"{shares[name]:.4f}" for name in chosen), sep="\\t")
""",
    "segmentation": """
    mask = given["mask"][0]
    Image.fromarray(mask).save(Path(path).with_suffix(".mask.png"))
    counts = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
    print(path, "|".join(f"{name} {share:.1%}" for name, share in zip(names, counts) if share), sep="\\t")
""",
}
