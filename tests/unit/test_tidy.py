"""The house rules that ruff, mypy and import-linter do not know. Every exception stands here with its reason."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THIS = "tests/unit/test_tidy.py"

FILE_LINES_MAX = 450
LONGER_FILES = {
    # path: why it is not two files
    "actors/domain/apply.py": "one applier per event kind; the table that makes them total stays beside them",
    "actors/journal/sqlite.py": "one adapter, one transaction shape; opening, schema and backup are files of their own",
    "actors/shard/host.py": "one turn read from top to bottom: gather, apply, commit, let out",
    "gateway/cli/client_commands.py": "a command each, mostly their options",
    "gateway/core.py": "the sans-IO core: routing, batching, merging and retry share one state",
    "protos/stockade/client/calls.py": "one builder and one reader a method, shared by both clients",
    "tests/integration/test_gateway_edge.py": "one table of what callers may send at the edge",
    "tests/unit/test_journal_sqlite.py": "every fault of one adapter",
}

VAGUE_MODULES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc"}

# A test waits for a condition, in a loop with a bound; it never sleeps and hopes.
SLEEPS_OUTSIDE_LOOPS = {
    # path: why
    "tests/integration/gateway_world.py": "a host that is slow on purpose: the delay is what the test is about",
}

# Clock and chance come in through the door: these modules are it, or are processes whose business is waiting.
CLOCKLESS = ("actors/domain/", "actors/shard/")
CLOCK_MODULES = {"time", "random", "secrets", "uuid"}
CLOCK_DOORS = {
    # path: why
    "actors/shard/host.py": "the async shell: gives the engine its time, measures commits",
    "actors/shard/clock.py": "shard time itself",
    "actors/shard/host_links.py": "closes links that stay silent",
    "actors/shard/snapshot.py": "bounds a slice by the time it takes",
}

UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b")

# The project stands alone: nothing in it names a place that only one machine or one company has.
PLACES = {
    "a home directory": re.compile(r"(?<![\w.])/(?:home|Users)/\w+"),
    "root's home": re.compile(r"(?<![\w.])/root/"),
    "an installation of one machine": re.compile(r"(?<![\w.])/(?:opt|mnt|srv|media|workspaces?)/\w+"),
    "a package index": re.compile(r"(?:pypi|pythonhosted|artifactory|jfrog|devpi|nexus)[\w-]*(?:\.[\w-]+)*\.\w{2,}/"),
    "an option that names an index": re.compile(
        r"^\s*--(?:extra-)?(?:index-url|find-links|trusted-host)", re.MULTILINE
    ),
}
PLACES_MAY_STAND_IN = {THIS: "the patterns themselves"}


def tracked_files() -> list[str]:
    """Paths of what git tracks, relative to the root; generated code left out."""
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = listed.stdout.splitlines()
    else:  # an unpacked archive
        folders = ("actors", "gateway", "protos", "tests", "bench", "docs", ".ci")
        found = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*.*"))
        paths = sorted(str(path.relative_to(ROOT)) for path in found)
    return [path for path in paths if (ROOT / path).is_file() and "_pb2" not in path and "__pycache__" not in path]


FILES = tracked_files()
MODULES = [path for path in FILES if path.endswith(".py")]


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def tree_of(path: str) -> ast.Module:
    return ast.parse(text_of(path), path)


def test_there_is_something_to_look_at():
    assert {"actors", "gateway", "protos", "tests"} <= {path.partition("/")[0] for path in MODULES}


def test_no_module_has_a_name_that_says_nothing():
    assert [path for path in MODULES if VAGUE_MODULES & set(Path(path).with_suffix("").parts)] == []


def test_every_module_says_what_it_owns():
    assert [path for path in MODULES if text_of(path).strip() and not ast.get_docstring(tree_of(path))] == []


def test_every_package_is_a_package():
    """A folder without ``__init__.py`` would be installed by accident or not at all."""
    folders = {
        str(Path(path).parent) for path in MODULES if path.startswith(("actors/", "gateway/", "protos/stockade/"))
    }

    assert [folder for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


def test_no_two_test_files_have_one_name():
    """The folders of tests are no packages: pytest cannot collect two files of one name in one run."""
    names = sorted(Path(path).name for path in MODULES if Path(path).name.startswith("test_"))

    assert [name for name, after in pairwise(names) if name == after] == []


@pytest.mark.parametrize("package", ["actors", "gateway", "protos/stockade"])
def test_every_distribution_tells_type_checkers_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()


def test_files_are_short_or_say_why_not():
    lengths = {path: len(text_of(path).splitlines()) for path in MODULES}

    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX and path not in LONGER_FILES} == {}


def test_no_exception_outlives_its_file():
    for listed in (LONGER_FILES, SLEEPS_OUTSIDE_LOOPS, CLOCK_DOORS, PLACES_MAY_STAND_IN):
        assert [path for path in listed if not (ROOT / path).is_file()] == []


def test_nothing_is_left_unfinished():
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in FILES
        if path != THIS and path.endswith((".py", ".proto", ".md", ".toml", ".yaml", "Makefile"))
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if UNFINISHED.search(line)
    ]

    assert found == []


def test_tests_wait_for_conditions_and_never_sleep_and_hope():
    found = [
        f"{path}:{number}"
        for path in MODULES
        if path.startswith("tests/") and path not in SLEEPS_OUTSIDE_LOOPS
        for number in sleeps_outside_loops(tree_of(path))
    ]

    assert found == []


def sleeps_outside_loops(tree: ast.AST) -> Iterator[int]:
    """Line numbers of sleeps that no ``while`` or ``for`` surrounds; ``sleep(0)`` only lets others run."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.While | ast.For | ast.AsyncFor):
            continue
        if isinstance(child, ast.Call) and called_name(child) == "sleep" and not is_zero(child):
            yield child.lineno
        yield from sleeps_outside_loops(child)


