"""The times behind the table of models/numerics.py: a training step in each precision and layout, for some networks.

    uv run python benchmarks/numerics.py [--size 160] [--batch 16] [NETWORK ...]

Each network takes its steps in all choices in turn, for a few seconds; the least time of each counts.
"""

from __future__ import annotations

import argparse

import torch

import regraft as rg
from regraft.models.numerics import choose_numerics, keep_freed_memory
from regraft.train.fastest import choices, step_seconds
from regraft.train.records import environment

NETWORKS = ["resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_tiny", "vit_small_patch16_224"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    keep_freed_memory()
    numerics = choose_numerics()
    facts = environment()
    print(f"{facts.get('gpu', facts['processor'])}, {numerics.threads} threads, torch {torch.__version__}")
    for name in options.networks:
        size = 224 if "_224" in name else options.size
        model = rg.build_model(name, seed=0, num_classes=10)
        seconds = step_seconds(model, numerics, choices(numerics), (size, size), options.batch)
        usual = seconds[numerics.precision, numerics.channels_last]
        rows = [
            f"{precision} {'channels-last' if last else 'contiguous'} {options.batch / took:.1f} images/s "
            f"({usual / took:.2f}x)"
            for (precision, last), took in seconds.items()
        ]
        print(f"{name} at {size} px: " + ", ".join(rows))


if __name__ == "__main__":
    main()
