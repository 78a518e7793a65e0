"""Heads on strongly imbalanced classes: plain, with balanced weights, with logit adjustment, as a run solves them.

    uv run python benchmarks/imbalance.py DATA [DATA ...] [--ratio 100] [--seeds 3] [--keep FOLDER]

DATA has train/ and val/, or is an .npz of features that `--keep` wrote before (x, y to train on, v, w to validate). Of
its training images a long tail is drawn, RATIO:1 between the largest class and the smallest; 15 % of each class (at
least one image) choose the regularisation, by the calibrated loss as in a run, the rest is trained on. The balanced
accuracy is that of DATA's own validation images, which are neither. No test split is read. The features are those of
the embedded EfficientNet-lite0, computed once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

import regraft as rg
from regraft.data.cache.stream import DecodedStream
from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.models.describe.info import preprocessing_of
from regraft.models.describe.inputs import Normaliser
from regraft.settings.model import DEFAULT_MODEL
from regraft.training.objective.balance import class_weights, log_shares
from regraft.training.objective.lbfgs import STRENGTHS, solve_head
from regraft.training.objective.losses import build_loss

_LARGEST = 800  # images of the largest class at most
_FEWEST = 8
Labels = npt.NDArray[np.int64]


def features_of(data: rg.DataSet, split: str) -> tuple[Tensor, Labels]:
    """What the classifier reads of the images of a split, and their labels."""
    model = rg.adapt(rg.build_model(DEFAULT_MODEL, weights="pretrained"), classes=data.class_names).eval()
    preprocessing = preprocessing_of(model)
    normaliser, rows = Normaliser(preprocessing), data.splits[split]
    found = []
    with torch.inference_mode():
        for batch in DecodedStream(rows.paths, preprocessing.pixels, batch_size=32):
            maps = model.forward_features(normaliser(normaliser.pixels(batch.images)))  # type: ignore[operator]
            found.append(model.forward_head(maps, pre_logits=True))  # type: ignore[operator]
    return torch.cat(found), np.asarray(rows.labels, np.int64)


def given(source: Path, keep: Path | None) -> tuple[Tensor, Labels, Tensor, Labels]:
    """Features and labels to train on, and to validate on."""
    if source.suffix == ".npz":
        held = np.load(source)
        return torch.from_numpy(held["x"]), held["y"], torch.from_numpy(held["v"]), held["w"]
    data = rg.open_data(source)
    found = (*features_of(data, "train"), *features_of(data, "val"))
    if keep is not None:
        np.savez(keep / f"{source.name}.npz", **dict(zip("xyvw", map(np.asarray, found), strict=True)))
    return found


def long_tail(labels: Labels, ratio: float, seed: int) -> tuple[Labels, Labels]:
    """The rows to train on and those to choose by."""
    draw, sizes = np.random.default_rng(seed), np.bincount(labels)
    order = np.argsort(-sizes, kind="stable") if len(sizes) > 2 else draw.permutation(len(sizes))
    train, choose = [], []
    for place, number in enumerate(order):
        wanted = max(_FEWEST, round(min(_LARGEST, sizes.max()) * ratio ** (-place / (len(sizes) - 1))))
        rows = draw.permutation(np.flatnonzero(labels == number))[:wanted]
        num = max(1, round(0.15 * len(rows)))
        choose.append(rows[:num])
        train.append(rows[num:])
    return np.concatenate(train), np.concatenate(choose)


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The mean over the classes of the share of their images that are named rightly."""
    right = logits.argmax(1) == labels
    return float(torch.stack([right[labels == number].double().mean() for number in labels.unique()]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--ratio", type=float, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the features")
    arguments = parser.parse_args()
    for source in arguments.data:
        features, labels, others, truth = given(source, arguments.keep)
        names = [str(number) for number in range(int(labels.max()) + 1)]
        found: dict[str, list[float]] = {}
        for seed in range(arguments.seeds):
            train, choose = long_tail(labels, arguments.ratio, seed)
            weights = class_weights("balanced", names, labels[train])
            shares = log_shares(1.0, len(names), labels[train])
            for name, of_loss, added in (
                ("plain", {}, None),
                ("class_weights: balanced", {"class_weights": weights}, None),
                ("logit_adjustment: 1", {"adjustment": shares}, shares),
            ):
                loss = build_loss("softmax", **of_loss)
                best = None
                for one in solve_head(
                    features[train], torch.from_numpy(labels[train]), len(names), loss, strengths=STRENGTHS[:8]
                ):
                    logits = functional.linear(features[choose], one.weight, one.bias)
                    logits = logits if added is None else logits + added
                    value = float(calibrated_losses(logits, torch.from_numpy(labels[choose])).mean())
                    best = min(best or (value, one), (value, one), key=lambda pair: pair[0])
                if best is not None:
                    logits = functional.linear(others, best[1].weight, best[1].bias)
                    found.setdefault(name, []).append(balanced_accuracy(logits, torch.from_numpy(truth)))
        for name, values in found.items():
            each = ", ".join(f"{100 * value:.1f}" for value in values)
            print(f"{source.stem}: {name}: {100 * np.mean(values):.1f} % ({each})", flush=True)


if __name__ == "__main__":
    main()
