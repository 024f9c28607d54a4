"""Every fuzz target, briefly: its corpus, then inputs by the run's seed. Long runs: ``python -m tests.fuzz``."""

from __future__ import annotations

import tomllib

import pytest

from tests.fuzz import running
from tests.fuzz.registry import Target
from tests.fuzz.targets import TARGETS

# A second or a few of CPU time each; about 25 s in all.
EXECUTIONS = {
    "rpc": 1_200,
    "frame-decoder": 10_000,
    "host-link": 1_200,
    "gateway-link": 60,
    "journal": 1_000,
    "codec": 30_000,
    "retail-file": 2_000,
    "event-lines": 2_000,
    "settings": 2_000,
    "words": 30_000,
    "client-replies": 2_000,
    "client-errors": 10_000,
    "http": 5_000,
}
KEPT = [(name, path.stem) for name in TARGETS for path in sorted((running.CORPUS / name).glob("*.bin"))]


def test_every_target_has_its_share():
    assert set(EXECUTIONS) == set(TARGETS)


@pytest.mark.parametrize(("name", "story"), KEPT)
def test_what_once_broke_something_breaks_nothing(name, story):
    with running.quiet():
        failure = running.attempt(TARGETS[name], (running.CORPUS / name / f"{story}.bin").read_bytes())
    assert failure is None, failure.told


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks(name, seed):
    outcome = running.run(TARGETS[name], seed, executions=EXECUTIONS[name])
    if outcome.failure is not None:
        path = running.keep(outcome.failure, running.FOUND)
        pytest.fail(f"{outcome.failure.told}\nreplay with: python -m tests.fuzz {name} --replay {path}")
    assert outcome.executions == EXECUTIONS[name]


def test_every_kept_input_has_its_story():
    stories = tomllib.loads((running.CORPUS / "stories.toml").read_text(encoding="utf-8"))
    assert sorted((name, story) for name, told in stories.items() for story in told) == sorted(KEPT)


# --- the fuzzing itself -----------------------------------------------------------------------------------------------------


def test_a_broken_target_is_found_and_its_input_made_small(seed):
    def run(data: bytes) -> None:
        assert b"\x80" not in data, "the planted bug"

    target = Target("planted", "", run, lambda draw: draw.randbytes(200), lambda draw, data: data + draw.randbytes(20))
    outcome = running.run(target, seed, executions=200)
    assert outcome.failure is not None
    assert outcome.failure.data == b"\x80"
    assert "the planted bug" in outcome.failure.told


def test_one_seed_gives_one_run():
    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        target = Target("seen", "", seen.append, TARGETS["frame-decoder"].make, TARGETS["frame-decoder"].change)
        running.run(target, seed, executions=50)
        return seen

    assert inputs(7) == inputs(7) != inputs(8)


def test_an_endless_run_is_ended(monkeypatch):
    monkeypatch.setattr("tests.fuzz.guard.CPU_SECONDS_MAX", 0.05)

    def endless(_data: bytes) -> None:
        while True:
            pass

    failure = running.attempt(Target("endless", "", endless, lambda _: b"", lambda _, data: data), b"")
    assert failure is not None
    assert failure.error.startswith("Hang")
