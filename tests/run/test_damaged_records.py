"""Every record of a run folder may be damaged, or a stranger's: each command ends with a typed error, or does its work.

Longer: `REGRAFT_FUZZ=2000 uv run pytest -n 0 tests/run/test_damaged_records.py -k mutated -m ""`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Cli

NUM_CASES = int(os.environ.get("REGRAFT_FUZZ", "36"))
CASES = [pytest.param(case, marks=[pytest.mark.slow] if case >= 18 else []) for case in range(NUM_CASES)]
RECORDS = [
    *("status.json", "splits.json", "recipe.yaml", "audit.json", "match.json", "changes.json", "metrics.jsonl"),
    *("classes.json", "best.json", "last.json", "environment.json", "command.txt", "model/config.json"),
    *("model/manifest.json", "model/probes.safetensors", "model/model.safetensors", "predictions/test.json"),
    *("predictions/test.jsonl", "STATE", "MANIFEST", "log.txt", "metrics.csv"),
]
COMMANDS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "inspect": lambda run, photos: ("inspect", run),
    "report": lambda run, photos: ("report", run),
    "predict": lambda run, photos: ("predict", run, photos / "red" / "000.png"),
    "evaluate": lambda run, photos: ("evaluate", run),
    "resume": lambda run, photos: ("resume", run),
    "convert": lambda run, photos: ("convert", run, "--model", "test_efficientnet", "-o", run.parent / "o.safetensors"),
    "match": lambda run, photos: ("match", run, "--model", "test_efficientnet", "--num-classes", "3"),
    "runs": lambda run, photos: ("inspect", run.parent),
}
READ_BY = {  # what the others do not open
    "resume": {"status.json", "splits.json", "recipe.yaml", "changes.json", "metrics.jsonl", "STATE", "MANIFEST"},
    "evaluate": {"splits.json", "recipe.yaml", "model/config.json", "model/manifest.json", "model/model.safetensors"},
    "predict": {"model/config.json", "model/manifest.json", "model/model.safetensors"},
    "report": set(RECORDS),
    "inspect": {"status.json", "recipe.yaml", "best.json", "classes.json", "metrics.jsonl", "predictions/test.json"},
    "runs": {"status.json", "recipe.yaml", "best.json"},
}
WHOLE = [
    *(b"", b"null", b"[]", b"{}", b"3", b'"text"', b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 6_000),
    *(b"true", b"- " * 20_000, b"a: &a [*a, *a]", b'{"a": NaN}', b"? {}: 1", b"2024-01-31: {1: 2}"),
]
VALUES: list[Any] = [
    *(None, True, [], {}, [[]], "", "x", "../../../etc/passwd", "/etc/passwd", "http://127.0.0.1/x", "\x1b[31m\u202e"),
    *(-1, 0, 10**30, 2**63, 1.5, -1e308, float("nan"), float("inf"), ["a", 1], {"a": {"b": 1}}, "9" * 5000, "\ud800"),
]


def stopped(run: Path, copy: Path) -> Path:
    """A copy of a run that goes on when it is resumed."""
    shutil.copytree(run, copy)
    (copy / "status.json").write_text('{"state": "stopped", "seconds": 1.0}')
    (copy / "changes.json").write_text(
        '{"changes": [{"why": "environment", "step": 1, "time": "2026-01-01 00:00:00", "recipe_sha256": null, '
        '"changes": {"torch": {"before": "1", "after": "2"}}}]}'
    )
    (copy / "match.json").write_text(
        '{"file": "w.h5", "counts": {"matched": 1}, "coverage": {"all": 0.5}, "matched": []}'
    )
    return copy


def place_of(record: str, run: Path) -> Path:
    newest = max((run / "checkpoints").glob("step-*"))
    return {"STATE": newest / "state.json", "MANIFEST": newest / "manifest.json"}.get(record, run / record)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


def changed(value: Any, choose: random.Random) -> Any:
    """The value with one or two of its nodes replaced or removed."""
    for _ in range(choose.choice((1, 1, 2))):
        path = choose.choice(list(nodes(value)))
        if not path:
            value = choose.choice(VALUES)
            continue
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        if choose.random() < 0.2:
            inner.pop(path[-1])
        else:
            inner[path[-1]] = choose.choice(VALUES)
    return value


def damaged(path: Path, choose: random.Random) -> None:
    """Replace a record by another text, or one value in it by another."""
    data = path.read_bytes()
    if choose.random() < 0.25 or path.suffix in (".safetensors", ".txt", ".csv"):
        cut = data[: choose.randrange(len(data) + 1)]
        path.write_bytes(choose.choice([*WHOLE, cut]))
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(changed(yaml.safe_load(data), choose)), errors="surrogatepass")
    elif path.suffix == ".jsonl":
        lines = data.decode().splitlines() or ["{}"]
        row = choose.randrange(len(lines))
        lines[row] = json.dumps(changed(json.loads(lines[row]), choose))
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps(changed(json.loads(data), choose)))


def assert_typed(result: Any, told: object) -> None:
    assert result.code in (0, 2, 3, 4, 7), (told, result)
    assert "something inside regraft" not in result.err, (told, result.err)
    assert "\x1b" not in result.out + result.err, (told, result)


@pytest.mark.parametrize("case", CASES)
def test_mutated_records(case: int, tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli) -> None:
    choose = random.Random(case)
    command = list(READ_BY)[case % len(READ_BY)]
    record = choose.choice(sorted(READ_BY[command]))
    run = stopped(tiny_run, tmp_path / "runs" / "run")
    damaged(place_of(record, run), choose)
    assert_typed(cli(*COMMANDS[command](run, tiny_photos)), (case, command, record))


@pytest.mark.parametrize("record", ["status.json", "splits.json", "recipe.yaml", "model/config.json", "metrics.jsonl"])
def test_records_nested_deep(record: str, tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli) -> None:
    run = stopped(tiny_run, tmp_path / "runs" / "run")
    place_of(record, run).write_bytes(b"[" * 100_000)
    for command in COMMANDS:
        if record not in READ_BY.get(command, {record}):
            continue
        assert_typed(cli(*COMMANDS[command](run, tiny_photos)), (command, record))


def test_a_record_of_another_shape_is_named(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    run = stopped(tiny_run, tmp_path / "run")
    (run / "splits.json").write_text('{"splits": 3}')
    result = cli("resume", run)
    assert (result.code, "splits is a whole number, expected a mapping" in result.err) == (7, True)


def contents(place: Path) -> dict[Path, bytes | None]:
    """Every file below a place, with its bytes, and every folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in [place, *place.rglob("*")]}


