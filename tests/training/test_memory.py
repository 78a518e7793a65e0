"""A step that does not fit into memory: smaller batches with as many images a step, said, stored, not tried again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import regraft as rg
from regraft import pipeline
from regraft.errors import OutOfMemoryError
from regraft.run.folder import RunFolder
from regraft.training.limits.memory import in_smaller_batches
from regraft.training.loop import gradient_stage
from tests.training.faults import result
from tests.training.tiny import Killed, begin, few_photos_in, kill_at_step, stages, tiny_network


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("few") / "photos")


@contextmanager
def memory_for(num_images: int, *, from_step: int = 0) -> Iterator[list[int]]:
    """From a step on, more images at a time than this do not fit; gives the sizes that were tried."""
    tried: list[int] = []
    original = gradient_stage.training_step

    def step(engine: Any, program: Any, batches: Any, *rest: Any) -> float:
        first = next(batches)
        tried.append(len(first[1]))
        if tried[-1] > num_images and len(tried) > from_step:
            with engine.autocast():
                program(first[0], training=True)  # the batch norms have seen the batch when memory runs out
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(engine, program, chain([first], batches), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_stage, "training_step", step)
        yield tried


def test_lowered_batches_give_the_run_that_asked_for_them(
    few_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with memory_for(2) as tried:
        run = begin(few_photos, tmp_path / "run", show=True)
    assert tried[:2] == [4, 2]
    assert tried.count(4) == 2  # once in each stage
    plan = [
        rg.Stage(**{**stage.to_dict(), "batch_size": 2, "accumulate": 2})  # type: ignore[arg-type]
        for stage in stages()
    ]
    asked = begin(few_photos, tmp_path / "asked", plan=plan)
    assert result(run) == result(asked)
    assert "2 images at a time, 2 times before each step" in capsys.readouterr().err
    entries = run.read(run.changes)["changes"]
    assert [entry["why"] for entry in entries] == ["out of memory"] * 2
    assert entries[1]["changes"] == {
        "stages.1.batch_size": {"before": 4, "after": 2},
        "stages.1.accumulate": {"before": 1, "after": 2},
    }


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_lowered_batch_at_once(few_photos: Path, tmp_path: Path) -> None:
    with memory_for(1), pytest.raises(Killed), kill_at_step(3):
        begin(few_photos, tmp_path / "run", save_steps=1)
    with memory_for(1) as tried:
        run = pipeline.resume(tmp_path / "run", model=tiny_network(), show=False)
    assert tried[0] == 1
    assert tried.count(4) <= 1  # the second stage's first step
    with memory_for(1):
        whole = begin(few_photos, tmp_path / "whole", save_steps=1)
    assert result(run) == result(whole)


def test_one_image_that_does_not_fit_is_an_error_with_its_own_exit_code(few_photos: Path, tmp_path: Path) -> None:
    with memory_for(0) as tried, pytest.raises(OutOfMemoryError, match="1 image at a time") as caught:
        begin(few_photos, tmp_path / "run")
    assert tried == [4, 2, 1]
    assert caught.value.exit_code == 6
    run = RunFolder(tmp_path / "run")
    assert run.read(run.status)["state"] == "failed"


def test_memory_that_runs_out_later_names_the_command_that_goes_on(few_photos: Path, tmp_path: Path) -> None:
    with memory_for(2, from_step=4), pytest.raises(OutOfMemoryError) as caught:
        begin(few_photos, tmp_path / "run", save_steps=1)
    command = caught.value.next_step
    assert "--set stages.all.batch_size=2 --allow-change stages.all.batch_size" in command
    run = RunFolder(tmp_path / "run")
    settings = run.settings()
    settings["stages"][1].update(batch_size=2, accumulate=2)
    allow = ["stages.all.batch_size", "stages.all.accumulate"]
    with memory_for(2) as tried:
        pipeline.resume(run, recipe=settings, allow_change=allow, model=tiny_network(), show=False)
    assert max(tried) == 2


@given(st.integers(1, 300), st.integers(1, 8))
def test_a_smaller_batch_divides_the_images_of_a_step(batch_size: int, accumulate: int) -> None:
    stage = rg.Stage("a", batch_size=batch_size, accumulate=accumulate)
    smaller = in_smaller_batches(stage, batch_size)
    if batch_size == 1:
        assert smaller is None
        return
    assert smaller is not None
    assert smaller.batch_size is not None
    assert smaller.batch_size <= batch_size / 2
    assert smaller.batch_size * smaller.accumulate == batch_size * accumulate
