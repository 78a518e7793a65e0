"""Monte Carlo dropout: mean and variance over draws that are a function of the seed."""

from __future__ import annotations

import pytest
import torch
from tests.models.segment.networks import SMALL, vgg_segnet

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.segment.bayes import bayesian_predict
from regraft.plan.freezing.freeze import freeze


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return vgg_segnet(encoder="vgg16_bn", dropout=0.5, depth=3)


def test_the_draws_are_a_function_of_the_seed_and_of_nothing_else(model: torch.nn.Module) -> None:
    images = torch.randn(3, 3, 20, 28)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    maps = bayesian_predict(model, images, samples=4, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(10)
    alone = bayesian_predict(model, images[2:], samples=4, seed=1)
    assert torch.equal(maps.mean[2:], alone.mean)
    assert torch.equal(maps.variance[2:], alone.variance)
    other = bayesian_predict(model, images[2:], samples=4, seed=2)
    assert not torch.equal(other.mean, alone.mean)


def test_mean_and_variance_are_those_of_the_single_draws(model: torch.nn.Module) -> None:
    """One draw more is one more row: means of 1, 2, ... draws give the draws back."""
    images = torch.randn(1, 3, 16, 16)
    means = [bayesian_predict(model, images, samples=n, seed=3).mean.double() for n in range(1, 6)]
    draws = torch.stack([mean * (n + 1) - (means[n - 1] * n if n else 0) for n, mean in enumerate(means)])
    maps = bayesian_predict(model, images, samples=5, seed=3)
    assert torch.allclose(maps.mean.double(), draws.mean(0), atol=1e-5)
    assert torch.allclose(maps.variance.double(), draws.var(0, correction=0), atol=1e-5)
    assert torch.allclose(maps.mean.sum(1), torch.ones(1, 16, 16), atol=1e-5)
    assert maps.variance.max() > 1e-6


def test_modes_are_as_before_and_norms_stand_still(model: torch.nn.Module) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    bayesian_predict(model, torch.randn(1, 3, 16, 16), samples=2)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval()


def test_frozen_layers_draw_too(model: torch.nn.Module) -> None:
    """Freezing holds the dropout of the encoder off in training; a Bayesian prediction asks for it by name."""
    images = torch.randn(1, 3, 16, 16)
    expected = bayesian_predict(model, images, samples=3, seed=5)
    freeze(model, "!encoder")
    assert not model.train().encoder.features.drop3.training
    assert model.decoder.drop3.training
    assert torch.equal(bayesian_predict(model, images, samples=3, seed=5).mean, expected.mean)


@pytest.mark.parametrize(("dropout", "samples", "said"), [(0.0, 4, "no dropout"), (0.5, 0, "samples is 0")])
def test_mistakes(dropout: float, samples: int, said: str) -> None:
    model = rg.build_model("unet", encoder=SMALL, dropout=dropout)
    with pytest.raises(SettingsError, match=said):
        bayesian_predict(model, torch.randn(1, 3, 8, 8), samples=samples)
