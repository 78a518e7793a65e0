"""What a network says of itself, against the truth: calibration, sets of classes, images of no known kind.

    uv run python benchmarks/account.py [DATA] --features FOLDER

DATA has `dogs-vs-cats-small`, `clothing` and `camvid`. The features of one frozen backbone are computed once and kept
in FOLDER; heads are solved on the training images, temperatures, limits and detectors are fitted on validation images,
and all figures are those of images that had no part in either.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.data.cache.cache import PixelCache
from regraft.evaluation.metrics.scores import roc_auc
from regraft.evaluation.trust.conformal import candidates, nonconformity, score_limit
from regraft.evaluation.trust.novelty import KINDS, Evidence, fit_detector, strangeness
from regraft.evaluation.trust.reliability import reliability
from regraft.evaluation.trust.temperatures import fit_calibration
from regraft.models.describe.calibration import Calibration
from regraft.models.describe.info import preprocessing_of
from regraft.ranking.features import Backbone
from regraft.training.engine import Engine

NETWORK = "tf_efficientnet_lite0"
STRENGTHS = {"as solved": 1.0, "hardly regularised": 100.0}  # C of the logistic regression: how sure the head is
RESPLITS, COVERAGE, MOST_TRAIN = 200, 0.9, 1000


class Part(NamedTuple):
    """Features (N, d) of the images of a split, and the number of each image's class."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def of(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Part:
        return Part(self.features[rows], self.labels[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--features", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pets = {name: part_of(options, f"pets-{name}", "dogs-vs-cats-small", name) for name in ("train", "validation")}
    order = np.random.default_rng(0).permutation(len(pets["validation"].labels))
    pets["test"] = pets["validation"].of(order[: len(order) // 2])
    pets["validation"] = pets["validation"].of(order[len(order) // 2 :])
    clothes = {name: part_of(options, f"clothing-{name}", "clothing", name) for name in (*pets, "test")}
    for name, splits in (("cats and dogs", pets), ("clothing", clothes)):
        for how, strength in STRENGTHS.items():
            measure(f"{name}, {how}", splits, solve(splits["train"], strength))
    digits = part_of(options, "digits", "", "")
    streets = part_of(options, "camvid", "camvid/test/images", "")
    tell_far(pets, {"digits": digits, "CamVid": streets})
    tell_near(clothes, sorted(path.name for path in (options.data / "clothing" / "train").iterdir()))


def part_of(options: argparse.Namespace, key: str, folder: str, split: str) -> Part:
    """Return the features of a split, computed or kept."""
    kept = options.features / f"{key}.npz"
    if not kept.is_file():
        options.features.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            paths, labels = digit_files(Path(place)) if key == "digits" else listed(options.data / folder / split)
            model = rg.adapt(rg.build_model(NETWORK, weights="pretrained", seed=0), classes=["a", "b"], seed=0)
            pixels = PixelCache(paths, preprocessing_of(model).pixels, threads=1)
            backbone = Backbone(model, Engine(choose_numerics("cpu", threads=1)))
            found = backbone.features(pixels, np.zeros(len(pixels), np.int64)).features.astype(np.float32)
            np.savez(kept, f=found, y=np.array(labels)[pixels.good])
    stored = np.load(kept)
    return Part(stored["f"], np.unique(stored["y"], return_inverse=True)[1].astype(np.int64))


def listed(folder: Path) -> tuple[list[str], list[str]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())[:4000]
    return [str(path) for path in paths], [path.parent.name for path in paths]


def digit_files(folder: Path) -> tuple[list[str], list[str]]:
    paths = [str(folder / f"{number}.png") for number in range(300)]
    for path, digit in zip(paths, load_digits().images, strict=False):
        Image.fromarray((digit * 15.9).astype(np.uint8)).resize((64, 64)).convert("RGB").save(path)
    return paths, ["digit"] * len(paths)


def solve(train: Part, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=200).fit(train.features, train.labels)


def logits_of(head: LogisticRegression, part: Part) -> torch.Tensor:
    scores = head.decision_function(part.features)
    both = np.stack([np.zeros_like(scores), scores], 1) if scores.ndim == 1 else scores
    return torch.from_numpy(both).float()


def measure(name: str, splits: dict[str, Part], head: LogisticRegression) -> None:
    """Print calibration on the test images, and the coverage of sets over re-splits of validation and test images."""
    val, test = logits_of(head, splits["validation"]), logits_of(head, splits["test"])
    labels = splits["test"].labels
    calibration = fit_calibration("softmax", val, torch.from_numpy(splits["validation"].labels))
    if calibration is None:
        raise SystemExit(f"{name}: too few validation images")
    raw = reliability("softmax", test.softmax(1).numpy(), labels)
    told = reliability("softmax", calibration(test, "softmax").softmax(1).numpy(), labels)
    print(f"{name}: {len(labels)} test images, accuracy {(test.argmax(1).numpy() == labels).mean():.1%}, "
          f"temperatures {', '.join(f'{value:.3g}' for value in calibration.temperatures)}")  # fmt: skip
    print(f"  ECE {raw['ece']:.4f} -> {told['ece']:.4f} (exact probabilities: {told['ece_by_chance'][0]:.4f}), "
          f"NLL {raw['nll']:.4f} -> {told['nll']:.4f}, Brier {raw['brier']:.4f} -> {told['brier']:.4f}")  # fmt: skip
    both = torch.cat([val, test]), np.concatenate([splits["validation"].labels, labels])
    held = np.array(list(coverages(*both)))
    print(f"  sets for {COVERAGE:.0%}, {RESPLITS} re-splits: plain {held[:, 0].mean():.2%} hold the truth; as they are "
          f"given, never empty, {held[:, 1].mean():.2%}, of {held[:, 2].mean():.2f} classes")  # fmt: skip


def coverages(logits: torch.Tensor, labels: npt.NDArray[np.int64]) -> Iterator[tuple[float, float, float]]:
    """Yield, for each re-split, how many sets hold the truth, with and without empty ones, and their mean size."""
    for seed in range(RESPLITS):
        order = np.random.default_rng(seed).permutation(len(labels))
        own, new = order[: len(order) // 2], order[len(order) // 2 :]
        fitted = fit_calibration("softmax", logits[own], torch.from_numpy(labels[own])) or Calibration((1.0,), 0)
        shares = fitted(logits, "softmax").softmax(1).numpy()
        limit = score_limit(nonconformity(shares[own], labels[own]), COVERAGE)
        plain = (1 - shares[new, labels[new]] <= limit).mean()
        sets = [candidates(row, limit) for row in shares[new]]
        given = np.mean([label in names for label, names in zip(labels[new], sets, strict=True)])
        yield float(plain), float(given), float(np.mean([len(names) for names in sets]))


def evidence(head: LogisticRegression, part: Part, most: int | None = None) -> Evidence:
    rows = np.random.default_rng(0).permutation(len(part.labels))[:most]
    some = part.of(rows)
    return Evidence(torch.from_numpy(some.features), logits_of(head, some), torch.from_numpy(some.labels))


def tell_far(splits: dict[str, Part], strange: dict[str, Part]) -> None:
    head = solve(splits["train"], 1.0)
    detector, reached = fit_detector(evidence(head, splits["train"], MOST_TRAIN), evidence(head, splits["validation"]))
    size = sum(part.numel() * part.element_size() for part in detector.tensors.values()) / 1e6
    told = ", ".join(f"{kind} {value:.3f}" for kind, value in reached.items())
    print(f"unknown, cats and dogs: detector {detector.kind} ({size:.1f} MB), chosen by {told}")
    known = evidence(head, splits["test"])
    scores = strangeness(detector, known.features, known.logits)
    limit = torch.quantile(detector.typical, 0.95)
    print(f"  known images called unknown: {float((scores > limit).float().mean()):.1%}")
    for name, part in strange.items():
        others = evidence(head, part)
        found = strangeness(detector, others.features, others.logits)
        print(f"  {name}: AUROC {area(scores, found):.4f}, {float((found > limit).float().mean()):.1%} told as unknown")


def tell_near(splits: dict[str, Part], names: Sequence[str]) -> None:
    areas = []
    for place, name in enumerate(names):
        left = {split: part.of(part.labels != place) for split, part in splits.items()}
        head = solve(left["train"], 1.0)
        val = left["validation"]
        renumbered = {split: Part(part.features, part.labels - (part.labels > place)) for split, part in left.items()}
        train = evidence(head, renumbered["train"], MOST_TRAIN)
        detector, _ = fit_detector(train, evidence(head, renumbered["validation"]))
        known = evidence(head, renumbered["test"])
        new = splits["test"].of(splits["test"].labels == place)
        others = Evidence(torch.from_numpy(new.features), logits_of(head, new), torch.from_numpy(new.labels))
        every = {
            kind: fitted_area(kind, train, evidence(head, renumbered["validation"]), known, others) for kind in KINDS
        }
        areas.append(every[detector.kind])
        told = ", ".join(f"{kind} {value:.3f}" for kind, value in every.items())
        print(f"unknown, clothing without {name} ({len(val.labels)} validation images): {detector.kind}; AUROC {told}")
    print(f"unknown, a class left out of clothing: mean AUROC {np.mean(areas):.4f}, {sum(a >= 0.9 for a in areas)} of "
          f"{len(areas)} classes at 0.90 or more")  # fmt: skip


def fitted_area(kind: str, train: Evidence, val: Evidence, known: Evidence, others: Evidence) -> float:
    """Return the AUROC of one kind of detector; for comparison, no choice goes by it."""
    from regraft.evaluation.trust.novelty import _fitted, _scores

    tensors = _fitted(train, val)
    return area(*(_scores(kind, tensors, part.features, part.logits) for part in (known, others)))


def area(known: torch.Tensor, strange: torch.Tensor) -> float:
    scores = torch.cat([known, strange]).double().numpy()
    return roc_auc(scores, np.arange(len(scores)) >= len(known))


if __name__ == "__main__":
    main()
