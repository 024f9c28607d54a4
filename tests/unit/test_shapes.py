"""A host is given no body that its rules would stumble over: found by fuzzing, which ended hosts with them."""

from __future__ import annotations

from typing import Any

import pytest

from actors.domain.commands import COMMANDS, Verb
from actors.shard.shapes import fits
from tests.fuzz.target_frames import GOOD_BODIES, KEY

# details of an unknown fact; what an errand and its answer hold is its handlers' business
ANYTHING_AT = {(Verb.INGEST, 8), (Verb.TAKE_ERRAND, 4), (Verb.ERRAND_ANSWERED, 2)}
PROMISE = ["", "web", "o1", ""]
GOOD_DETAILS: dict[int, list[Any]] = {
    1: [5, 1, "", ""],
    2: [1, PROMISE],
    3: [1, []],
    4: [1, "s1", PROMISE, False, 1],
    5: [-3, 1, "", ""],
    6: [0, 1, 0, True, False],
    7: [1, 1, 3],
    8: [1, "t1", "", "om", 1],
    9: [1, "t1", "", "far", True, 1],
    10: [1, 2, [], ""],
    99: ["what", None],
}


def item(verb, body, cause=()):
    return [int(verb), 0, 0, 1, list(cause), body]


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_what_gateways_send_fits_and_so_does_it_from_an_older_one(verb):
    body = GOOD_BODIES[verb]
    least = len(COMMANDS[verb]._fields) - len(COMMANDS[verb]._field_defaults)
    assert fits(item(verb, body, ["me", "", ""]))
    assert fits(item(verb, body[:least]))
    assert not fits(item(verb, body[: least - 1])) or least == 0
    assert not fits(item(verb, [*body, 1]))


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_no_field_may_be_of_another_type(verb):
    body = GOOD_BODIES[verb]
    for at in range(len(body)):
        for other in (None, 1.5, {}, [[[]]], 2**64 - 1, -(2**63)):
            fit = fits(item(verb, [*body[:at], other, *body[at + 1 :]]))
            assert not fit or (verb, at) in ANYTHING_AT, (at, other)


@pytest.mark.parametrize("fact", GOOD_DETAILS)
def test_details_fit_their_fact(fact):
    def event(details):
        body = GOOD_BODIES[Verb.INGEST]
        return item(Verb.INGEST, [*body[:7], fact, details, *body[9:]])

    good = GOOD_DETAILS[fact]
    assert fits(event(good))
    if fact == 99:
        return  # rejected on record, whatever it says
    assert not fits(event(good[:-1]))
    for at in range(len(good)):
        assert not fits(event([*good[:at], None, *good[at + 1 :]]))


@pytest.mark.parametrize(
    "line",
    [
        ["0", KEY, 0, 0],
        ["0", KEY, 10**9 + 1, 0],
        ["0", KEY, 1, 2],
        ["0", "A", 1, 0],
        ["", KEY, 1, 0],
        ["0", KEY, True, 0],
    ],
)
def test_a_line_out_of_range_does_not_fit(line):
    body = GOOD_BODIES[Verb.RESERVE]
    assert not fits(item(Verb.RESERVE, [*body[:3], [line], *body[4:]]))


def test_an_unknown_verb_and_a_cause_of_other_types_do_not_fit():
    assert not fits(item(77, []))
    assert not fits(item(Verb.GET_STOCK, [KEY], ["me", ""]))
    assert not fits(item(Verb.GET_STOCK, [KEY], ["me", "", 1]))
