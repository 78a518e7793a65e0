"""Two runs on the same images: exact tests, intervals that hold, what was seen left out, and the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Cli, photos

import regraft as rg
from regraft.comparison.paired import difference_interval, holm, mcnemar, paired_shares


def test_the_exact_test_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(1, 5) == pytest.approx(2 * 7 / 64)
    assert mcnemar(4, 4) == 1.0
    assert mcnemar(400, 300) < 0.001


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    noise = np.random.default_rng(0)
    for only_first, only_second, num in ((0.05, 0.08, 300), (0.02, 0.02, 500), (0.2, 0.1, 100)):
        cells = noise.multinomial(num, [only_first, only_second, 1 - only_first - only_second], 10_000)
        limits = np.array([difference_interval(int(a), int(b), num) for a, b, _ in cells])
        truth = only_second - only_first
        assert np.mean((limits[:, 0] <= truth) & (truth <= limits[:, 1])) == pytest.approx(0.95, abs=0.01)


def test_equal_better_and_unknown() -> None:
    right = np.ones(2000, bool)
    other = right.copy()
    other[:2] = False
    assert paired_shares(right, other, 0.01)["equal"]
    other[:200] = False
    found = paired_shares(other, right, 0.01)
    assert (found["only_second"], found["difference"]) == (200, 0.1)
    assert found["p"] < 1e-6
    assert not found["equal"]
    few = paired_shares(np.array([True, False]), np.array([True, True]), 0.01)
    assert (few["equal"], few["p"]) == (False, 1.0)


def test_many_classes_are_corrected_for() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@pytest.fixture
def pair(tiny_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run, and the same with the head's rows exchanged: it takes blue for red and red for blue."""
    from safetensors.torch import load_file, save_file

    first, second = (Path(shutil.copytree(tiny_run, tmp_path / name)) for name in ("one", "two"))
    weights = second / "model" / "model.safetensors"
    state = load_file(weights)
    for name, tensor in state.items():
        if name.startswith("classifier."):
            state[name] = tensor[[2, 1, 0]].contiguous()
    save_file(state, weights)
    (second / "model" / "MANIFEST.json").unlink(missing_ok=True)
    for manifest in (second / "model").glob("*anifest*"):
        manifest.unlink()
    return first, second


def test_by_command_and_in_python(pair: tuple[Path, Path], tmp_path: Path, cli: Cli) -> None:
    first, second = pair
    other = photos(tmp_path / "other", {"blue": 20, "green": 20, "red": 20}, seed=7)
    shutil.copy(other / "red" / "000.png", other / "red" / "copy.png")
    found = rg.compare(first, second, other)
    assert found.measures["num_images"] == 60
    assert "copy of another" in found.measures["notes"][0]
    assert found.measures["accuracy"][0] > found.measures["accuracy"][1]
    assert found.verdict.startswith("one is better by ")
    assert "one" in repr(found)
    flips = found.measures["flips"]
    assert all(flip["right"] == 0 and flip["label"] in ("blue", "red") for flip in flips)
    page = tmp_path / "pages" / "compare.html"
    result = cli("compare", first, second, other, "--out", page)
    assert result.code == 0, result.err
    assert "one is better by " in result.out
    assert "  green " in result.out
    text = page.read_text()
    assert "Only one is right" in text
    assert "data:image/jpeg;base64," in text
    printed = json.loads(cli("compare", first, second, other, "--json").out)
    assert printed["paired"]["only_second"] == 0
    assert len(printed["cost"]) == 2


def test_what_the_other_has_seen_is_left_out(pair: tuple[Path, Path], tiny_photos: Path, cli: Cli) -> None:
    first, second = pair
    own = rg.compare(first, second)
    assert (own.label, own.measures["num_images"]) == ("test", 6)
    assert own.measures["loss"]["interval"] is None or len(own.measures["loss"]["interval"]) == 2
    with pytest.raises(rg.DataError, match="No image is left"):
        rg.compare(first, second, split="val")
    everything = rg.compare(first, second, tiny_photos)
    assert everything.measures["num_images"] == 6
    assert "was trained or validated on" in " ".join(everything.measures["notes"])


def test_what_cannot_be_compared_is_said(pair: tuple[Path, Path], tmp_path: Path, cli: Cli) -> None:
    first, second = pair
    assert "given twice" in cli("compare", first, first).err
    config = json.loads((second / "model" / "config.json").read_text())
    config["label_names"] = ["blue", "green", "pink"]
    (second / "model" / "config.json").write_text(json.dumps(config))
    result = cli("compare", first, second)
    assert result.code == 3
    assert "'pink'" in result.err
    assert cli("compare", first, tmp_path / "none").code == 2
