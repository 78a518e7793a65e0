"""A run looks at its own images on the way: leaks and wrong labels land in its folder and in its report."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageOps
from tests.checkup.test_faults import scenes
from tests.conftest import Cli, photos

from regraft.report.checkup import score_without

OPTIONS = ("--model", "test_resnet", "--set", "model.weights=none", "--image-size", "64", "--stages", "head")


def test_leaks_are_told_with_the_score_without_them(cli: Cli, tmp_path: Path) -> None:
    root = scenes(
        tmp_path / "photos", {f"{split}/{name}": 6 for split in ("train", "val", "test") for name in ("a", "b")}
    )
    for split in ("val", "test"):
        ImageOps.mirror(Image.open(root / "train" / "a" / "00.png")).save(root / split / "a" / "copy.png")
    run = tmp_path / "run"
    result = cli("train", root, *OPTIONS, "--out", run)
    assert result.code == 0, result.err
    record = json.loads((run / "check.json").read_text())
    kinds = {issue["kind"]: issue for issue in record["issues"]}
    assert {"leak-test-train", "leak-val-train"} <= set(kinds)
    assert "test/a/copy.png" in {item["path"] for item in kinds["leak-test-train"]["items"]}
    page = (run / "report.html").read_text()
    assert "Data check" in page
    assert "of 13 images" in page
    assert "of the 12 that have no near copy in a split that was trained on or chosen by." in page


def test_sound_images_are_said_to_be_sound(cli: Cli, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"blue": 20, "red": 20})
    run = tmp_path / "run"
    assert cli("train", root, *OPTIONS, "--out", run).code == 0
    assert json.loads((run / "check.json").read_text())["issues"] == []
    assert "No leak between splits was found" in (run / "report.html").read_text()


def test_small_drawings_that_look_alike_are_no_leaks(cli: Cli, tmp_path: Path) -> None:
    root = scenes(tmp_path / "photos", {f"{split}/{name}": 6 for split in ("train", "val") for name in ("a", "b")})
    for path in root.rglob("*.png"):
        Image.open(path).resize((8, 8)).save(path)
    Image.open(root / "train" / "a" / "00.png").point(lambda value: min(255, value + 2)).save(root / "val/a/like.png")
    assert cli("train", root, *OPTIONS, "--out", tmp_path / "run").code == 0
    record = json.loads((tmp_path / "run" / "check.json").read_text())
    assert [issue for issue in record["issues"] if "leak" in issue["kind"]] == []


def test_scores_with_and_without_some_images(tmp_path: Path) -> None:
    rows = [{"path": f"/data/test/{n}.png", "label": "a", "prediction": "a" if n < 6 else "b"} for n in range(8)]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"path": "x", "error": "is empty"}]))
    found = score_without(path, {"test/0.png", "test/1.png"})
    assert found is not None
    assert (found.whole, found.num, found.num_rest) == (0.75, 8, 6)
    assert found.rest == 4 / 6
    assert score_without(tmp_path / "none.jsonl", {"a"}) is None
