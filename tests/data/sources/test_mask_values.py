"""Masks of black and white: 255 is the second class, not void; values between the two are blends, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft.data.dataset import DataSet
from regraft.data.masks.masks import read_mask
from regraft.data.open import open_data, open_undivided
from regraft.errors import DataError

NUM = 12


def truth(number: int) -> np.ndarray:
    """A square on the background, 0 and 1."""
    mask = np.zeros((32, 40), np.uint8)
    mask[6 + number % 3 : 24, 8:30] = 1
    return mask


def plant(root: Path, masks: list[np.ndarray], names: str = "") -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, mask in enumerate(masks):
        Image.fromarray(np.full((*mask.shape, 3), 40 + number, np.uint8)).save(root / f"images/{number:02}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / f"masks/{number:02}.png")
    if names:
        (root / "classes.txt").write_text(names)
    return root


def squares(value: int = 255) -> list[np.ndarray]:
    return [truth(number) * value for number in range(NUM)]


def smoothed(number: int) -> np.ndarray:
    """The square as a smooth resize leaves it."""
    small = Image.fromarray(truth(number) * 255).resize((53, 41), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((40, 32), Image.Resampling.BICUBIC))


def read(data: DataSet) -> dict[str, np.ndarray]:
    assert data.class_table is not None
    return {
        Path(mask).stem: read_mask(mask, data.class_table) for split in data.splits.values() for mask in split.masks
    }


@pytest.mark.parametrize("names", ["background\nhouse\n", "background\nhouse\nvoid\n", ""])
def test_255_is_the_second_class_of_two(tmp_path: Path, names: str) -> None:
    data = open_data(plant(tmp_path / "s", squares(), names))
    assert data.class_names == ("background", "house" if names else "foreground")
    assert data.class_table is not None
    assert data.class_table.ignored in ((), (2,))
    for stem, mask in read(data).items():
        np.testing.assert_array_equal(mask, truth(int(stem)))
    (told,) = [text for text in data.warnings if "0 and 255 alone" in text]
    if names:
        assert (
            f"255 ({np.mean([truth(n).mean() for n in range(NUM)]):.1%} of their pixels) was taken for 'house'" in told
        )


def test_one_named_class_is_that_of_255(tmp_path: Path) -> None:
    data = open_data(plant(tmp_path / "s", squares(), "house\n"))
    assert data.class_names == ("background", "house")
    np.testing.assert_array_equal(read(data)["00"], truth(0))


@pytest.mark.parametrize("options", [{"ignore": 255}, {"ignore": [255]}])
def test_255_that_is_said_to_be_void_stays_void(tmp_path: Path, options: dict[str, Any]) -> None:
    data = open_data(plant(tmp_path / "s", squares(), "background\nhouse\n"), **options)
    assert data.class_table is not None
    assert 255 in data.class_table.ignored


def test_255_beside_a_class_of_1_is_void_and_a_mixture_is_told(tmp_path: Path) -> None:
    bordered = [mask.copy() for mask in squares(1)]
    for mask in bordered:
        mask[0] = 255
    data = open_data(plant(tmp_path / "border", bordered, "background\nhouse\n"))
    assert data.class_table is not None
    assert data.class_table.ignored == (255,)
    assert not any("0 and 255 alone" in text for text in data.warnings)
    mixed = open_data(plant(tmp_path / "mixed", squares(1)[:6] + squares(255)[6:], "background\nhouse\n"))
    assert "6 of 12 masks hold the value 1, and 6 hold 0 and 255 alone" in "\n".join(mixed.warnings)


def test_masks_of_a_run_on_0_and_1_are_read_right_where_they_hold_255(tmp_path: Path) -> None:
    trained = open_data(plant(tmp_path / "trained", squares(1)))
    assert trained.class_names == ("0", "1")
    other = open_undivided(plant(tmp_path / "other", squares(255)), usual_table=trained.class_table)
    for stem, mask in read(other).items():
        np.testing.assert_array_equal(mask, truth(int(stem)))
    assert any("0 and 255 alone" in text for text in other.warnings)


@pytest.mark.parametrize("names", ["", "background\nhouse\n", "name,value\nbackground,0\nhouse,255\n"])
def test_blended_masks_are_refused_with_their_share(tmp_path: Path, names: str) -> None:
    masks = [smoothed(number) for number in range(NUM)]
    share = np.mean([((mask > 0) & (mask < mask.max())).mean() for mask in masks])
    root = plant(tmp_path / "s", masks)
    if names:
        (root / ("class_table.csv" if "," in names else "classes.txt")).write_text(names)
    with pytest.raises(DataError, match="are blends of two") as caught:
        open_data(root)
    assert caught.value.what.startswith(f"{share:.1%} of the pixels")
    assert "in 12 of 12 masks" in caught.value.what


def test_a_stray_value_makes_no_class(tmp_path: Path) -> None:
    masks = squares()
    for mask in masks:
        mask[6, 7] = 128
    with pytest.raises(DataError, match="are blends of two"):
        open_data(plant(tmp_path / "all", masks))


def test_values_with_areas_of_their_own_are_classes(tmp_path: Path) -> None:
    """Greys that people can tell apart, one for each class: 128 is a class, however small."""
    masks = squares()
    for mask in masks:
        mask[26:31, 2:12] = 128
    data = open_data(plant(tmp_path / "s", masks))
    assert data.class_names == ("0", "128")
    assert any("The value 255" in text and "taken for void" in text for text in data.warnings)


def test_numbers_of_classes_are_never_blends(tmp_path: Path) -> None:
    masks = squares()
    for number, mask in enumerate(masks):
        mask[6, 7 + number] = 1 + number % 8
    assert len(open_data(plant(tmp_path / "s", masks)).class_names) == 9
