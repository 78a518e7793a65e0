"""Exports of label tools: recognised by what they hold, the same data as a folder, all mistakes told at once."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import Cli, photos

import regraft as rg
from regraft.data.masks.masks import read_mask
from regraft.data.tools.export import read_export

SIZE = (24, 32)  # height, width
SQUARE = [(4, 6), (14, 6), (14, 16), (4, 16)]  # x from 4 to 14, y from 6 to 16


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Eight photos in one folder: cat_0.png to dog_3.png."""
    photos(tmp_path / "made", {"cat": 4, "dog": 4})
    root = tmp_path / "flat"
    root.mkdir()
    for path in sorted((tmp_path / "made").rglob("*.png")):
        target = root / f"{path.parent.name}_{int(path.stem)}.png"
        Image.open(path).resize(SIZE[::-1]).save(target)
    return root


def images(root: Path) -> list[Path]:
    return sorted(root.rglob("*.png"))


def kind(path: Path) -> str:
    return path.name.split("_")[0]


def area(shape: np.ndarray | None = None) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[6:16, 4:14] = True if shape is None else shape
    return mask


def runs_by_row(mask: np.ndarray) -> list[int]:
    counts, value = [0], False
    for pixel in mask.reshape(-1).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def brush(mask: np.ndarray) -> list[int]:
    """The packed brush of Label Studio: each pixel's four channels as one block of repeated values."""
    values = [255 if pixel else 0 for pixel in mask.reshape(-1).tolist()]
    bits = f"{4 * len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (2, 4, 8, 16))
    for place, value in enumerate(values):
        if place % 2:  # as four values
            bits += "0" + "00" + f"{3:02b}" + f"{value:08b}" * 4
        else:  # as one value four times
            bits += "1" + "00" + f"{3:02b}" + f"{value:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def labelme(path: Path, **fields: Any) -> None:
    whole = {"version": "5.4", "flags": {}, "shapes": [], "imagePath": path.name, "imageData": None}
    size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    path.with_suffix(".json").write_text(json.dumps({**whole, **size, **fields}))


def polygon(label: str) -> dict[str, Any]:
    return {"label": label, "points": SQUARE, "shape_type": "polygon", "flags": {}, "group_id": None}


def studio(path: Path, *results: dict[str, Any], **fields: Any) -> dict[str, Any]:
    data = {"image": f"/data/upload/3/0a1b2c3d-{path.name}"}
    return {"id": 1, "data": data, "annotations": [{"result": list(results)}], **fields}


