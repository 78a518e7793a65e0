"""Every split of a data set decoded, in memory, on the disk, or for each batch again; masks with their images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from regraft import commit
from regraft.data.cache.cache import CacheMode, PixelCache, num_bytes_of
from regraft.data.cache.contents import note_data
from regraft.data.cache.disk import DiskCache, DiskRows
from regraft.data.cache.row_program import RowProgram
from regraft.data.check import require_usable
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram
from regraft.data.masks.masks import MaskProgram
from regraft.data.masks.pairs import paired
from regraft.errors import StorageError
from regraft.machine.budget import memory_budget, num_cpus
from regraft.machine.processes import ALONE, Team, local_rank, num_local_processes

__all__ = ["decode_all"]

Progress = Callable[[int, int], None]

_SMALL_BYTES = 100_000_000  # decoded in about a second: not worth a place on the disk
_ROOMY, _MOST = 0.1, 0.5  # of the disk: what is taken where memory would do as well, and what is taken at all


def decode_all(
    data: DataSet,
    program: PixelProgram,
    *,
    cache: CacheMode = "auto",
    budget_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    team: Team = ALONE,
) -> tuple[DataSet, dict[str, PixelCache]]:
    """Decode every split of a data set, and move its unreadable files to the quarantine.

    Row n of a cache is row n of the split with the same name in the data set that comes back; in segmentation its
    attribute `masks` holds the rows of the masks, an image without a usable mask is in the quarantine too, and the
    labels say which classes are in which image. The splits share the budget, the first ones first, and one count of
    progress.

    Args:
        data: The files.
        program: What to do with their pixels.
        cache: `off` decodes again for each batch; `ram` and `disk` keep the pixels there, as far as they fit; `auto`
            takes the disk where it has plenty of room, else memory. The pixels are the same in every case.
        budget_bytes: The most RAM to fill; None takes `memory_budget()`.
        threads: Decoding threads; None takes one for each processor.
        progress: Called with (files done, files in all).
        say: Called with a line that says where the pixels are.
        team: The processes that share the files: each reads a part of them, and all have the same result.

    Raises:
        DataError: If a split, or a class to train on, has no readable image left.
    """
    budget = 0 if cache == "off" else _memory(team) if budget_bytes is None else budget_bytes
    how = _How(cache, threads, say, team)
    total = sum(len(split) for split in data.splits.values())
    tell = _halved(progress, total) if data.segmentation else (progress, None)
    images = {name: split.paths for name, split in data.splits.items()}
    caches, budget, store = _decode_splits(images, program, "images", how, budget, tell[0])
    stores = [store]
    if data.class_table is not None:
        masks = {name: split.masks for name, split in data.splits.items()}
        of_masks = MaskProgram(program, data.class_table)
        mask_caches, _, store = _decode_splits(masks, of_masks, "masks", how, budget, tell[1])
        stores.append(store)
        checked = paired(data, caches, mask_caches, threads or num_cpus())
    else:
        checked = data.without(item for part in caches.values() for item in part.quarantined)
    for store in stores:
        if store is not None:
            note_data(store, data.root, total)
    require_usable(checked)
    return checked, caches


class _How(NamedTuple):
    """How every split is decoded."""

    cache: CacheMode
    threads: int | None
    say: Callable[[str], None]
    team: Team


def _memory(team: Team) -> int:
    """Return the bytes that each process may take: the same for all of them."""
    return memory_budget() if team.num_processes == 1 else min(team.gather(memory_budget()))


def _decode_splits(
    splits: Mapping[str, Sequence[str]],
    program: RowProgram,
    what: str,
    how: _How,
    budget: int,
    progress: Progress | None,
) -> tuple[dict[str, PixelCache], int, Path | None]:
    """Return a cache for each split, what is left of the budget, and the folder on the disk, where there is one."""
    total = sum(map(len, splits.values()))
    disk = _agreed_rows(splits, program, how, budget) if how.cache in ("auto", "disk") else {}
    done = 0
    caches: dict[str, PixelCache] = {}
    for name, paths in splits.items():
        caches[name] = PixelCache(
            paths,
            program,
            budget_bytes=budget,
            disk=disk.get(name),
            threads=how.threads,
            split=name,
            progress=_shifted(progress, done, total),
            team=how.team,
        )
        done += len(paths)
        budget -= caches[name].num_bytes if caches[name].images is not None else 0
    first = next(iter(disk.values()), None)
    if first is not None and how.team.num_processes > 1:
        here, decoded = how.team.rank - local_rank(), how.team.gather(first.disk.num_decoded)
        first.disk.num_decoded = sum(decoded[here : here + num_local_processes()])
    how.say(_account(caches, disk, what))
    return caches, budget, None if first is None else first.disk.store.folder


def _agreed_rows(
    splits: Mapping[str, Sequence[str]], program: RowProgram, how: _How, budget: int
) -> dict[str, DiskRows]:
    """Return the disk cache of each split, where every process has one; the first process of a machine makes room."""
    disk: dict[str, DiskRows] = {}
    for is_turn in (local_rank() == 0, local_rank() != 0):
        if is_turn:
            disk = _disk_rows(splits, program, how.cache, budget, how.say)
        how.team.gather(None)
    return disk if all(how.team.gather(bool(disk))) else {}


def _disk_rows(
    splits: Mapping[str, Sequence[str]], program: RowProgram, cache: CacheMode, budget: int, say: Callable[[str], None]
) -> dict[str, DiskRows]:
    """Return the disk cache of each split; empty where memory is to be used instead."""
    num_bytes = num_bytes_of(program, sum(map(len, splits.values())))
    if cache == "auto" and num_bytes <= min(budget, _SMALL_BYTES):
        return {}
    share = _ROOMY if cache == "auto" and num_bytes <= budget else _MOST
    try:
        rows, disk = _opened(splits, program)
        missing = sum(len(found.missing) for found in rows.values())
        if not disk.make_room(missing, share=share) and _is_others(rows, disk):
            commit.remove(disk.store.folder)
            rows, disk = _opened(splits, program)
            missing = sum(len(found.missing) for found in rows.values())
        disk.keeps = disk.make_room(missing, share=share)
    except StorageError as error:
        say(f"cache: the disk is not used: {error.what}")
        return {}
    if not disk.keeps and num_bytes > budget:
        say(f"cache: {_size(missing * disk.store.row_bytes)} more would be too much for the disk of {disk.root}")
    return rows if disk.keeps or num_bytes > budget else {}


def _opened(splits: Mapping[str, Sequence[str]], program: RowProgram) -> tuple[dict[str, DiskRows], DiskCache]:
    disk = DiskCache(program)
    return {name: DiskRows(disk, paths) for name, paths in splits.items()}, disk


def _is_others(rows: dict[str, DiskRows], disk: DiskCache) -> bool:
    """Return whether most of what fills a store are images of other data sets."""
    kept = sum(found.num_kept for found in rows.values()) * disk.store.row_bytes
    return disk.store.num_bytes > 2 * kept


def _account(caches: dict[str, PixelCache], disk: dict[str, DiskRows], noun: str) -> str:
    num_bytes = sum(num_bytes_of(cache.program, len(cache)) for cache in caches.values())
    streamed = sum(len(cache) for cache in caches.values() if cache.streams)
    what = f"cache: {sum(map(len, caches.values())):,} {noun}, {_size(num_bytes)}"
    first = next(iter(disk.values()), None)
    if first is None:
        return f"{what}, " + ("decoded again for each batch" if streamed else "in memory")
    kept = sum(cache.kept.num_kept for cache in caches.values() if cache.kept is not None)
    text = f"{what}, {kept:,} of them on the disk in {first.disk.store.folder} ({first.disk.num_decoded:,} decoded now)"
    return (
        text
        + ("; the others are decoded again for each batch" if streamed else "")
        + (f"; {first.disk.failure}" if first.disk.failure else "")
    )


def _size(num_bytes: int) -> str:
    return (
        f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.{0 if num_bytes >= 1e7 else 2}f} MB"
    )


def _halved(progress: Progress | None, total: int) -> tuple[Progress | None, Progress | None]:
    """Return one count of progress for images and then their masks."""
    if progress is None:
        return None, None
    return (lambda done, _: progress(done // 2, total)), (lambda done, _: progress((total + done) // 2, total))


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    return None if progress is None else lambda now, _: progress(done + now, total)
