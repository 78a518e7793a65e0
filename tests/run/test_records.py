"""metrics.jsonl: lines in, lines out, whatever a kill left at its end."""

from __future__ import annotations

from pathlib import Path

from regraft.run.records import append_metrics, cut_metrics, finite, read_metrics


def test_records_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    records = [{"stage": "Köpfe\u2028two", "epoch": 1, "val_loss": 0.5}, {"stage": "b", "lr": {"head": 1e-3}}]
    sizes = [append_metrics(path, record) for record in records]
    assert read_metrics(path) == records
    assert sizes[-1] == path.stat().st_size


def test_what_json_cannot_hold_is_none(tmp_path: Path) -> None:
    append_metrics(tmp_path / "m", {"loss": float("nan"), "rates": [float("inf"), 1.0]})
    assert read_metrics(tmp_path / "m") == [{"loss": None, "rates": [None, 1.0]}]
    assert finite((float("-inf"),)) == [None]


def test_a_line_that_a_kill_cut_is_left_out_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = append_metrics(path, {"stage": "Köpfe", "epoch": 1})
    last = append_metrics(path, {"stage": "Köpfe", "epoch": 2})
    whole = path.read_bytes()
    for size in range(first, last - 1):
        path.write_bytes(whole[:size])
        assert [record["epoch"] for record in read_metrics(path)] == [1]


def test_cut_takes_back_what_came_after_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    size = append_metrics(path, {"epoch": 1})
    append_metrics(path, {"epoch": 2})
    cut_metrics(path, size)
    assert read_metrics(path) == [{"epoch": 1}]
    cut_metrics(path, 10_000)
    assert path.stat().st_size == size
    cut_metrics(tmp_path / "missing", 0)
    assert read_metrics(tmp_path / "missing") == []
