"""`regraft add-class`: a finished run, images of new classes, and a run that knows both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import TINY_MODEL, Cli, photo, photos
from tests.segmentation import scenes_in

import regraft as rg
from regraft.incremental.features import FeatureProgram, classifier_of, network_key


@pytest.fixture(scope="module")
def kept(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with statistics, whose images are gone."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("kept") / "run")
    rg.keep_statistics(run)
    record = json.loads((run / "splits.json").read_text())
    record |= {"root": "/gone", "source": "/gone"}
    (run / "splits.json").write_text(json.dumps(record))
    return run


@pytest.fixture
def yellow(tmp_path: Path) -> Path:
    return coloured(tmp_path / "new", {"cyan": 8, "yellow": 8})


def coloured(root: Path, classes: dict[str, int], seed: int = 5) -> Path:
    """Pictures of classes whose colours no other test has."""
    colours = {"cyan": (20, 200, 210), "yellow": (225, 215, 30)}
    for name, num in classes.items():
        for number in range(num):
            photo(root / name / f"{number:03}.png", colours[name], seed * 100 + number)
    return root


def weights(run: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    model = rg.load_model(run)
    layer = classifier_of(model)
    return model.regraft_info.class_names, layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[union-attr,return-value]


def test_new_classes_are_known_and_old_ones_stay(cli: Cli, kept: Path, yellow: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file() and path.name != "lock"}
    result = cli("add-class", kept, yellow, "--out", tmp_path / "out", "--threads", "1")
    assert result.code == 0, result.err
    assert "cyan (new, 8 images), yellow (new, 8 images)" in result.out
    assert {path: path.read_bytes() for path in before} == before
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["blue", "cyan", "green", "red", "yellow"]
    test = photos(
        coloured(tmp_path / "test", {"cyan": 4, "yellow": 4}, seed=7), {"blue": 4, "green": 4, "red": 4}, seed=7
    )
    measured = json.loads(cli("evaluate", tmp_path / "out", test, "--json", "--threads", "1").out)
    assert measured["num_images"] == 20
    assert measured["top1"] > 0.4
    assert "error" not in cli("predict", tmp_path / "out", test, "--threads", "1").out
    inspected = cli("inspect", tmp_path / "out").out
    assert "classes: blue, cyan, green, red, yellow" in inspected
    assert "state: finished (classes added to run)" in inspected
    assert cli("report", tmp_path / "out").code == 0
    assert cli("resume", tmp_path / "out").code == 0
    assert cli("convert", tmp_path / "out", "-o", tmp_path / "w.safetensors").code == 0
    seen = json.loads(cli("evaluate", tmp_path / "out", yellow, "--json", "--threads", "1").out)
    assert seen["seen"]["train"] == 16


def test_the_classifier_is_that_of_all_images_together(tiny_run: Path, yellow: Path, tmp_path: Path) -> None:
    """Against a discriminant of the features themselves, at the shrinkage that was chosen."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    added = rg.add_class(run, yellow, out=tmp_path / "out")
    model = rg.load_model(run)
    program = FeatureProgram(model, rg.choose_numerics("cpu", "fp32"))
    record = json.loads((run / "splits.json").read_text())
    rows = [(str(Path(record["root"]) / path), name) for path, name in record["splits"]["train"]]
    rows += [(str(path), path.parent.name) for path in sorted(yellow.rglob("*.png"))]
    names, weight, bias = weights(tmp_path / "out")
    features = program([path for path, _ in rows]).values.astype(np.float64)
    labels = np.array([names.index(name) for _, name in rows])
    means = np.array([features[labels == place].mean(0) for place in range(len(names))])
    away, centred = features - means[labels], features - features.mean(0)
    penalty = added.strength * (centred**2).sum() / features.shape[1] * np.eye(features.shape[1])
    solved = len(features) * np.linalg.solve(away.T @ away + penalty, means.T).T / added.temperature
    freedom = np.trace(np.linalg.solve(away.T @ away + penalty, away.T @ away))
    intercept = (freedom / np.bincount(labels) / added.temperature - (solved * means).sum(1)) / 2
    assert np.abs(weight - solved).max() < 1e-6 * np.abs(solved).max()  # the network is in 32 bits
    assert np.abs(bias - intercept).max() < 1e-6 * np.abs(intercept).max()


