"""What a newcomer mistypes, and what the answer says: the mistake that was made, and what to type."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import COLOURS, Cli, photo, photos

TINY = ("--model", "test_resnet", "--set", "model.weights=none", "--image-size", "32", "--threads", "1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", {"cat": 4, "dog": 4})
    return tmp_path


def archive(here: Path) -> str:
    (here / "photos.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(99))
    return "photos.7z"


def tarred(here: Path) -> str:
    shutil.make_archive("photos", "bztar", here, "photos")
    return "photos.tar.bz2"


def flat(here: Path) -> str:
    for number in range(3):
        photo(here / "alone" / "flat" / f"{number}.png", COLOURS["red"], number)
    return "alone/flat"


def zipped_flat(here: Path) -> str:
    shutil.make_archive("flat", "zip", here / "photos" / "cat")
    return "flat.zip"


def zip_in_zip(here: Path) -> str:
    shutil.make_archive("inner/photos", "zip", here, "photos")
    shutil.make_archive("outer", "zip", here / "inner")
    return "outer.zip"


def error_page(here: Path) -> str:
    (here / "photos.zip").write_text("<html><body>404 not found</body></html>")
    return "photos.zip"


def cut_off(here: Path) -> str:
    name = Path(shutil.make_archive("photos", "zip", here, "photos"))
    name.write_bytes(name.read_bytes()[:-60])
    return "photos.zip"


PACKED_WRONG = {
    "flat": (zipped_flat, ("4 images are directly in it", "`--labels`")),
    "zip in zip": (zip_in_zip, ("only 1 file and", "Archives in it are not opened: 'photos.zip'.")),
    "error page": (error_page, ("is called like an archive, and is none", "download")),
    "cut off": (cut_off, ("is cut off", "a whole ZIP archive")),
}


@pytest.mark.parametrize(("make", "texts"), PACKED_WRONG.values(), ids=PACKED_WRONG)
def test_archives_that_are_no_data_set(cli: Cli, here: Path, make, texts) -> None:  # type: ignore[no-untyped-def]
    name = make(here)
    for verb in ("train", "inspect"):
        result = cli(verb, name)
        assert result.code == 3, result.err
        for text in texts:
            assert text in result.err


def test_paths_into_an_archive_are_inspected(cli: Cli, here: Path) -> None:
    shutil.make_archive("set", "zip", here, "photos")
    for path, text in (
        ("set.zip/photos/cat", "It is one class of"),
        ("set.zip/photos/cat/000.png", "is a file"),
        ("set.zip/photos/cow", "There is no file or folder"),
    ):
        assert text in cli("inspect", path).err
    assert "labels: one for each image" in cli("inspect", "set.zip/photos").out
    assert "did you mean 'set.zip'?" in cli("train", "sett.zip").err


def no_masks(here: Path) -> str:
    photos(here / "seg", {"images": 3})
    (here / "seg" / "masks").mkdir()
    return "seg"


def lossy_masks(here: Path) -> str:
    photos(here / "seg", {"images": 3})
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    (here / "seg" / "masks").mkdir()
    for number in range(3):
        Image.fromarray(noise).save(here / "seg" / "masks" / f"{number:03}.jpg")
    return "seg"


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (archive, ("is an archive", "`7z x photos.7z`")),
        (tarred, ("is an archive", "`bunzip2 -k photos.tar.bz2`")),
        (lambda _: "https://example.com/photos.zip", ("is an address", "download it")),
        (lambda _: "photos/cat", ("4 images are directly in it", "It is one class of")),
        (flat, ("3 images are directly in it", "`--labels`")),
        (no_masks, ("only one class with images, 'images'", "'masks' holds no masks")),
        (lossy_masks, ("No mask of", "3 of them: ", "JPEG")),
    ],
    ids=["7z", "bz2", "address", "one level too deep", "no classes", "no masks", "JPEG masks"],
)
def test_data_that_is_given_the_wrong_way(cli: Cli, here: Path, make, texts) -> None:  # type: ignore[no-untyped-def]
    result = cli("train", make(here), *TINY)
    assert result.code == 3, result.err
    for text in texts:
        assert text in result.err
    assert "runs" not in {path.name for path in here.iterdir()} or not list((here / "runs").iterdir())


def test_settings_that_are_mistyped(cli: Cli, here: Path) -> None:
    for options, code, text in (
        (("--set", "model.image_size=abc"), 2, "a whole number of pixels, or two as [height, width]; it is 'abc'"),
        (("--names", "nothing.txt"), 3, "There is no file"),
        (("--model", "unet"), 2, "is a network for segmentation, and the images of"),
        (("--recipe", "nothing.yaml"), 2, "No such file or directory."),
        (("--recipe", "photos/cat/000.png"), 2, "cannot be read: it is not text."),
    ):
        result = cli("train", "photos", *options)
        assert result.code == code, result.err
        assert text in result.err
        assert "Errno" not in result.err


def test_a_start_that_is_refused_leaves_nothing(cli: Cli, here: Path) -> None:
    for path in (here / "photos").rglob("*.png"):
        path.write_bytes(b"")
    result = cli("train", "photos", *TINY)
    assert result.code == 3, result.err
    assert list((here / "runs").iterdir()) == []
    folds = cli("train", photos(here / "few", {"cat": 3, "dog": 3}), "--folds", "50", *TINY)
    assert (folds.code, list((here / "runs").iterdir())) == (2, [])


def test_options_of_stages_reach_the_run(cli: Cli, here: Path) -> None:
    shown = cli("train", "photos", *TINY, "--epochs", "2", "--lr", "0.003", "--batch-size", "3", "--dry-run", "-q")
    assert shown.code == 0, shown.err
    shown_all = shown.out[shown.out.index("  all: ") :]
    assert "2 epochs" in shown_all
    assert "batches of 3" in shown_all
    assert "0.003" in shown_all
