"""Images below a folder that are no images to predict: masks beside their images, and what regraft wrote itself."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from regraft.data.files import access
from regraft.data.sources.masks.mask_folders import mask_folders

__all__ = ["OWN_COMMENT", "is_own_picture", "without_masks"]

OWN_COMMENT = "written by regraft predict"  # in each mask and overlay, so that they are known again
_HEAD_BYTES = 4096
_MASK_ENDS = ("_mask", "-mask", "_masks", "_seg", "_label", "_labels", "_gt", "_groundtruth", "_trimap")
_MASK = "mask of an image"
_OWN = "prediction of an earlier command"
_RUN = "image in a run's folder"

Names = dict[str, list[str]]  # the names of the images, by folder


def without_masks(root: str, paths: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return the paths without masks and without regraft's own output, and how many of these were left out, by reason.

    Images that lie in `root` itself are left out only where their name says that they are the mask of another.
    """
    by_folder: Names = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        by_folder[folder].append(name)
    reasons = dict(_reasons(root, by_folder))
    masks = {folder: _masks_beside(names) for folder, names in by_folder.items()}
    kept, ignored = [], Counter[str]()
    for path in paths:
        folder, name = os.path.split(path)
        reason = reasons.get(folder) or (_MASK if name in masks[folder] else "")
        if not reason and folder in reasons and is_own_picture(path):
            reason = _OWN
        if reason:
            ignored[reason] += 1
        else:
            kept.append(path)
    return kept, dict(sorted(ignored.items()))


def is_own_picture(path: str) -> bool:
    """Return whether regraft wrote this mask or overlay."""
    try:
        with access.open_bytes(path) as file:
            return OWN_COMMENT.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _reasons(root: str, by_folder: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield why nothing below `root` in a folder is an input; empty where each of its files has to be looked at."""
    masks = mask_folders(by_folder, {folder: {_stem(name) for name in names} for folder, names in by_folder.items()})
    is_run: dict[str, bool] = {}
    for folder, names in by_folder.items():
        inside = list(_below(root, folder))
        for place in inside:
            if place not in is_run:
                is_run[place] = access.has_file(place, "recipe.yaml")
        if any(is_run[place] for place in inside):
            yield folder, _RUN
        elif any(place in masks for place in inside):
            yield folder, _MASK
        elif inside and any(is_own_picture(os.path.join(folder, name)) for name in (names[0], names[-1])):
            yield folder, ""


def _below(root: str, folder: str) -> Iterator[str]:
    """Yield the folder and the folders that it lies in, up to `root`, which is none of them."""
    top = os.path.normpath(root)
    while os.path.normpath(folder) != top and len(folder) > len(top):
        yield folder
        folder = os.path.dirname(folder)


def _masks_beside(names: Sequence[str]) -> set[str]:
    """Return images that are called like another one in the same folder, with the end of a mask's name."""
    stems = {_stem(name) for name in names}
    ends = [(name, end) for name in names for end in _MASK_ENDS if _stem(name).lower().endswith(end)]
    return {name for name, end in ends if _stem(name)[: -len(end)] in stems}


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
