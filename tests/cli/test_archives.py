"""Commands on archives: the same words, the same weights, the same figures as on the folder that was packed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.conftest import COLOURS, TINY_MODEL, Cli, photo
from tests.data.files.packing import KINDS, pack

import regraft as rg
from regraft.data.files import access
from regraft.training.loop import sinks

TINY = ("--model", "test_resnet", "--set", "model.weights=none", "--image-size", "32", "--threads", "1")
SHORT = (*TINY, "--set", "defaults.epochs=1", "--seed", "3")


def weights(run: str | Path) -> bytes:
    return (Path(run) / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colours").mkdir()
    for name, colour in list(COLOURS.items())[:2]:
        for number in range(6):
            photo(tmp_path / "colours" / name / f"{number:03}.png", colour, number, (20, 24))
    return tmp_path


@pytest.mark.slow
def test_weights_of_a_zip_are_those_of_its_folder(tiny_photos: Path, tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "colours"
    folder.symlink_to(tiny_photos)
    data = rg.open_data(pack(folder, "-packed.zip", top="colours"))
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32)
    stages = [rg.Stage("head", epochs=2), rg.Stage("top", train=["stage:-1", "head"], epochs=1, lr=1e-3)]
    run = rg.train(model, rg.make_plan(model, stages), data, out=tmp_path / "run", batch_size=8, show=False)
    assert weights(run.path) == weights(tiny_run)


def test_a_data_set_is_moved_from_its_folder_to_an_archive(tiny_photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "colours"
    folder.symlink_to(tiny_photos)
    packed, data = pack(folder, ".zip", top="inner"), rg.open_data(folder)
    there = rg.open_data(packed).moved_to(os.fspath(packed.rename(tmp_path / "other.zip")))
    assert [access.exists(path) for path in there.train.paths] == [True] * len(data.train)
    assert there.fingerprint() == data.fingerprint()


@pytest.mark.slow
def test_a_run_from_a_zip_that_was_stopped_ends_in_the_weights_of_the_folder(cli: Cli, here: Path) -> None:
    packed = pack(here / "colours", ".zip", top="colours").name
    assert cli("train", "colours", "--out", "folder", *SHORT).code == 0

    def epoch(self, record):  # type: ignore[no-untyped-def]
        if record["stage"] == "all":
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, record)

    real = sinks.Sinks.epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sinks.Sinks, "epoch", epoch)
        stopped = cli("train", packed, "--out", "zip", "--cache", "off", *SHORT)
    assert stopped.code == 130, stopped.err
    resumed = cli("resume", "zip")
    assert resumed.code == 0, resumed.err
    assert weights("folder") == weights("zip")
    splits = [json.loads((Path(run) / "splits.json").read_text()) for run in ("folder", "zip")]
    assert splits[0]["splits"] == splits[1]["splits"]
    assert splits[1]["source"] == str(here / packed)
    assert not [path for path in here.rglob("*.png") if path.parts[-3] != "colours"], "nothing was unpacked"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", ["off", "disk"])
def test_weights_of_a_run_from_any_archive(cli: Cli, here: Path, kind: str, cache: str) -> None:
    for name, source in (("folder", "colours"), ("packed", pack(here / "colours", kind).name)):
        result = cli("train", source, "--out", name, "--cache", cache, *SHORT)
        assert result.code == 0, result.err
    assert weights("folder") == weights("packed")


def answers(cli: Cli, *arguments: object) -> str:
    result = cli(*arguments)
    assert result.code == 0, result.err
    return result.out


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_predict_evaluate_check_and_inspect(cli: Cli, here: Path, tiny_run: Path, tiny_photos: Path, kind: str) -> None:
    folder = here / "pets"
    folder.symlink_to(tiny_photos)
    packed = pack(folder, kind)
    os.chdir(here)
    rows = {}
    for source in (folder.name, packed.name):
        out = here / f"{source}.jsonl"
        answers(cli, "predict", tiny_run, source, "--out", out)
        rows[source] = [json.loads(line) for line in out.read_text().splitlines()]
    for one, two in zip(rows[folder.name], rows[packed.name], strict=True):
        assert str(two.pop("path")).replace(packed.name, folder.name) == one.pop("path")
        assert one == two
    assert len(rows[packed.name]) == 36
    told = [answers(cli, "inspect", source).replace(packed.name, folder.name) for source in (folder.name, packed.name)]
    assert told[0] == told[1]
    assert cli("inspect", packed.name, "--json").code == 0
    one = answers(cli, "predict", tiny_run, f"{packed.name}/red/000.png")
    assert "red/000.png" in one


def test_an_archive_is_evaluated_and_checked(cli: Cli, here: Path, tiny_run: Path, tiny_photos: Path) -> None:
    folder = here / "pets"
    folder.symlink_to(tiny_photos)
    packed = pack(folder, ".tar")
    figures = [answers(cli, "evaluate", tiny_run, source, "--threads", "1") for source in (folder, packed)]
    assert figures[0].replace("(colours", "(pets") == figures[1]
    found = cli("check", packed.name, "--threads", "1")
    assert found.code in (0, 1), found.err
    assert "Traceback" not in found.err


def test_what_is_wrong_with_an_archive_is_one_sentence(cli: Cli, here: Path) -> None:
    packed = pack(here / "colours", ".zip")
    packed.write_bytes(packed.read_bytes()[:-40])
    for command in (("train", packed, *TINY), ("inspect", packed), ("check", packed)):
        result = cli(*command)
        assert result.code in (3, 4), result.err
        assert "Traceback" not in result.err
        assert "photos.zip" in result.err or packed.name in result.err
