"""Steps of several batches of masks: pixels that are ignored count in no mean, whatever batch they are in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.run.records import read_metrics
from regraft.training.engine import Engine
from regraft.training.loop.step import Update, training_step
from regraft.training.objective.objective import build_objective
from tests.segmentation import void_scenes_in
from tests.training.worker import unet_without_norms

FP32 = choose_numerics("cpu", "fp32", 1)
WEIGHTS = torch.tensor([1.0, 3.0, 2.0])


def gradients(masks: Tensor, sizes: list[int], terms: dict[str, float], weights: Tensor | None) -> list[Tensor]:
    """Those of one step on eight images, in batches of these sizes; the loss comes last."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 3, 3, padding=1)
    images = torch.randn(len(masks), 3, *masks.shape[1:], generator=torch.Generator().manual_seed(1))
    batches = zip(images.split(sizes), masks.split(sizes), strict=True)

    class Program:
        def __call__(self, features: tuple[Tensor, ...], *, training: bool) -> Tensor:
            return layer(features[0])

    stage = rg.Stage("all", loss=terms, label_smoothing=0.1, accumulate=len(sizes))
    value = training_step(
        Engine(FP32),
        Program(),  # type: ignore[arg-type]
        [((image,), mask, len(mask) / len(masks)) for image, mask in batches],
        build_objective(stage, "segmentation", weights, num_processes=1),
        Update.of(layer, torch.optim.SGD(layer.parameters(), 0.1), None),
        lambda: "here",
    )
    return [*(parameter.grad for parameter in layer.parameters() if parameter.grad is not None), torch.tensor(value)]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("sizes", [[2, 2, 2, 2], [4, 3, 1]])
def test_gradients_are_those_of_one_batch(sizes: list[int], weights: Tensor | None) -> None:
    masks = torch.randint(0, 3, (8, 12, 10), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    masks[2:4] = 255  # a whole batch counts for nothing
    masks[5:, 2:] = 255
    terms = {"cross_entropy": 1.0, "focal": 0.5}
    for part, whole in zip(gradients(masks, sizes, terms, weights), gradients(masks, [8], terms, weights), strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-6, atol=1e-6)


def test_a_step_in_which_nothing_counts_changes_nothing() -> None:
    found = gradients(torch.full((4, 6, 6), 255, dtype=torch.uint8), [2, 2], {"cross_entropy": 1.0, "dice": 1.0}, None)
    assert all((gradient == 0).all() for gradient in found)


@pytest.mark.parametrize(
    "augment", [None, rg.Augment(shift=0.4, flip="horizontal"), rg.Augment(window=(16, 32), brightness=0.1)]
)
def test_accumulated_batches_equal_one_big_batch(augment: rg.Augment | None, tmp_path: Path) -> None:
    """Ten images: the last step has two, in one batch of the two."""
    data = rg.open_data(void_scenes_in(tmp_path / "scenes"))
    common: dict[str, Any] = {"train": "all", "optimizer": "sgd", "lr": 0.01, "epochs": 2, "augment": augment}
    found = []
    for name, sizes in {"big": {"batch_size": 4}, "small": {"batch_size": 2, "accumulate": 2}}.items():
        model = rg.adapt(unet_without_norms(), classes=data.class_names, image_size=32)
        stage = rg.Stage(
            "all", loss={"cross_entropy": 1.0, "focal": 1.0}, class_weights=[1.0, 3.0, 2.0], **common, **sizes
        )
        plan = rg.make_plan(model, [stage])
        run = rg.train(model, plan, data, out=tmp_path / name, numerics=FP32, show=False)
        found.append((load_file(run.model / "model.safetensors"), read_metrics(run.metrics)))
    (big, big_rows), (small, small_rows) = found
    for name, weight in big.items():
        torch.testing.assert_close(small[name], weight, rtol=0, atol=1e-6)
    losses = [[row["train_loss"] for row in rows] for rows in (big_rows, small_rows)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
