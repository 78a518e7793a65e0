"""One process of a run on several: `python worker.py PHOTOS OUT KIND [resume]`, started by test_processes.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import regraft as rg
from regraft import pipeline
from regraft.compute.numerics import choose_numerics
from regraft.data.decode import image_file
from regraft.training.callbacks import Callback


def normed(kind: str) -> nn.Module:
    """A small network without random layers, with group norms or batch norms."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if kind.endswith("bn") else nn.GroupNorm(4, 8)
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2), norm, nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU())
    return nn.Sequential(trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))


def unet_without_norms() -> nn.Module:
    """A small network for masks, without random layers and without batch norms."""
    arguments = {"encoder": "vgg11", "depth": 2, "filters": [8], "batch_norm": False}
    return rg.build_model("unet", weights="none", seed=0, **arguments)


def stages(kind: str) -> list[rg.Stage]:
    if kind == "masks":
        loss = {"cross_entropy": 1.0, "focal": 1.0}
        settings = {"train": "all", "epochs": 2, "optimizer": "sgd", "lr": 0.01, "clip_norm": 0.5}
        return [rg.Stage("all", batch_size=4, loss=loss, class_weights=[1.0, 3.0, 2.0], **settings)]
    if kind == "head":
        return [rg.Stage("head", train="head", epochs=5)]
    bn = {"frozen-bn": "affine-only", "training-bn": "train"}.get(kind)
    common = {"optimizer": "sgd", "lr": 0.05, "batch_size": 8}
    return [
        rg.Stage("last", train="3", epochs=1, augment=rg.Augment(flip="horizontal", rotation=9), **common),
        rg.Stage("all", train="all", epochs=3, bn=bn, **common),
    ]


class Leaving(Callback):
    """Dies as from `kill -9` in the middle of the second stage."""

    def on_step_end(self, stage: object, loss: float) -> None:
        if stage.progress.step == 6:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)


def note_reads(path: Path) -> None:
    """Write the name of each image that is read from an archive into a file, a line each."""
    read = image_file.read_member

    def noted(name: str | Path) -> bytes | str | None:
        with path.open("a") as file:
            file.write(f"{name}\n")
        return read(name)

    image_file.read_member = noted


def main(photos: str, out: str, kind: str, *more: str) -> None:
    cache = os.environ.get("WORKER_CACHE", "auto")
    data = rg.open_data(photos)
    if "WORKER_READS" in os.environ:
        note_reads(Path(f"{os.environ['WORKER_READS']}-{os.environ.get('RANK', '0')}"))
    network = unet_without_norms() if data.segmentation else normed(kind)
    model = rg.adapt(network, classes=data.class_names, image_size=32)
    if more:
        pipeline.resume(out, model=model, show=False)
        return
    rg.train(
        model,
        rg.make_plan(model, stages(kind)),
        data,
        out=out,
        numerics=choose_numerics("cpu", "fp32", 1),
        callbacks=[Leaving()] if kind == "lost" else [],
        cache=cache,  # type: ignore[arg-type]
        show=False,
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except rg.RegraftError as error:
        print(f"process {os.environ.get('RANK', '0')}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(Path(sys.argv[2]).name)
