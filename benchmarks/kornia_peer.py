"""Augmentation by kornia, in its own environment; `augment.py --kornia` starts it.

    python kornia_peer.py SIZE IMAGES ROUNDS THREADS

The same work as on the other sides: uint8 images in memory, random numbers for each image, float32 out. Prints a JSON
line: median milliseconds for each image, by the name of the work.
"""

from __future__ import annotations

import json
import statistics
import sys
import time


def main() -> None:
    size, images, rounds, threads = map(int, sys.argv[1:])
    import kornia.augmentation as ka
    import torch

    torch.set_num_threads(threads)
    affine, flip = ka.RandomAffine(40.0, (0.2, 0.2), (0.8, 1.2), 11.5, p=1.0), ka.RandomHorizontalFlip()
    erase = ka.RandomErasing(p=0.25)
    works = {
        "geometry": ka.AugmentationSequential(affine, flip),
        "colours": ka.AugmentationSequential(affine, flip, ka.ColorJitter(0.2, 0.2, 0.2, 0.0), erase),
        "hue": ka.AugmentationSequential(affine, flip, ka.ColorJitter(0.2, 0.2, 0.2, 0.05), erase),
    }
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    took: dict[str, float] = {}
    for name, work in works.items():
        seconds = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            work(pixels.float() / 255)
            seconds.append(time.perf_counter() - began)
        took[name] = 1000 * statistics.median(seconds[1:]) / images
    print(json.dumps(took))


if __name__ == "__main__":
    main()
