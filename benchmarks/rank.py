"""Whether `regraft rank` puts backbones in the order of what they reach when they are fine-tuned, and at what cost.

    uv run python benchmarks/rank.py [DATA...] [--models A,B,...] [--most 1000] [--size PIXELS] [--epochs N]

DATA are folders of photos by class; without any, clothing and dogs-vs-cats-small of REGRAFT_SHARED/data and the demo's
digits. Of each, up to `--most` images that are no test images are taken. All networks are ranked on these, and each is
fine-tuned on them with the default recipe and evaluated on the test split (or on validation images, where there is
none). Printed are the weighted Kendall tau (Vigna 2015, `scipy.stats.weightedtau`) between the ranking and the
accuracies after fine-tuning, whether networks with random weights come last, and the ranking's cost as a share of that
of fine-tuning them all, in processors' seconds (aims: at least 0.8; yes; at most 5 %).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import weightedtau

import regraft as rg
from regraft.data.split import divide
from regraft.machine.heap import keep_freed_memory

MODELS = (
    "tf_efficientnet_lite0,tf_efficientnet_lite1,tf_efficientnet_lite2,"
    "tf_efficientnet_lite0@none,resnet18@none,mobilenetv3_small_100@none"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="*")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--most", type=int, default=1000, help="images to rank and to train on")
    parser.add_argument("--size", type=int, help="side in pixels; default: each network's own")
    parser.add_argument("--epochs", type=int, help="of the last stage; default: the default recipe's")
    given = parser.parse_args()
    keep_freed_memory()
    models = given.models.split(",")
    print(
        f"load {os.getloadavg()[0]:.1f}; at most {given.most} images, {given.size or 'own'} pixels, {len(models)} nets"
    )
    taus, shares = [], []
    for source in given.data or _usual():
        tau, share = _compare(_few(rg.open_data(source), given.most), models, given.size, given.epochs)
        taus.append(tau)
        shares.append(share)
    print(f"weighted tau: {', '.join(f'{tau:.2f}' for tau in taus)}; mean {np.mean(taus):.2f} (aim: at least 0.8)")
    print(f"cost: {', '.join(f'{share:.1%}' for share in shares)} of fine-tuning them all (aim: at most 5 %)")


def _usual() -> list[str]:
    from regraft.cli.verbs.demo import write_digits

    shared = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    digits = Path(tempfile.mkdtemp()) / "digits"
    write_digits(digits)
    return [str(shared / "clothing"), str(shared / "dogs-vs-cats-small"), str(digits)]


def _few(data: rg.DataSet, most: int) -> rg.DataSet:
    """The same data set with a stratified part of its training and validation images."""
    share = min(1.0, most / (len(data.train) + len(data.val)))
    if share == 1:
        return data
    splits = {
        name: split if name == "test" else split.take(divide(split.labels, (share, 1 - share))[0])
        for name, split in data.splits.items()
    }
    return replace(data, splits=splits)


def _compare(data: rg.DataSet, models: Sequence[str], size: int | None, epochs: int | None) -> tuple[float, float]:
    began = time.process_time()
    ranking = rg.rank(data, models, image_size=size)
    ranked = time.process_time() - began
    print(f"\n{data.name}: {ranking}")
    reached, trained = {}, 0.0
    for row in ranking.rows:
        began = time.process_time()
        reached[row.label] = _fine_tuned(data, row, size, epochs)
        trained += time.process_time() - began
        print(f"  {row.label:28} probe {row.accuracy:.1%}  fine-tuned {reached[row.label]:.1%}", flush=True)
    tau = float(weightedtau([-place for place in range(len(reached))], list(reached.values())).statistic)
    is_random = [row.weights == "none" for row in ranking.rows]
    print(
        f"  weighted tau {tau:.2f}; random ones last: {'yes' if is_random == sorted(is_random) else 'NO'}; "
        f"{ranked:.0f} s against {trained:.0f} s: {ranked / trained:.1%}"
    )
    return tau, ranked / trained


def _fine_tuned(data: rg.DataSet, row: rg.RankedModel, size: int | None, epochs: int | None) -> float:
    """The accuracy on test images after the default recipe."""
    model = {"name": row.name, "weights": row.weights, **({} if size is None else {"image_size": size})}
    recipe: dict[str, Any] = {"model": model, "log": [], "data": {"source": data.source}}
    if epochs is not None:
        recipe["stages"] = _stages(epochs)
    with tempfile.TemporaryDirectory() as folder:
        run = rg.run_recipe(recipe, data=data, out=Path(folder) / "run", show=False)
        return float(rg.evaluate(run)["top1"])


def _stages(epochs: int) -> list[dict[str, Any]]:
    """The default stages with another length of the last one."""
    from regraft.recipe.recipe import default_recipe

    head, whole = default_recipe()["stages"]
    return [head, {**whole, "epochs": epochs}]


if __name__ == "__main__":
    main()