def test_one_after_the_other_is_both_at_once(kept: Path, yellow: Path, tmp_path: Path) -> None:
    photos(yellow, {"blue": 3}, seed=11)  # more of a class that is there
    rg.add_class(kept, yellow, out=tmp_path / "both")
    for part in ("cyan", "yellow", "blue"):
        shutil.copytree(yellow / part, tmp_path / part / part)
    rg.add_class(kept, tmp_path / "yellow", out=tmp_path / "one")
    rg.add_class(tmp_path / "one", tmp_path / "blue", out=tmp_path / "two")
    last = rg.add_class(tmp_path / "two", tmp_path / "cyan", out=tmp_path / "three")
    assert last.images == {"cyan": 8}
    both, three = weights(tmp_path / "both"), weights(tmp_path / "three")
    assert both[0] == three[0]
    scale = max(1.0, np.abs(both[1]).max())
    assert np.abs(both[1] - three[1]).max() < 1e-6 * scale
    assert np.abs(both[2] - three[2]).max() < 1e-6 * scale
    assert len(json.loads((tmp_path / "three" / "additions.json").read_text())["additions"]) == 3
    assert network_key(rg.load_model(kept)) == network_key(rg.load_model(tmp_path / "three"))


def test_the_same_images_do_not_count_twice(kept: Path, yellow: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copy(yellow / "cyan" / "000.png", yellow / "cyan" / "copy.png")
    rg.add_class(kept, yellow, out=tmp_path / "one")
    result = cli("add-class", tmp_path / "one", yellow, "--out", tmp_path / "two")
    assert result.code == 3
    assert "left out: 17 images that the run has in its training or validation split" in result.err
    assert not (tmp_path / "two").exists()
    shutil.copy(yellow / "cyan" / "000.png", yellow / "yellow" / "copy.png")
    result = cli("add-class", kept, yellow)
    assert result.code == 3
    assert "are the same image" in result.err


def test_what_a_run_is_tested_on_is_not_learnt(cli: Cli, tiny_run: Path, tiny_photos: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copytree(tiny_photos, tmp_path / "all")
    photos(tmp_path / "all", {"yellow": 4}, seed=5)  # a new class beside the old ones
    result = cli("add-class", run, tmp_path / "all", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert "that the run has in its test split" in result.out + result.err
    splits = json.loads((tmp_path / "out" / "splits.json").read_text())
    before = json.loads((run / "splits.json").read_text())
    assert len(splits["splits"]["train"]) == len(before["splits"]["train"]) + 4
    assert rg.open_run(tmp_path / "out").read(tmp_path / "out" / "additions.json")["additions"][0]["images"] == {
        "yellow": 4
    }
    longer = cli("resume", tmp_path / "out", "--set", "stages.top.epochs=9", "--allow-change", "stages.top.epochs")
    assert longer.code == 2
    assert "was made by add-class" in longer.err


def test_one_image_and_images_that_cannot_be_read(cli: Cli, kept: Path, tmp_path: Path) -> None:
    photo(tmp_path / "new" / "yellow" / "one.png", (150, 150, 30), 3)
    (tmp_path / "new" / "yellow" / "bad.jpg").write_bytes(b"\xff\xd8\xff not an image")
    result = cli("add-class", kept, tmp_path / "new", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert "yellow (new, 1 image)" in result.out
    assert "bad.jpg" in result.out
    (tmp_path / "none" / "yellow").mkdir(parents=True)
    assert cli("add-class", kept, tmp_path / "none").code == 3
    assert cli("add-class", kept, tmp_path / "nowhere").code == 3


def test_images_that_are_gone_without_statistics(cli: Cli, tiny_run: Path, yellow: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    record = json.loads((run / "splits.json").read_text())
    (run / "splits.json").write_text(json.dumps({**record, "root": "/gone", "source": "/gone"}))
    result = cli("add-class", run, yellow, "--out", tmp_path / "out")
    assert result.code == 3
    assert "keeps no statistics" in result.err
    assert f"`regraft add-class {run}`" in result.err
    assert not (tmp_path / "out").exists()


def test_statistics_of_another_network_are_refused(cli: Cli, kept: Path, yellow: Path, tmp_path: Path) -> None:
    run = shutil.copytree(kept, tmp_path / "run")
    model = rg.load_model(run)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = next(iter(state))
    state[first] += 1
    model.load_state_dict(state)
    from regraft.models.store.folder import load_probes, write_model

    write_model(run / "model", model, probes=load_probes(run))
    result = cli("add-class", run, yellow)
    assert result.code == 7
    assert "belongs to another network" in result.err


def test_json_an_empty_folder_and_the_recipe(cli: Cli, kept: Path, yellow: Path, tmp_path: Path) -> None:
    (yellow / "mauve").mkdir()
    result = cli("add-class", kept, yellow, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert set(found) == {"run", "images", "new_classes", "strength", "temperature", "notes"}
    assert found["notes"] == ["Class folders without any image were left out: 'mauve'."]
    assert found["run"] == str(tmp_path / "out")
    assert "'mauve'" in cli("add-class", kept, yellow, "--out", tmp_path / "text").out
    first, second, *_ = (tmp_path / "out" / "recipe.yaml").read_text().splitlines()
    assert first.startswith(f"# images were added to the run {kept.name}, without training: ")
    assert all(f"{name} (new, " in first for name in found["new_classes"])
    assert "the settings below are those of" in second
    shutil.rmtree(yellow)
    (yellow / "mauve").mkdir(parents=True)
    refused = cli("add-class", kept, yellow)
    assert refused.code == 3
    assert "'mauve'" in refused.err
    kept_again = cli("add-class", kept, "--json")
    assert json.loads(kept_again.out)["statistics"] == str(kept / "statistics.safetensors")


def test_only_statistics(cli: Cli, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    result = cli("add-class", run, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert "statistics.safetensors" in result.out
    assert "--out has no effect" in result.err
    first = (run / "statistics.safetensors").read_bytes()
    assert cli("add-class", run).code == 0
    assert (run / "statistics.safetensors").read_bytes() == first


def test_what_is_refused(cli: Cli, kept: Path, yellow: Path, tmp_path: Path) -> None:
    unfinished = shutil.copytree(kept, tmp_path / "unfinished")
    (unfinished / "status.json").write_text('{"state": "running"}')
    result = cli("add-class", unfinished, yellow)
    assert result.code == 2
    assert "has not finished" in result.err
    swapped = cli("add-class", yellow, kept)
    assert swapped.code == 2
    assert "comes before it" in swapped.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert cli("add-class", kept, yellow, "--out", tmp_path / "full").code == 2
    assert cli("add-class", kept, scenes_in(tmp_path / "scenes", {"test": 2})).code == 3


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (rg.Head(pool="avg", hidden=[8]), "has hidden layers"),
        (rg.Head(output="multilabel"), "gives images several labels"),
    ],
)
def test_networks_that_are_refused(head: rg.Head, words: str) -> None:
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=["a", "b"], image_size=32, head=head)
    with pytest.raises(rg.SettingsError, match=words):
        FeatureProgram(model, rg.choose_numerics("cpu"))


def test_a_network_for_segmentation_is_refused() -> None:
    model = rg.adapt(rg.build_model("unet", encoder=TINY_MODEL), classes=["a", "b"], image_size=32)
    with pytest.raises(rg.SettingsError, match="class of every pixel"):
        FeatureProgram(model, rg.choose_numerics("cpu"))


@pytest.mark.parametrize("head", [rg.Head(), rg.Head(dropout=0.5), rg.Head(pool="avgmax"), rg.Head(output="binary")])
def test_the_features_are_what_the_classifier_reads(head: rg.Head, tmp_path: Path) -> None:
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=["a", "b"], image_size=32, head=head).eval()
    paths = sorted(map(str, photos(tmp_path / "some", {"red": 3}).rglob("*.png")))
    found = FeatureProgram(model, rg.choose_numerics("cpu", "fp32"))(paths)
    probabilities = [list(row.probabilities.values()) for row in rg.predict(model, paths)]
    logits = torch.from_numpy(found.values) @ classifier_of(model).weight.T + classifier_of(model).bias
    of_head = logits.softmax(1) if logits.shape[1] > 1 else torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1)
    assert np.abs(of_head.detach().numpy() - np.array(probabilities)).max() < 1e-5
