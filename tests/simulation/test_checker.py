"""The judge lets true histories pass and catches every kind of lie."""

from __future__ import annotations

import ast
from copy import deepcopy
from pathlib import Path

import pytest

from tests.simulation.checker import Violation, check
from tests.simulation.history import NOT_DONE, REFUSED, UNKNOWN, History, Operation, Place
from tests.simulation.recording import RecordingWorld, Trader, settings_of

INDEPENDENT = (
    "model",
    "model_orders",
    "model_amending",
    "model_state",
    "model_warehouse",
    "model_feeds",
    "model_counts",
    "model_gate",
    "feed_oracle",
    "feed_stories",
    "checker",
    "ordering",
    "linearize",
    "history",
)


def a_day() -> History:
    """Two units, three buyers, in two shards; a hold that expires; an order in both shards, cancelled; two retries."""
    world = RecordingWorld()
    world.receive("A", 2)
    world.receive("B", 5)
    world.reserve(("A", 1), request="first", ttl_ms=1_000)
    world.reserve(("A", 1), ("B", 1), request="second", confirm=True)
    world.reserve(("A", 1), request="third")
    world.ats("A")
    world.ats("B")
    world.reserve(("A", 1), request="first", ttl_ms=1_000)
    world.get(world_id(world, "first"))
    world.pass_ms(1_000)
    world.get(world_id(world, "first"))
    world.ats("A")
    world.release(world_id(world, "second"), request="cancel")
    world.ats("A")
    world.ats("B")
    world.release(world_id(world, "second"), request="cancel")
    return world.history()


def world_id(world: RecordingWorld, request_id: str) -> str:
    """The reservation that a reserve made."""
    made = [one for one in world.operations if one.arguments.get("request_id") == request_id and one.status == "ok"]
    return str(made[0].answer["reservation_id"])


def one(history: History, verb: str, number: int = 0, **arguments: object) -> Operation:
    """That operation, counted among those of its verb and arguments."""
    return [
        operation
        for operation in history.operations
        if operation.verb == verb and all(operation.arguments[name] == value for name, value in arguments.items())
    ][number]


def kinds(violations: list[Violation]) -> set[str]:
    return {violation.kind for violation in violations}


def test_a_true_day_passes():
    assert check(a_day()) == []


