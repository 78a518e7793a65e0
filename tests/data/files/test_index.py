"""The index of an archive finds what it holds, in whatever order it is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regraft.data.files.members import Members

NAMES = st.text(alphabet="ab0é.", min_size=1, max_size=4).filter(lambda name: name.strip("."))
PATHS = st.lists(st.tuples(st.sampled_from(["", "x/", "y/", "x/z/"]), NAMES).map("".join), min_size=1, unique=True)


@given(PATHS, st.data())
def test_every_member_and_no_other_is_found(paths: list[str], data: st.DataObject) -> None:
    members = Members("zip")
    for number, path in enumerate(paths):
        members.add_file(path, number, 1)
    index = members.index()
    asked = data.draw(st.lists(st.one_of(st.sampled_from(paths), PATHS.map(lambda found: found[0])), max_size=40))
    for path in [*asked, *paths, *sorted(paths), *reversed(paths)]:
        row = index.row(path)
        assert (row is not None) == (path in paths)
        if row is not None:
            assert int(index.table["offset"][row]) == paths.index(path)