@pytest.mark.parametrize(
    "name",
    ["log.txt", "metrics.jsonl", "status.json", ".lock", "splits.json", "predictions", "predictions/nearest"],
)
@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_links_lead_nowhere(
    name: str, command: str, tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli
) -> None:
    run, outside = stopped(tiny_run, tmp_path / "run"), tmp_path / "outside"
    record = run / name
    if record.is_dir():
        shutil.move(record, outside)
    else:
        outside.write_bytes(record.read_bytes() if record.exists() else b"mine\n")
        record.unlink(missing_ok=True)
    record.symlink_to(outside)
    before = contents(outside)
    result = cli(*COMMANDS[command](run, tiny_photos))
    assert (result.code, "is a link to" in result.err) == (7, True)
    assert contents(outside) == before


def test_a_second_name_of_a_record_keeps_its_bytes(tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli) -> None:
    """A backup by hard links, or a planted one: the run goes on with copies."""
    run = stopped(tiny_run, tmp_path / "run")
    (run / ".lock").write_text("mine")
    names = ["log.txt", "metrics.jsonl", ".lock", "status.json"]
    for name in names:
        os.link(run / name, tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    (place_of("STATE", run).parent / "keep").touch()
    result = cli("resume", run)
    assert result.code == 0, result.err
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert len((run / "log.txt").read_bytes()) > len(before["log.txt"])


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "a/../../b", "..\\x", "C:x"])
def test_a_manifest_names_files_of_its_folder(name: str, tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    run = stopped(tiny_run, tmp_path / "run")
    for manifest in [*(run / "checkpoints").rglob("manifest.json"), run / "model" / "manifest.json"]:
        values = json.loads(manifest.read_text())
        values["files"][name] = {"bytes": 1, "sha256": "0" * 64}
        manifest.write_text(json.dumps(values))
    assert cli("resume", run).code == 7
    assert "is outside" in cli("evaluate", run).err