@pytest.mark.parametrize("turns", [20, 60, 200])
def test_random_days_agree_with_the_model(seed, turns):
    for day in range(600 // turns):
        world = Trader(seed + day).trade(turns)
        violations = check(world.history(), settings_of(world.rules))
        assert violations == [], f"day {seed + day}: {violations[0]}"


def test_a_wrong_availability_is_seen():
    day = a_day()
    one(day, "get_availability").answer = {"items": ((1, True),)}
    assert kinds(check(day)) == {"answer"}


def test_a_grant_without_cover_is_seen():
    day = a_day()
    one(day, "ingest", key=("main", "A")).arguments["details"]["quantity"] = 1
    violations = check(day)
    assert kinds(violations) == {"answer"}
    assert "INSUFFICIENT_STOCK" in str(violations[0])


def test_a_refusal_where_units_were_left_is_seen():
    day = a_day()
    one(day, "ingest", key=("main", "A")).arguments["details"]["quantity"] = 3
    assert "answer" in kinds(check(day))


@pytest.mark.parametrize("part", ["reason", "shortages"])
def test_a_refusal_for_another_reason_or_amount_is_seen(part):
    day = a_day()
    refused = one(day, "reserve", request_id="third")
    assert refused.status == REFUSED
    refused.answer[part] = (
        "SELLING_SUSPENDED" if part == "reason" else (("0", ("main", "A"), 1, 1, "INSUFFICIENT_STOCK"),)
    )
    assert kinds(check(day)) == {"answer"}


def test_a_sale_told_to_two_buyers_is_seen():
    day = a_day()
    first, third = one(day, "reserve", request_id="first"), one(day, "reserve", request_id="third")
    third.status, third.answer, third.positions = "ok", dict(first.answer), dict(first.positions)
    assert "lost" in kinds(check(day))


def test_swapped_positions_are_seen():
    day = a_day()
    before, after = one(day, "get_availability", 0), one(day, "get_availability", 4)
    assert before.arguments != after.arguments or before.answer != after.answer
    before, after = (
        one(day, "get_availability", 0, keys=(("main", "A"),)),
        one(day, "get_availability", 2, keys=(("main", "A"),)),
    )
    before.positions, after.positions = after.positions, before.positions
    assert {"answer", "real time"} <= kinds(check(day))


def test_an_acknowledged_order_that_the_journal_lost_is_seen():
    day = a_day()
    day.journal.effects = [effect for effect in day.journal.effects if effect.verb != "release"]
    assert "lost" in kinds(check(day))


def test_an_answer_from_before_its_append_is_seen():
    day = a_day()
    read = one(day, "get_availability", -1)
    ((shard, place),) = read.positions.items()
    read.positions = {shard: place._replace(sequence=place.sequence + 1)}
    assert "durability" in kinds(check(day))


def test_an_answer_of_a_former_owner_is_seen():
    day = a_day()
    read = one(day, "get_availability", -1)
    ((shard, place),) = read.positions.items()
    read.positions = {shard: place._replace(epoch=place.epoch + 1)}
    assert kinds(check(day)) == {"positions"}


def test_an_answer_of_another_timeline_is_seen():
    day = a_day()
    read = one(day, "get_availability", -1)
    read.positions = {shard: Place("t2", place.epoch, place.sequence) for shard, place in read.positions.items()}
    assert "positions" in kinds(check(day))


def test_an_expiry_before_its_deadline_is_seen():
    day = a_day()
    expiry = next(effect for effect in day.journal.effects if effect.kind == "expiry")
    expiry.time_ms -= 1
    assert "expiry" in kinds(check(day))


def test_a_hold_still_shown_at_its_deadline_is_seen():
    day = a_day()
    one(day, "get_reservation", 0).time_ms += 1_000
    assert kinds(check(day)) == {"expiry"}


def test_an_expiry_that_never_came_is_seen():
    day = a_day()
    day.journal.effects = [effect for effect in day.journal.effects if effect.kind != "expiry"]
    assert {"expiry", "answer"} <= kinds(check(day))


def test_a_grace_that_nobody_promised_is_seen():
    day = a_day()
    next(effect for effect in day.journal.effects if effect.kind == "owned").grace_until_ms += 1
    assert "expiry" in kinds(check(day))


def test_a_repeat_with_another_answer_is_seen():
    for part, value in (("expire_time_ms", 1), ("reservation_id", "1-t1-1-9"), ("version", 2), ("lines", ())):
        day = a_day()
        again = one(day, "reserve", 1, request_id="first")
        assert again.replayed
        again.answer[part] = value
        assert kinds(check(day)) == {"answer"}, part


def test_a_repeat_with_another_position_is_seen():
    day = a_day()
    again = one(day, "reserve", 1, request_id="first")
    shard = again.home
    again.positions[shard] = again.positions[shard]._replace(sequence=again.positions[shard].sequence - 1)
    assert "idempotency" in kinds(check(day))


def test_a_repeat_that_calls_itself_the_first_is_seen():
    day = a_day()
    one(day, "reserve", 1, request_id="first").replayed = False
    assert "idempotency" in kinds(check(day))


def test_a_repeat_that_shows_units_of_long_ago_is_seen():
    day = a_day()
    late = deepcopy(one(day, "reserve", 1, request_id="first"))
    late.invoked = late.returned = 1_000.0  # the hold has expired by now
    day.operations.append(late)
    assert "answer" in kinds(check(day))


def test_an_order_that_no_time_allows_is_seen():
    day = a_day()
    older, newer = one(day, "get_availability", 0, keys=(("main", "A"),)), one(day, "get_availability", -2)
    assert newer.arguments["keys"] == (("main", "A"),)
    newer.answer, newer.positions, newer.time_ms = older.answer, older.positions, older.time_ms
    assert kinds(check(day)) == {"real time"}


def test_an_order_that_no_time_allows_over_two_shards_is_seen():
    """The cancelled order was seen to be gone in one shard; then, later, it was still seen in the other."""
    day = a_day()
    seen, stale = one(day, "get_availability", -2), one(day, "get_availability", -1)
    older = one(day, "get_availability", 1)
    assert (seen.arguments["keys"], stale.arguments["keys"]) == ((("main", "A"),), (("main", "B"),))
    assert older.arguments == stale.arguments
    release = one(day, "release", 0)
    release.returned = 1_000.0  # nobody was told yet
    day.operations.remove(one(day, "release", 1))
    stale.answer, stale.positions, stale.time_ms = older.answer, older.positions, older.time_ms
    assert kinds(check(day)) == {"real time"}


def test_an_effect_that_nobody_asked_for_is_seen():
    day = a_day()
    day.operations = [operation for operation in day.operations if operation.verb != "release"]
    assert kinds(check(day)) == {"unasked"}


def test_an_unanswered_call_may_have_happened():
    day = a_day()
    release = one(day, "release", 0)
    release.status, release.answer, release.positions, release.returned = UNKNOWN, {}, {}, float("inf")
    assert check(day) == []


def test_a_call_that_was_said_not_to_be_done_and_was_is_seen():
    day = a_day()
    day.operations.remove(one(day, "release", 1))
    release = one(day, "release", 0)
    release.status, release.answer, release.positions = NOT_DONE, {"error": "OVERLOADED"}, {}
    assert "not done" in kinds(check(day))


def test_a_gap_in_the_journal_is_seen():
    day = a_day()
    day.journal.problems.append("shard 1: record 3 follows record 1")
    assert kinds(check(day)) == {"journal"}


def test_units_that_the_journal_adds_up_otherwise_are_seen():
    day = a_day()
    next(iter(day.journal.claims.values()))[0] += 1
    assert kinds(check(day)) == {"conservation"}
    day = a_day()
    day.journal.on_hand[(("main", "A"), "SELLABLE")] -= 1
    assert kinds(check(day)) == {"conservation"}


def test_a_view_of_half_an_order_is_seen():
    """An answer from between two events of one decision."""
    day = a_day()
    read = one(day, "get_availability", 0)
    ((shard, place),) = read.positions.items()
    read.positions = {shard: place._replace(sequence=place.sequence - 1)}
    assert "positions" in kinds(check(day))


@pytest.mark.parametrize("module", INDEPENDENT)
def test_the_judge_shares_no_code_with_what_it_judges(module):
    path = Path(__file__).with_name(f"{module}.py")
    tree = ast.parse(path.read_text())
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("actors", "gateway", "stockade", "tests")}
    assert ours <= {f"tests.simulation.{other}" for other in INDEPENDENT} | {"tests.simulation"}
