"""How good classes are that were added without the old images, and what classifiers of the same features give.

    uv run python benchmarks/add_class.py PHOTOS --new hat shirt [--few 10] [--threads 1]

PHOTOS has train, validation and test. The head is trained on the old classes, the others are added (all their training
images, or a few of each), and the validation and test images of all classes are measured together.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

import regraft as rg
from regraft.incremental.discriminant import solve
from regraft.incremental.features import FeatureProgram
from regraft.incremental.sample import no_sample
from regraft.incremental.statistics import collected

Wide = npt.NDArray[np.float64]
Scores = Callable[[Wide], Wide]
SPLITS = ("train", "validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--new", nargs="+", required=True)
    parser.add_argument("--few", type=int)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        for path in (path for split in SPLITS for path in sorted((options.photos / split).iterdir())):
            if path.name not in options.new:
                shutil.copytree(path, old / path.parent.name / path.name)
        numerics = {"threads": options.threads} if options.threads else {}
        recipe = {"data": {"source": str(old)}, "stages": [{"name": "head", "train": "head"}], "numerics": numerics}
        run = rg.run_recipe(recipe, out=Path(folder) / "run")
        program = FeatureProgram(rg.load_model(run.path), rg.choose_numerics("cpu", "fp32", options.threads))
        paths = {split: sorted(map(str, (options.photos / split).glob("*/*"))) for split in SPLITS}
        found = {split: program(some) for split, some in paths.items()}
    names = {split: [Path(paths[split][row]).parent.name for row in found[split].rows] for split in SPLITS}
    features = {split: found[split].values.astype(np.float64) for split in SPLITS}
    compare(features, names, options.new, options.few)


def compare(features: dict[str, Wide], names: dict[str, list[str]], new: Sequence[str], few: int | None) -> None:
    """Print how many of the validation and test images each classifier gets right."""
    classes = sorted(set(names["train"]))
    labels = {split: np.array([classes.index(name) for name in names[split]]) for split in SPLITS}
    is_new = np.isin(classes, new)
    rng, kept = np.random.default_rng(0), []
    for place in range(len(classes)):
        rows = np.flatnonzero(labels["train"] == place)
        kept.append(rng.permutation(rows)[:few] if is_new[place] and few is not None else rows)
    train, of_train = features["train"][np.concatenate(kept)], labels["train"][np.concatenate(kept)]
    others = np.concatenate([features["validation"], features["test"]])
    truth = np.concatenate([labels["validation"], labels["test"]])
    print(f"{len(train)} images to learn from; % right of {len(others)}: all, old, new, mean over classes")
    for title, scores in classifiers(train, of_train, len(classes), features["validation"], labels["validation"]):
        right = scores(others).argmax(1) == truth
        parts = [right, right[~is_new[truth]], right[is_new[truth]]]
        shares = [float(part.mean()) for part in parts]
        shares.append(float(np.mean([right[truth == place].mean() for place in range(len(classes))])))
        print(f"{title:44} " + "  ".join(f"{100 * share:5.1f}" for share in shares), flush=True)


def classifiers(
    train: Wide, labels: npt.NDArray[np.int64], num: int, val: Wide, of_val: npt.NDArray[np.int64]
) -> list[tuple[str, Scores]]:
    """Return classifiers that were made of the same features."""
    keyless = no_sample(train.shape[1])
    statistics = collected([str(place) for place in range(num)], train, labels, keyless)
    found = solve(statistics)
    means, targets = found.means, np.eye(num)[labels]
    projection = np.random.default_rng(0).normal(size=(train.shape[1], 1500))
    ranpac, projected = ridge(train, targets), ridge(np.maximum(train @ projection, 0), targets)
    return [
        ("nearest class mean", lambda some: 2 * some @ means.T - (means**2).sum(1)),
        ("ridge regression (RanPAC, not projected)", lambda some: some @ ranpac),
        ("RanPAC, projected to 1,500", lambda some: np.maximum(some @ projection, 0) @ projected),
        ("add-class", found.scores),
        ("L-BFGS on all images", logistic(train, labels, val, of_val)),
    ]


def ridge(features: Wide, targets: Wide) -> Wide:
    """Return the weights of ridge regression without an intercept, as RanPAC has it, by cross-validation."""
    values, axes = np.linalg.eigh(features.T @ features)
    turned, num = axes.T @ features.T @ targets, len(features)

    def error(penalty: float) -> float:
        inverse = 1 / (values + penalty)
        residual = num - float(((turned**2).sum(1) * (inverse + penalty * inverse**2)).sum())
        return residual / (num - float((values * inverse).sum())) ** 2

    best = min(values.mean() * 10.0 ** np.arange(-6, 3, 0.25), key=error)
    weights: Wide = axes @ (turned / (values + best)[:, None])
    return weights


def logistic(train: Wide, labels: npt.NDArray[np.int64], val: Wide, of_val: npt.NDArray[np.int64]) -> Scores:
    """Return logistic regression at the strength of the least validation loss."""
    centre, scale = train.mean(0), float(train.std())
    best: tuple[float, LogisticRegression] | None = None
    for strength in (0.1, 0.03, 0.01, 3e-3):
        model = LogisticRegression(C=1 / (strength * len(train)), max_iter=500).fit((train - centre) / scale, labels)
        logs = model.predict_log_proba((val - centre) / scale)
        loss = -float(logs[np.arange(len(of_val)), of_val].mean())
        if best is None or loss < best[0]:
            best = loss, model
    chosen = best[1] if best else LogisticRegression()
    return lambda some: np.asarray(chosen.decision_function((some - centre) / scale))


if __name__ == "__main__":
    main()
