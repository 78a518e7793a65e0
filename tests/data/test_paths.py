"""Paths in arrays behave as the list of strings that they stand for."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.dataset import Split
from regraft.data.paths import FileFacts, Paths

PATHS = st.lists(st.text(st.characters(exclude_characters="\0")) | st.sampled_from([f"a{os.sep}b", f"{os.sep}x", ""]))


@given(PATHS, st.data())
def test_a_sequence_of_the_same_strings(paths: list[str], data: st.DataObject) -> None:
    made = Paths.of(iter(paths))
    assert list(made) == paths
    assert made == paths
    assert paths == made
    assert made == tuple(paths)
    assert len(made) == len(paths)
    assert pickle.loads(pickle.dumps(made)) == paths
    cut = data.draw(st.slices(len(paths)))
    assert list(made[cut]) == paths[cut]
    rows = data.draw(st.lists(st.integers(0, len(paths) - 1))) if paths else []
    assert list(made.take(np.array(rows, dtype=np.int64))) == [paths[row] for row in rows]
    assert [made[row] for row in rows] == [paths[row] for row in rows]
    if paths:
        assert made[-1] == paths[-1]
        assert paths[0] in made
        assert made != [*paths[:-1], paths[-1] + "!"]
    with pytest.raises(IndexError, match="out of bounds"):
        made[len(paths)]


@given(st.lists(PATHS))
def test_joined_paths_follow_one_another(many: list[list[str]]) -> None:
    assert list(Paths.joined(Paths.of(paths) for paths in many)) == [path for paths in many for path in paths]


def test_paths_are_no_text_and_no_set() -> None:
    assert Paths.of(["a"]) != "a"
    assert Paths.of(["a"]) != {"a"}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Paths.of(["a"]))


def test_sizes_and_times_stay_with_their_rows() -> None:
    facts = np.array([(1, 10), (2, 20), (3, 30)], dtype=FileFacts)
    paths = Paths.of(["a", "b", "c"], facts)
    assert paths.take(np.array([2, 0])).sizes.tolist() == [3, 1]
    assert paths[1:].mtimes.tolist() == [20, 30]
    assert Paths.joined([paths, paths]).sizes.tolist() == [1, 2, 3, 1, 2, 3]
    assert Paths.joined([paths, Paths.of(["d"])]).sizes is None
    assert Paths.of(["a"]).sizes is None


def test_a_million_paths_take_a_few_bytes_each() -> None:
    paths = Paths.of(f"/photos/class_{row % 7}/image_{row}.jpg" for row in range(100_000))
    assert paths.num_bytes < 40 * len(paths)
    assert Split(paths, np.zeros(len(paths), dtype=np.int64)).paths is paths
