"""The table at the top of docs/data.md: each row's layout is made small, and what the row says is typed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Cli, photos
from tests.data.files.packing import pack
from tests.data.sources import test_label_tools as tools

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
ROW = re.compile(r"^\| (?P<have>[^|]+) \| (?P<like>[^|]+) \| `regraft (?P<typed>[^`]+)` \|$", re.MULTILINE)
NUM = 6  # images of each class


def rows() -> list[tuple[str, str]]:
    """What one has, and what one types, of each row of the table."""
    part = PAGE.read_text(encoding="utf-8").partition("## What you have, and what you type")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ") and "regraft" in line]
    found = [(match["have"], match["typed"]) for match in ROW.finditer(part)]
    assert len(found) == len(lines), "a row is not `| what | looks like | `regraft ...` |`"
    return found


def folders(root: Path, *splits: str) -> Path:
    for place, split in enumerate(splits or ("",)):
        photos(root / split, {"cat": NUM, "dog": NUM}, seed=place)
    return root


def flat(root: Path) -> Path:
    """All images in one folder, cat_0.png to dog_5.png, of the size that the objects of tools are drawn for."""
    made = folders(root.parent / "made")
    root.mkdir(parents=True)
    for path in sorted(made.rglob("*.png")):
        image = Image.open(path).resize(tools.SIZE[::-1])
        image.save(root / f"{path.parent.name}_{int(path.stem)}.png")
    shutil.rmtree(made)
    return root


def table(path: Path, images: Path, row: str = "{path},{kind}", head: str = "path,label") -> Path:
    """A row for each image; `{path}` is as seen from the table, `{name}` without its suffix."""
    lines = [head]
    for number, image in enumerate(sorted(images.rglob("*.png"))):
        kind = tools.kind(image) if "_" in image.name else image.parent.name
        fields = {"path": image.relative_to(path.parent).as_posix(), "name": image.stem, "kind": kind}
        ones = f"{int(kind == 'cat')},{int(kind == 'dog')}"
        lines.append(row.format(**fields, ones=ones, number=number, patient=number // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def masked(images: Path, masks: Path, end: str = "") -> None:
    """An image, and a mask of its name, six times."""
    for number in range(NUM):
        for folder, value, name in ((images, 100 + number, f"{number}"), (masks, 0, f"{number}{end}")):
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.new("L" if folder == masks and not value else "RGB", (24, 16), value)
            if not value:
                image.paste(1, (4, 4, 14, 12))
            image.save(folder / f"{name}.png")


def lists(here: Path) -> None:
    folders(here / "photos")
    (here / "lists").mkdir()
    paths = [f"../{path.relative_to(here).as_posix()} {path.parent.name}" for path in sorted(here.rglob("*.png"))]
    (here / "lists/train.txt").write_text("\n".join(paths[::2]))
    (here / "lists/val.txt").write_text("\n".join(paths[1::2]))


def kaggle(here: Path, name: str, row: str, head: str) -> None:
    flat(here / "kaggle/train")
    table(here / "kaggle" / name, here / "kaggle/train", row, head)


def roboflow(here: Path) -> None:
    for place, split in enumerate(("train", "valid")):
        folders(here / "made", *[""])
        target = here / "robo" / split
        target.mkdir(parents=True)
        for path in sorted((here / "made").rglob("*.png")):
            path.rename(target / f"{path.parent.name}_{place}{path.stem}.png")
        rows = [
            f"{path.name}, {int('cat' in path.name)}, {int('dog' in path.name)}" for path in sorted(target.iterdir())
        ]
        (target / "_classes.csv").write_text("\n".join(["filename, cat, dog", *rows]))


def shards(here: Path) -> None:
    for place in range(2):
        folder = flat(here / f"part{place}/data-{place}")
        for path in sorted(folder.glob("*.png")):
            path.with_suffix(".cls").write_text(tools.kind(path))
            for end in (".png", ".cls"):
                path.with_suffix(end).rename(folder / f"{place}{path.stem}{end}")
        (here / "shards").mkdir(exist_ok=True)
        pack(folder, ".tar").rename(here / f"shards/data-{place}.tar")


def voc(here: Path) -> None:
    masked(here / "voc/JPEGImages", here / "voc/SegmentationClass")
    sets = here / "voc/ImageSets/Segmentation"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("\n".join(map(str, range(4))))
    (sets / "val.txt").write_text("\n".join(map(str, range(4, NUM))))


def coco_masks(here: Path) -> None:
    root = flat(here / "coco/train2017")
    values = tools.coco(root)
    for image in values["images"]:
        image |= {"height": tools.SIZE[0], "width": tools.SIZE[1]}
    for item in values["annotations"]:
        item["segmentation"] = [[value for point in tools.SQUARE for value in point]]
    (here / "coco/annotations").mkdir()
    (here / "coco/annotations/instances_train2017.json").write_text(json.dumps(values))


def camvid(here: Path) -> None:
    for split in ("train", "val"):
        masked(here / f"scenes/{split}", here / f"scenes/{split}annot")


def boxed(here: Path) -> None:
    root, box = flat(here / "cvat"), 'xtl="1" ytl="1" xbr="9" ybr="9"'
    entries = [tools.cvat_image(path, f'<box label="{tools.kind(path)}" {box}/>') for path in tools.images(root)]
    (root / "annotations.xml").write_text(tools.cvat("".join(entries)))


def parquet(here: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    paths = sorted(folders(here / "photos").rglob("*.png"))
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    columns = {"image": images, "label": [path.parent.name for path in paths]}
    files.write_table(arrow.table(columns), here / "pets.parquet")


def archive(here: Path, kind: str) -> None:
    pack(folders(here / "photos"), kind)
    shutil.rmtree(here / "photos")


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "a folder for each class": lambda here: folders(here / "photos"),
    "the same, divided": lambda here: folders(here / "photos", "train", "val"),
    "a list": lambda here: table(folders(here / "photos") / "list.txt", here / "photos", "{path} {kind}", ""),
    "a table": lambda here: table(folders(here / "photos").parent / "photos.csv", here / "photos"),
    "a list for each split": lists,
    "images, and a table beside them": lambda here: table(
        flat(here / "pets/images").parent / "labels.csv", here / "pets"
    ),
    "images, and a table elsewhere": lambda here: table(
        here / "mine.csv", flat(here / "pets"), "{name},{kind}", "id,breed"
    ),
    "Kaggle: ids and a label": lambda here: kaggle(here, "train.csv", "{name},{kind}", "id,label"),
    "Kaggle: ids, zeros and ones": lambda here: kaggle(here, "train.csv", "{name},{ones}", "image_id,cat,dog"),
    "several labels for an image": lambda here: table(
        folders(here / "photos").parent / "tags.csv", here / "photos", "{path},{kind}|indoors", "image,tags"
    ),
    "Roboflow, classification": roboflow,
    "an archive": lambda here: archive(here, ".zip"),
    "a compressed archive": lambda here: archive(here, ".tar.gz"),
    "a table with the images in it": parquet,
    "WebDataset shards": shards,
    "iNaturalist, COCO with classes alone": lambda here: tools.write_labels(flat(here / "inat"), "coco"),
    "LabelMe, flags": lambda here: tools.write_labels(flat(here / "labelme"), "labelme"),
    "Label Studio, choices": lambda here: tools.write_labels(flat(here / "studio"), "studio"),
    "CVAT for images 1.1, tags": lambda here: tools.write_labels(flat(here / "cvat"), "cvat"),
    "images and masks": lambda here: masked(here / "scenes/images", here / "scenes/masks"),
    "CamVid": camvid,
    "PASCAL VOC": voc,
    "COCO": coco_masks,
    "masks in the folder of their images": lambda here: masked(here / "scenes", here / "scenes", "_mask"),
    "LabelMe, polygons": lambda here: tools.write_masks(flat(here / "labelme"), "labelme"),
    "Label Studio, brushes and polygons": lambda here: tools.write_masks(flat(here / "studio"), "studio-brush"),
    "CVAT for images 1.1, polygons and masks": lambda here: tools.write_masks(flat(here / "cvat"), "cvat-mask"),
    "boxes, whose classes are those of the images": boxed,
    "several images of each patient": lambda here: table(
        folders(here / "photos").parent / "scans.csv", here / "photos", "{path},{kind},P{patient}", "path,label,patient"
    ),
}


def test_every_row_has_a_layout_and_every_layout_a_row() -> None:
    assert [have for have, _ in rows()] == list(LAYOUTS)


@pytest.mark.parametrize(("have", "typed"), rows(), ids=[have for have, _ in rows()])
def test_what_a_row_says_reads_what_it_shows(
    have: str, typed: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS[have](tmp_path)
    monkeypatch.chdir(tmp_path)
    result = cli(*shlex.split(typed), "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["decoded"].endswith("none of them unreadable"), found
    assert found["classes"] >= 2, found
    assert int(found["decoded"].split()[0]) >= NUM, found
    assert len(found["splits"]) >= 2, found
