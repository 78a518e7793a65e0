"""What `regraft check` finds, beside cleanvision, imagededup and cleanlab on the same images and the same features.

    uv run python benchmarks/doctor.py [copies] [labels] [scale] [cost] [--originals 25] [--images 400] [--seeds 1]

copies: twelve changed copies of some images each are planted among others of a folder; recall for each change (a copy
counts when it is in the group of its original) and pairs of different originals (aims: at least 95 % overall, at most
0.1 % of the pairs that are reported). cleanvision and imagededup (perceptual hash and CNN) see the same folder.
labels: 5 % and 30 % of labels are exchanged; AUROC of the scores, beside those of cleanlab, which gets out-of-sample
probabilities of scikit-learn's logistic regression on the same features, as its documentation does (aims: at least 0.99
and 0.98 on cats and dogs, ahead of cleanlab on both sets).
scale: pairs of 100,000 images from synthetic features and thumbnails, a tenth of them copies (aims: 60 s, 1 GB).
cost: seconds of the search for copies and of judging labels, beside those of the features (aim: at most 10 %).

Thresholds were chosen on training images of clothing; the folders here are clothing's test split and the validation
split of dogs-vs-cats-small, below REGRAFT_SHARED/data. Seeds are few.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from doctor_peers import CLEANLAB, peer_pairs, run_peer
from peers import Results
from planted_copies import counted, plant

SHARED = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[2] / "shared")) / "data"
FOLDERS = {"clothing": SHARED / "clothing" / "test", "cats and dogs": SHARED / "dogs-vs-cats-small" / "validation"}
LABELLED = {"clothing": SHARED / "clothing" / "train", "cats and dogs": SHARED / "dogs-vs-cats-small" / "train"}


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("parts", nargs="*", default=["copies", "labels", "scale", "cost"])
    parser.add_argument("--originals", type=int, default=25, help="images of which copies are planted")
    parser.add_argument("--images", type=int, default=400, help="of each folder, those included")
    parser.add_argument("--seeds", type=int, default=1, help="of label noise")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    given = parser.parse_args()
    results = Results("doctor", vars(given) | {"again": None, "parts": None}, again=given.again)
    if "copies" in given.parts:
        for name, folder in FOLDERS.items():
            copies(name, folder, given, results)
    if "labels" in given.parts:
        for name, folder in LABELLED.items():
            labels(name, folder, given, results)
    if "scale" in given.parts:
        print("100,000 images:", results.once("scale", scale))
    if "cost" in given.parts:
        print("cost:", results.once("cost", lambda: cost(LABELLED["cats and dogs"])))


def copies(name: str, folder: Path, given: argparse.Namespace, results: Results) -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        plant(folder, root, given.originals, given.images)
        found = {"regraft": results.once(f"{name}: regraft", lambda: counted(regraft_pairs(root), given.originals))}
        for peer in () if given.no_peers else ("cleanvision", "imagededup"):
            for way in ("phash", "cnn") if peer == "imagededup" else ("near",):
                key = f"{peer} {way}"
                try:
                    found[key] = results.once(
                        f"{name}: {key}",
                        lambda peer=peer, way=way: counted(peer_pairs(peer, way, root), given.originals),
                    )
                except SystemExit as failed:  # imagededup's network has to be downloaded
                    print(f"{name}, {key}: not run: {str(failed).strip().splitlines()[-1]}")
    for tool, numbers in found.items():
        recalls = ", ".join(f"{change} {recall:.0%}" for change, recall in numbers["recall"].items())
        print(
            f"{name}, {tool}: recall {numbers['overall']:.1%}; {numbers['false']} of {numbers['pairs']:,} pairs false"
        )
        print(f"   {recalls}")
        print(f"   false: {numbers['examples']}")


def regraft_pairs(root: Path) -> list[tuple[str, str]]:
    from regraft.checkup.copies.groups import near_pairs

    rows, seen, described = looked_at(root)
    pairs = near_pairs(seen.thumbnails, described.rows, described.features)
    names = [Path(path).name for path in rows.paths]
    return [(names[described.rows[one]], names[described.rows[two]]) for one, two in pairs.tolist()]


def looked_at(root: Path) -> tuple[Any, Any, Any]:
    import regraft as rg
    from regraft.checkup.features import describe
    from regraft.checkup.rows import Rows
    from regraft.checkup.survey import survey
    from regraft.data.open import open_undivided

    rows = Rows(open_undivided(root))
    seen = survey(rows.paths)
    described = describe(rows, seen.good, None, rg.choose_numerics())
    if isinstance(described, str):
        raise SystemExit(described)
    return rows, seen, described


def labels(name: str, folder: Path, given: argparse.Namespace, results: Results) -> None:
    from regraft.checkup.mislabelled import judge

    features: list[Any] = []

    def described() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        if not features:
            rows, _, of_rows = looked_at(folder)
            features.extend([of_rows.features, rows.labels[of_rows.rows]])
        return features[0], features[1]

    for share in (0.05, 0.3):
        ours, theirs = [], []
        for seed in range(given.seeds):
            key = f"{name}, {share:.0%} wrong, seed {seed}"

            def judged(share: float = share, seed: int = seed) -> float:
                matrix, truth = described()
                noisy = exchanged(truth, share, seed)
                return auroc(judge(matrix, noisy).doubts, noisy != truth)

            def by_cleanlab(share: float = share, seed: int = seed) -> dict[str, float]:
                matrix, truth = described()
                return cleanlab_aurocs(matrix, truth, exchanged(truth, share, seed))

            ours.append(results.once(f"{key}: regraft", judged))
            if not given.no_peers:
                theirs.append(results.once(f"{key}: cleanlab", by_cleanlab))
        shown = {way: float(np.mean([found[way] for found in theirs])) for way in (theirs[0] if theirs else ())}
        peers = ", ".join(f"cleanlab ({way}) {value:.4f}" for way, value in shown.items())
        print(f"{name}, {share:.0%} of the labels wrong: AUROC regraft {np.mean(ours):.4f}, {peers}")


def exchanged(truth: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(truth), round(share * len(truth)), replace=False)
    noisy, num = truth.copy(), int(truth.max()) + 1
    noisy[wrong] = (truth[wrong] + rng.integers(1, num, len(wrong))) % num
    return noisy


def auroc(scores: npt.NDArray[np.float64], is_wrong: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(scores, kind="stable")
    rank = np.empty(len(scores))
    rank[order] = np.arange(1, len(scores) + 1)
    num = int(is_wrong.sum())
    return float((rank[is_wrong].sum() - num * (num + 1) / 2) / (num * (len(scores) - num)))


def cleanlab_aurocs(
    matrix: npt.NDArray[np.float32], truth: npt.NDArray[np.int64], noisy: npt.NDArray[np.int64]
) -> dict[str, float]:
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, features=matrix, labels=noisy)
        file.flush()
        scores = json.loads(run_peer("cleanlab", CLEANLAB, file.name))
    return {way: auroc(-np.array(values), noisy != truth) for way, values in scores.items()}


def scale(num: int = 100_000, width: int = 1280, clusters: int = 300) -> dict[str, float]:
    """Seconds and memory of all pairs among synthetic images, of which each tenth is a changed copy of another."""
    from regraft.checkup.copies.groups import near_pairs
    from regraft.checkup.copies.thumbnails import SIDE, Thumbnails

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = np.random.default_rng(0)
    centres = rng.gamma(0.5, 1, (clusters, width)).astype(np.float32)
    features = np.empty((num, width), dtype=np.float32)
    thumbnails = Thumbnails(num)
    num_first = num - num // 10
    for start in range(0, num_first, 1000):
        rows = np.arange(start, min(start + 1000, num_first))
        own = rng.gamma(0.5, 1, (len(rows), width)).astype(np.float32)
        features[rows] = 0.5 * centres[rng.integers(clusters, size=len(rows))] + own
        coarse = rng.integers(0, 256, (len(rows), 12, 12)).astype(np.uint8)
        for row, small in zip(rows.tolist(), coarse, strict=True):
            image = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            thumbnails.keep(row, np.asarray(image), None)
    origin = rng.choice(num_first, num - num_first, replace=False)
    for row, first in zip(range(num_first, num), origin.tolist(), strict=True):
        features[row] = features[first] + 0.3 * rng.gamma(0.5, 1, width)
        noise = rng.normal(0, 8, (SIDE, SIDE))
        pixels = np.clip(thumbnails.whole[first] + noise, 0, 255).astype(np.uint8)
        thumbnails.keep(row, pixels, None)
    began = time.perf_counter(), time.process_time()
    pairs = near_pairs(thumbnails, np.arange(num), features)
    seconds, of_processor = time.perf_counter() - began[0], time.process_time() - began[1]
    true = {(int(first), row) for row, first in zip(range(num_first, num), origin, strict=True)}
    found = {(one, two) for one, two in pairs.tolist()}
    return {
        "seconds": round(seconds, 1),
        "processor seconds": round(of_processor, 1),
        "MB, features and thumbnails included": round(
            (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        ),
        "recall": len(found & true) / len(true),
        "false": len(found - true),
        "load": round(os.getloadavg()[0], 1),
    }


def cost(folder: Path) -> dict[str, float]:
    """Processor seconds of what follows the features, beside those of the features."""
    from regraft.checkup.copies.groups import find_groups
    from regraft.checkup.mislabelled import judge

    began = time.process_time()
    rows, seen, described = looked_at(folder)
    features = time.process_time() - began
    began = time.process_time()
    find_groups(seen.thumbnails, seen.digests, seen.measures["width"], described.rows, described.features)
    pairs = time.process_time() - began
    began = time.process_time()
    judge(described.features, rows.labels[described.rows])
    return {
        "images": len(rows),
        "survey and features": round(features, 1),
        "copies": round(pairs, 1),
        "labels": round(time.process_time() - began, 1),
    }


if __name__ == "__main__":
    main()
