"""Fixtures of the tests with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.serving import Serve

StartServe = Callable[..., Serve]


@pytest.fixture
def make_serve(tmp_path: Path) -> Iterator[StartServe]:
    """Makes (not starts) a ``Serve`` on a data directory of this test; all of them are ended with it."""
    made: list[Serve] = []

    def make(name: str = "data", environment: Mapping[str, str] | None = None) -> Serve:
        serve = Serve(tmp_path / name, environment)
        made.append(serve)
        return serve

    yield make
    for serve in made:
        serve.end()
