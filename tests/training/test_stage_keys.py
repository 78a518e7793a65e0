"""What the settings of a stage do in a run, and that a killed run goes on to the same bits with all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import regraft as rg
from regraft import pipeline
from regraft.compute.numerics import choose_numerics
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics
from tests.training.conftest import small_model
from tests.training.tiny import Killed, kill_at_step

CPU = choose_numerics("cpu", "fp32", 1)


def run_stages(photos: Path, out: Path, stages: list[rg.Stage], **settings: Any) -> RunFolder:
    data = rg.open_data(photos)
    model = settings.pop("model", None) or small_model(data.class_names, head=rg.Head(dropout=0.3))
    settings = {"seed": 5, "show": False, "batch_size": 8, "numerics": CPU, **settings}
    return rg.train(model, rg.make_plan(model, stages), data, out=out, **settings)


def weights_hash(run: RunFolder) -> str:
    return hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest()


def without_batch_norm() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return rg.adapt(nn.Sequential(*layers, nn.Linear(8, 5)), classes=("bright", "dark"), image_size=32)


def last_weights(run: RunFolder) -> dict[str, Tensor]:
    step = json.loads(run.last.read_text())["step"]
    return load_file(run.checkpoint(step) / "model.safetensors")


@pytest.mark.parametrize("more", [{}, {"class_weights": {"dark": 5.0}}, {"sampling": "balanced", "ema": 0.9}])
def test_accumulated_batches_equal_one_big_batch(more: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    common = {"train": "all", "optimizer": "sgd", "lr": 0.1, "epochs": 2, "clip_norm": 0.5, **more}
    big, small = (
        run_stages(photos, tmp_path / name, [rg.Stage("a", **common, **sizes)], model=without_batch_norm())
        for name, sizes in {"big": {"batch_size": 12}, "small": {"batch_size": 3, "accumulate": 4}}.items()
    )
    assert [row["step"] for row in read_metrics(big.metrics)] == [row["step"] for row in read_metrics(small.metrics)]
    for name, weight in last_weights(big).items():
        assert torch.allclose(weight, last_weights(small)[name], atol=1e-6), name
    losses = [[row["train_loss"] for row in read_metrics(run.metrics)] for run in (big, small)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_stage_in_steps_ends_in_the_middle_of_an_epoch(photos: Path, tmp_path: Path) -> None:
    run = run_stages(photos, tmp_path / "run", [rg.Stage("a", optimizer="adamw", steps=5)])
    assert [(row["epoch"], row["epochs"], row["step"]) for row in read_metrics(run.metrics)] == [(1, 2, 3), (2, 2, 5)]


class Watch(rg.Callback):
    """Remembers what it is shown."""

    def __init__(self, look: Callable[[Any], Any]) -> None:
        self.look = look
        self.seen: list[Any] = []

    def on_step_end(self, stage: Any, loss: float) -> None:
        self.seen.append(self.look(stage))


def test_the_average_of_the_weights_is_what_is_validated_and_kept(photos: Path, tmp_path: Path) -> None:
    def trained(stage: Any) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in stage.model.named_parameters() if p.requires_grad}

    watch = Watch(trained)
    stage = rg.Stage("top", train=["stage:-1", "head"], optimizer="sgd", lr=0.1, epochs=1, ema=0.3)
    model = small_model(("bright", "dark"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = run_stages(photos, tmp_path / "run", [stage], model=model, callbacks=[watch])
    kept = load_file(run.model / "model.safetensors")
    for name in watch.seen[0]:
        average = before[name]
        for step, weights in enumerate(watch.seen):
            decay = min(0.3, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * weights[name]
        assert torch.allclose(average, kept[name], atol=1e-6), name
        assert not torch.equal(kept[name], watch.seen[-1][name])
    audit = json.loads(run.audit.read_text())["stages"][0]
    assert audit["verdict"] == "ok"
    assert all(torch.equal(kept[name], before[name]) for name in audit["frozen"])
    (row,) = read_metrics(run.metrics)
    assert row["val_loss"] == pytest.approx(rg.evaluate(run)["loss"], rel=1e-4)


def test_stages_with_their_own_image_sizes(photos: Path, tmp_path: Path) -> None:
    watch = Watch(lambda stage: tuple(stage.source.images.pixels["train"].program.size))
    stages = [
        rg.Stage("small", train="all", optimizer="sgd", lr=1e-4, epochs=1),
        rg.Stage("large", train="all", optimizer="sgd", lr=0.02, epochs=4, image_size=(48, 64)),
    ]
    run = run_stages(photos, tmp_path / "run", stages, callbacks=[watch], monitor="train_loss")
    assert set(watch.seen) == {(32, 32), (48, 64)}
    assert json.loads(run.best.read_text())["stage"] == "large"
    pixels = json.loads((run.model / "config.json").read_text())["regraft"]["preprocessing"]["pixels"]
    assert (pixels["size"], pixels["stored"]) == ([48, 64], [48, 64])
    value = rg.evaluate(run)["loss"]
    best = json.loads(run.best.read_text())["epoch"]
    assert value == pytest.approx(
        next(r["val_loss"] for r in read_metrics(run.metrics) if r["stage"] == "large" and r["epoch"] == best), rel=1e-4
    )


def test_training_images_that_are_smaller_than_those_of_validation_and_of_the_model(
    photos: Path, tmp_path: Path
) -> None:
    sizes = Watch(lambda stage: [tuple(stage.source.images.pixels[name].program.size) for name in ("train", "val")])
    common: dict[str, Any] = {"train": "all", "optimizer": "sgd", "epochs": 2, "train_image_size": 24}
    run = run_stages(photos, tmp_path / "run", [rg.Stage("a", lr=0.01, **common)], callbacks=[sizes])
    assert all(seen == [(24, 24), (32, 32)] for seen in sizes.seen)
    pixels = json.loads((run.model / "config.json").read_text())["regraft"]["preprocessing"]["pixels"]
    assert pixels["size"] == [32, 32]
    best = json.loads(run.best.read_text())
    value = next(row["val_loss"] for row in read_metrics(run.metrics) if row["epoch"] == best["epoch"])
    assert rg.evaluate(run)["loss"] == pytest.approx(value, rel=1e-4)
    whole = run_stages(photos, tmp_path / "whole", [rg.Stage("a", lr=0.01, **{**common, "train_image_size": None})])
    assert (whole.model / "model.safetensors").read_bytes() != (run.model / "model.safetensors").read_bytes()


def test_features_of_smaller_training_images_are_kept_as_they_would_be_computed_again(
    photos: Path, tmp_path: Path
) -> None:
    stage = rg.Stage("head", train="head", optimizer="sgd", lr=0.1, epochs=3, train_image_size=24)
    runs = [run_stages(photos, tmp_path / mode, [stage], feature_cache=mode, cache="ram") for mode in ("auto", "off")]
    one, other = ((run.model / "model.safetensors").read_bytes() for run in runs)
    assert one == other


def test_an_automatic_size_of_training_images() -> None:
    def resolved(name: str, size: int | tuple[int, int], **settings: Any) -> Any:
        head = rg.Head(pool="flatten") if settings.pop("flat", False) else rg.Head()
        model = rg.adapt(rg.build_model(name, **settings), classes=("a", "b"), image_size=size, head=head)
        (stage,) = rg.make_plan(model, [rg.Stage("a", optimizer="adamw", train_image_size="auto")])
        return stage.train_image_size

    assert resolved("test_efficientnet", 224) == 192
    assert resolved("test_efficientnet", 128) == 112
    assert resolved("test_efficientnet", (448, 224)) == (384, 192)
    assert resolved("test_efficientnet", 112) is None, "small images have no pixels to spare"
    assert resolved("test_efficientnet", 224, flat=True) is None, "its head takes images of one size"


def test_an_image_size_that_the_network_cannot_take_is_refused(photos: Path, tmp_path: Path) -> None:
    model = small_model(("bright", "dark"), head=rg.Head(pool="flatten"))
    with pytest.raises(SettingsError, match="image_size"):
        rg.make_plan(model, [rg.Stage("a", optimizer="adamw", image_size=64)])
    padded = small_model(("bright", "dark"))
    squashed = preprocessing_of(padded)
    info_of(padded).preprocessing = replace(squashed, pixels=replace(squashed.pixels, resize="pad"))
    with pytest.raises(SettingsError, match="different shapes"):
        run_stages(photos, tmp_path / "run", [rg.Stage("a", optimizer="adamw", image_size=(32, 64))], model=padded)


def test_stages_with_their_own_precision(photos: Path, tmp_path: Path) -> None:
    watch = Watch(lambda stage: (stage.stage.name, stage.engine.numerics.precision, stage.engine.autocast is not None))
    stages = [
        rg.Stage("a", optimizer="sgd", epochs=1, precision="bf16"),
        rg.Stage("b", optimizer="sgd", epochs=1),
    ]
    run_stages(photos, tmp_path / "run", stages, callbacks=[watch])
    assert {seen[:2] for seen in watch.seen} == {("a", "bf16"), ("b", "fp32")}
    with pytest.raises(SettingsError, match="fp16"):
        run_stages(photos, tmp_path / "no", [rg.Stage("a", optimizer="sgd", precision="fp16")])


def test_the_best_epoch_by_the_rule_of_early_stopping(photos: Path, tmp_path: Path) -> None:
    """val_top1 never improves by more than 2, so the first epoch is the best by the rule, whatever the losses do."""
    rule = rg.EarlyStopping("val_top1", patience=3, min_delta=2.0, restore_best=True)
    starts: list[dict[str, Tensor]] = []

    class Start(rg.Callback):
        def on_stage_start(self, stage: Any) -> None:
            starts.append({n: t.detach().clone() for n, t in stage.model.state_dict().items()})

    class Epochs(rg.Callback):
        def on_epoch_end(self, stage: Any, record: Any) -> None:
            if record["stage"] == "a" and record["epoch"] == 1:
                starts.append({n: t.detach().clone() for n, t in stage.model.state_dict().items()})

    stages = [
        rg.Stage("a", optimizer="sgd", lr=0.05, epochs=9, early_stopping=rule),
        rg.Stage("b", optimizer="sgd", epochs=1, start="last"),
    ]
    run = run_stages(photos, tmp_path / "run", stages, callbacks=[Start(), Epochs()])
    assert [row["epoch"] for row in read_metrics(run.metrics) if row["stage"] == "a"] == [1, 2, 3, 4]
    _, after_first_epoch, second_stage = starts
    assert all(torch.equal(tensor, second_stage[name]) for name, tensor in after_first_epoch.items())


def everything() -> list[rg.Stage]:
    """Two stages with all that has state or is random."""
    return [
        rg.Stage(
            "first",
            train=["stage:-1", "head"],
            optimizer="lamb",
            steps=7,
            batch_size=4,
            accumulate=2,
            lr={"all": 1e-2, "head": 5e-2},
            weight_decay=0.01,
            schedule="one-cycle",
            augment=rg.Augment(flip="horizontal", rotation=10),
            mixup=0.2,
            cutmix=1.0,
            label_smoothing=0.1,
            class_weights="balanced",
            ema=0.9,
            image_size=40,
        ),
        rg.Stage(
            "second",
            train=["stage:-1", "head"],
            optimizer="nadam",
            epochs=3,
            lr=1e-2,
            layer_decay=0.8,
            schedule=rg.Schedule("step", every=2, gamma=0.5),
            warmup_steps=2,
            sampling="balanced",
            bn="train",
            ema=0.5,
            start="last",
            clip_norm=1.0,
            early_stopping=rg.EarlyStopping(patience=2, restore_best=True, start_from_epoch=1),
            plateau=rg.Plateau(patience=1, factor=0.5, min_delta=1.0),
        ),
    ]


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_stages(photos, tmp_path_factory.mktemp("runs") / "whole", everything())


@pytest.mark.parametrize("steps", [4, 8, 15, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 6, 12))])
def test_killed_run_with_everything_resumes_to_the_same_bits(
    steps: int, whole: RunFolder, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed), kill_at_step(steps):
        run_stages(photos, tmp_path / "run", everything(), save_steps=2)
    run = pipeline.resume(tmp_path / "run", show=False)
    assert weights_hash(run) == weights_hash(whole)
    skipped = {"images_per_second", "seconds", "data_wait"}
    rows, expected = (
        [{key: value for key, value in row.items() if key not in skipped} for row in read_metrics(folder.metrics)]
        for folder in (run, whole)
    )
    assert rows == expected
    for name, tensor in last_weights(whole).items():
        assert torch.equal(tensor, last_weights(run)[name]), name
    assert json.loads(run.audit.read_text()) == json.loads(whole.audit.read_text())


def test_settings_without_effect_are_told(photos: Path, tmp_path: Path) -> None:
    stages = [
        rg.Stage("solved", optimizer="auto", lr=1e-3, warmup_epochs=1, epochs=4),
        rg.Stage("a", optimizer="adamw", momentum=0.9, decay_norm_and_bias=True, epochs=2, augment=rg.Augment()),
        rg.Stage("b", optimizer="sgd", epochs=2, early_stopping=rg.EarlyStopping(patience=5)),
    ]
    plan = rg.make_plan(small_model(("bright", "dark")), stages)
    told = "\n".join(plan.warnings)
    assert plan.stages[0].optimizer == "lbfgs"
    weighted = rg.make_plan(small_model(("bright", "dark")), [rg.Stage("solved", class_weights="balanced")])
    assert (weighted.stages[0].optimizer, weighted.warnings) == ("lbfgs", ())
    for text in (
        "stage 'solved': lr has no effect",
        "stage 'solved': warmup_epochs has no effect",
        "stage 'a': momentum has no effect on adamw",
        "stage 'a': decay_norm_and_bias has no effect",
        "stage 'a': augment has no effect",
        "stage 'b': early_stopping has no effect",
    ):
        assert text in told
    assert "'solved': epochs" not in told, "with `auto` the length is for the case that nothing is solved"
    assert not rg.make_plan(small_model(("bright", "dark")), everything()).warnings


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": rg.Augment(rotation=5)}, {"mixup": 0.2}, {"cutmix": 1.0}, {"ema": 0.9}, {"steps": 9},
        {"sampling": "balanced"},
    ],
)  # fmt: skip
def test_what_a_solver_cannot_do_is_descended(settings: dict[str, Any]) -> None:
    plan = rg.make_plan(small_model(("bright", "dark")), [rg.Stage("head", **settings)])
    assert plan.stages[0].optimizer == "adamw"
