"""`regraft inspect` says what something is: a run, a model, photos, a network, a pattern of names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import Cli, photos
from tests.data.drawn import classes, plant_pairs, save


def test_a_run(cli: Cli, tiny_run: Path) -> None:
    result = cli("inspect", tiny_run)
    assert result.code == 0, result.err
    for text in ("state: finished", "classes: blue, green, red", "head: trains head", "accuracy (test): 100.00%"):
        assert text in result.out
    assert json.loads(cli("inspect", tiny_run, "--json").out)["model"] == "test_efficientnet"


def test_a_model_folder(cli: Cli, tiny_run: Path) -> None:
    facts = json.loads(cli("inspect", tiny_run / "model", "--json").out)
    assert facts["classes"] == "blue, green, red"
    assert facts["input"].startswith("3x32x32")
    assert facts["timm can load it by itself"] is True


def test_photos_with_their_defects(cli: Cli, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"cat": 10, "dog": 1})
    (root / "empty class").mkdir()
    result = cli("inspect", root)
    assert result.code == 0, result.err
    assert "classes: 2" in result.out
    assert "'dog'" in result.out
    assert "'empty class'" in result.out


def test_images_that_cannot_be_decoded_are_found(cli: Cli, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"cat": 10, "dog": 10})
    whole = (root / "cat" / "000.png").read_bytes()
    for name, data in {
        "a.jpg": b"",
        "b.png": whole[: len(whole) // 2],
        "c.png": b"<html>",
        "d.jpg": whole[::-1],
    }.items():
        (root / "dog" / name).write_bytes(data)
    for _ in range(2):  # decoded, and known
        facts = json.loads(cli("inspect", root, "--json").out)
        assert facts["decoded"] == "24 images, 4 of them unreadable"
        assert facts["findings"][0].startswith("warning: 4 files cannot be read and are left out: ")
        notes = [text for text in facts["findings"] if text.startswith("note: ")]
        assert sum(text.endswith((" is cut off.", " is empty.")) for text in notes) == 2
        assert sum(int(row.split()[1]) for row in facts["splits"]) == 20
    (root / "dog" / "a.jpg").write_bytes(whole)
    assert json.loads(cli("inspect", root, "--json").out)["decoded"] == "24 images, 3 of them unreadable"


def test_a_class_without_a_readable_image_is_an_error(cli: Cli, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"cat": 10})
    for number in range(8):
        (root / "dog").mkdir(exist_ok=True)
        (root / "dog" / f"{number}.jpg").write_bytes(b"")
    findings = json.loads(cli("inspect", root, "--json").out)["findings"]
    assert findings[0] == "error: Class 'dog' has no readable image in train."


def test_a_network_and_a_pattern(cli: Cli) -> None:
    result = cli("inspect", "test_resnet", "--image-size", "64")
    assert result.code == 0, result.err
    assert "stem" in result.out or "conv1" in result.out
    assert cli("inspect", "test_res*").out.split() == ["test_resnet"]
    nothing = cli("inspect", "zzz*")
    assert (nothing.code, nothing.out) == (2, "")
    assert "No model name matches 'zzz*'." in nothing.err


def test_what_is_none_of_these(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"\0")
    for target in (tmp_path / "missing", tmp_path / "file.bin", "resnet5O"):
        result = cli("inspect", target)
        assert result.code in (2, 3, 4)
        assert "error: " in result.err
    assert "There is no file or folder" in cli("inspect", tmp_path / "missing").err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("a: [")
    assert cli("inspect", tmp_path / "run").code == 7
    (tmp_path / "run" / "recipe.yaml").write_text("seed: 1")
    assert cli("inspect", tmp_path / "run").code == 7


def test_lists_and_tables_of_photos(cli: Cli, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"cat": 4, "dog": 4})
    rows = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    (root / "list.txt").write_text("".join(f"{path} {number % 2}\n" for number, path in enumerate(rows)))
    (root / "names.txt").write_text("even\nodd\n")
    facts = json.loads(cli("inspect", root / "list.txt", "--json").out)
    assert facts["classes"] == 2
    assert facts["labels"] == "one for each image"
    assert facts["splits"][0] == "train: 4 images (even 2, odd 2)"
    assert facts["split by"] == "regraft (seed 0)"

    header = "path,tags,split\n"
    (root / "tags.csv").write_text(
        header + "".join(f"{path},a|b,{'train' if 'cat' in path else 'val'}\n" for path in rows)
    )
    (root / "cat" / "000.png").write_bytes((root / "dog" / "000.png").read_bytes())
    facts = json.loads(cli("inspect", root / "tags.csv", "--json").out)
    assert facts["labels"] == "any number for each image"
    assert facts["splits"] == ["train: 4 images (a 4, b 4)", "val: 4 images (a 4, b 4)"]
    assert facts["split by"] == "lists"
    assert facts["findings"][0].startswith("warning: 1 of 4 val images is in train too")
    result = cli("inspect", root, "--labels", root / "list.txt", "--names", root / "names.txt")
    assert "train: 4 images (even 2, odd 2)" in result.out, result.err

    (root / "tags.csv").write_text(header + "none.png,a|b,train\n")
    result = cli("inspect", root / "tags.csv")
    assert result.code == 3
    assert "tags.csv, row 2: there is no file 'none.png'." in result.err


def test_images_and_masks_with_everything_that_is_wrong_with_them(cli: Cli, tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 12, "val": 3})
    facts = json.loads(cli("inspect", root, "--json").out)
    assert facts["labels"] == "a mask for each image"
    assert facts["splits"][1] == "val: 3 images (ground 3, house 3, tree 3, river 3)"
    assert facts["findings"] == ["none"]

    masks = root / "train" / "masks"
    save(masks / "train_000.png", classes(10, 12))
    save(masks / "train_001.png", classes() + 40)
    save(masks / "train_002.jpg", classes())
    (masks / "train_002.png").unlink()
    (masks / "train_003.png").unlink()
    (masks / "train_004.png").write_bytes(b"")
    save(masks / "spare.png", classes())
    (root / "val" / "images" / "val_000.png").write_bytes((root / "train" / "images" / "train_009.png").read_bytes())
    findings = " ".join(json.loads(cli("inspect", root, "--json").out)["findings"])
    for said in (
        "has 44 x 30 pixels, and its mask has 12 x 10 pixels",
        "holds the values 40, 41, 42, 43, which the class table does not have",
        "'train/masks/train_002.jpg', that is a JPEG file",
        "'train/masks/train_004.png', that is empty",
        "1 image of train has no mask and was left out: 'train_003.png'",
        "1 mask of train belongs to no image and was left out: 'spare.png'",
        "1 of 3 val images is in train too",
    ):
        assert said in findings
    assert "did you mean 'river'" in cli("inspect", root, "--ignore", "rivr").err
    facts = json.loads(cli("inspect", root, "--ignore", "river,2", "--json").out)
    assert facts["classes"] == 2
    (root / "other.csv").write_text("name,value\nall,0\nall,1\nall,2\nrest,3\n")
    assert json.loads(cli("inspect", root, "--class-table", root / "other.csv", "--json").out)["classes"] == 2
    assert cli("inspect", root, "--masks", "nowhere").code == 3


def test_a_name_in_a_folder_that_may_not_be_read(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.data.files import access

    def refused(_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(access, "names_in", refused)
    result = cli("inspect", str(tmp_path / "phtos"))
    assert result.code == 3
    assert f"There is no file or folder '{tmp_path / 'phtos'}'." in result.err
