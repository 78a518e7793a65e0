"""Full fine-tuning of ResNet50 at 224 px in bf16 as timm's train script and as fastai do it; `gpu.py` starts it.

    python gpu_peers.py timm|fastai PHOTOS EPOCHS BATCH WORKERS

Prints a JSON line: seconds of each training epoch (validation left out) and the number of photos in one.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def with_timm(photos: Path, epochs: int, batch: int, workers: int) -> tuple[list[float], int]:
    """timm's loader with its prefetcher, random resized crops, and its train script's loop with autocast."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader

    torch.backends.cudnn.benchmark = True
    dataset = create_dataset("", root=str(photos / "train"), is_training=True)
    loader = create_loader(
        dataset,
        input_size=(3, 224, 224),
        batch_size=batch,
        is_training=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=True,
    )
    model = timm.create_model("resnet50", num_classes=2).cuda().to(memory_format=torch.channels_last)
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-4)
    loss_function, seconds = torch.nn.CrossEntropyLoss(), []
    for _ in range(epochs):
        began = time.perf_counter()
        for images, labels in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = loss_function(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds, len(loader) * batch


def with_fastai(photos: Path, epochs: int, batch: int, workers: int) -> tuple[list[float], int]:
    """Folders, `Resize(224)`, flips and rotations on the device, bf16, everything unfrozen."""
    import torch
    from fastai.vision.all import Callback, ImageDataLoaders, Resize, aug_transforms, vision_learner

    seconds: list[float] = []

    class Times(Callback):
        def before_train(self) -> None:
            self.began = time.perf_counter()

        def after_train(self) -> None:
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.began)

    valid = next(name for name in ("validation", "val", "valid") if (photos / name).is_dir())
    loaders = ImageDataLoaders.from_folder(
        photos,
        train="train",
        valid=valid,
        item_tfms=Resize(224),
        batch_tfms=aug_transforms(),
        bs=batch,
        num_workers=workers,
    )
    learner = vision_learner(loaders, "resnet50", pretrained=False).to_bf16()
    learner.unfreeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, cbs=Times())
    return seconds, len(loaders.train) * batch


def main() -> None:
    name, photos, *numbers = sys.argv[1:]
    loop = {"timm": with_timm, "fastai": with_fastai}[name]
    seconds, images = loop(Path(photos), *map(int, numbers))
    print(json.dumps({"seconds": seconds, "images": images}))


if __name__ == "__main__":
    main()
