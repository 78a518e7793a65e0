"""Masks beside their images in every kind of cache: the same bytes, row for row, in batches that can be resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.drawn import COLOURS, NAMES, classes, picture, plant_pairs, save
from tests.data.tiff_writer import tiff

from regraft.data.cache.cache import CACHES, PixelCache
from regraft.data.cache.loader import batch_bounds, batches
from regraft.data.check import check
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram, decode
from regraft.data.decode_all import decode_all
from regraft.data.masks.masks import read_mask
from regraft.data.masks.pairs import class_pixels
from regraft.data.open import open_data
from regraft.errors import DataError

PROGRAM = PixelProgram((16, 24), interpolation="nearest")


@pytest.fixture(autouse=True)
def _cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return plant_pairs(tmp_path / "scenes", {"train": 9, "val": 4})


def old(root: Path) -> None:
    """Make files old enough for their hashes to be remembered."""
    for path in root.rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000))


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("stored", [None, (20, 30)])
def test_every_cache_gives_the_same_rows_and_masks_lie_on_their_images(
    root: Path, cache: str, resize: str, stored: tuple[int, int] | None
) -> None:
    program = PixelProgram((16, 24), resize, "nearest", background=(0, 0, 0), stored=stored)  # type: ignore[arg-type]
    data, plain = decode_all(open_data(root), program, cache="ram")
    _, caches = decode_all(open_data(root), program, cache=cache)  # type: ignore[arg-type]
    for _ in range(2):  # the second time what is on the disk is known
        for name, split in data.splits.items():
            masks, truth = caches[name].masks, plain[name].masks
            assert masks is not None
            assert truth is not None
            for row, path in enumerate(split.paths):
                np.testing.assert_array_equal(caches[name].row(row), decode(path, program))
                mask = masks.row(row)
                assert mask.shape == (16, 24)
                assert mask.tobytes() == truth.row(row).tobytes()
                inside = mask != 255
                np.testing.assert_array_equal(caches[name].row(row)[inside], COLOURS[mask[inside]])
                assert inside.all() or resize == "pad"
        old(root)
        _, caches = decode_all(open_data(root), program, cache=cache)  # type: ignore[arg-type]


def test_batches_hold_masks_in_the_place_of_labels_and_can_be_resumed(root: Path) -> None:
    _, caches = decode_all(open_data(root), PROGRAM)
    cache = caches["train"]
    assert cache.masks is not None
    order = np.array([8, 0, 3, 3, 1, 7, 2])
    whole = list(batches(cache, cache.masks, order, batch_bounds(7, 2), threads=3))
    assert [len(batch.indices) for batch in whole] == [2, 2, 2, 1]
    for batch in whole:
        assert batch.labels.dtype == np.uint8
        assert batch.labels.shape == (len(batch.indices), 16, 24)
        for row, image, mask in zip(batch.indices, batch.images, batch.labels, strict=True):
            np.testing.assert_array_equal(image, cache.row(row))
            np.testing.assert_array_equal(mask, cache.masks.row(row))
    later = list(batches(cache, cache.masks, order, batch_bounds(7, 2), start_batch=2, ahead=0))
    for batch, same in zip(later, whole[2:], strict=True):
        np.testing.assert_array_equal(batch.indices, same.indices)
        np.testing.assert_array_equal(batch.labels, same.labels)


def test_another_size_is_a_view_of_images_and_masks(root: Path) -> None:
    program = PixelProgram((16, 24), stored=(24, 36))
    _, caches = decode_all(open_data(root), program)
    small = caches["val"].sized((8, 12))
    assert small.masks is not None
    assert small.masks.row(0).shape == (8, 12)
    assert small.row(0).shape == (8, 12, 3)


def test_unreadable_images_and_masks_leave_together_and_are_named(root: Path) -> None:
    train = root / "train"
    (train / "images" / "train_002.png").write_bytes(b"")
    (train / "masks" / "train_004.png").write_bytes(b"<!DOCTYPE html>")
    save(train / "masks" / "train_005.png", classes(20, 20))
    data, caches = decode_all(open_data(root), PROGRAM)
    assert {Path(item.path).stem: item.reason for item in data.quarantined} == {
        "train_002": "is empty",
        "train_004": "has a mask, 'train/masks/train_004.png', that is an HTML page",
        "train_005": "has 44 x 30 pixels, and its mask has 20 x 20 pixels",
    }
    cache = caches["train"]
    assert cache.masks is not None
    assert len(data.train) == len(data.train.masks) == len(cache) == len(cache.masks) == 6
    assert cache.paths == data.train.paths
    assert cache.masks.paths == data.train.masks
    for row in range(6):
        np.testing.assert_array_equal(cache.row(row), COLOURS[cache.masks.row(row)])
    again = DataSet.from_dict(json.loads(json.dumps(data.to_dict())))
    assert again.train.masks == data.train.masks
    assert again.class_table == data.class_table
    assert again.fingerprint() == data.fingerprint()


def test_labels_say_which_classes_are_in_which_image(root: Path) -> None:
    save(root / "train" / "masks" / "train_000.png", np.where(classes(seed=1) == 2, 0, classes(seed=1)))
    data, caches = decode_all(open_data(root), PROGRAM)
    assert data.segmentation
    assert not data.multilabel
    assert data.train.labels[0].tolist() == [1, 1, 0, 1]
    assert data.counts("train").tolist() == [9, 9, 8, 9]
    assert caches["train"].masks is not None
    pixels = class_pixels(caches["train"].masks, 4)
    assert pixels.shape == (9, 4)
    assert pixels.sum(1).tolist() == [16 * 24] * 9


def test_a_class_that_no_training_mask_has_is_told(root: Path) -> None:
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in (*NAMES, "boat")))
    data, _ = decode_all(open_data(root), PROGRAM)
    assert [f.text for f in check(data) if "boat" in f.text] == [
        "No train mask has a pixel of the class 'boat'.",
        "No val mask has a pixel of the class 'boat'.",
    ]


def test_a_split_with_mostly_useless_masks_is_refused_with_examples(root: Path) -> None:
    for number in range(5):
        save(root / "train" / "masks" / f"train_{number:03}.png", classes(20, 20))
    with pytest.raises(DataError, match="5 of 9 train images or their masks cannot be used") as caught:
        decode_all(open_data(root), PROGRAM)
    assert any("has 44 x 30 pixels, and its mask has 20 x 20 pixels" in text for text in caught.value.details)
    assert "--masks" in caught.value.next_step


def test_pictures_that_are_turned_beside_masks_that_are_not(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn = classes(seed=50)
    train = root / "train"
    save(train / "images" / "train_003.png", picture(drawn), exif=exif)
    save(train / "masks" / "train_003.png", drawn)
    save(train / "images" / "train_004.png", picture(drawn), exif=exif)
    save(train / "masks" / "train_004.png", np.rot90(drawn, -1).copy())
    exif[0x0112] = 3
    save(train / "images" / "train_005.png", picture(drawn), exif=exif)
    save(train / "masks" / "train_005.png", drawn)
    data, caches = decode_all(open_data(root), PixelProgram((44, 30), interpolation="nearest"))
    assert [Path(item.path).stem for item in data.quarantined] == ["train_003"]
    assert "turned by its EXIF tag" in data.quarantined[0].reason
    assert any("1 train image is turned by its EXIF tag" in text for text in data.warnings)
    row = data.train.paths.index(str(train / "images" / "train_004.png"))
    assert caches["train"].masks is not None
    np.testing.assert_array_equal(caches["train"].row(row), COLOURS[caches["train"].masks.row(row)])


def test_a_mask_that_vanishes_while_streaming_is_named(root: Path) -> None:
    _, caches = decode_all(open_data(root), PROGRAM, cache="off")
    masks = caches["val"].masks
    assert isinstance(masks, PixelCache)
    assert masks.streams
    (root / "val" / "masks" / "val_001.png").unlink()
    with pytest.raises(DataError, match=r"val_001\.png does not exist"):
        masks.row(1)


def test_the_full_size_stays_available(root: Path) -> None:
    data, _ = decode_all(open_data(root), PROGRAM)
    assert data.class_table is not None
    for path, image in zip(data.val.masks, data.val.paths, strict=True):
        mask = read_mask(path, data.class_table)
        np.testing.assert_array_equal(COLOURS[mask], np.asarray(Image.open(image)))


def test_progress_counts_images_and_masks_once(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    decode_all(open_data(root), PROGRAM, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (13, 13)


def test_images_of_many_bands_have_masks_too(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 3, "val": 1}, image="{split}/images/{name}.tif")
    for number in range(3):
        bands = np.repeat(picture(classes(seed=number + 1)), 2, axis=2)[..., :5].copy()
        (root / "train" / "images" / f"train_{number:03}.tif").write_bytes(tiff(bands))
    (root / "val" / "images" / "val_000.tif").write_bytes(tiff(bands))
    save(root / "train" / "masks" / "train_001.png", classes(30, 40))
    data, caches = decode_all(open_data(root), PixelProgram((30, 44), bands=tuple("12345")))
    assert [Path(item.path).stem for item in data.quarantined] == ["train_001"]
    assert "its mask has 40 x 30 pixels" in data.quarantined[0].reason
    assert caches["train"].row(0).shape == (30, 44, 5)
    assert caches["train"].masks is not None
    np.testing.assert_array_equal(caches["train"].masks.row(0), classes(seed=1))
