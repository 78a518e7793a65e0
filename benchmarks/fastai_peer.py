"""One run of fastai, in its own environment; `against_fastai.py` and `accuracy.py` start it.

    python fastai_peer.py PHOTOS WEIGHTS SCHEDULE EPOCHS [--save FILE] [--augment] [--split val|test] [--limit SECONDS]

The recipe is that of fastai's own introduction (folders, `Resize(224)`, `vision_learner`, `fine_tune`) with all its
defaults: batch 64, workers by the processors, Adam, one cycle; `--augment` adds `aug_transforms()`. The backbone's
weights are those that regraft has, put into timm's network; `vision_learner` normalises as timm's entry for them says.
Prints a JSON line: accuracy and seconds since the process began, for each epoch; with `--split`, which images were
right. A run that an epoch shows to take longer than `--limit` is given up.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from peer_photos import NETWORK, SIZE, began, folder_of, overlay, print_result, print_too_slow


class TooSlowError(Exception):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("schedule", choices=("fine_tune", "frozen"))
    parser.add_argument("epochs", type=int)
    parser.add_argument("--save", type=Path, help="where the trained learner goes")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--split", choices=("val", "test"))
    parser.add_argument("--limit", type=float, default=float("inf"))
    arguments = parser.parse_args()
    photos, epochs = arguments.photos, arguments.epochs
    from fastai.vision.all import (
        Callback,
        ImageDataLoaders,
        Resize,
        accuracy,
        aug_transforms,
        get_image_files,
        set_seed,
        vision_learner,
    )

    start = began()
    log: list[dict[str, float]] = []
    num_epochs = epochs + (arguments.schedule == "fine_tune")

    class Times(Callback):
        order = 90  # behind the recorder of measures

        def before_epoch(self) -> None:
            self.began = time.time()

        def after_epoch(self) -> None:
            values = dict(zip(self.recorder.metric_names[1:-1], self.recorder.log[1:], strict=False))
            log.append({"accuracy": float(values["accuracy"]), "seconds": time.time() - start})
            rest = (num_epochs - len(log)) * (time.time() - self.began)
            if log[-1]["seconds"] + rest > arguments.limit:
                raise TooSlowError("would not end in time")  # fastai reads the argument

    set_seed(1)
    loaders = ImageDataLoaders.from_folder(
        photos,
        train="train",
        valid=folder_of(photos, "val").name,
        item_tfms=Resize(SIZE),
        batch_tfms=aug_transforms() if arguments.augment else None,
    )
    learner = vision_learner(loaders, NETWORK, metrics=accuracy, pretrained_cfg_overlay=overlay(arguments.weights))
    with learner.no_bar(), learner.no_logging():
        try:
            if arguments.schedule == "fine_tune":
                learner.fine_tune(epochs, cbs=Times())
            else:
                learner.fit_one_cycle(epochs, cbs=Times())
        except TooSlowError:
            return print_too_slow(epochs=log)
        if arguments.save:
            learner.export(arguments.save.absolute())
        if arguments.split is None:
            return print(json.dumps({"epochs": log}))
        folder = folder_of(photos, arguments.split)
        files = sorted(get_image_files(folder))
        scores, labels = learner.get_preds(dl=loaders.test_dl(files, with_labels=True))
    right = (scores.argmax(1) == labels).tolist()
    return print_result(files, folder, right, log[-1]["seconds"], epochs=log)


if __name__ == "__main__":
    main()
