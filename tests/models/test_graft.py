"""A report is put into a model whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.file import read_weights
from regraft.weights.report import MatchReport


def _model(seed: int, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, classes))


def _state(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().cpu().numpy().tobytes() for name, tensor in model.state_dict().items()}


def _report(tmp_path: Path, state: dict[str, torch.Tensor], model: nn.Module) -> MatchReport:
    torch.save(state, tmp_path / "x.pth")
    return match_weights(read_weights(tmp_path / "x.pth"), model)


def test_puts_every_value_in_and_keeps_the_parameters(tmp_path: Path) -> None:
    source, model = _model(1), _model(2)
    source(torch.randn(5, 3, 8, 8))  # moves the running statistics
    model[0].weight.requires_grad_(False)
    parameters = list(model.parameters())
    assert graft(model, _report(tmp_path, source.state_dict(), model).require("all")) is model
    assert _state(model) == _state(source)
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    assert [parameter.requires_grad for parameter in parameters[:2]] == [False, True]
    model(torch.randn(2, 3, 8, 8)).sum().backward()  # the new values can be trained
    assert model[5].weight.grad is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_weights_leave_the_model_as_it_was(tmp_path: Path, bad: float) -> None:
    state, model = _model(1).state_dict(), _model(2)
    state["5.bias"] = torch.tensor([0.0, bad, 0.0])
    before = _state(model)
    report = _report(tmp_path, state, model)
    with pytest.raises(WeightsError, match=r"5\.bias"):
        graft(model, report)
    assert _state(model) == before
    graft(model, report, allow_nonfinite=True)
    assert _state(model)["5.bias"] == state["5.bias"].numpy().tobytes()


def test_negative_variances_are_refused(tmp_path: Path) -> None:
    state, model = _model(1).state_dict(), _model(2)
    state["1.running_var"][2] = -1.0
    with pytest.raises(WeightsError, match="1 variances are negative"):
        graft(model, _report(tmp_path, state, model))


def test_the_report_of_another_model_is_refused(tmp_path: Path) -> None:
    model, other = _model(2), _model(3, classes=7)
    report = _report(tmp_path, _model(1).state_dict(), model)
    for strange in (other, nn.Sequential(nn.Conv2d(3, 4, 3))):
        before = _state(strange)
        with pytest.raises(WeightsError, match="model that the report was made for"):
            graft(strange, report)
        assert _state(strange) == before


def test_a_file_that_vanished_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = _model(2)
    report = _report(tmp_path, _model(1).state_dict(), model)
    before = _state(model)
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="changed since it was opened"):
        graft(model, report)
    assert _state(model) == before


def test_keeps_dtypes(tmp_path: Path) -> None:
    source, model = _model(1), _model(2).half()
    graft(model, _report(tmp_path, source.state_dict(), model))
    assert model[0].weight.dtype == torch.float16
    assert torch.equal(model[0].weight, source[0].weight.half())
    assert model[1].num_batches_tracked.dtype == torch.int64


def test_tied_and_shared_tensors_stay_tied(tmp_path: Path) -> None:
    source, model = _model(1), _model(2)
    model[5].bias = nn.Parameter(torch.zeros(3))
    whole = torch.zeros(10)
    model[5].bias.data = whole[2:5]
    graft(model, _report(tmp_path, source.state_dict(), model))
    assert torch.equal(whole[2:5], source[5].bias)
