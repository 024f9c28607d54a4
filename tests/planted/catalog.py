"""The planted bugs as data, and how one is put into a copy of the tree. Runs nothing."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CATALOG = Path(__file__).with_name("bugs.toml")
COPIED = (
    "actors",
    "bench",
    "deploy",
    "docs",
    "gateway",
    "protos",
    "tests",
    "pyproject.toml",
)  # docs and deploy: tests read them
NOT_COPIED = ("planted", "test_planted*", "test_tidy.py", "e2e", ".hypothesis")


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one file: ``old`` occurs there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    """One plausible mistake. ``tests``: files in which a test of that very thing is expected."""

    name: str
    story: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def load_bugs(catalog: Path = CATALOG) -> list[Bug]:
    """All bugs, in the order of the catalog."""
    with catalog.open("rb") as file:
        listed = tomllib.load(file)["bugs"]
    return [
        Bug(one["name"], one["story"], tuple(one["tests"]), tuple(Edit(**edit) for edit in one["edits"]))
        for one in listed
    ]


def edited(bug: Bug, root: Path) -> dict[str, str]:
    """The files that the bug changes, by path, as they become. Raises ``LookupError`` where the code has moved on."""
    texts: dict[str, str] = {}
    for edit in bug.edits:
        text = texts.get(edit.file) or (root / edit.file).read_text(encoding="utf-8")
        found = text.count(edit.old)
        if found != 1:
            raise LookupError(f"{bug.name!r}: its text occurs {found} times in {edit.file}:\n{edit.old}")
        texts[edit.file] = text.replace(edit.old, edit.new)
    return texts


def plant(bug: Bug | None, destination: Path, root: Path = ROOT) -> None:
    """Copy what the checks need to ``destination``, with the bug in it (None: without any)."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            # with compiled modules and times: what is not changed need not be compiled again
            shutil.copytree(source, destination / name, ignore=shutil.ignore_patterns(*NOT_COPIED))
        else:
            shutil.copy2(source, destination / name)
    for path, text in edited(bug, destination).items() if bug is not None else ():
        (destination / path).write_text(text, encoding="utf-8")
