"""Callbacks of users: what they are told, how they end a stage, what an error of theirs does, and what resume gives."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import regraft as rg
from regraft import pipeline
from regraft.errors import RegraftError, SettingsError
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from regraft.training.callbacks import Callbacks
from regraft.training.loggers import registry as loggers
from regraft.training.loop.session import Session
from regraft.training.loop.stage_run import StageRun
from tests.training.conftest import small_model
from tests.training.test_train import run_small, weights_hash
from tests.training.tiny import Killed

EVENTS = [
    "on_step_end",
    "on_checkpoint",
    "on_run_end",
    *(
        pytest.param(event, marks=pytest.mark.slow)
        for event in ("on_run_start", "on_stage_start", "on_epoch_end", "on_stage_end")
    ),
]
TIMES = {"images_per_second": 0, "data_wait": 0, "seconds": 0}


class Notes(rg.Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.losses: list[float] = []
        self.records: list[Mapping[str, Any]] = []

    def on_run_start(self, session: Session) -> None:
        self.told.append("run")

    def on_stage_start(self, stage: StageRun) -> None:
        self.told.append(f"stage {stage.stage.name}")

    def on_step_end(self, stage: StageRun, loss: float) -> None:
        self.told.append(f"step {stage.progress.step}")
        self.losses.append(loss)

    def on_epoch_end(self, stage: StageRun, record: Mapping[str, Any]) -> None:
        self.told.append(f"epoch {record['epoch']}")
        self.records.append(dict(record))

    def on_checkpoint(self, session: Session) -> None:
        self.told.append(f"saved {session.progress.step}")

    def on_stage_end(self, stage: StageRun) -> None:
        self.told.append(f"end of {stage.stage.name}")

    def on_run_end(self, session: Session) -> None:
        self.told.append("end")


@pytest.fixture(scope="module")
def watched(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Notes]:
    notes = Notes()
    return run_small(photos, tmp_path_factory.mktemp("runs") / "watched", callbacks=[notes]), notes


def test_callbacks_are_told_everything_in_order(watched: tuple[RunFolder, Notes]) -> None:
    run, notes = watched
    stage = "stage {0}|step {1}|step {2}|step {3}|epoch 1|step {4}|step {5}|step {6}|epoch 2|end of {0}"
    head, top = (stage.format(name, *range(first, first + 6)).split("|") for name, first in (("head", 1), ("top", 7)))
    assert [event for event in notes.told if not event.startswith("saved")] == ["run", *head, *top, "end"]
    assert [event for event in notes.told if event.startswith("saved")][-1] == "saved 12"
    assert sum(event.startswith("saved") for event in notes.told) == 6, "after each epoch and each stage"
    assert [{"kind": "epoch", **record} for record in notes.records] == read_metrics(run.metrics)
    assert all(loss > 0 for loss in notes.losses)


def test_watching_changes_no_bit(watched: tuple[RunFolder, Notes], photos: Path, tmp_path: Path) -> None:
    assert weights_hash(run_small(photos, tmp_path / "alone")) == weights_hash(watched[0])


def test_losses_of_an_epoch_add_up_to_its_record(watched: tuple[RunFolder, Notes]) -> None:
    _, notes = watched
    sizes = [8, 8, 4]
    first = sum(loss * size for loss, size in zip(notes.losses[:3], sizes, strict=True)) / sum(sizes)
    assert notes.records[0]["train_loss"] == pytest.approx(first, rel=1e-12)


class Patience(rg.Callback):
    """Ends each stage after so many steps; counts them itself, so a resumed run has to give the count back."""

    def __init__(self, steps: int, kill_at: int | None = None) -> None:
        self.left, self.steps, self.kill_at = steps, steps, kill_at

    def on_step_end(self, stage: StageRun, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            stage.request_stop()
        if stage.progress.step == self.kill_at:
            raise Killed

    def on_stage_end(self, stage: StageRun) -> None:
        self.left = self.steps

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = state["left"]


@pytest.fixture(scope="module")
def patient(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Each of its stages was asked to end after two steps."""
    return run_small(photos, tmp_path_factory.mktemp("runs") / "patient", callbacks=[Patience(2)])


def test_a_stage_ends_with_the_epoch_in_which_a_callback_asks(patient: RunFolder) -> None:
    assert [(row["stage"], row["epoch"]) for row in read_metrics(patient.metrics)] == [("head", 1), ("top", 1)]
    assert "stage stopped by a callback" in patient.log.read_text()
    assert json.loads(patient.status.read_text())["state"] == "finished"


