"""Which mask belongs to which image: by their names, which may differ by something before or behind them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Pairing", "pair_up"]

Key = tuple[str, str]  # folder below the root, name without suffix

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_PREFERRED = ("labeltrainids", "trainids", "labelids", "mask", "label", "gt", "seg")
_IMAGE_ENDS = ("_leftImg8bit", "_sat", "_image", "_img", "_rgb")
_NOT_CLASSES = ("color", "colour", "instance", "edge", "overlay", "vis", "depth", "preview", "blend")


@dataclass(frozen=True)
class Pairing:
    """Images and masks by their names.

    Attributes:
        images: Absolute paths.
        masks: As many.
        missing: Images that no mask belongs to.
        extra: Masks that belong to no image.
        affix: What the names of masks have before and behind those of the images.
    """

    images: list[str]
    masks: list[str]
    missing: list[str]
    extra: list[str]
    affix: tuple[str, str]


def pair_up(images: Sequence[str], masks: Sequence[str], image_root: str, mask_root: str) -> Pairing:
    """Return the images below one folder, each with its mask below another.

    Names are compared without their suffix, together with the folders below the roots, or alone where that fits more
    images and is unique. If the names of masks have something before or behind (`x_mask.png`, `x_L.png`), it is the
    same for all, and what images have at their ends (`x_leftImg8bit.png`) is left out where that helps.
    """
    best: tuple[int, dict[int, int], tuple[str, str]] = (-1, {}, ("", ""))
    for deep in (True, False):
        image_keys = [_key(path, image_root, deep=deep) for path in images]
        by_key = _by_key(masks, mask_root, deep=deep)
        if not deep and (len(set(image_keys)) < len(image_keys) or len(by_key) < len(masks)):
            continue
        for end in dict.fromkeys(("", *_known_ends(image_keys), _common_end(image_keys))):
            keys = [(folder, stem[: len(stem) - len(end)]) for folder, stem in image_keys]
            for affix in _affixes(keys, by_key):
                found = _matches(keys, by_key, affix)
                if len(found) > best[0]:
                    best = (len(found), found, affix)
            if best[0] == len(images):
                break
        if best[0] == len(images):
            break
    return _pairing(images, masks, best[1], best[2])


def _pairing(images: Sequence[str], masks: Sequence[str], found: Mapping[int, int], affix: tuple[str, str]) -> Pairing:
    used = set(found.values())
    return Pairing(
        [images[row] for row in sorted(found)],
        [masks[found[row]] for row in sorted(found)],
        [path for row, path in enumerate(images) if row not in found],
        [path for row, path in enumerate(masks) if row not in used],
        affix,
    )


def _key(path: str, root: str, *, deep: bool) -> Key:
    folder, name = os.path.split(os.path.relpath(path, root))
    return (folder if deep else "", os.path.splitext(name)[0])


def _by_key(masks: Sequence[str], root: str, *, deep: bool) -> dict[Key, int]:
    """Return masks by name; of two that differ in their suffix alone, the one that is stored without loss."""
    rows: dict[Key, int] = {}
    for row, path in enumerate(masks):
        key = _key(path, root, deep=deep)
        if key not in rows or (_is_lossless(path) and not _is_lossless(masks[rows[key]])):
            rows[key] = row
    return rows


def _is_lossless(path: str) -> bool:
    return path.lower().endswith(_LOSSLESS)


def _known_ends(keys: Sequence[Key]) -> list[str]:
    """Return the default suffixes that all names of images have."""
    return [end for end in _IMAGE_ENDS if all(stem.endswith(end) and len(stem) > len(end) for _, stem in keys)]


def _common_end(keys: Sequence[Key]) -> str:
    """Return the common suffix of all names from a separator on; empty where it would leave nothing of a name."""
    stems = [stem for _, stem in keys]
    if len(stems) < 2:
        return ""
    ends = min(stem[::-1] for stem in stems), max(stem[::-1] for stem in stems)
    same = next((place for place, (a, b) in enumerate(zip(*ends, strict=False)) if a != b), min(map(len, ends)))
    end = ends[0][:same][::-1]
    starts = [place for place, sign in enumerate(end) if sign in "_-. "]
    end = end[starts[0] :] if starts else ""
    return end if all(len(stem) > len(end) for stem in stems) else ""


def _affixes(keys: Sequence[Key], masks: Mapping[Key, int]) -> Iterator[tuple[str, str]]:
    """Yield possible prefixes and suffixes of the masks' names around those of the images, the likeliest first."""
    known = set(keys)
    yield "", ""
    if all(key in masks for key in known):
        return
    found: Counter[tuple[str, str]] = Counter()
    for folder, stem in masks:
        for cut in range(1, len(stem)):
            if (folder, stem[:cut]) in known:
                found["", stem[cut:]] += 1
            if (folder, stem[cut:]) in known:
                found[stem[:cut], ""] += 1
    yield from sorted(found, key=lambda affix: (-found[affix], _rank(affix), len("".join(affix)), affix))[:20]


def _rank(affix: tuple[str, str]) -> int:
    text = "".join(affix).lower()
    if any(word in text for word in _NOT_CLASSES):
        return len(_PREFERRED) + 1
    return next((place for place, word in enumerate(_PREFERRED) if word in text), len(_PREFERRED))


def _matches(keys: Sequence[Key], masks: Mapping[Key, int], affix: tuple[str, str]) -> dict[int, int]:
    wanted = ((row, (folder, f"{affix[0]}{stem}{affix[1]}")) for row, (folder, stem) in enumerate(keys))
    return {row: masks[key] for row, key in wanted if key in masks}