def choice(*names: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": "kind", "value": {"choices": list(names)}}


def cvat(entries: str) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta/>{entries}</annotations>'


def cvat_image(path: Path, inside: str, more: str = "") -> str:
    return f'<image id="0" name="{path.name}" width="{SIZE[1]}" height="{SIZE[0]}" {more}>{inside}</image>'


def coco(root: Path, **more: Any) -> dict[str, Any]:
    listed = [{"id": 10 + place, "file_name": path.name} for place, path in enumerate(images(root))]
    said = [
        {"id": row["id"], "image_id": row["id"], "category_id": 3 if "cat" in row["file_name"] else 2} for row in listed
    ]
    return {
        "images": listed,
        "annotations": said,
        "categories": [{"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}],
        **more,
    }


def write_labels(root: Path, tool: str) -> Path:
    """Write the classes of the photos as a tool does; return what to open."""
    if tool == "labelme":
        for path in images(root):
            labelme(path, flags={"cat": kind(path) == "cat", "dog": kind(path) == "dog"})
        return root
    if tool == "studio":
        text = json.dumps([studio(path, choice(kind(path))) for path in images(root)])
    elif tool == "studio-min":
        rows = [
            {"image": f"/data/local-files/?d=x/{path.name}", "annotator": 1, "kind": kind(path)}
            for path in images(root)
        ]
        text = json.dumps(rows)
    elif tool == "cvat":
        text = cvat("".join(cvat_image(path, f'<tag label="{kind(path)}" source="manual"/>') for path in images(root)))
    else:
        text = json.dumps(coco(root))
    export = root / ("annotations.xml" if tool == "cvat" else "export.json")
    export.write_text(text)
    return export


@pytest.mark.parametrize("tool", ["labelme", "studio", "studio-min", "cvat", "coco"])
def test_classes_are_those_of_a_table(flat: Path, tool: str) -> None:
    table = flat / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{path.name},{kind(path)}\n" for path in images(flat)))
    wanted = rg.open_data(table)
    table.unlink()
    for source in {write_labels(flat, tool), flat}:
        data = rg.open_data(source)
        assert data.class_names == ("cat", "dog")
        assert not data.multilabel
        for split in wanted.splits:
            assert data.splits[split].paths == wanted.splits[split].paths
            assert data.splits[split].labels.tolist() == wanted.splits[split].labels.tolist()


def write_masks(root: Path, form: str) -> Path | None:
    """Write one object in each photo as a tool does."""
    entries: list[Any] = []
    for path in images(root):
        if form.startswith("labelme"):
            png = io.BytesIO()
            Image.fromarray(area()[6:16, 4:14]).save(png, "PNG")
            shape = polygon(kind(path))
            if form == "labelme-mask":
                text = base64.b64encode(png.getvalue()).decode()
                shape |= {"shape_type": "mask", "points": [[4, 6], [13, 15]], "mask": text}
            labelme(path, shapes=[shape])
        elif form == "cvat":
            points = ";".join(f"{x},{y}" for x, y in SQUARE)
            entries.append(cvat_image(path, f'<polygon label="{kind(path)}" points="{points}" z_order="0"/>'))
        elif form == "cvat-mask":
            box = 'left="4" top="6" width="10" height="10"'
            runs = ", ".join(map(str, runs_by_row(area()[6:16, 4:14])))
            entries.append(cvat_image(path, f'<mask label="{kind(path)}" rle="{runs}" {box} z_order="0"/>'))
        else:
            own: dict[str, Any] = {"original_height": SIZE[0], "original_width": SIZE[1]}
            if form == "studio-brush":
                own |= {
                    "type": "brushlabels",
                    "value": {"format": "rle", "rle": brush(area()), "brushlabels": [kind(path)]},
                }
            else:
                points = [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in SQUARE]
                own |= {"type": "polygonlabels", "value": {"points": points, "polygonlabels": [kind(path)]}}
            entries.append(studio(path, own))
    if form.startswith("labelme"):
        return None
    export = root / ("annotations.xml" if form.startswith("cvat") else "export.json")
    export.write_text(cvat("".join(entries)) if form.startswith("cvat") else json.dumps(entries))
    return export


@pytest.mark.parametrize("form", ["labelme", "labelme-mask", "cvat", "cvat-mask", "studio", "studio-brush"])
def test_objects_become_masks(flat: Path, form: str) -> None:
    export = write_masks(flat, form)
    for source in filter(None, (flat, export)):
        data = rg.open_data(source, fractions=(1, 0, 0))
        assert data.class_names == ("background", "cat", "dog")
        assert data.class_table is not None
        assert len(data.train) == 8
        for path, mask in zip(data.train.paths, data.train.masks, strict=True):
            wanted = np.where(area(), data.class_names.index(kind(Path(path))), 0)
            np.testing.assert_array_equal(read_mask(mask, data.class_table), wanted)


def test_later_objects_lie_on_top_and_boxes_are_said(flat: Path) -> None:
    small = {"label": "small", "points": [(6, 8), (10, 12)], "shape_type": "rectangle"}
    point = {"label": "small", "points": [(6, 8)], "shape_type": "point"}
    for path in images(flat):
        labelme(path, shapes=[small, polygon("large"), point])
    data = rg.open_data(flat, fractions=(1, 0, 0))
    assert data.class_table is not None
    assert set(np.unique(read_mask(data.train.masks[0], data.class_table))) == {0, 1}
    assert "8 boxes were drawn as filled areas." in data.warnings
    assert any("'point' have no area" in text for text in data.warnings)


def test_runs_and_their_splits_json_keep_the_masks(flat: Path) -> None:
    write_masks(flat, "cvat")
    data = rg.open_data(flat)
    again = type(data).from_dict(json.loads(json.dumps(data.to_dict())))
    assert again.train.masks == data.train.masks
    assert rg.open_data(flat, masks="annotations.xml").train.masks == data.train.masks


def test_parts_of_the_tool_and_folders_are_splits(flat: Path) -> None:
    parts = ["Train", "Train", "Validation", "Test"] * 2
    text = "".join(
        cvat_image(path, f'<tag label="{kind(path)}"/>', f'subset="{part}"')
        for path, part in zip(images(flat), parts, strict=True)
    )
    (flat / "annotations.xml").write_text(cvat(text))
    data = rg.open_data(flat)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert data.split_origin == "lists"


def test_images_that_nobody_has_labelled_are_left_out_and_said(flat: Path) -> None:
    tasks = [studio(path, choice(kind(path))) for path in images(flat)]
    tasks[0]["annotations"] = []
    tasks[5]["annotations"][0]["was_cancelled"] = True
    (flat / "export.json").write_text(json.dumps(tasks))
    data = rg.open_data(flat, fractions=(1, 0, 0))
    assert len(data.train) == 6
    assert "2 images are not labelled, and were left out." in data.warnings


def test_several_choices_are_several_labels(flat: Path) -> None:
    tasks = [studio(path, choice(kind(path), "small")) for path in images(flat)[:4]]
    tasks += [studio(path, choice()) for path in images(flat)[4:]]
    (flat / "export.json").write_text(json.dumps(tasks))
    data = rg.open_data(flat, fractions=(1, 0, 0))
    assert data.multilabel
    assert data.train.labels.tolist() == [[1, 1]] * 4 + [[0, 0]] * 4


def test_every_mistake_is_told_at_once(cli: Cli, flat: Path) -> None:
    tasks = [studio(path, choice(kind(path))) for path in images(flat)]
    tasks.append(studio(images(flat)[0], choice("dog")))
    tasks.append(studio(Path("gone.png"), choice("dog")))
    tasks.append({"id": 9, "data": {"text": "none"}, "annotations": []})
    tasks.append(studio(images(flat)[1], annotations=[{"result": [choice("cat")]}, {"result": [choice("dog")]}]))
    (flat / "export.json").write_text(json.dumps(tasks))
    result = cli("inspect", flat)
    assert result.code == 3
    for text in (
        "mistakes: 4",
        "row 9: ",
        "is 'dog' here and 'cat' in row 1.",
        "row 10: there is no file '/data/upload/3/0a1b2c3d-gone.png'.",
        "row 11: cannot be read (its data name no image).",
        "row 12: cannot be read (its annotations disagree: 'cat' and 'dog'; delete one",
    ):
        assert text in result.err, result.err


def test_unknown_numbers_and_a_rare_second_label_are_told(flat: Path) -> None:
    many = {f"{name}_{place}.png": name for name in ("cat", "dog") for place in range(4, 30)}
    for name in many:
        (flat / name).write_bytes(images(flat)[0].read_bytes())
    values = coco(flat)
    values["annotations"] += [
        {"id": 1, "image_id": 10, "category_id": 2},
        {"id": 2, "image_id": 999, "category_id": 2},
        {"id": 3, "image_id": 10, "category_id": 7},
    ]
    (flat / "train.json").write_text(json.dumps(values))
    with pytest.raises(rg.DataError, match="mistakes: 3") as told:
        rg.open_data(flat)
    text = "\n".join(told.value.details)
    assert "'999', which the file does not list" in text
    assert "the category '7'" in text
    assert "'cat_0.png' is 'cat|dog', and others have one." in text


def test_what_may_mean_two_things_has_to_be_named(cli: Cli, flat: Path) -> None:
    for path in images(flat):
        labelme(path, flags={kind(path): True}, shapes=[polygon("eye")])
    result = cli("inspect", flat)
    assert result.code == 3
    assert "holds classes of whole images and shapes" in result.err
    assert rg.open_data(flat, labels="*.json", fractions=(1, 0, 0)).class_names == ("cat", "dog")
    assert rg.open_data(flat, masks="*.json", fractions=(1, 0, 0)).class_names == ("background", "eye")


def test_boxes_alone_have_to_be_named_and_their_classes_may_be_those_of_images(flat: Path) -> None:
    values = coco(flat)
    for item in values["annotations"]:
        item["bbox"] = [1, 1, 5, 5]
    (flat / "instances.json").write_text(json.dumps(values))
    with pytest.raises(rg.DataError, match=r"instances.json holds boxes"):
        rg.open_data(flat)
    assert rg.open_data(flat, labels="instances.json").class_names == ("cat", "dog")


def test_several_exports_have_to_be_named(flat: Path) -> None:
    for number in (1, 2):
        write_labels(flat, "studio").rename(flat / f"project-{number}.json")
    with pytest.raises(rg.DataError, match=r"holds several exports: 'project-1.json', 'project-2.json'"):
        rg.open_data(flat)
    assert rg.open_data(flat, labels="project-2.json").class_names == ("cat", "dog")


def test_one_file_for_each_split(flat: Path) -> None:
    whole = coco(flat)
    for split, rows in (("train2021", slice(0, None, 2)), ("val2021", slice(1, None, 2))):
        (flat / f"{split}.json").write_text(
            json.dumps({**whole, **{k: whole[k][rows] for k in ("images", "annotations")}})
        )
    (flat / "test2021.json").write_text(json.dumps({"images": whole["images"], "annotations": [], "categories": []}))
    data = rg.open_data(flat)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 4}


def test_class_folders_come_first(tmp_path: Path) -> None:
    photos(tmp_path / "photos", {"cat": 3, "dog": 3})
    for path in images(tmp_path / "photos"):
        labelme(path, shapes=[polygon("eye")])
    assert rg.open_data(tmp_path / "photos").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "it declares a document type"),
        ("a.xml", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "it declares a document type"),
        ("a.xml", "<annotations><image></annotations>", "is not an export of CVAT for images (mismatched tag"),
        ("a.xml", "<annotations><track/></annotations>", "is an export of CVAT for videos"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", '{"images": [', "is not JSON"),
        ("a.json", '{"weights": {}}', "is not an export of LabelMe, Label Studio or CVAT, nor JSON of the COCO kind"),
        ("a.json", "hello", "is not an export of LabelMe"),
        ("a.json", "", "is not an export of LabelMe"),
    ],
)
def test_files_that_are_no_export(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(rg.DataError) as told:
        rg.open_data(tmp_path / name)
    assert said in told.value.what


KEYS = "shapes imagePath data annotations result images value id categories choices type flags points label image"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=20, deadline=None)
@given(VALUES, st.sampled_from(["shapes", "tasks", "coco"]))
def test_no_json_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, values: Any, kind: str) -> None:
    whole = {
        "shapes": {"shapes": [values], "imagePath": values, "flags": values},
        "tasks": [{"data": {"image": "a.png"}, "annotations": values}, values],
        "coco": {"images": [values, {"id": 1, "file_name": "a.png"}], "annotations": [values], "categories": values},
    }[kind]
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_text(json.dumps(whole))
    found = read_export(path)
    assert isinstance(found, str) or found.images or found.faults
    with pytest.raises((rg.DataError, rg.SettingsError)):
        rg.open_data(path)


