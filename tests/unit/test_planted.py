"""The planted bugs stay plantable: their text is still in the code, once, and the code with the bug in it still compiles.

That they are caught is ``python -m tests.planted``'s to show, and in small ``tests/simulation/test_planted_caught.py``'s.
"""

from __future__ import annotations

import pytest

from tests.planted.catalog import ROOT, Bug, edited, load_bugs

BUGS = load_bugs()


def test_there_are_about_as_many_as_a_year_of_mistakes():
    assert len(BUGS) >= 22
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert all(len(bug.story) > 60 for bug in BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_bug_still_fits_the_code(bug: Bug):
    changed = edited(bug, ROOT)
    assert changed
    for path, text in changed.items():
        assert text != (ROOT / path).read_text(encoding="utf-8")
        compile(text, path, "exec")
    assert [path for path in bug.tests if not (ROOT / path).is_file()] == []
