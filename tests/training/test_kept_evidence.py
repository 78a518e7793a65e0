"""What a solved head knows of its images serves the delivered network as another pass would, after a stop as well."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

import regraft as rg
from regraft.models.describe.trust import Trust
from tests.conftest import TINY_MODEL, photos

FP32 = rg.choose_numerics("cpu", "fp32", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> rg.DataSet:
    return rg.open_data(photos(tmp_path_factory.mktemp("few") / "photos", {"blue": 70, "green": 70, "red": 70}))


def solved(data: rg.DataSet, out: Path, *stages: rg.Stage) -> Path:
    model = rg.adapt(rg.build_model(TINY_MODEL, seed=0), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, stages or [rg.Stage("head", optimizer="lbfgs")])
    return rg.train(model, plan, data, out=out, batch_size=16, numerics=FP32, show=False).path


def trust_of(run: Path) -> Trust:
    trust: Trust = rg.load_model(run).regraft_info.trust  # type: ignore[union-attr, assignment]
    return trust


def digests(run: Path) -> dict[str, str]:
    files = sorted(path for path in (run / "model").iterdir() if path.suffix == ".safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_says_what_another_pass_says(data: rg.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    solved(data, tmp_path / "kept")
    assert not (tmp_path / "kept" / "evidence.safetensors").exists()
    kept = trust_of(tmp_path / "kept")
    monkeypatch.setattr("regraft.training.trust.validated.kept_evidence", lambda path: passes.append(1))
    again = trust_of(solved(data, tmp_path / "again"))
    assert passes
    assert kept.detector is not None
    assert again.detector is not None
    assert kept.detector.kind == again.detector.kind
    torch.testing.assert_close(kept.nonconformity, again.nonconformity, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(kept.detector.typical, again.detector.typical, rtol=1e-2, atol=1e-2)


def test_a_run_that_stopped_before_its_model_was_written_ends_in_the_same_bits(
    data: rg.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digests(solved(data, tmp_path / "whole"))

    def stop(*_anything: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("regraft.training.delivery.know_itself", stop)
        with pytest.raises(KeyboardInterrupt):
            solved(data, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "evidence.safetensors").exists()
    rg.resume(tmp_path / "stopped", show=False)
    assert digests(tmp_path / "stopped") == whole
    assert not (tmp_path / "stopped" / "evidence.safetensors").exists()


def test_a_head_that_is_not_the_last_stage_keeps_nothing(data: rg.DataSet, tmp_path: Path) -> None:
    stages = (rg.Stage("head", optimizer="lbfgs"), rg.Stage("all", train="all", epochs=1, lr=1e-3))
    run = solved(data, tmp_path / "run", *stages)
    assert not (run / "evidence.safetensors").exists()
    assert trust_of(run).detector is not None
