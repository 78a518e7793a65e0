"""One run of fastai, in its own environment; `against_fastai.py` starts it.

    python fastai_peer.py PHOTOS WEIGHTS SCHEDULE EPOCHS OUT

The recipe is that of fastai's own introduction (folders, `Resize(224)`, `vision_learner`, `fine_tune`) with all its
defaults: batch 64, workers by the processors, Adam, one cycle. The backbone's weights are those that regraft has, put
into timm's network; `vision_learner` normalises as timm's entry for them says. Prints a JSON line: accuracy and seconds
since the process began, for each epoch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    photos, weights, schedule, epochs, out = sys.argv[1:]
    import psutil
    from fastai.vision.all import (
        Callback,
        ImageDataLoaders,
        Resize,
        accuracy,
        set_seed,
        vision_learner,
    )

    began = psutil.Process(os.getpid()).create_time()
    log: list[dict[str, float]] = []

    class Times(Callback):
        order = 90  # behind the recorder of measures

        def after_epoch(self) -> None:
            values = dict(zip(self.recorder.metric_names[1:-1], self.recorder.log[1:], strict=False))
            log.append({"accuracy": float(values["accuracy"]), "seconds": time.time() - began})

    set_seed(1)
    valid = next(name for name in ("validation", "val", "valid") if (Path(photos) / name).is_dir())
    loaders = ImageDataLoaders.from_folder(photos, train="train", valid=valid, item_tfms=Resize(224))
    overlay = {"file": weights, "url": "", "hf_hub_id": None}
    learner = vision_learner(loaders, "tf_efficientnet_lite0", metrics=accuracy, pretrained_cfg_overlay=overlay)
    with learner.no_bar(), learner.no_logging():
        if schedule == "fine_tune":
            learner.fine_tune(int(epochs), cbs=Times())
        else:
            learner.fit_one_cycle(int(epochs), cbs=Times())
    learner.export(Path(out).absolute())
    print(json.dumps(log))


if __name__ == "__main__":
    main()
