"""A run folder as `train` and `evaluate` leave it, made by hand: small pictures, plausible figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

RECIPE = """\
model: {name: vgg16, weights: vgg16_notop.h5, skip: [], image_size: 150}
head: {pool: flatten, hidden: [256], dropout: 0.5}
data: {source: photos, batch_size: 20, preprocess: model, resize: squash}
seed: 1
stages:
- name: head
  train: head
  epochs: 8
  optimizer: adam
  lr: 1.0e-3
  augment: {rotation: 40, shift: 0.2, shear: 11.5, zoom: 0.2, flip: horizontal, crop: null, hue: 0.0, fill: nearest}
- {name: block5, train: [block5, head], epochs: 12, optimizer: adam, lr: 1.0e-5}
"""


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=True))


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def epochs() -> list[dict[str, Any]]:
    """Two stages of 8 and 9 epochs that learn, the validation loss a little noisy."""
    noise = np.random.default_rng(0)
    rows = []
    for i, (stage, rate) in enumerate([("head", 1e-3)] * 8 + [("block5", 1e-5)] * 9):
        loss = 0.45 * np.exp(-i / 5) + 0.03 + noise.uniform(0, 0.02)
        rows.append(
            {
                "kind": "epoch",
                "stage": stage,
                "stage_index": int(stage == "block5"),
                "epoch": i + 1 if stage == "head" else i - 7,
                "step": 100 * (i + 1),
                "train_loss": round(0.6 * np.exp(-i / 4) + 0.02, 4),
                "val_loss": round(loss, 4),
                "val_top1": round(0.995 - loss / 6, 4),
                "lr": {"head": rate, "block5": rate} if stage == "block5" else {"head": rate},
                "images_per_second": 412.5,
                "seconds": 4.87,
            }
        )
    return rows


def confusion(num_classes: int, per_class: int) -> np.ndarray:
    """Counts with most of the weight on the diagonal."""
    noise = np.random.default_rng(1)
    shares = np.eye(num_classes) * 0.9 * num_classes + noise.dirichlet(np.full(num_classes, 0.3), num_classes)
    return np.stack([noise.multinomial(per_class, row / row.sum()) for row in shares])


def measures(counts: np.ndarray, names: Sequence[str], *, selection: bool, split: str) -> dict[str, Any]:
    """What evaluate writes beside the rows."""
    hits, support, predicted = counts.diagonal(), counts.sum(1), np.maximum(counts.sum(0), 1)
    recall, precision = hits / np.maximum(support, 1), hits / predicted
    f1 = 2 * hits / np.maximum(support + counts.sum(0), 1)
    return {
        "split": split,
        "used_for_selection": selection,
        "num_images": int(counts.sum()),
        "num_errors": 1,
        "loss": 0.0412,
        "top1": float(hits.sum() / counts.sum()),
        "top5": 0.999 if len(names) > 5 else None,
        "balanced_accuracy": float(recall.mean()),
        "per_class": [
            {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(names, precision, recall, f1, support, strict=True)
        ],
        "confusion": counts.tolist(),
        "class_names": list(names),
    }


def rows(counts: np.ndarray, names: Sequence[str], pictures: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each count of the confusion matrix, and one unreadable file."""
    noise, made = np.random.default_rng(2), []
    for (i, j), count in np.ndenumerate(counts):
        for _ in range(int(count)):
            p = float(noise.uniform(0.5, 1))
            made.append(
                {
                    "path": pictures[len(made) % len(pictures)],
                    "label": names[i],
                    "prediction": names[j],
                    "probability": p,
                    "probabilities": {names[j]: p},
                    "error": None,
                }
            )
    broken = {"path": "broken.jpg", "label": names[0], "prediction": None, "probability": None, "error": "is empty"}
    return [*made, broken]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Builds a finished run; keyword arguments change its classes, splits and pictures."""

    def build(
        names: Sequence[str] = ("cats", "dogs"),
        *,
        splits: Sequence[str] = ("test", "val"),
        pictures: Sequence[str] | None = None,
        per_class: int = 250,
    ) -> Path:
        run, photos = tmp_path / "photos-1", tmp_path / "photos"
        run.mkdir()
        pictures = list(pictures) if pictures is not None else _draw_pictures(photos, names)
        counts = confusion(len(names), per_class)
        (run / "recipe.yaml").write_text(RECIPE)
        (run / "command.txt").write_text("regraft train photos --model vgg16 --seed 1\n")
        write_json(
            run / "environment.json", {"regraft": "0.1.0", "python": "3.11.9", "torch": "2.15.0", "cpu": "2 cores"}
        )
        write_json(run / "classes.json", list(names))
        write_json(run / "status.json", _status())
        write_json(run / "splits.json", _splits(names, str(photos), pictures))
        write_json(run / "match.json", _match())
        write_json(run / "audit.json", _audit())
        write_lines(run / "metrics.jsonl", [*epochs(), {"kind": "step", "step": 1, "loss": 1.0}])
        write_json(run / "model" / "config.json", {"architecture": "vgg16", "num_classes": len(names)})
        for split in splits:
            metrics = measures(counts, names, selection=split == "val", split=split)
            write_json(run / "predictions" / f"{split}.json", metrics)
            write_lines(run / "predictions" / f"{split}.jsonl", rows(counts, names, pictures))
        return run

    return build


def _draw_pictures(folder: Path, names: Sequence[str]) -> list[str]:
    folder.mkdir(exist_ok=True)
    made = []
    for i in range(6):
        ramp = np.linspace(0, 255, 90 * 120 * 3).reshape(90, 120, 3) * ((i + 1) / 6)
        Image.fromarray(ramp.astype(np.uint8)).save(folder / f"picture-{i}.jpg")
        made.append(str(folder / f"picture-{i}.jpg"))
    return made


def _status() -> dict[str, Any]:
    best = {"stage": "block5", "epoch": 6, "monitor": "val_loss", "mode": "min", "value": 0.0517}
    return {
        "state": "finished",
        "stage": "block5",
        "epoch": 9,
        "step": 1700,
        "seconds": 192.4,
        "message": "",
        "best": best,
    }


def _splits(names: Sequence[str], source: str, pictures: Sequence[str]) -> dict[str, Any]:
    many = {"train": 1000, "val": 250, "test": 250}
    return {
        "class_names": list(names),
        "source": source,
        "split_origin": "random",
        "seed": 1,
        "splits": {
            split: [[pictures[i % len(pictures)], name] for name in names for i in range(num)]
            for split, num in many.items()
        },
        "quarantined": [{"path": "train/cats/page.jpg", "reason": "is an HTML page", "split": "train"}],
        "warnings": ["Class 'dogs' has 3 pictures that are equal byte for byte."],
        "ignored": {"hidden or system file": 4},
    }


def _match() -> dict[str, Any]:
    targets = [
        f"features.{i}.{kind}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28) for kind in ("weight", "bias")
    ]
    return {
        "file": "vgg16_notop.h5",
        "format": "keras_h5",
        "producer": "Keras 2.0.4",
        "model": "vgg16",
        "counts": {"matched": 26, "missing": 2, "unexpected": 1, "wrong_shape": 0, "ambiguous": 0, "dropped": 0},
        "coverage": {"backbone": 1.0, "all": 26 / 28},
        "matched": [
            {
                "target": target,
                "source": f"block/{target}",
                "rule": "family: vgg" if i % 2 else "order",
                "steps": ["HWIO to OIHW"] if target.endswith("weight") else [],
            }
            for i, target in enumerate(targets)
        ],
        "missing": ["head.fc.weight", "head.fc.bias"],
        "unexpected": ["optimizer/iterations"],
        "wrong_shape": [],
        "ambiguous": [],
        "dropped": [],
        "notes": ["The file holds no head."],
    }


def _audit() -> dict[str, Any]:
    head = [
        {"name": "head.1.weight", "shape": [256, 8192], "grad_norm": 0.412, "moved": 3.21},
        {"name": "head.1.bias", "shape": [256], "grad_norm": 0.0113, "moved": 0.041},
    ]
    block = [
        {"name": f"features.{i}.weight", "shape": [512, 512, 3, 3], "grad_norm": 0.02, "moved": 0.004}
        for i in (24, 26, 28)
    ]
    frozen = [f"features.{i}.weight" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)]
    stage = {"verdict": "ok", "violations": [], "buffers_moved": [], "optimizer_equals_trainable": True}
    return {
        "stages": [
            stage | {"stage": "head", "num_frozen": 26, "num_trainable": 2, "frozen": frozen, "trainable": head},
            stage
            | {"stage": "block5", "num_frozen": 20, "num_trainable": 8, "frozen": frozen, "trainable": head + block},
        ]
    }
