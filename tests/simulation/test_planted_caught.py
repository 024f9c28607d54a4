"""The general checkers catch planted bugs: five of them in every run, another one by the run's seed.

All of them, with how soon each is caught: ``python -m tests.planted``.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.planted.catalog import Bug, load_bugs, plant
from tests.planted.detectors import DETECTORS, run

BUGS = {bug.name: bug for bug in load_bugs()}
SEEDS = 60
ALWAYS = {
    "two lines of one key are not summed": "simulation",
    "reads pass the gate early": "simulation",
    "no fence": "simulation",
    "an item gets another one's answer": "gateway walk",
    "a late fact is not booked back": "simulation",
}
IN_TURN = {
    "picked units are sold again": "simulation",
    "replace leaves the old hold": "simulation",
    "imposed claims count as granted": "simulation",
    "shard time goes back": "simulation",
    "no grace after a takeover": "simulation",
    "an id that leaves memory is forgotten": "simulation",
    "the tombstone is lost": "simulation",
    "a release in part frees its units twice": "simulation",
    "a count takes the claims for stock": "simulation",
    "a shipment has no identity": "simulation",
    "a snapshot misses a field": "simulation",
    "the watermark passes a hole": "simulation",
    "a count is compared with now": "simulation",
    "what other systems tell is always after a count": "simulation",
    "a waiting count is lost at a restart": "simulation",
    "below the watermark an id is trusted": "simulation",
    "a parcel that overtook its pick leaves the pick behind": "simulation",
    "picks of all orders are one sum": "simulation",
    "what fell off a truck is on its way for ever": "simulation",
    "the sale gate is open for transfers": "simulation",
    "one fenced shard commits the others": "journal conformance",
    "commits are not synced": "power loss",
    "rows of ids have a transaction of their own": "power loss",
    "the gateway forgets what it had sent": "gateway walk",
    "copies of a request outlive it": "gateway walk",
}


def caught(bug: Bug, by: str, tree: Path) -> str:
    """What the general checker of that name says of the bug; empty when it finds nothing."""
    detector = next(one for one in DETECTORS if one.general and one.name == by)
    plant(bug, tree)
    return run(detector, bug, tree, SEEDS).evidence


@pytest.mark.parametrize("name", ALWAYS)
def test_a_planted_bug_is_caught(name: str, tmp_path: Path) -> None:
    assert caught(BUGS[name], ALWAYS[name], tmp_path)


def test_another_one_is_caught(run_seed: int, tmp_path: Path) -> None:
    name = random.Random(run_seed).choice(list(IN_TURN))
    assert caught(BUGS[name], IN_TURN[name], tmp_path), name
