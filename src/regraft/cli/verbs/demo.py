"""`regraft demo`: the main job on images and weights that came with the installation; no network needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regraft.cli.options import OutOption
from regraft.cli.output import Output
from regraft.cli.say import say

__all__ = ["DIGITS", "demo", "demo_recipe", "write_digits"]

DIGITS = Path(__file__).parents[1] / "digits.png"


def demo(out: OutOption = None) -> None:
    """Fine-tune EfficientNet-lite0 (ImageNet weights) on 1,797 handwritten digits, evaluate, predict, report."""
    from regraft.cli.verbs.train import finish
    from regraft.evaluation.predict import predict
    from regraft.machine.heap import keep_freed_memory
    from regraft.pipeline import run_recipe
    from regraft.recipe.recipe import validate_recipe

    digits = write_digits(Path("runs") / "digits")
    say(f"data: {digits} (UCI's Optical Recognition of Handwritten Digits, CC BY 4.0, as PNG files)", err=True)
    keep_freed_memory()
    run = run_recipe(validate_recipe(demo_recipe(digits)), out=out)
    finish(run.path, Output(as_json=False))
    examples = sorted(digits.glob("*/*.png"))[::600]
    for prediction in predict(run.path, examples):
        say(f"predict {prediction.path}: {prediction.prediction} ({prediction.probability:.1%})")
    say("next: `regraft train YOUR_DATA`")


def demo_recipe(digits: Path) -> dict[str, Any]:
    """Return a small recipe: digits are not mirrored, and 96 px are enough for strokes."""
    return {
        "model": {"name": "tf_efficientnet_lite0", "image_size": 96},
        "data": {"source": str(digits), "batch_size": 64},
        "stages": [
            {"name": "head", "train": "head"},
            {
                "name": "top",
                "train": ["stage:-1", "head"],
                "epochs": 3,
                "optimizer": "adamw",
                "lr": 5e-4,
                "schedule": "cosine",
                "warmup_epochs": 0.5,
                "augment": {"rotation": 8, "shift": 0.06, "zoom": 0.1},
            },
        ],
    }


def write_digits(folder: Path) -> Path:
    """Write the digits as `folder/<digit>/<number>.png`, once; 8x8 grey pixels each, as they were scanned.

    They are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998, UCI Machine
    Learning Repository, doi.org/10.24432/C50P49), used under CC BY 4.0; `scripts/make_digits.py` made the file.
    """
    import numpy as np
    from PIL import Image

    with Image.open(DIGITS) as sheet:  # a row for each digit: what it is, then its 64 pixels from 0 to 16
        rows = np.asarray(sheet)
    for number, row in enumerate(rows):
        path = folder / str(row[0]) / f"{number:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.minimum(row[1:].astype(np.int64) * 16, 255).astype(np.uint8)
            Image.fromarray(pixels.reshape(8, 8)).save(path)
    return folder
