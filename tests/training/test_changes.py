"""A run that goes on with other settings: refused with a list, allowed by key, recorded; a finished run made longer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import nn

import regraft as rg
from regraft import commit, pipeline
from regraft.errors import SettingsError
from regraft.run.changes import ABSENT, differences
from regraft.run.folder import RunFolder
from regraft.training.checkpoint.state import MODEL, OPTIMIZER, STATE
from regraft.training.loop import gradient_stage
from tests.training.faults import result
from tests.training.tiny import Killed, begin, few_photos_in, kill_at_step, stages, tiny_network


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("few") / "photos")


def go_on(run: RunFolder, change: Callable[[dict[str, Any]], object] | None = None, *allow: str) -> RunFolder:
    settings = run.settings()
    if change is not None:
        change(settings)
    recipe = settings if change is not None else None
    return pipeline.resume(run, recipe=recipe, allow_change=allow, model=tiny_network(), show=False)


def set_in_stage(index: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda settings: settings["stages"][index].update(values)


@pytest.fixture(scope="module")
def stopped_once(few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    with pytest.raises(Killed), kill_at_step(5):
        begin(few_photos, run.path, save_steps=1)
    return run


@pytest.fixture
def stopped(stopped_once: RunFolder, tmp_path: Path) -> RunFolder:
    """Killed inside the second epoch of the second stage, right after a checkpoint."""
    return RunFolder(shutil.copytree(stopped_once.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return begin(few_photos, tmp_path_factory.mktemp("whole") / "run", save_steps=1)


def test_unchanged_settings_are_no_difference(stopped: RunFolder) -> None:
    go_on(stopped, lambda settings: None)
    assert not stopped.changes.exists()


def test_changes_are_refused_all_at_once_and_leave_the_run_as_it_is(stopped: RunFolder) -> None:
    before = stopped.recipe.read_bytes()

    def change(settings: dict[str, Any]) -> None:
        settings["stages"][1]["lr"] = 0.01
        settings["save_steps"] = 7

    with pytest.raises(SettingsError) as caught:
        go_on(stopped, change)
    assert caught.value.details == ("stages.1.lr: 0.05 in the run, 0.01 now", "save_steps: 1 in the run, 7 now")
    assert "--allow-change stages.1.lr --allow-change save_steps" in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        go_on(stopped, change, "save_steps")
    assert caught.value.details == ("stages.1.lr: 0.05 in the run, 0.01 now",)
    assert stopped.recipe.read_bytes() == before
    assert not stopped.changes.exists()


@pytest.mark.parametrize("allow", ["stages.1.lr", "stages.all.lr", "stages"])
def test_an_allowed_change_takes_effect_and_is_recorded(stopped: RunFolder, allow: str) -> None:
    run = go_on(stopped, set_in_stage(1, lr=0.01), allow)
    assert run.settings()["stages"][1]["lr"] == 0.01
    (entry,) = run.read(run.changes)["changes"]
    assert entry["why"] == "asked"
    assert entry["changes"] == {"stages.1.lr": {"before": 0.05, "after": 0.01}}
    assert entry["step"] == 5
    last = run.read(run.checkpoint(run.read(run.last)["step"]) / "state.json")
    assert last["recipe"]["stages"][1]["lr"] == 0.01
    assert list(last["rates"].values()) == [0.01] * len(last["rates"])


def test_a_change_that_was_allowed_once_needs_no_permission_again(stopped: RunFolder) -> None:
    with pytest.raises(Killed), kill_at_step(0):
        go_on(stopped, set_in_stage(1, lr=0.01), "stages.1.lr")
    with pytest.raises(Killed), kill_at_step(0):  # the same command once more
        go_on(stopped, set_in_stage(1, lr=0.01))
    run = go_on(stopped)
    assert run.settings()["stages"][1]["lr"] == 0.01
    assert len(run.read(run.changes)["changes"]) == 1


def test_a_recipe_edited_in_the_run_folder_is_a_change(stopped: RunFolder) -> None:
    text = stopped.recipe.read_text()
    stopped.recipe.write_text(text.replace("lr: 0.05", "lr: 0.01"))
    with pytest.raises(SettingsError, match=r"stages\.1\.lr"):
        go_on(stopped)
    stopped.recipe.write_text(text)
    go_on(stopped)


@pytest.mark.parametrize(
    ("change", "allow", "reason"),
    [
        (lambda s: s.update(seed=9), "seed", "order of the images"),
        (lambda s: s.update(monitor="val_loss", mode="min"), "monitor", "best epoch so far"),
        (set_in_stage(0, lr=1.0), "stages.0.lr", "has ended"),
        (set_in_stage(1, train=["head"]), "stages.1.train", "has begun"),
        (set_in_stage(1, optimizer="adam"), "stages.1.optimizer", "has begun"),
        (lambda s: s["stages"].pop(), "stages.1", "cannot be taken out"),
        (set_in_stage(1, lr=0.01), "stages.1.epochs", "not made"),
    ],
)
def test_what_no_permission_makes_possible_is_refused_with_its_reason(
    stopped: RunFolder, change: Callable[[dict[str, Any]], object], allow: str, reason: str
) -> None:
    before = stopped.recipe.read_bytes()
    with pytest.raises(SettingsError, match=reason):
        go_on(stopped, change, allow, *(["mode"] if allow == "monitor" else []))
    assert stopped.recipe.read_bytes() == before


def test_a_finished_run_made_longer_equals_one_that_was_longer_from_the_start(few_photos: Path, tmp_path: Path) -> None:
    short = begin(few_photos, tmp_path / "short", plan=stages(epochs=1))
    assert short.is_finished
    longer = go_on(short, set_in_stage(1, epochs=3), "stages.1.epochs")
    whole = begin(few_photos, tmp_path / "whole", plan=stages(epochs=3))
    expected = result(whole)
    for key in ("weights", "best", "last", "recipe"):
        assert result(longer)[key] == expected[key], key
    rows = [{**row, "epochs": 3} if row["stage"] == "all" else row for row in result(longer)["metrics"]]
    assert rows == expected["metrics"]
    assert result(longer)["audit"]["stages"][1]["num_frozen"] == expected["audit"]["stages"][1]["num_frozen"]


def test_a_finished_run_goes_on_with_a_further_stage(few_photos: Path, tmp_path: Path) -> None:
    run = begin(few_photos, tmp_path / "run", plan=stages()[:1])
    further = stages()[1].to_dict()
    run = go_on(run, lambda settings: settings["stages"].append(further), "stages.1")
    whole = begin(few_photos, tmp_path / "whole", plan=stages())
    assert {**result(run), "recipe": None} == {**result(whole), "recipe": None}
    assert run.settings() == whole.settings()


def test_a_stage_that_early_stopping_ended_goes_on_without_it(few_photos: Path, tmp_path: Path) -> None:
    rule = rg.EarlyStopping(monitor="val_loss", patience=1, min_delta=1e9)
    run = begin(few_photos, tmp_path / "run", plan=stages(epochs=4, early_stopping=rule))
    assert run.read(run.last)["step"] < 2 + 4 * 2
    run = go_on(run, set_in_stage(1, early_stopping=None), "stages.1.early_stopping")
    whole = begin(few_photos, tmp_path / "whole", plan=stages(epochs=4))
    assert result(run)["weights"] == result(whole)["weights"]


def test_a_stage_that_ended_with_an_average_of_its_weights_is_made_longer(few_photos: Path, tmp_path: Path) -> None:
    run = begin(few_photos, tmp_path / "run", plan=stages(epochs=1, ema=0.5))
    longer = go_on(run, set_in_stage(1, epochs=3), "stages.1.epochs")
    whole = begin(few_photos, tmp_path / "whole", plan=stages(epochs=3, ema=0.5))
    for key in ("weights", "best", "last", "networks", "checkpoints", "recipe"):
        assert result(longer)[key] == result(whole)[key], key


def test_an_average_whose_weights_an_earlier_version_did_not_keep_is_not_made_longer(
    few_photos: Path, tmp_path: Path
) -> None:
    run = begin(few_photos, tmp_path / "run", plan=stages(epochs=1, ema=0.5))
    path = run.checkpoint(run.read(run.last)["step"])
    kept = {name: tensor for name, tensor in load_file(path / OPTIMIZER).items() if not name.startswith("extra/")}
    with commit.folder(path) as folder:
        for name in (MODEL, STATE):
            shutil.copy(path / name, folder / name)
        save_file(kept, folder / OPTIMIZER)
    with pytest.raises(SettingsError, match="further stage"):
        go_on(run, set_in_stage(1, epochs=2), "stages.1.epochs")


def test_another_rate_for_a_finished_stage_would_do_nothing(whole: RunFolder) -> None:
    with pytest.raises(SettingsError, match="would do nothing"):
        go_on(whole, set_in_stage(1, lr=0.01), "stages.1.lr")


def test_another_batch_size_inside_an_epoch_shows_each_image_once(
    stopped: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = gradient_stage.training_step

    def step(engine: Any, program: Any, batches: Any, *rest: Any) -> float:
        batches = list(batches)
        seen.append(sum(len(targets) for _, targets, _ in batches))
        return original(engine, program, batches, *rest)

    monkeypatch.setattr(gradient_stage, "training_step", step)
    go_on(stopped, set_in_stage(1, batch_size=2), "stages.1.batch_size")
    assert seen == [2, 2]  # 4 of the 8 images of the epoch were seen before


def test_a_batch_size_that_does_not_divide_what_was_seen_is_refused(stopped: RunFolder) -> None:
    with pytest.raises(SettingsError, match="divides 4"):
        go_on(stopped, set_in_stage(1, batch_size=3), "stages.1.batch_size")


def test_photos_that_were_moved_are_the_same_photos(
    few_photos: Path, stopped: RunFolder, whole: RunFolder, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "moved"
    shutil.copytree(few_photos, elsewhere)

    def move(settings: dict[str, Any]) -> None:
        settings["data"]["source"] = str(elsewhere)

    run = go_on(stopped, move, "data.source")
    assert result(run)["weights"] == result(whole)["weights"]


def test_other_packages_are_said_and_recorded_once(
    stopped: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from regraft.training.checkpoint import resumption

    now = {**resumption.environment(), "torch": "9.9.9"}
    monkeypatch.setattr(resumption, "environment", lambda: now)
    for _ in range(2):
        with pytest.raises(Killed), kill_at_step(0):
            pipeline.resume(stopped, model=tiny_network())
    said = capsys.readouterr().err
    assert said.count("→ 9.9.9)") == 1
    assert "resuming is not bit-exact" in said
    (entry,) = stopped.read(stopped.changes)["changes"]
    assert entry["why"] == "environment"
    assert list(entry["changes"]) == ["torch"]


def test_a_setting_of_another_version_is_no_difference_and_an_entry_of_the_users_own_is() -> None:
    before = {"stages": [{"name": "a", "lr": {"head": 1.0}}], "old": 1}
    after = {"stages": [{"name": "a", "lr": {"head": 1.0, "stem": 2.0}, "new": 3}, {"name": "b"}], "newer": 1}
    assert differences(before, after) == {
        "stages.0.lr.stem": (ABSENT, 2.0),
        "stages.1": (ABSENT, {"name": "b"}),
    }


def test_resume_after_resume_and_over_a_stage_boundary_ends_in_the_same_bits(
    few_photos: Path, whole: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(Killed), kill_at_step(1):
        begin(few_photos, tmp_path / "run", save_steps=1)
    run = RunFolder(tmp_path / "run")
    for _ in range(20):  # one step at a time
        try:
            with kill_at_step(1):
                go_on(run)
            break
        except Killed:
            continue
    assert result(run) == result(whole)


def test_another_network_under_the_same_run_is_refused(stopped: RunFolder) -> None:
    other = rg.adapt(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)), classes=("bright", "dark"), image_size=16)
    with pytest.raises(SettingsError, match="other layers than this model"):
        pipeline.resume(stopped, model=other, show=False)
