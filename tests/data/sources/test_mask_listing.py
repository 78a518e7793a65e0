"""Images and masks under every layout: which are found, how they are paired, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.drawn import COLOURS, NAMES, classes, picture, plant_pairs, save

from regraft.data.dataset import DataSet
from regraft.data.masks.masks import read_mask
from regraft.data.open import open_data, open_undivided
from regraft.errors import DataError, RegraftError, SettingsError

SPLITS = {"train": 4, "val": 2, "test": 1}


def require_pairs(data: DataSet) -> None:
    """Every mask is that of its image: the colours of the picture say so."""
    assert data.class_table is not None
    for split in data.splits.values():
        assert len(split.paths) == len(split.masks) > 0
        for path, mask in zip(split.paths, split.masks, strict=True):
            np.testing.assert_array_equal(COLOURS[read_mask(mask, data.class_table)], np.asarray(Image.open(path)))


def mistakes(root: Path, **options: object) -> str:
    with pytest.raises(RegraftError) as caught:
        open_data(root, **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, DataError | SettingsError)
    assert caught.value.expected
    assert caught.value.next_step or caught.value.details
    return str(caught.value)


LAYOUTS = {
    "splits inside": ("images/{split}/{name}.png", "masks/{split}/{name}.png"),
    "splits outside": ("{split}/images/{name}.png", "{split}/masks/{name}.png"),
    "camvid": ("{split}/{name}.png", "{split}annot/{name}.png"),
    "camvid of kaggle": ("{split}/{name}.png", "{split}_labels/{name}_L.png"),
    "prefixed": ("{split}_images/{name}.png", "{split}_masks/{name}.png"),
    "cityscapes": ("leftImg8bit/{split}/ulm/{name}_leftImg8bit.png", "gtFine/{split}/ulm/{name}_gtFine_labelIds.png"),
    "other words": ("{split}/img/{name}.bmp", "{split}/labels/{name}-mask.tif"),
    "mask before": ("{split}/images/{name}.png", "{split}/masks/mask_{name}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_with_splits(tmp_path: Path, layout: str) -> None:
    image, mask = LAYOUTS[layout]
    data = open_data(plant_pairs(tmp_path / "scenes", SPLITS, image=image, mask=mask))
    assert data.segmentation
    assert data.class_names == NAMES
    assert {name: len(split) for name, split in data.splits.items()} == SPLITS
    assert data.split_origin == "folders"
    assert not data.warnings
    require_pairs(data)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{name}.png", "masks/{name}.png"),
        ("images/{name}.png", "annotations/trimaps/{name}.png"),
        ("images/a/{name}.png", "masks/a/{name}_mask.png"),
    ],
)
def test_without_splits_they_are_drawn_by_the_seed(tmp_path: Path, image: str, mask: str) -> None:
    root = plant_pairs(tmp_path / "scenes", {"": 20}, image=image, mask=mask)
    data, again, other = (open_data(root, seed=seed) for seed in (3, 3, 4))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 14, "val": 3, "test": 3}
    assert data.split_origin == "random"
    assert again.fingerprint() == data.fingerprint() != other.fingerprint()
    require_pairs(data)
    fold = open_data(root, fold=(1, 4))
    assert {name: len(split) for name, split in fold.splits.items()} == {"train": 15, "val": 5}
    require_pairs(fold)
    whole = open_undivided(root)
    assert {name: len(split) for name, split in whole.splits.items()} == {"test": 20}


@pytest.mark.parametrize(
    ("image", "mask", "masks"),
    [
        ("pics/{name}.png", "pics/{name}_mask.png", "*_mask.png"),
        ("{split}/{name}_sat.png", "{split}/{name}_mask.png", "*_mask.png"),
        ("{name}.png", "truth/{name}.png", "truth"),
        ("photos/{name}.png", "drawn/{name}.png", "drawn"),
        ("{split}/photos/{name}.png", "{split}/drawn/{name}.png", "drawn"),
        ("{split}/{name}.png", "../elsewhere/{split}/{name}.png", "../elsewhere"),
    ],
)
def test_masks_that_are_named(tmp_path: Path, image: str, mask: str, masks: str) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 4, "val": 3}, image=image, mask=mask)
    data = open_data(root, masks=masks, fractions=(0.5, 0.5, 0))
    require_pairs(data)
    assert sum(map(len, data.splits.values())) == 7
    assert data.options["masks"] == masks


def test_missing_and_extra_masks_are_told(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 6, "val": 2})
    (root / "train" / "masks" / "train_002.png").unlink()
    (root / "val" / "images" / "val_001.png").unlink()
    data = open_data(root)
    assert [len(split) for split in data.splits.values()] == [5, 1]
    assert data.warnings == (
        "1 image of train has no mask and was left out: 'train_002.png'.",
        "1 mask of val belongs to no image and was left out: 'val_001.png'.",
    )
    assert data.ignored == {"image without a mask": 1, "mask without an image": 1}


@pytest.mark.parametrize("layout", ["splits inside", "splits outside", "camvid"])
def test_a_split_without_masks_is_left_out_and_told(tmp_path: Path, layout: str) -> None:
    image, mask = LAYOUTS[layout]
    root = plant_pairs(tmp_path / "scenes", SPLITS, image=image, mask=mask)
    shutil.rmtree((root / mask.format(split="test", name="x")).parent)
    data = open_data(root)
    assert list(data.splits) == ["train", "val"]
    assert len(data.warnings) == 1
    assert "test" in data.warnings[0]
    assert "has no masks and was left out" in data.warnings[0]


def test_folders_that_do_not_fit_are_refused_at_once(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 3, "val": 4})
    for path in (root / "train" / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem[::-1]}.png"))
    for number in range(3):
        (root / "val" / "masks" / f"val_{number:03}.png").unlink()
    text = mistakes(root)
    assert "No image of train has a mask" in text
    assert "3 of 4 images of val have no mask" in text
    assert "--masks" in text


def test_of_several_masks_of_one_image_the_one_of_classes_is_taken(tmp_path: Path) -> None:
    image, mask = LAYOUTS["cityscapes"]
    root = plant_pairs(tmp_path / "scenes", {"train": 3, "val": 2}, image=image, mask=mask)
    for path in list((root / "gtFine").rglob("*_labelIds.png")):
        for other in ("color", "instanceIds"):
            save(path.with_name(path.name.replace("labelIds", other)), picture(classes()))
    data = open_data(root)
    require_pairs(data)
    assert all(mask.endswith("labelIds.png") for split in data.splits.values() for mask in split.masks)


def test_of_two_files_of_one_name_the_one_without_loss_is_taken(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 3, "val": 2})
    for path in list(root.rglob("masks/*.png")):
        Image.open(path).save(path.with_suffix(".jpg"))
    require_pairs(open_data(root))


def test_a_folder_of_classes_stays_one(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("masked", "bare"):
            save(tmp_path / "faces" / split / name / "a.png", picture(classes()))
    data = open_data(tmp_path / "faces")
    assert not data.segmentation
    assert data.class_names == ("bare", "masked")
    assert "not a folder of images and masks" in mistakes(tmp_path / "faces", ignore=3)


@pytest.mark.parametrize("inside", [".", "VOC2012", "VOCdevkit/VOC2007"])
def test_voc(tmp_path: Path, inside: str) -> None:
    root = tmp_path / "voc"
    home = root / inside
    names = [f"2007_{number:06}" for number in range(6)]
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[:4] = COLOURS
    for seed, name in enumerate(names):
        mask = np.where(classes(seed=seed) == 3, 20, classes(seed=seed)).astype(np.uint8)
        mask[0] = 255
        save(home / "JPEGImages" / f"{name}.jpg", picture(classes(seed=seed)))
        save(home / "SegmentationClass" / f"{name}.png", mask, palette)
    save(home / "JPEGImages" / "2007_999999.jpg", picture(classes()))  # of the detection task: it has no mask
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, part in (("train", names[:4]), ("val", names[4:]), ("trainval", names)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in part))
    data = open_data(root)
    assert [len(split) for split in data.splits.values()] == [4, 2]
    assert len(data.class_names) == 21
    assert data.class_names[20] == "tvmonitor"
    assert data.class_table is not None
    assert data.class_table.colours[1] == (128, 0, 0)
    mask = read_mask(data.train.masks[0], data.class_table)
    assert set(np.unique(mask).tolist()) == {0, 1, 2, 20, 255}
    (lists / "train.txt").write_text("2007_000000\n2007_000000\n2007_123456\n")
    assert "stands in row 1 already" in mistakes(root)
    (lists / "train.txt").write_text("2007_000000\n2007_123456\n")
    assert "no image for 1 names of train: '2007_123456'" in mistakes(root)


def test_camvid_in_eleven_classes_is_known(tmp_path: Path) -> None:
    names = [f"0001TP_{number:06}" for number in range(5)]
    root = plant_pairs(
        tmp_path / "c", {"train": 5}, image="train/{name}.png", mask="trainannot/{name}.png", table=None, names=names
    )
    mask = classes()
    mask[:3] = 11
    save(root / "trainannot" / "0001TP_000000.png", mask)
    data = open_data(root)
    assert data.class_names[0] == "sky"
    assert len(data.class_names) == 11
    assert data.class_table is not None
    assert data.class_table.ignored == (11, 255)
    (root / "classes.txt").write_text("a\nb\nc\nd\nvoid\n")
    assert open_data(root, ignore=[11]).class_names == ("a", "b", "c", "d")


def test_the_shared_camvid(camvid: Path) -> None:
    data = open_data(camvid)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 367, "val": 101, "test": 233}
    assert data.class_names[-1] == "cyclist"
    assert data.class_table is not None
    mask = read_mask(data.train.masks[0], data.class_table)
    assert mask.shape == (360, 480)
    assert 11 not in mask


@pytest.fixture
def camvid() -> Path:
    shared = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).parents[4] / "shared"))
    path = shared / "data" / "camvid"
    if not path.is_dir():
        pytest.skip("there is no ../shared/data/camvid")
    return path


# Classes

COLOURED = {
    "of kaggle": ("class_dict.csv", "name,r,g,b\nground,90,60,30\nhouse,220,30,40\ntree,20,160,60\nriver,30,80,230\n"),
    "no header": ("class_dict.csv", "ground,90,60,30\nhouse,220,30,40\ntree,20,160,60\nriver,30,80,230\n"),
    "of camvid": ("label_colors.txt", "90 60 30\tground\n220 30 40\thouse\n20 160 60\ttree\n30 80 230\t\triver\n"),
    "of voc": ("labelmap.txt", "# a\nground:90,60,30::\nhouse:220,30,40::\ntree:20,160,60::\nriver:30,80,230::\n"),
    "yaml": (
        "class_table.yaml",
        "- {name: ground, colour: [90, 60, 30]}\n- {name: house, color: '#dc1e28'}\n"
        "- {name: tree, colour: [20, 160, 60]}\n- {name: river, colour: [30, 80, 230]}\n",
    ),
}
NUMBERED = {
    "semicolons": ("classes.csv", "Pixel Value;Class\n0;ground\n1;house\n2;tree\n3;river\n"),
    "some colours": ("classes.csv", "id\tname\tcolor\n3\triver\t#1e50e6\n0\tground\t90 60 30\n1\thouse\t\n2\ttree\t\n"),
    "numbers": ("classes.txt", "0 ground\n1 house\n2 tree\n3 river\n"),
    "names": ("codes.txt", "ground\nhouse\ntree\nriver\n"),
    "yaml names": ("classes.yaml", "names: [ground, house, tree, river]\n"),
    "yaml numbers": ("classes.yaml", "classes:\n  0: ground\n  1: house\n  2: tree\n  3: river\n"),
}


@pytest.mark.parametrize(
    ("form", "colours"), [*((form, False) for form in (*COLOURED, *NUMBERED)), *((form, True) for form in COLOURED)]
)
def test_lists_of_classes_in_every_form(tmp_path: Path, form: str, colours: bool) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table=None, colours=colours)
    name, text = (COLOURED | NUMBERED)[form]
    (root / name).write_text(text)
    data = open_data(root)
    assert set(data.class_names) == set(NAMES)
    assert data.class_table is not None
    assert data.class_table.coding == ("colour" if colours else "index")
    place = [data.class_names.index(name) for name in NAMES]
    for path, mask in zip(data.train.paths, data.train.masks, strict=True):
        mask_read = read_mask(mask, data.class_table)
        shown = np.asarray(Image.open(path))
        for number, colour in zip(place, COLOURS, strict=True):
            np.testing.assert_array_equal(mask_read == number, (shown == colour).all(-1))


@pytest.mark.parametrize("form", NUMBERED)
def test_masks_of_colours_need_colours_in_the_list(tmp_path: Path, form: str) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table=None, colours=True)
    name, text = NUMBERED[form]
    (root / name).write_text(text)
    said = mistakes(root)
    assert f"hold colours, and {name} has none for" in said
    assert "(90, 60, 30)" in said


def test_a_table_in_the_recipe_merges_renames_and_ignores(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 3, "val": 1}, table=None)
    rows = [{"name": "nature", "value": 2}, {"name": "nature", "value": 3}, {"name": "house", "value": 1}]
    data = open_data(root, class_table=[*rows, {"name": "ground", "value": 0, "ignore": True}])
    assert data.class_names == ("nature", "house")
    assert data.class_table is not None
    mask = read_mask(data.train.masks[0], data.class_table)
    truth = np.asarray(Image.open(data.train.masks[0]))
    np.testing.assert_array_equal(mask, np.array([255, 1, 0, 0], dtype=np.uint8)[truth])
    same = open_data(root, class_table=[*rows, {"name": "ground", "value": 0}], ignore="ground")
    assert same.class_table == data.class_table


@pytest.mark.parametrize("ignore", [3, "river", [3], ["river"]])
def test_what_is_void_by_value_or_name(tmp_path: Path, ignore: object) -> None:
    data = open_data(plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}), ignore=ignore)
    assert data.class_names == NAMES[:3]
    assert data.class_table is not None
    assert data.class_table.ignored == (3, 255)


@pytest.mark.parametrize("ignore", ["river", [[30, 80, 230]], "#1e50e6"])
def test_what_is_void_by_colour(tmp_path: Path, ignore: object) -> None:
    table = [{"name": name, "colour": colour.tolist()} for name, colour in zip(NAMES, COLOURS, strict=True)]
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, colours=True, table=None)
    data = open_data(root, class_table=table, ignore=ignore)
    assert data.class_names == NAMES[:3]


def test_without_a_list_the_values_are_the_classes_and_that_is_told(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table=None)
    data = open_data(root)
    assert data.class_names == ("0", "1", "2", "3")
    assert any("no names" in text for text in data.warnings)


def test_masks_of_0_and_255_are_background_and_foreground(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table=None)
    for path in root.rglob("masks/*.png"):
        save(path, np.where(np.asarray(Image.open(path)) > 0, 255, 0).astype(np.uint8))
    data = open_data(root)
    assert data.class_names == ("background", "foreground")
    assert any("0 and 255 alone" in text for text in data.warnings)


def test_colours_without_a_table_come_as_a_table_to_complete(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table=None, colours=True)
    text = mistakes(root)
    assert "name,r,g,b" in text
    for colour in COLOURS.tolist():
        assert ",{},{},{}".format(*colour) in text


def test_colours_are_known_where_most_masks_happen_to_be_grey(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 6, "val": 1}, table=None, colours=True)
    for number in range(4):
        save(root / "train" / "masks" / f"train_{number:03}.png", np.full((30, 44, 3), 7, dtype=np.uint8))
    text = mistakes(root)
    assert ",7,7,7" in text
    assert ",220,30,40" in text


def test_a_stray_in_colours_does_not_make_the_others_colours(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 12, "val": 1})
    save(root / "train" / "masks" / "train_003.png", picture(classes()))
    data = open_data(root)
    assert data.class_table is not None
    assert data.class_table.coding == "index"
    with pytest.raises(DataError, match="holds colours"):
        read_mask(data.train.masks[3], data.class_table)


def test_names_that_differ_only_in_how_they_are_written_are_told(tmp_path: Path) -> None:
    data = open_data(plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table="Ground\nground\ntree\nriver\n"))
    assert any("differ only in how they are written" in text for text in data.warnings)


def test_smeared_masks_are_told_apart(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table=None, colours=True)
    for path in root.rglob("masks/*.png"):
        save(path, np.random.default_rng(0).integers(0, 255, (30, 44, 3), dtype=np.uint8))
    assert "different colours" in mistakes(root)


def test_values_that_the_table_lacks_are_listed_with_the_option_to_type(tmp_path: Path) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 3, "val": 1}, table="ground\nhouse\n")
    text = mistakes(root)
    assert "2: in 4 of 4 masks" in text
    assert "3: in 4 of 4 masks" in text
    assert "--ignore" in text
    assert open_data(root, ignore=[2, 3]).class_names == ("ground", "house")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ignore": "rivr"}, "did you mean 'river'"),
        ({"ignore": [[1, 2, 3]]}, "is no class"),
        ({"class_table": "no.csv"}, "There is no class table"),
        ({"class_table": []}, "has no rows"),
        ({"class_table": [{"nam": "a"}, 3.5, {"name": "b", "value": -1}, {"name": "c", "colour": [1, 2]}]}, "row 4"),
        ({"class_table": [{"name": "a", "value": 1}, {"name": "b", "value": 1}]}, "of another class"),
        ({"masks": "truth"}, "There is no folder of masks 'truth'"),
        ({"masks": "*_nothing.png"}, "There is no mask"),
        ({"masks": "none.json"}, "There is no file 'none.json'"),
        ({"class_table": ["a"], "names": "classes.txt"}, "Both data.names and data.class_table"),
    ],
)
def test_mistakes_of_the_settings(tmp_path: Path, options: Mapping[str, object], said: str) -> None:
    assert said in mistakes(plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}), **options)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", b""),
        ("classes.txt", b"\x89PNG\r\n\x1a\n"),
        ("class_dict.csv", b"name,r,g,b\nground,1,2\n"),
        ("class_dict.csv", b"name,r,g,b\nground,1,2,300\nhouse,a,b,c\n,1,2,3\n"),
        ("class_table.yaml", b"[1, 2"),
        ("class_table.yaml", b"!!python/object/apply:os.system ['true']"),
        ("class_table.yaml", b"3"),
        ("class_table.yaml", b"a: &a [*a]"),
        ("label_colors.txt", b"1 2 3 ground\nhouse\n"),
    ],
)
def test_hostile_lists_of_classes(tmp_path: Path, name: str, content: bytes) -> None:
    root = plant_pairs(tmp_path / "scenes", {"train": 2, "val": 1}, table=None)
    (root / name).write_bytes(content)
    assert name in mistakes(root)
