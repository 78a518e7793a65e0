"""How `regraft --help` sorts the verbs, and two examples of each: the second one says a little more than the first."""

from __future__ import annotations

from typing import Any

__all__ = ["EVERYWHERE", "GROUPS", "shown"]

EVERYWHERE = "Every command also takes --quiet (-q, no progress) and --debug (the traceback of an error)."

# Group -> verb -> examples, in the order of `regraft --help`.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Train": {
        "demo": ("regraft demo", "regraft demo --out runs/first"),
        "train": ("regraft train photos", "regraft train photos --model resnet50 --budget 10m"),
        "resume": (
            "regraft resume runs/photos-1",
            "regraft resume runs/photos-1 --set stages.all.epochs=20 --allow-change stages.all.epochs",
        ),
        "add-class": ("regraft add-class runs/photos-1", "regraft add-class runs/photos-1 new --out runs/photos-2"),
        "recipe": ("regraft recipe > my.yaml", "regraft recipe --schema"),
        "find-lr": ("regraft find-lr photos", "regraft find-lr photos --model resnet50 --image-size 160"),
    },
    "Look": {
        "check": ("regraft check photos", "regraft check photos --out checked --fix split"),
        "inspect": ("regraft inspect runs/photos-1", "regraft inspect resnet50 --image-size 160"),
        "runs": ("regraft runs", "regraft runs --differences"),
        "report": ("regraft report runs/photos-1", "regraft report runs/folds-1"),
        "evaluate": ("regraft evaluate runs/photos-1", "regraft evaluate runs/photos-1 new-photos --slice folder"),
        "explain": (
            "regraft explain runs/photos-1 a.jpg",
            "regraft explain runs/photos-1 photos/dogs --top 3 --out maps",
        ),
        "compare": (
            "regraft compare runs/photos-1 runs/photos-2",
            "regraft compare runs/photos-1 runs/photos-2 --out page.html",
        ),
        "rank": ("regraft rank photos", "regraft rank photos --models 'resnet*' --budget 60s"),
        "info": ("regraft info", "regraft info --json"),
        "cache": ("regraft cache", "regraft cache clear --older 30d --dry-run"),
    },
    "Use": {
        "predict": (
            "regraft predict runs/photos-1 a.jpg b.jpg",
            "regraft predict runs/photos-1 photos --out answers.csv",
        ),
        "export": ("regraft export runs/photos-1 --to onnx -o photos.onnx", "regraft predict photos.onnx a.jpg"),
        "serve": ("regraft serve runs/photos-1", "regraft serve photos.onnx --port 8080 --queue 128"),
    },
    "Share": {
        "push": (
            "regraft push runs/photos-1 USER/NAME --dry-run",
            "regraft push runs/photos-1 USER/NAME --private --license apache-2.0",
        ),
        "pull": ("regraft pull USER/NAME", "regraft pull USER/NAME -o pets --revision v1"),
        "sign": (
            "regraft sign runs/photos-1 --key private.pem",
            "regraft sign runs/photos-1 --key private.pem --certificate mine.crt --chain issuer.crt",
        ),
        "verify": (
            "regraft verify runs/photos-1 --public-key public.pem",
            "regraft verify pets --certificates root.crt",
        ),
    },
    "Weights": {
        "match": (
            "regraft match weights.h5 --model keras_resnet50",
            "regraft match weights.npy --model alexnet --skip fc8",
        ),
        "convert": (
            "regraft convert weights.h5 --model keras_vgg16 -o vgg16.safetensors",
            "regraft convert runs/photos-1 -o photos.h5",
        ),
        "models": ("regraft models 'resnet*'", "regraft models best --json"),
    },
}


def shown(verb: str) -> dict[str, Any]:
    """Return how a verb's help is shown, as options of `app.command`: its group, and examples below it."""
    for group, verbs in GROUPS.items():
        if verb in verbs:
            examples = "\n\n".join(f"  {line}" for line in verbs[verb])
            return {"rich_help_panel": group, "epilog": f"Examples:\n\n{examples}\n\n{EVERYWHERE}"}
    return {"epilog": EVERYWHERE}
