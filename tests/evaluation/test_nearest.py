"""Which training images look most like an error: of the class that it was taken for, and of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import COLOURS, TINY_MODEL, Cli, photo, photos

import regraft as rg
from regraft.evaluation.trust.nearest import KnownImages, Nearest, keep_known_images, known_images

NUM_WRONG = 3


@dataclass
class Said:
    path: str
    prediction: str | None
    probability: float | None = 0.9


def known(num: int = 12, size: int = 4, seed: int = 0) -> KnownImages:
    """Images of two classes in turn."""
    features = np.random.default_rng(seed).normal(size=(num, size)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return KnownImages(tuple(f"{row}.png" for row in range(num)), np.arange(num) % 2, features, 100)


def test_the_nearest_are_those_of_the_highest_cosine() -> None:
    images, asked = known(), np.array([3.0, -1.0, 0.5, 2.0])
    cosines = images.features @ asked / np.linalg.norm(asked)
    best = [row for row in np.argsort(-cosines).tolist() if row % 2 == 1][:3]
    found = images.nearest(asked, 1)
    assert [path for path, _ in found] == [f"{row}.png" for row in best]
    assert [value for _, value in found] == pytest.approx(cosines[best].tolist(), abs=1e-3)
    assert images.nearest(asked, 2) == [], "no image of that class is kept"
    assert found[0][0] not in [path for path, _ in images.nearest(asked, 1, other_than=found[0][0])]


def test_the_file_reads_back_and_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "neighbours.safetensors"
    assert "keeps no features" in str(known_images(path))
    keep_known_images(path, known())
    first = path.read_bytes()
    keep_known_images(path, known())
    assert path.read_bytes() == first, "the same images are the same bytes"
    back = known_images(path)
    assert isinstance(back, KnownImages)
    assert back.paths == known().paths
    assert back.num_training_images == 100
    np.testing.assert_allclose(back.features, known().features, atol=1e-3)
    for content in (first[:40], b"", b"x" * 100, first.replace(b'"labels"', b'"lebals"')):
        path.write_bytes(content)
        assert "damaged" in str(known_images(path))


def test_errors_alone_are_looked_at_and_the_surest_are_kept() -> None:
    nearest, features = Nearest(known(), ["cat", "dog"]), known(1, seed=1).features[0]
    for number in range(40):
        nearest.look(Said(f"e{number}.png", "dog", number / 40), features, "cat")
    nearest.look(Said("right.png", "cat"), features, "cat")
    nearest.look(Said("unreadable.png", None, None), None, "cat")
    nearest.look(Said("strange.png", "dog"), features * np.nan, "cat")
    nearest.look(Said("unknown.png", "unknown"), features, "cat")
    found = nearest.to_dict()["images"]
    assert list(found) == [f"e{number}.png" for number in range(39, 27, -1)]
    assert all(len(of_one["taken"]) == len(of_one["true"]) == 3 for of_one in found.values())


def test_without_features_the_reason_is_told() -> None:
    nearest = Nearest(known(), ["cat", "dog"])
    nearest.look(Said("e.png", "dog"), None, "cat")
    assert nearest.to_dict() == {"reason": "the network does not give the features beside its predictions"}
    assert Nearest("there are none", ["cat"]).to_dict() == {"reason": "there are none"}


@pytest.fixture(scope="module")
def confused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three colours, whose test split has blue images among the green ones."""
    root = tmp_path_factory.mktemp("confused")
    for split, num, seed in (("train", 30, 0), ("val", 10, 1), ("test", 6, 2)):
        photos(root / "photos" / split, dict.fromkeys(COLOURS, num), seed=seed)
    for number in range(NUM_WRONG):
        photo(root / "photos" / "test" / "green" / f"wrong-{number}.png", COLOURS["blue"], 7000 + number)
    data = rg.open_data(root / "photos")
    model = rg.adapt(rg.build_model(TINY_MODEL, seed=0), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("head", optimizer="lbfgs")])
    numerics = rg.choose_numerics("cpu", "fp32", 1)
    return rg.train(model, plan, data, out=root / "run", batch_size=16, numerics=numerics, show=False).path


def test_a_run_shows_each_error_beside_training_images(confused: Path, cli: Cli) -> None:
    before = rg.predict(confused, confused.parent / "photos" / "test" / "green")
    assert cli("evaluate", confused).code == 0
    rows = {row["path"]: row for row in map(json.loads, (confused / "predictions/test.jsonl").read_text().splitlines())}
    for said in before:
        assert rows[said.path]["probabilities"] == said.probabilities, "features beside them change no prediction"
    found = json.loads((confused / "predictions/nearest/test.json").read_text())
    assert (found["num_kept"], found["num_training_images"]) == (90, 90)
    wrong = [path for path, row in rows.items() if row["prediction"] != row["label"]]
    assert {Path(path).name for path in wrong} >= {f"wrong-{number}.png" for number in range(NUM_WRONG)}
    assert set(found["images"]) == set(wrong)
    for path in wrong:
        for key, name in (("taken", rows[path]["prediction"]), ("true", rows[path]["label"])):
            pairs = found["images"][path][key]
            assert len(pairs) == 3
            assert all(Path(other).parent.name == name and "/train/" in other for other, _ in pairs)
            assert [value for _, value in pairs] == sorted((value for _, value in pairs), reverse=True)
        assert found["images"][path]["taken"][0][1] > found["images"][path]["true"][0][1]
    page = rg.write_report(confused).read_text()
    assert "Most confused classes" in page
    assert "among 90 training images" in page
    assert "training: blue" in page


def test_other_data_and_other_networks(confused: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    photo(others / "red" / "a.png", COLOURS["green"], 1)
    photo(others / "green" / "b.png", COLOURS["green"], 2)
    rg.evaluate(confused, others)
    found = json.loads((confused / "predictions/nearest/others.json").read_text())
    assert [Path(path).name for path in found["images"]] == ["a.png"]
    rg.evaluate(confused, split="val")
    assert json.loads((confused / "predictions/nearest/val.json").read_text())["images"] == {}, "nothing is wrong there"
    rg.evaluate(confused, others, tta="flip")
    assert not (confused / "predictions/tta-flip/nearest").exists()


def test_a_run_that_keeps_none_says_so(confused: Path, tmp_path: Path) -> None:
    import shutil

    run = shutil.copytree(confused, tmp_path / "run")
    (run / "neighbours.safetensors").unlink()
    rg.evaluate(run)
    assert "keeps no features" in json.loads((run / "predictions/nearest/test.json").read_text())["reason"]
    page = rg.write_report(run).read_text()
    assert "The training images most like each error are not shown: the run keeps no features" in page
