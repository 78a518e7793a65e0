"""The times behind the table of compute/numerics.py: a training step in each precision and layout, for some networks.

    uv run python benchmarks/numerics.py [--size 160] [--batch 16] [NETWORK ...]
    uv run python benchmarks/numerics.py --accuracy PHOTOS [--seeds 1 2 3]

Each network takes its steps in all choices in turn, for a few seconds; the least time of each counts. `--accuracy`
trains the default recipe on a folder of photos in fp32 and in what the table chooses, with each of the seeds, and
prints the validation accuracy of both (aim: the means agree within 0.2 points).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.machine.heap import keep_freed_memory
from regraft.training.checkpoint.records import environment
from regraft.training.preflight.fastest import choices, step_seconds
from time_to_accuracy import regraft

NETWORKS = ["resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_tiny", "vit_small_patch16_224"]


def compare_accuracy(photos: Path, seeds: list[int]) -> None:
    """Print the validation accuracy of the default recipe in fp32 and in the precision of the table."""
    runs: dict[str, list[dict[str, float]]] = {"fp32": [], choose_numerics().precision: []}
    for seed in seeds:
        for precision, results in runs.items():
            results.append(regraft(photos, "--precision", precision, "--seed", str(seed)))
            print(
                f"{precision}, seed {seed}: {results[-1]['accuracy']:.2%}, {results[-1]['seconds']:.0f} s", flush=True
            )
    means = {precision: sum(run["accuracy"] for run in found) / len(found) for precision, found in runs.items()}
    told = ", ".join(f"{precision} {mean:.2%}" for precision, mean in means.items())
    print(f"mean validation accuracy: {told}; apart by {100 * (max(means.values()) - min(means.values())):.2f} points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--accuracy", type=Path, metavar="PHOTOS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    if options.accuracy:
        compare_accuracy(options.accuracy, options.seeds)
        return
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
