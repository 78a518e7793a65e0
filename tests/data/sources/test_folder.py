"""Planted folders of every kind: what is found, what is left aside, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from regraft.data.sources.labels.folder import list_folder
from regraft.data.sources.listing import Listing
from regraft.errors import DataError

Plant = Callable[[Mapping[str, int | bytes]], Path]

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


def counts(listing: Listing) -> dict[str, dict[str, int]]:
    return {
        split: {name: labels.count(number) for number, name in enumerate(listing.class_names)}
        for split, (_, labels) in listing.rows.items()
    }


def mistakes(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_folder(root)
    assert caught.value.exit_code == 3
    assert caught.value.what
    assert caught.value.expected or caught.value.next_step
    return str(caught.value)


# Layouts


def test_classes_in_the_root(plant: Plant) -> None:
    listing = list_folder(plant({"dog": 2, "cat": 3}))
    assert listing.class_names == ("cat", "dog")
    assert counts(listing) == {"": {"cat": 3, "dog": 2}}
    paths, labels = listing.rows[""]
    assert [Path(path).parent.name for path in paths] == ["cat"] * 3 + ["dog"] * 2
    assert labels == [0, 0, 0, 1, 1]
    assert paths == sorted(paths)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
@pytest.mark.parametrize("train", ["train", "Train"])
def test_classes_in_split_folders(plant: Plant, train: str, val: str) -> None:
    tree = {f"{train}/cat": 2, f"{train}/dog": 2, f"{val}/cat": 1, f"{val}/dog": 1, "test/cat": 1, "test/dog": 3}
    listing = list_folder(plant(tree))
    assert counts(listing) == {
        "train": {"cat": 2, "dog": 2},
        "val": {"cat": 1, "dog": 1},
        "test": {"cat": 1, "dog": 3},
    }
    assert listing.warnings == ()


def test_a_class_may_be_called_train(plant: Plant) -> None:
    assert list_folder(plant({"car": 2, "plane": 2, "train": 2})).class_names == ("car", "plane", "train")


def test_nested_files_belong_to_the_top_folder(plant: Plant) -> None:
    listing = list_folder(plant({"dog/poodle/white": 2, "dog": 1, "cat": 1}))
    assert counts(listing) == {"": {"cat": 1, "dog": 3}}


def test_names_are_ordered_as_plain_strings(plant: Plant) -> None:
    assert list_folder(plant({"b": 1, "a10": 1, "a2": 1, "B": 1, "ä": 1})).class_names == ("B", "a10", "a2", "b", "ä")


def test_other_folders_beside_train_are_named(plant: Plant) -> None:
    listing = list_folder(plant({"train/a": 1, "train/b": 1, "extra/a": 4}))
    assert counts(listing) == {"train": {"a": 1, "b": 1}}
    assert "'extra'" in listing.warnings[0]


# Left aside


def test_hidden_and_system_things_are_left_out_and_counted(plant: Plant) -> None:
    noise = b"Bud1"
    tree: dict[str, int | bytes] = {
        "cat": 2,
        "dog": 2,
        ".DS_Store": noise,
        "cat/.DS_Store": noise,
        "cat/._000.jpg": b"\x00\x05\x16\x07",
        "cat/Thumbs.db": noise,
        "dog/desktop.ini": noise,
        ".ipynb_checkpoints": 3,
        "__MACOSX/cat": 3,
        "@eaDir": 1,
        "$RECYCLE.BIN": 1,
        "lost+found": 1,
        "dog/.ipynb_checkpoints": 2,
    }
    listing = list_folder(plant(tree))
    assert counts(listing) == {"": {"cat": 2, "dog": 2}}
    assert listing.ignored == {"hidden or system file": 5, "hidden or system folder": 6}
    assert listing.warnings == ()


def test_files_that_are_no_images_are_left_out_by_suffix_and_by_content(plant: Plant) -> None:
    root = plant({"cat": 1, "dog": 1, "cat/notes.txt": b"hello", "cat/readme": b"hello", "cat/x.dat": b"\x89PN"})
    (root / "labels.csv").write_text("a,b\n")
    listing = list_folder(root)
    assert counts(listing) == {"": {"cat": 1, "dog": 1}}
    assert listing.ignored == {"not an image": 4}
    assert listing.warnings == ()


def test_pictures_are_found_whatever_their_suffix(plant: Plant) -> None:
    root = plant({"cat": 1, "dog": 1})
    photo = (root / "cat" / "000.jpg").read_bytes()
    for name in ("A.JPG", "b.jfif", "without_suffix", "c.jpg.bak", "d.dat"):
        (root / "cat" / name).write_bytes(photo)
    (root / "cat" / "broken.png").write_bytes(b"")
    (root / "cat" / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic")
    assert counts(list_folder(root)) == {"": {"cat": 8, "dog": 1}}


def test_pictures_without_a_class_are_no_small_loss(plant: Plant) -> None:
    listing = list_folder(plant({"cat": 1, "dog": 1, "": 3}))
    assert listing.ignored == {"image outside the class folders": 3}
    assert "3 images next to the class folders" in listing.warnings[0]


def test_camera_raw_files_are_no_small_loss(plant: Plant) -> None:
    listing = list_folder(plant({"cat": 1, "dog": 1, "cat/a.NEF": b"II*\x00", "cat/b.cr2": b"II*\x00"}))
    assert counts(listing) == {"": {"cat": 1, "dog": 1}}
    assert "2 camera raw files" in listing.warnings[0]


@needs_links
def test_link_loops_are_walked_once(plant: Plant) -> None:
    root = plant({"cat": 3, "dog/deep": 2})
    (root / "cat" / "again").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat" / "up").symlink_to(root, target_is_directory=True)
    (root / "dog" / "deep" / "other").symlink_to(root / "cat", target_is_directory=True)
    (root / "dog" / "self").symlink_to("self")
    (root / "dog" / "gone.jpg").symlink_to("nowhere.jpg")
    listing = list_folder(root)
    assert counts(listing) == {"": {"cat": 3, "dog": 2}}
    assert listing.ignored == {"broken link": 2, "folder met before (a link)": 3}


@needs_links
def test_links_to_files_and_folders_elsewhere_are_followed(plant: Plant, tmp_path: Path) -> None:
    root = plant({"cat": 2, "dog": 1})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    photo = (root / "cat" / "000.jpg").read_bytes()
    (elsewhere / "x.jpg").write_bytes(photo)
    (root / "dog" / "linked.jpg").symlink_to(elsewhere / "x.jpg")
    (root / "bird").symlink_to(elsewhere, target_is_directory=True)
    assert counts(list_folder(root)) == {"": {"bird": 1, "cat": 2, "dog": 2}}


@needs_links
def test_two_names_for_one_class_folder_count_once(plant: Plant) -> None:
    root = plant({"cat": 2, "dog": 2})
    (root / "hound").symlink_to(root / "dog", target_is_directory=True)
    listing = list_folder(root)
    assert counts(listing) == {"": {"cat": 2, "dog": 2}}
    assert "hound" in listing.warnings[0]


def test_class_folders_that_are_empty_everywhere_are_named_and_left_out(plant: Plant) -> None:
    listing = list_folder(plant({"cat": 1, "dog": 1, "fish": 0, "newt/readme.txt": b"none yet"}))
    assert listing.class_names == ("cat", "dog")
    assert "'fish', 'newt'" in listing.warnings[0]


def test_a_class_folder_that_is_empty_in_all_splits_is_named_and_left_out(plant: Plant) -> None:
    listing = list_folder(plant({"train/cat": 2, "train/dog": 2, "train/fish": 0, "val/cat": 1, "val/dog": 1}))
    assert listing.class_names == ("cat", "dog")
    assert "'fish'" in listing.warnings[0]


def test_classes_that_differ_only_by_case_are_warned_about(plant: Plant) -> None:
    root = plant({"cat": 1, "dog": 1, "Cat": 1})
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system does not tell upper case from lower case")
    assert "'Cat', 'cat'" in list_folder(root).warnings[0]


def test_a_single_training_image_is_warned_about(plant: Plant) -> None:
    listing = list_folder(plant({"train/cat": 1, "train/dog": 2, "val/cat": 1, "val/dog": 1}))
    assert "'cat'" in listing.warnings[0]


# Refused


def test_a_missing_path_offers_its_neighbours(plant: Plant) -> None:
    root = plant({"cat": 1, "dog": 1})
    assert "did you mean 'photos'" in mistakes(root.parent / "photoz")
    assert "did you mean 'photos'" in mistakes(root.parent / "photoz" / "deeper")


def test_a_file_is_no_folder(plant: Plant) -> None:
    assert "is a file" in mistakes(plant({"cat": 1}) / "cat" / "000.jpg")


def test_an_empty_folder_is_refused(plant: Plant) -> None:
    assert "The folder is empty" in mistakes(plant({}))


def test_one_class_is_refused(plant: Plant) -> None:
    assert "only one class with images, 'cat'" in mistakes(plant({"cat": 2, "dog": 0}))


def test_a_wrapped_data_set_is_pointed_at(plant: Plant) -> None:
    root = plant({"inner/cat": 1, "inner/dog": 1})
    assert f"the folder inside it, {str(root / 'inner')!r}" in mistakes(root)


def test_class_folders_without_images_are_refused(plant: Plant) -> None:
    assert "Its class folders hold no image: 'cat', 'dog'" in mistakes(plant({"cat": 0, "dog/x.txt": b"no"}))


def test_images_without_class_folders_are_refused(plant: Plant) -> None:
    assert "without class folders" in mistakes(plant({"": 3}))


def test_splits_without_train_are_refused(plant: Plant) -> None:
    assert "no 'train'" in mistakes(plant({"val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1}))


def test_two_names_for_validation_are_refused(plant: Plant) -> None:
    tree = {f"{split}/{name}": 1 for split in ("train", "val", "validation") for name in ("a", "b")}
    assert "both name the val split" in mistakes(plant(tree))


@needs_links
def test_validation_on_the_training_folder_is_refused(plant: Plant) -> None:
    root = plant({"train/a": 1, "train/b": 1})
    (root / "val").symlink_to(root / "train", target_is_directory=True)
    assert "same folder as another split" in mistakes(root)


def test_unequal_classes_are_named_all_at_once(plant: Plant) -> None:
    tree = {
        "train/ant": 1,
        "train/bee": 2,
        "train/cow": 3,
        "val/ant": 1,
        "val/bee": 0,
        "val/Cow": 1,
        "test/ant": 1,
        "test/bee": 1,
        "test/cow": 1,
        "test/dab": 4,
    }
    text = mistakes(plant(tree))
    assert "Class 'bee' is empty in val (2 images in train, 1 image in test)" in text
    assert "Class 'cow' is missing from val" in text
    assert "there is 'Cow', which differs only in how it is written" in text
    assert "Class 'dab' is missing from train (4 images in test)" in text
    assert "Class 'dab' is missing from val" in text
    assert "'ant'" not in text


def test_hostile_names_are_escaped(plant: Plant) -> None:
    name = "\x1b[31mred\n<script>"
    root = plant({"train/cat": 1, f"train/{name}": 1, "val/cat": 1})
    text = mistakes(root)
    assert "\x1b" not in text
    assert "\\x1b[31mred\\n<script>" in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_left_out(plant: Plant) -> None:
    root = plant({"cat": 1, "dog": 1})
    os.mkfifo(root / "cat" / "pipe.jpg")
    assert list_folder(root).ignored == {"not a regular file": 1}
