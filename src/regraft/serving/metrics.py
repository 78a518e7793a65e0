"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections import Counter

import psutil

from regraft.exports.seal import Seal

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts since the server began."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._slower: Counter[float] = Counter()
        self._seconds = 0.0
        self._num_batches = self._num_images = 0

    def on_batch(self, num: int) -> None:
        """Count a batch."""
        self._num_batches += 1
        self._num_images += num

    def on_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is one of the server's own."""
        self._requests[path, status] += 1
        self._seconds += seconds
        self._slower.update(limit for limit in _SECONDS if seconds <= limit)

    def text(self, seal: Seal, num_waiting: int) -> str:
        """Return all counts in Prometheus's text format."""
        total = sum(self._requests.values())
        lines = [
            "# HELP regraft_model_info The model that answers.",
            "# TYPE regraft_model_info gauge",
            f'regraft_model_info{{sha256="{seal.model_sha256}"}} 1',
            "# HELP regraft_requests_total Requests answered.",
            "# TYPE regraft_requests_total counter",
            *(
                f'regraft_requests_total{{path="{path}",status="{status}"}} {num}'
                for (path, status), num in sorted(self._requests.items())
            ),
            "# HELP regraft_request_seconds Time from the headers of a request to its answer.",
            "# TYPE regraft_request_seconds histogram",
            *(f'regraft_request_seconds_bucket{{le="{limit:g}"}} {self._slower[limit]}' for limit in _SECONDS),
            f'regraft_request_seconds_bucket{{le="+Inf"}} {total}',
            f"regraft_request_seconds_sum {self._seconds:.6f}",
            f"regraft_request_seconds_count {total}",
        ]
        numbers = {
            "regraft_images_total": ("counter", "Images computed.", self._num_images),
            "regraft_batches_total": ("counter", "Batches computed.", self._num_batches),
            "regraft_waiting_images": ("gauge", "Images that are decoded, wait or are computed.", num_waiting),
            "process_resident_memory_bytes": ("gauge", "Resident memory.", psutil.Process().memory_info().rss),
        }
        for name, (kind, told, value) in numbers.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}", f"{name} {value}"]
        return "\n".join(lines) + "\n"