def test_damaged_objects_are_quarantined_one_by_one(flat: Path) -> None:
    export = write_masks(flat, "cvat-mask")
    assert export is not None
    text = export.read_text()
    export.write_text(text.replace("0, 100", "0, 99", 1) if "0, 100" in text else text.replace("100", "99", 1))
    data = rg.open_data(flat, fractions=(1, 0, 0))
    assert data.class_table is not None
    with pytest.raises(rg.RegraftError, match="do not add up to a box of 10 x 10 pixels"):
        read_mask(data.train.masks[0], data.class_table)
    read_mask(data.train.masks[1], data.class_table)


def test_roboflow_says_classes_in_a_table_of_each_split(tmp_path: Path) -> None:
    photos(tmp_path / "made", {"cat": 6, "dog": 6})
    for place, path in enumerate(images(tmp_path / "made")):
        split = ("train", "train", "valid")[place % 3]
        target = tmp_path / "robo" / split / f"{place // 3}{'a' if place % 3 == 1 else ''}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        table = target.parent / "_classes.csv"
        row = f"{target.name}, {int(path.parent.name == 'cat')}, {int(path.parent.name == 'dog')}\n"
        table.write_text((table.read_text() if table.exists() else "filename, cat, dog\n") + row)
    data = rg.open_data(tmp_path / "robo")
    assert data.class_names == ("cat", "dog")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4}
    assert all("/valid/" in path for path in data.val.paths), "0.png is in train/ too"


def test_kaggle_ids_are_those_of_training_images(tmp_path: Path) -> None:
    photos(tmp_path / "made", {"cat": 4, "dog": 4})
    for place, path in enumerate(images(tmp_path / "made")):
        for folder in ("train", "test"):
            target = tmp_path / "kaggle" / folder / f"{place}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    rows = [f"{place},{int(place < 4)},{int(place >= 4)}\n" for place in range(8)]
    for name in ("train_labels.csv", "train.csv", "trainLabels.csv"):
        table = tmp_path / "kaggle" / name
        table.write_text("id,cat,dog\n" + "".join(rows))
        data = rg.open_data(tmp_path / "kaggle")
        assert data.class_names == ("cat", "dog")
        assert all("/train/" in path for split in data.splits.values() for path in split.paths)
        table.unlink()