@pytest.mark.parametrize("kill_at", [2, pytest.param(3, marks=pytest.mark.slow), 5])
def test_a_stage_that_was_asked_to_end_resumes_to_the_same_end(
    kill_at: int, patient: RunFolder, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        run_small(photos, tmp_path / "run", callbacks=[Patience(2, kill_at)], save_steps=1)
    run = pipeline.resume(tmp_path / "run", callbacks=[Patience(2)], show=False)
    assert weights_hash(run) == weights_hash(patient)
    assert [row["step"] for row in read_metrics(run.metrics)] == [row["step"] for row in read_metrics(patient.metrics)]


def test_a_solved_stage_ends_as_well(photos: Path, tmp_path: Path) -> None:
    class Once(rg.Callback):
        def on_epoch_end(self, stage: StageRun, record: Mapping[str, Any]) -> None:
            stage.request_stop()

    data = rg.open_data(photos)
    model = small_model(data.class_names)
    plan = rg.make_plan(model, [rg.Stage("head", optimizer="lbfgs")])
    run = rg.train(model, plan, data, out=tmp_path / "run", callbacks=[Once()], show=False)
    assert len(read_metrics(run.metrics)) == 1


def failing(event: str) -> rg.Callback:
    def fail(self: rg.Callback, *arguments: Any) -> None:
        raise KeyError("mistake of mine")

    return type("Broken", (rg.Callback,), {event: fail})()  # type: ignore[no-any-return]


@pytest.mark.parametrize("event", EVENTS)
def test_an_error_of_a_callback_is_named_and_the_run_resumes_without_it(
    event: str, watched: tuple[RunFolder, Notes], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(RegraftError, match=f"callback Broken failed in {event}: KeyError: 'mistake of mine'") as caught:
        run_small(photos, tmp_path / "run", callbacks=[failing(event)])
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.__traceback__ is not None
    assert "rg.resume(" in caught.value.next_step
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.status.read_text())["state"] == "failed"
    resumed = pipeline.resume(run, show=False)
    assert weights_hash(resumed) == weights_hash(watched[0])
    rows, expected = (read_metrics(run.metrics) for run in (resumed, watched[0]))
    assert [row | TIMES for row in rows] == [row | TIMES for row in expected]


def test_the_step_at_which_a_callback_failed_is_saved(photos: Path, tmp_path: Path) -> None:
    class AtTwo(rg.Callback):
        def on_step_end(self, stage: StageRun, loss: float) -> None:
            if stage.progress.step == 2:
                raise ValueError

    with pytest.raises(RegraftError, match="AtTwo failed in on_step_end"):
        run_small(photos, tmp_path / "run", callbacks=[AtTwo()])
    assert json.loads(RunFolder(tmp_path / "run").last.read_text())["step"] == 2


def test_a_state_that_is_no_json_is_the_callbacks_error(photos: Path, tmp_path: Path) -> None:
    class Odd(rg.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"path": Path()}

    with pytest.raises(RegraftError, match="Odd failed in state_dict: TypeError"):
        run_small(photos, tmp_path / "run", callbacks=[Odd()])
    assert pipeline.resume(tmp_path / "run", show=False).model.is_dir()


@pytest.mark.parametrize("wrong", [Notes, object(), print])
def test_what_is_no_callback_is_refused_before_anything_is_written(wrong: Any, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is no callback"):
        run_small(photos, tmp_path / "run", callbacks=[wrong])
    assert not (tmp_path / "run").exists()


def test_two_callbacks_of_a_class_keep_their_own_state() -> None:
    first, second = Callbacks([Patience(1), Patience(2)]), [Patience(0), Patience(0)]
    Callbacks(second).load_state(first.state())
    assert [callback.left for callback in second] == [1, 2]


def test_a_logger_that_fails_is_said_once_and_training_goes_on(
    watched: tuple[RunFolder, Notes], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(loggers.CsvLog):
        def on_epoch_end(self, stage: StageRun, record: Mapping[str, Any]) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(loggers, "CsvLog", Deaf)
    run = run_small(photos, tmp_path / "run")
    said = [line for line in run.log.read_text().splitlines() if "warning" in line and "training goes on" in line]
    assert len(said) == 1
    assert re.search(r"metrics\.csv failed and was disabled \(OSError: .*No space left", said[0])
    assert weights_hash(run) == weights_hash(watched[0])


def test_the_table_has_the_epochs_of_metrics_jsonl(watched: tuple[RunFolder, Notes]) -> None:
    import csv

    run, _ = watched
    with run.metrics_csv.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    records = read_metrics(run.metrics)
    assert len(rows) == len(records) == 4
    for row, record in zip(rows, records, strict=True):
        assert row["stage"] == record["stage"]
        for key in ("epoch", "step", "train_loss", "val_loss", "val_top1", "data_wait"):
            assert float(row[key]) == record[key]
        rates = {key.removeprefix("lr/"): float(value) for key, value in row.items() if key.startswith("lr/") and value}
        assert rates == record["lr"]
        assert 0 <= record["data_wait"] <= 1


def test_every_attribute_that_the_page_lists_is_there(photos: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| `((?:session|stage)\.[a-z_.()]+)`", page, flags=re.MULTILINE)
    assert len(names) > 15

    class Looks(rg.Callback):
        def on_epoch_end(self, stage: StageRun, record: Mapping[str, Any]) -> None:
            for name in names:
                eval(name.removesuffix("()"), {"stage": stage, "session": stage.session})

    run_small(photos, tmp_path / "run", callbacks=[Looks()])