def called_name(call: ast.Call) -> str:
    target = call.func
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def is_zero(call: ast.Call) -> bool:
    return len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0


def test_tests_use_the_real_thing_instead_of_mocks():
    assert [path for path in MODULES if "mock" in {name.rpartition(".")[2] for name in imported(tree_of(path))}] == []


def test_time_and_chance_come_in_through_the_door():
    found = {
        path: sorted(CLOCK_MODULES & set(imported(tree_of(path))))
        for path in MODULES
        if path.startswith(CLOCKLESS) and path not in CLOCK_DOORS
    }

    assert {path: names for path, names in found.items() if names} == {}


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of the modules that are imported anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_names_a_place_that_only_one_machine_has():
    here = re.compile(rf"(?<![\w./]){re.escape(str(ROOT))}(?![\w.-])")
    found = [
        f"{path}: {what}: {match[0]}"
        for path in FILES
        if path not in PLACES_MAY_STAND_IN
        for what, pattern in {**PLACES, "this very checkout": here}.items()
        for match in pattern.finditer(text_of(path))
    ]

    assert found == []


PINS = ["constraints.txt", "bench/peers-constraints.txt", "deploy/constraints.txt"]


@pytest.mark.parametrize("pins", PINS)
def test_every_pinned_dependency_has_a_hash(pins):
    requirements = re.sub(r"\\\n", " ", text_of(pins)).splitlines()
    pinned = [line for line in requirements if line.strip() and not line.startswith("#")]

    assert pinned
    assert [line.split()[0] for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("pins", PINS[1:])
def test_what_several_files_pin_they_pin_alike(pins):
    """Or installing the peers, or an image, would be another service than the one that was tested."""
    everybody, others = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", text_of(path), re.MULTILINE)) for path in (PINS[0], pins)
    )

    assert {name: version for name, version in others.items() if everybody.get(name, version) != version} == {}
