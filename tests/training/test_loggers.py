"""TensorBoard's files and trackers: every number as in metrics.jsonl, each step once, and training never stops."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import regraft as rg
from regraft import commit, pipeline
from regraft.data.augment.augment import apply
from regraft.data.random import permutation
from regraft.errors import SettingsError
from regraft.models.describe.info import preprocessing_of
from regraft.run.folder import RunFolder
from regraft.run.records import curves, read_metrics
from regraft.training.loggers.pictures import confusion_picture
from regraft.training.loop import gradient_stage
from regraft.training.loop.stage_run import StageRun
from tests.training.conftest import small_model, two_stages
from tests.training.test_train import run_small, weights_hash
from tests.training.tiny import Killed


def events(run: RunFolder) -> Any:
    """What TensorBoard itself reads back."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    everything = {"scalars": 0, "images": 0, "histograms": 0}
    return accumulator.EventAccumulator(str(run.tensorboard), size_guidance=everything).Reload()


def scalars(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    read = events(run)
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.fixture(scope="module")
def logged(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_small(photos, tmp_path_factory.mktemp("runs") / "logged")


def test_curves_are_those_of_metrics_jsonl(logged: RunFolder) -> None:
    read = scalars(logged)
    records = read_metrics(logged.metrics)
    for key in ("train_loss", "val_loss", "val_top1", "images_per_second", "data_wait", "seconds", "lr/head"):
        expected = [(record["step"], np.float32(curves(record)[key])) for record in records if key in curves(record)]
        assert read[f"epoch/{key}"] == expected
    assert [step for step, _ in read["step/loss"]] == list(range(1, 13))
    first = sum(loss * size for (_, loss), size in zip(read["step/loss"][:3], (8, 8, 4), strict=True)) / 20
    assert first == pytest.approx(records[0]["train_loss"], rel=1e-6)
    for group in ("head", "backbone"):
        rates = dict(read[f"step/lr/{group}"])
        ends = {record["step"]: record["lr"][group] for record in records if group in record["lr"]}
        assert {step: rates[step] for step in ends} == pytest.approx(ends)


def test_histograms_are_of_what_trains(logged: RunFolder) -> None:
    read = events(logged)
    audits = json.loads(logged.audit.read_text())["stages"]
    for steps, audit in zip(((3, 6), (9, 12)), audits, strict=True):
        for tensor in audit["trainable"]:
            for kind in ("weights", "gradients"):
                found = {event.step: event for event in read.Histograms(f"{kind}/{tensor['name']}")}
                assert set(steps) <= set(found)
                histogram = found[steps[1]].histogram_value
                assert histogram.num == sum(histogram.bucket) == np.prod(tensor["shape"])
    names = {tensor["name"] for audit in audits for tensor in audit["trainable"]}
    assert {tag.partition("/")[2] for tag in read.Tags()["histograms"]} == names
    last = load_file(logged.checkpoint(json.loads(logged.last.read_text())["step"]) / "model.safetensors")
    weight = read.Histograms("weights/classifier.weight")[-1].histogram_value
    assert (weight.min, weight.max) == (float(last["classifier.weight"].min()), float(last["classifier.weight"].max()))
    assert weight.sum == pytest.approx(float(last["classifier.weight"].sum()), abs=1e-4)
    norm = audits[1]["trainable"][-1]["grad_norm"]
    gradient = read.Histograms(f"gradients/{audits[1]['trainable'][-1]['name']}")[-1].histogram_value
    assert gradient.sum_squares == pytest.approx(norm**2, rel=1e-4)


def test_the_graph_has_every_layer(logged: RunFolder) -> None:
    nodes = {node.name: node for node in events(logged).Graph().node}
    model = small_model(("bright", "dark"))
    convolutions = [name.replace(".", "/") for name, module in model.named_modules() if "Conv2d" in str(type(module))]
    assert {name for name, node in nodes.items() if "Conv2d" in node.op} == set(convolutions)
    assert all(source in nodes for node in nodes.values() for source in node.input)


def test_inputs_are_what_the_network_was_shown(logged: RunFolder, photos: Path) -> None:
    data = rg.open_data(photos)
    read = events(logged)
    pixels = preprocessing_of(small_model(data.class_names)).pixels
    assert pixels.size == (32, 32)
    for name, step, epoch in (("head", 1, None), ("top", 7, 1_000_000)):
        (event,) = read.Images(f"inputs/{name}")
        assert event.step == step
        grid = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert grid.shape == (2 * 32 + 2, 4 * 34 - 2, 3)
        corners = [(34 * row, 34 * column) for row in (0, 1) for column in range(4)]
        shown = [grid[top : top + 32, left : left + 32] for top, left in corners]
        rows = np.arange(8) if epoch is None else permutation(5, epoch, 20)[:8]
        expected = decoded(data, rows)
        if epoch is not None:
            import torch

            images = torch.from_numpy(expected).permute(0, 3, 1, 2)
            augmented = apply(images, two_stages()[1].augment, seed=5, epoch=epoch, sample_ids=rows)
            expected = augmented.float().round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        assert np.abs(np.stack(shown).astype(int) - expected).max() <= 1


def decoded(data: Any, rows: Any) -> Any:
    from regraft.data.decode_all import decode_all

    program = preprocessing_of(small_model(data.class_names)).pixels
    _, pixels = decode_all(data, program)
    return np.stack([pixels["train"].row(int(row)) for row in rows])


def test_the_confusion_matrix_is_drawn_at_each_epoch(logged: RunFolder) -> None:
    found = events(logged).Images("confusion")
    assert [event.step for event in found] == [record["step"] for record in read_metrics(logged.metrics)]
    picture = np.asarray(Image.open(io.BytesIO(found[-1].encoded_image_string)).convert("RGB"))
    assert picture.shape[:2] == (found[-1].height, found[-1].width)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2


@pytest.mark.parametrize(
    ("kill_at", "save_steps"),
    [
        (3, 3),
        (8, 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 1), (4, 2), (11, None))),
    ],
)
def test_a_resumed_run_has_each_step_once(
    kill_at: int,
    save_steps: int | None,
    logged: RunFolder,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class KillAt(rg.Callback):
        def on_step_end(self, stage: StageRun, loss: float) -> None:
            if stage.progress.step == kill_at + 1:
                stage.session.checkpoints.wait()
                raise Killed

    with pytest.raises(Killed):
        run_small(photos, tmp_path / "run", save_steps=save_steps, callbacks=[KillAt()])
    assert_same_curves(pipeline.resume(tmp_path / "run", show=False), logged)


def test_an_epoch_that_was_recorded_and_not_saved_comes_once(
    logged: RunFolder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between metrics.jsonl and the checkpoint, with a checkpoint of the same step before the validation."""

    def watch(run: StageRun, values: Any) -> None:
        raise Killed

    monkeypatch.setattr(gradient_stage, "watch", watch)
    with pytest.raises(Killed):
        run_small(photos, tmp_path / "run", save_steps=3)
    monkeypatch.undo()
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 1
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-5])  # as a kill in the middle of a write leaves it
    assert_same_curves(pipeline.resume(tmp_path / "run", show=False), logged)


def assert_same_curves(run: RunFolder, whole: RunFolder) -> None:
    times = ("epoch/images_per_second", "epoch/data_wait", "epoch/seconds")
    ours, theirs = ({tag: values for tag, values in scalars(run).items() if tag not in times} for run in (run, whole))
    assert ours == theirs
    pictures, expected = events(run), events(whole)
    for tag in expected.Tags()["images"]:
        assert [event.step for event in pictures.Images(tag)] == [event.step for event in expected.Images(tag)]
    for tag in expected.Tags()["histograms"]:
        assert [event.step for event in pictures.Histograms(tag)] == [event.step for event in expected.Histograms(tag)]
    assert pictures.Graph() == expected.Graph()


def test_a_full_disk_under_tensorboard_stops_nothing(
    logged: RunFolder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()
    real = commit.append_bytes

    def append_bytes(path: Path, data: bytes) -> int:
        calls[path.parent.name] += 1
        if path.parent.name == "tensorboard" and calls["tensorboard"] > 1:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(commit, "append_bytes", append_bytes)
    run = run_small(photos, tmp_path / "run")
    assert calls["tensorboard"] == 2, "it is not tried again"
    assert_warned_once(run, "TensorBoard failed and was disabled (OSError:")
    assert weights_hash(run) == weights_hash(logged)


def test_a_file_where_the_folder_should_be_stops_nothing(photos: Path, tmp_path: Path, logged: RunFolder) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "tensorboard", property(lambda run: run.recipe))
        run = run_small(photos, tmp_path / "run")
    assert_warned_once(run, "TensorBoard failed and was disabled")
    assert weights_hash(run) == weights_hash(logged)


def assert_warned_once(run: RunFolder, text: str) -> None:
    warnings = [line for line in run.log.read_text().splitlines() if "warning: " in line and "training goes on" in line]
    assert len(warnings) == 1
    assert text in warnings[0]
    assert json.loads(run.status.read_text())["state"] == "finished"


def test_without_loggers_there_is_no_folder(photos: Path, tmp_path: Path, logged: RunFolder) -> None:
    run = run_small(photos, tmp_path / "run", log=[])
    assert not run.tensorboard.exists()
    assert run.settings()["log"] == []
    assert logged.settings()["log"] == ["tensorboard"]
    assert weights_hash(run) == weights_hash(logged)


@pytest.mark.parametrize(
    ("name", "text"), [("tensorbord", "did you mean 'tensorboard'"), ("clearml", "'clearml' is not installed")]
)
def test_what_is_not_there_is_refused_before_a_run_begins(name: str, text: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be logged with") as caught:
        run_small(photos, tmp_path / "run", log=["tensorboard", name])
    assert text in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def notebook() -> Iterator[type[Any]]:
    """A tracker of the test's own, registered with accelerate as users register theirs."""
    from accelerate import tracking

    class Notebook(tracking.GeneralTracker):  # type: ignore[misc]
        name = "notebook"
        requires_logging_directory = False
        told: ClassVar[list[tuple[Any, ...]]] = []
        fails_at: ClassVar[str] = ""

        def __init__(self, run_name: str) -> None:
            super().__init__()
            self.tracker = None
            self._note("made", run_name)

        def start(self) -> None:
            self._note("start")

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            self._note("settings", values)

        def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
            self._note("log", step, values)

        def finish(self) -> None:
            self._note("finish")

        def _note(self, event: str, *facts: Any) -> None:
            self.told.append((event, *facts))
            if event == self.fails_at:
                raise ConnectionError("no network")

        tracker = None

    tracking.register_tracker_class(Notebook)
    yield Notebook
    del tracking.LOGGER_TYPE_TO_CLASS["notebook"]


def test_a_tracker_of_accelerate_is_told_the_epochs(notebook: Any, photos: Path, tmp_path: Path) -> None:
    run = run_small(photos, tmp_path / "run", log=["notebook"])
    kinds = [event for event, *_ in notebook.told]
    assert kinds[:3] == ["made", "start", "settings"]
    assert kinds[-1] == "finish"
    settings = notebook.told[2][1]
    assert settings["seed"] == 5
    assert all(isinstance(value, (bool, int, float, str)) for value in settings.values())
    logs = [facts for event, *facts in notebook.told if event == "log"]
    assert [(step, values) for step, values in logs if "step/loss" not in values] == [
        (record["step"], {f"epoch/{key}": value for key, value in curves(record).items()})
        for record in read_metrics(run.metrics)
    ]
    assert not run.tensorboard.exists()


@pytest.mark.parametrize(
    "event",
    ["made", "log", "finish", *(pytest.param(event, marks=pytest.mark.slow) for event in ("start", "settings"))],
)
def test_a_tracker_that_fails_stops_nothing(
    event: str, notebook: Any, photos: Path, tmp_path: Path, logged: RunFolder
) -> None:
    notebook.fails_at = event
    run = run_small(photos, tmp_path / "run", log=["notebook", "tensorboard"])
    assert_warned_once(run, "notebook failed and was disabled (ConnectionError: no network)")
    assert weights_hash(run) == weights_hash(logged)
    assert len(scalars(run)["step/loss"]) == 12


@pytest.mark.parametrize("name", ["猫", "two\nlines", "\udcff bytes", "‮right to left", "x" * 300, " "])
def test_any_class_name_can_be_drawn(name: str) -> None:
    counts = np.array([[9, 1], [0, 12_345]])
    made = confusion_picture(counts, [name, "plain"])
    assert Image.open(io.BytesIO(made.png)).size == (made.width, made.height)
    assert made.width < 300


@pytest.mark.parametrize("num", [1, 41, 300])
def test_any_number_of_classes_can_be_drawn(num: int) -> None:
    made = confusion_picture(np.eye(num, dtype=np.int64), [str(place) for place in range(num)])
    assert made.height >= min(num, 28)
