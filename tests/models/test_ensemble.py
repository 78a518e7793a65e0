"""An ensemble predicts the mean of its members' probabilities, for every kind of output."""

from __future__ import annotations

import pytest
import torch

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.describe.outputs import probabilities
from regraft.models.store.ensemble import Ensemble

IMAGES = torch.rand(3, 3, 32, 32)


def members(output: str, classes: tuple[str, ...] = ("cat", "dog"), num: int = 3) -> list[torch.nn.Module]:
    models = [rg.build_model("test_efficientnet", seed=seed) for seed in range(num)]
    head = rg.Head(output=output)  # type: ignore[arg-type]
    return [rg.adapt(model, classes=classes, image_size=32, head=head, seed=seed) for seed, model in enumerate(models)]


@pytest.mark.parametrize("output", ["softmax", "binary", "multilabel"])
def test_it_is_the_mean(output: str) -> None:
    models = members(output)
    with torch.no_grad():
        mean = torch.stack([probabilities(output, model(IMAGES)) for model in models]).mean(0)
        together = probabilities(output, Ensemble(models).eval()(IMAGES))
    torch.testing.assert_close(together.double(), mean.double(), atol=1e-6, rtol=1e-5)


def test_models_of_other_classes_are_refused() -> None:
    with pytest.raises(SettingsError, match="differ"):
        Ensemble([*members("softmax"), *members("softmax", ("cat", "fox"), num=1)])
