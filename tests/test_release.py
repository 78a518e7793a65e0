"""Version, citation and workflow of a release agree with each other."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

import regraft

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == regraft.__version__ == citation["version"]
    assert citation["license"] == project["license"]


def test_the_workflow_runs_what_can_be_run_here() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step]
    assert steps == ["bash scripts/release.sh"]
    assert (ROOT / "scripts" / "release.sh").is_file()
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_issue_templates_ask_for_what_is_needed() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert any(part.get("validations", {}).get("required") for part in form["body"]), path
