"""Folders of classes: `root/{train,val,test}/class/*` and `root/class/*`.

The top-level folder is the class, however deep a file lies below it. Hidden and system files and everything that is
no image are left out quietly and counted by reason; what *should* be there and is not becomes one error that names
all of it. Nothing is decoded here, and files are columns, not objects: a million of them are a normal case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import chain, islice, repeat
from pathlib import Path

from regraft.data.files import access
from regraft.data.files.shards import looks_packed
from regraft.data.paths import Paths
from regraft.data.sources.listing import SPLIT_WORDS, Listing, looks_of, quoted, twin_warnings
from regraft.data.sources.walk import STRAY_PICTURE, Walk, is_hidden, is_picture_name
from regraft.errors import DataError, nearest
from regraft.wording import quantity

__all__ = ["has_class_folders", "list_folder", "missing_folder"]

Files = dict[str, dict[str, Paths]]  # by split and class


_MASKS = ("masks", "mask", "labels", "annotations", "segmentation", "segmentations", "gt")


def list_folder(root: Path, *, for_training: bool = True) -> Listing:
    """Return the labelled files below a folder, in one of the two layouts.

    Args:
        root: The folder.
        for_training: Whether there must be two classes, and the same ones in every split; else one class is enough.

    Raises:
        DataError: With every mistake at once, if the folder does not hold at least two classes of images, or if
            its splits do not agree on the classes.
    """
    _require_folder(root)
    walk = Walk()
    walk.enter(root)
    children = walk.folders(root)
    splits = _split_folders(root, children, walk, for_training=for_training)
    layers = {name: walk.folders(path) for name, path in splits.items()} if splits else {"": children}
    for folders in layers.values():
        _claim(folders, walk)
    files = {name: {folder.name: walk.pictures(folder) for folder in folders} for name, folders in layers.items()}
    return _listing(root, files, walk, for_training=for_training)


def has_class_folders(root: Path) -> bool:
    """Return whether a folder looks like classes of images: a split with folders in it, or at least two other
    folders.
    """
    with access.entries(root) as found:
        folders = [Path(entry.path) for entry in found if entry.is_dir() and not is_hidden(entry.name)]
    if any(folder.name.lower() in SPLIT_WORDS and _has_folders(folder) for folder in folders):
        return True
    others = (folder for folder in folders if folder.name.lower() not in SPLIT_WORDS)
    return len(list(islice(filter(_has_picture, others), 2))) > 1


def _has_picture(folder: Path) -> bool:
    return any(is_picture_name(name) for _, files in access.walk(folder) for name in files)


def _require_folder(root: Path) -> None:
    try:
        access.state_of(root)
    except (OSError, ValueError):
        raise missing_folder(root) from None
    if not access.is_folder(root):
        raise DataError(
            f"{str(root)!r} is a file.",
            "a data set is a folder that holds one folder of images for each class",
            f"give the folder, for example {str(root.parent)!r}; unpack it first if this is an archive",
        )


def missing_folder(root: Path) -> DataError:
    """Return the error for a folder, or an archive, that is not there, with the nearest one that is."""
    parent = root.parent
    while not access.is_folder(parent) and parent != parent.parent:
        parent = parent.parent
    wanted = root.relative_to(parent).parts[0] if root != parent else root.name
    kind, end = ("archive", wanted[wanted.index(".", 1) :]) if looks_packed(wanted) else ("folder", "")
    try:
        with access.entries(parent) as found:
            names = [entry.name for entry in found if entry.is_dir() or looks_packed(entry.name)]
        # The ending that archives share says nothing about which one is meant.
        stems = {name.removesuffix(end): name for name in names if name.endswith(end)}
        close = quoted(stems[stem] for stem in get_close_matches(wanted.removesuffix(end), stems, cutoff=0.5))
        close = close or nearest(wanted, [name for name in names if name not in stems.values()])
    except OSError:
        close = ""
    return DataError(
        f"There is no {kind} {str(root)!r}{f'; did you mean {close}?' if close else '.'}",
        next_step=f"check the spelling, or give the full path; the nearest folder that exists is {str(parent)!r}",
    )


def _split_folders(root: Path, children: list[Path], walk: Walk, *, for_training: bool) -> dict[str, Path]:
    """Return split name to folder, or an empty dict for the layout without splits."""
    named = [(SPLIT_WORDS[child.name.lower()], child) for child in children if child.name.lower() in SPLIT_WORDS]
    if not any(_has_folders(child) for name, child in named if name == "train"):
        # `train` may be the name of a class: {car, plane, train}. But {val, test} alone is half a data set.
        if not named or len(named) < len(children):
            return {}
        names = quoted(child.name for _, child in named)
        if not any(_has_folders(child) for _, child in named):
            if len(named) > 1:
                walk.mistakes.append(
                    f"{names} hold no class folders; if a list holds the labels, name it with data.labels."
                )
            return {}
        if for_training:
            walk.mistakes.append(f"{str(root)!r} has {names}, but no 'train'.")
            return {}
    for name in ("train", "val", "test"):
        twins = [child.name for found, child in named if found == name]
        if len(twins) > 1:
            walk.mistakes.append(f"{quoted(twins)} both name the {name} split.")
    others = [child.name for child in children if child.name.lower() not in SPLIT_WORDS]
    if others:
        walk.warnings.append(f"Beside the split folders, {quoted(others)} were left out.")
    splits = dict(reversed(named))
    for name, child in sorted(splits.items(), reverse=True):
        if not walk.enter(child):
            walk.mistakes.append(f"The {name} split is the same folder as another split.")
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}


def _has_folders(folder: Path) -> bool:
    try:
        with access.entries(folder) as entries:
            return any(entry.is_dir() and not is_hidden(entry.name) for entry in entries)
    except OSError:
        return False


def _claim(folders: list[Path], walk: Walk) -> None:
    """Mark every class folder before the first is walked, so that a link from one class never collects another."""
    for folder in list(folders):
        if not walk.enter(folder):
            folders.remove(folder)
            walk.warnings.append(f"{str(folder)!r} links to a folder that is counted elsewhere, and was left out.")


def _listing(root: Path, files: Files, walk: Walk, *, for_training: bool) -> Listing:
    names = {name for classes in files.values() for name in classes}
    empty = {name for name in names if not any(classes.get(name) for classes in files.values())}
    class_names = tuple(sorted(names - empty))
    mistakes = [*walk.mistakes, *_class_mistakes(root, files, class_names, empty, walk.ignored, for_training)]
    if mistakes:
        raise DataError(
            f"The folder {str(root)!r} cannot be used as a data set.",
            "it holds at least two folders of images, one for each class, and the same classes in every split",
            _next_step(root, files),
            details=mistakes,
        )
    number = {name: label for label, name in enumerate(class_names)}
    rows = {}
    for split, classes in files.items():
        found = [name for name in class_names if name in classes]
        labels = list(chain.from_iterable(repeat(number[name], len(classes[name])) for name in found))
        rows[split] = (Paths.joined(classes[name] for name in found), labels)
    warnings = [*walk.warnings, *_class_warnings(files, class_names, empty), *_loss_warnings(walk.ignored)]
    return Listing(str(root), class_names, rows, tuple(warnings), dict(sorted(walk.ignored.items())))


def _without_classes(root: Path, ignored: Counter[str]) -> Iterator[str]:
    """Yield a folder of files alone: one class of a data set, or images whose classes nothing says."""
    names = access.names_in(root)
    num = sum(map(is_picture_name, names))
    if not num:
        yield f"It holds no class folders, only {quantity(sum(ignored.values()), 'file')} and hidden folders."
        packed = [name for name in names if looks_packed(name)]
        if packed:
            yield f"Archives in it are not opened: {quoted(packed)}."
        return
    yield (
        f"{quantity(num, 'image is', 'images are')} directly in it, without class folders: nothing says what "
        f"{'it shows' if num == 1 else 'they show'}."
    )
    if not root.is_file() and has_class_folders(root.parent):  # an archive is no class of the folder that it lies in
        yield f"It is one class of {str(root.parent)!r}; give that folder to use all classes."
    else:
        yield "Put the images of each class into a folder of its own, or name a list of their labels with `--labels`."


def _class_mistakes(
    root: Path,
    files: Files,
    class_names: tuple[str, ...],
    empty: set[str],
    ignored: Counter[str],
    for_training: bool,
) -> Iterator[str]:
    if not class_names:
        if not access.names_in(root):
            yield "The folder is empty."
        elif empty:
            yield f"Its class folders hold no image: {quoted(sorted(empty))}."
        else:
            yield from _without_classes(root, ignored)
        return
    if not for_training:
        return
    if len(class_names) == 1:
        yield f"There is only one class with images, {class_names[0]!r}; a classifier needs two."
        with access.entries(root) as found:
            masks = [entry.name for entry in found if entry.is_dir() and entry.name.lower() in _MASKS]
        if masks:
            yield f"Its folder {quoted(masks)} holds no masks; for segmentation each image has one, of its name."
    for split, classes in files.items():
        for name in class_names:
            if not classes.get(name):
                others = [other for other in files if files[other].get(name)]
                state = "is empty in" if name in classes else "is missing from"
                counted = ", ".join(f"{quantity(len(files[other][name]), 'image')} in {other}" for other in others)
                yield f"Class {name!r} {state} {split} ({counted}{_twin(name, classes)})."


def _twin(name: str, classes: Iterable[str]) -> str:
    twins = [other for other in classes if looks_of(other) == looks_of(name) and other != name]
    return f"; there is {quoted(twins)}, which differs only in how it is written" if twins else ""


def _class_warnings(files: Files, class_names: tuple[str, ...], empty: set[str]) -> Iterator[str]:
    if empty:
        yield f"Class folders without any image were left out: {quoted(sorted(empty))}."
    yield from twin_warnings(class_names)
    for split, classes in files.items():
        single = [name for name in class_names if split == "train" and len(classes.get(name, ())) == 1]
        if single:
            yield f"Classes with a single training image: {quoted(single)}."


def _loss_warnings(ignored: Counter[str]) -> Iterator[str]:
    for reason, count in ignored.items():
        if reason == STRAY_PICTURE:
            one, several = (
                "image next to the class folders has no class",
                "images next to the class folders have no class",
            )
            yield f"{quantity(count, one, several)}, and {'was' if count == 1 else 'were'} left out."
        elif reason.startswith("camera raw"):
            yield (
                f"{quantity(count, 'camera raw file was', 'camera raw files were')} left out; convert to JPEG or PNG "
                "to use them."
            )


def _next_step(root: Path, files: Files) -> str:
    children = [root / name for name in files.get("", {})]
    if len(children) == 1 and _has_folders(children[0]):
        return f"the folder inside it, {str(children[0])!r}"
    return "arrange them as ROOT/CLASS/IMAGES, or ROOT/train/CLASS/IMAGES with ROOT/val next to it"
