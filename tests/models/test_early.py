"""What a command does while torch is imported: the stored preprocessing, threads in turn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from regraft.models.store.folder import load_model
from regraft.models.store.import_overlap import short_turns, stored_preprocessing


def test_the_preprocessing_is_that_of_the_model(tiny_run: Path) -> None:
    found = stored_preprocessing(tiny_run)
    assert found is not None
    assert found == load_model(tiny_run).regraft_info.preprocessing
    assert stored_preprocessing(tiny_run / "model") == found


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"regraft": 1}', '{"regraft": {"preprocessing": {"mean": 3}}}'])
def test_what_cannot_be_read_is_left_to_loading(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert stored_preprocessing(tmp_path) is None
    assert stored_preprocessing(tmp_path / "none") is None


def test_turns_are_short_for_a_while() -> None:
    before = sys.getswitchinterval()
    with short_turns():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
