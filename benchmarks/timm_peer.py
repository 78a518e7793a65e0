"""One run of a training loop of timm's parts, in its own environment; `accuracy.py` starts it.

    python timm_peer.py PHOTOS WEIGHTS SPLIT LIMIT

The parts and settings that timm's train script is given to fine-tune: AdamW with a rate that falls from layer to layer,
warm-up and cosine, random crops, RandAugment, label smoothing, stochastic depth, averaged weights; no mixup. bf16 by
autocast, channels-last. As many updates as fit into LIMIT seconds since the process began, evaluation included, which
the first updates foretell. Evaluates the averaged weights once, in fp32, as timm's entry for the network says.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peer_photos import MEAN, NETWORK, SIZE, STD, began, folder_of, overlay, print_result

BATCH = 32
RATE, LAYER_DECAY, WEIGHT_DECAY, SMOOTHING, DROP_PATH = 5e-4, 0.75, 0.05, 0.1, 0.1
RANDOM = "rand-m9-mstd0.5-inc1"
WARM_UP, FIRST_TIMED, LAST_TIMED = 20, 4, 12  # updates
# An image costs about this share of a training image when it is evaluated: a forward pass, in fp32.
COST_OF_EVALUATION = 0.6


def endless(loader: Any) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def main() -> None:
    photos, weights, split, limit = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    start = began()
    import timm
    import torch
    from timm.data import create_transform
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import ModelEmaV3
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    torch.manual_seed(1)
    pixels = {"input_size": SIZE, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    train = ImageFolder(folder_of(photos, "train"), create_transform(**pixels, is_training=True, auto_augment=RANDOM))
    measured = ImageFolder(folder_of(photos, split), create_transform(**pixels, crop_pct=0.875))
    batch, workers = min(BATCH, len(train)), os.cpu_count() or 1
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": True}
    model = timm.create_model(
        NETWORK,
        pretrained=True,
        pretrained_cfg_overlay=overlay(weights),
        num_classes=len(train.classes),
        drop_path_rate=DROP_PATH,
    ).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=RATE, weight_decay=WEIGHT_DECAY, layer_decay=LAYER_DECAY)
    loss_function, average = LabelSmoothingCrossEntropy(SMOOTHING), ModelEmaV3(model, decay=0.9998, use_warmup=True)
    # How many updates there will be is known after a few; the rates of the warm-up do not depend on it.
    schedule = CosineLRScheduler(
        optimizer, t_initial=sys.maxsize, lr_min=1e-6, warmup_t=WARM_UP, warmup_lr_init=1e-5, t_in_epochs=False
    )
    updates, until, first = sys.maxsize, start + limit, 0.0
    for update, (images, labels) in enumerate(endless(DataLoader(train, batch, True, drop_last=True, **options)), 1):
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model(images.contiguous(memory_format=torch.channels_last))
        loss = loss_function(scores.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model, step=update)
        if update == FIRST_TIMED:
            first = time.time()
        if update == LAST_TIMED:
            pace = (time.time() - first) / (LAST_TIMED - FIRST_TIMED)
            until -= COST_OF_EVALUATION * pace * len(measured) / batch
            updates = max(update + int((until - time.time()) / pace), WARM_UP)
            schedule.t_initial = updates
        schedule.step_update(update)
        if update >= updates or time.time() > until:
            break
    network, right = average.module.eval(), []
    with torch.inference_mode():
        for images, labels in DataLoader(measured, 64, **options):
            scores = network(images.contiguous(memory_format=torch.channels_last))
            right += (scores.argmax(1) == labels).tolist()
    seconds = time.time() - start
    files = [Path(path) for path, _ in measured.samples]
    print_result(files, folder_of(photos, split), right, seconds, epochs=update * batch / len(train))


if __name__ == "__main__":
    main()
