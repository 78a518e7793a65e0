"""`regraft demo`: the main job on photos and weights that came with the installation; no network needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from regraft.cli.news import News
from regraft.cli.options import OutOption

__all__ = ["demo", "demo_recipe", "write_digits"]


def demo(out: OutOption = None) -> None:
    """Fine-tune EfficientNet-lite0 (ImageNet weights) on 1,797 handwritten digits, evaluate, predict, report."""
    import time

    started = time.monotonic()
    from regraft.cli.train import finish
    from regraft.evaluate.predict import predict
    from regraft.models.numerics import keep_freed_memory
    from regraft.pipeline import run_recipe
    from regraft.recipe import validate_recipe

    digits = write_digits(Path("runs") / "digits")
    typer.echo(f"data: {digits} (scikit-learn's handwritten digits, as PNG files)", err=True)
    keep_freed_memory()
    run = run_recipe(validate_recipe(demo_recipe(digits)), out=out)
    finish(run.path, News(as_json=False))
    examples = sorted(digits.glob("*/*.png"))[::600]
    for prediction in predict(run.path, examples):
        typer.echo(f"predict {prediction.path}: {prediction.prediction} ({prediction.probability:.1%})")
    typer.echo(f"done in {time.monotonic() - started:.0f} s; next: regraft train YOUR_PHOTOS")


def demo_recipe(digits: Path) -> dict[str, Any]:
    """A small recipe: digits are not mirrored, and 96 px are enough for strokes."""
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
    """Write the digits as `folder/<digit>/<number>.png`, once; 8x8 grey pixels each, as they were scanned."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(digit) / f"{number:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(image * 16, 0, 255).astype(np.uint8)).save(path)
    return folder
