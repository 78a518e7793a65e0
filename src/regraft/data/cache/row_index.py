"""Where each content's row lies, in memory: a sorted array of what came early, and beside it what came late."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from regraft.data.cache.append_log import Records

__all__ = ["FIELDS", "READABLE", "UNKNOWN", "Checksums", "Digests", "RowIndex", "Slots", "as_void"]

Digests = npt.NDArray[np.uint8]  # (N, 32)
Checksums = npt.NDArray[np.uint8]  # (N, 16)
Slots = npt.NDArray[np.int64]

FIELDS = [("digest", "V32"), ("slot", "<i8"), ("check", "V16")]  # of a ledger's record
READABLE, UNKNOWN = -1, -2  # slots of contents that were decoded but not kept, and of all others
_MOST_RECENT = 4096


class RowIndex:
    """The slot and the checksum of each content hash; threads may ask while another takes in new records.

    Args:
        record: The type of a ledger's records of FIELDS.
    """

    def __init__(self, record: np.dtype[np.void]) -> None:
        self.num_slots = 0
        self._sorted: Records = np.zeros(0, record)
        self._keys: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._recent: dict[bytes, tuple[int, bytes]] = {}
        self._swap = threading.Lock()

    def find(self, digests: Digests) -> tuple[Slots, Checksums]:
        """Look up content hashes; a slot is UNKNOWN, and its checksum zeros, where there is no record."""
        if len(digests) > _MOST_RECENT:
            self._merge()
        slots = np.full(len(digests), UNKNOWN, dtype=np.int64)
        checks = np.zeros((len(digests), 16), dtype=np.uint8)
        with self._swap:  # decoding threads ask while this process takes in new rows
            base, keys, recent = self._sorted, self._keys, self._recent
        if len(base) and len(digests):
            place = np.searchsorted(keys, _keys(digests), side="right") - 1
            there = base[np.maximum(place, 0)]
            same = (_as_bytes(there["digest"]) == digests).all(1)
            slots[same] = there["slot"][same]
            checks[same] = _as_bytes(there["check"])[same]
        for row in range(len(digests)) if recent else ():
            hit = recent.get(digests[row].tobytes())
            if hit is not None:
                slots[row], checks[row] = hit[0], np.frombuffer(hit[1], dtype=np.uint8)
        return slots, checks

    def take_in(self, records: Records) -> None:
        """Add a ledger's records; of equal hashes the last one counts."""
        if not len(records):
            return
        self.num_slots = max(self.num_slots, int(records["slot"].max()) + 1)
        if len(records) > _MOST_RECENT:
            self._merge(records)
            return
        for digest, slot, check in zip(records["digest"], records["slot"], records["check"], strict=True):
            self._recent[digest.tobytes()] = (int(slot), check.tobytes())
        if len(self._recent) > max(_MOST_RECENT, len(self._sorted) // 4):
            self._merge()

    def _merge(self, records: Records | None = None) -> None:
        """Sort what came in late, and these records, in with the rest."""
        recent = dict(self._recent)
        late: Records = np.zeros(len(recent), self._sorted.dtype)
        late["digest"] = np.frombuffer(b"".join(recent), dtype="V32")
        late["slot"] = [slot for slot, _ in recent.values()]
        late["check"] = np.frombuffer(b"".join(check for _, check in recent.values()), dtype="V16")
        merged = np.concatenate([self._sorted, late, *([] if records is None else [records])])
        merged = merged[np.argsort(_keys(_as_bytes(merged["digest"])), kind="stable")]
        with self._swap:
            self._sorted, self._keys, self._recent = merged, _keys(_as_bytes(merged["digest"])), {}


def as_void(rows: npt.NDArray[np.uint8]) -> Records:
    """Return each row of bytes as one value, as a record holds it."""
    return np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0]


def _as_bytes(values: Records) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)


def _keys(digests: Digests) -> npt.NDArray[np.uint64]:
    return digests[:, :8].copy().view(np.uint64)[:, 0]
