"""What a webhook still has to deliver: order, retries, splitting, giving up, and how far all of it is settled."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from dataclasses import replace

import pytest

from gateway.webhooks.config import Secret, WebhookConfig
from gateway.webhooks.outbox import Batch, Change, Outbox, Settlement
from gateway.webhooks.verdicts import Outcome, Verdict

CONFIG = WebhookConfig(
    webhook_id="erp",
    url="https://erp.example/hook",
    secrets=(Secret("k1", b"x" * 32),),
    lanes=4,
    batch_events_max=10,
    backoff_ms_min=100,
    backoff_ms_max=1_000,
    attempts_max=4,
    give_up_after_ms=60_000,
    circuit_failures_max=3,
    circuit_pause_ms_min=1_000,
    circuit_pause_ms_max=8_000,
)
ACCEPTED = Verdict(Outcome.ACCEPTED)
FAILED = Verdict(Outcome.FAILED, "500 no database")
REJECTED = Verdict(Outcome.REJECTED, "422 no such SKU")


def change(number: int, key: str = "") -> Change:
    return Change(f"c-{number}", key or f"key-{number}", b'{"n":%d}' % number)


def outbox(draw: float = 0.5, **settings) -> Outbox:
    numbers = itertools.count(1)
    return Outbox(replace(CONFIG, **settings), lambda: draw, lambda: f"d-{next(numbers)}")


def ids(batch: Batch) -> list[str]:
    return [item.change.change_id for item in batch.items]


def settled(box: Outbox) -> Settlement:
    settlement = box.settlement()
    assert settlement is not None
    return settlement


def test_what_is_read_is_sent_in_batches_and_acknowledged_up_to_the_cursor():
    box = outbox(lanes=1)
    box.take([change(n) for n in range(15)], "after-15", 0)

    (first,) = box.due(0)
    assert ids(first) == [f"c-{n}" for n in range(10)]
    assert first.body() == b"[" + b",".join(b'{"n":%d}' % n for n in range(10)) + b"]"
    assert box.due(0) == []  # one request a lane

    box.ended(first, ACCEPTED, 1)
    assert box.settlement() is None  # five of the chunk are still to come
    (second,) = box.due(1)
    box.ended(second, ACCEPTED, 2)

    settlement = settled(box)
    assert (settlement.cursor, settlement.rejections) == ("after-15", ())
    assert box.settlement() is None
    assert box.wake_at_ms() is None


def test_a_batch_is_no_larger_than_allowed_but_one_change_always_goes():
    box = outbox(lanes=1, batch_bytes_max=40)
    large = Change("large", "k", b"x" * 100)
    box.take([change(1), change(2), large, change(3)], "c", 0)

    sent = []
    while due := box.due(0):
        sent.append(ids(due[0]))
        box.ended(due[0], ACCEPTED, 0)

    assert sent == [["c-1", "c-2"], ["large"], ["c-3"]]


def test_what_settles_early_waits_for_what_was_read_before_it():
    box = outbox(lanes=2)
    in_one, in_other = keys_of_two_lanes()
    box.take([change(1, in_one)], "after-1", 0)
    box.take([change(2, in_other)], "after-2", 0)
    one, other = sorted(box.due(0), key=ids)

    box.ended(other, ACCEPTED, 0)
    assert box.settlement() is None
    box.ended(one, ACCEPTED, 0)
    assert settled(box).cursor == "after-2"


def keys_of_two_lanes() -> tuple[str, str]:
    """Keys that a box of two lanes keeps apart."""
    box = outbox(lanes=2)
    box.take([change(n) for n in range(20)], "", 0)
    first, second = box.due(0)
    return first.items[0].change.order_key, second.items[0].change.order_key


def test_a_batch_that_fails_is_sent_again_as_it_was_and_keeps_its_lane_waiting():
    box = outbox(lanes=1)
    box.take([change(1, "a"), change(2, "a")], "c", 0)
    (batch,) = box.due(0)
    before = batch.body()
    box.take([change(3, "a")], "d", 0)

    box.ended(batch, FAILED, 10)

    assert box.wake_at_ms() == 60  # half of 100 ms
    assert box.due(59) == []
    (again,) = box.due(60)
    assert (again.batch_id, again.attempts, again.body()) == (batch.batch_id, 2, before)


def test_a_feed_that_only_says_where_it_is_costs_no_memory_while_something_waits():
    box = outbox(lanes=1)
    box.take([change(1)], "c-0", 0)
    for number in range(1, 1_000):
        box.take([], f"c-{number}", number)
    assert box.chunks_held == 1

    (batch,) = box.due(1_000)
    box.ended(batch, ACCEPTED, 1_000)
    assert settled(box).cursor == "c-999"


def test_a_lane_that_waits_holds_up_no_other():
    box = outbox(lanes=2)
    in_one, in_other = keys_of_two_lanes()
    box.take([change(1, in_one), change(2, in_other)], "c", 0)
    one, other = sorted(box.due(0), key=ids)
    box.ended(one, FAILED, 0)
    box.ended(other, ACCEPTED, 0)
    box.take([change(3, in_one), change(4, in_other)], "d", 0)

    assert [ids(batch) for batch in box.due(0)] == [["c-4"]]


def test_only_the_change_that_the_endpoint_will_not_have_is_given_up():
    box = outbox(lanes=1)
    box.take([change(n) for n in range(10)], "c", 0)
    accepted = []
    for now_ms in range(100):
        for batch in box.due(now_ms):
            poisoned = "c-7" in ids(batch)
            accepted += [] if poisoned else ids(batch)
            box.ended(batch, REJECTED if poisoned else ACCEPTED, now_ms)

    assert accepted == [f"c-{n}" for n in range(10) if n != 7]  # and still in order
    settlement = settled(box)
    assert (settlement.cursor, settlement.rejections) == ("c", (("c-7", "422 no such SKU"),))
    assert box.circuit.closed, "an endpoint that refuses an event is alive"


def test_a_batch_that_always_fails_while_others_pass_is_split_and_its_culprit_given_up():
    box = outbox(lanes=2, circuit_failures_max=100)
    in_one, in_other = keys_of_two_lanes()
    box.take([change(n, in_one) for n in range(4)], "c", 0)
    for now_ms in range(0, 30_000, 50):
        box.take([change(1_000 + now_ms, in_other)], f"c-{now_ms}", now_ms)
        for batch in box.due(now_ms):
            box.ended(batch, FAILED if "c-2" in ids(batch) else ACCEPTED, now_ms)

    rejected = settled(box).rejections
    assert [change_id for change_id, _ in rejected] == ["c-2"]
    assert "while others were accepted: 500 no database" in rejected[0][1]
    assert box.unsettled == 0


def test_an_endpoint_that_accepts_nothing_costs_no_event_before_its_time_is_over():
    box = outbox(lanes=1)
    box.take([change(1)], "c", 0)
    given_up_at = None
    for now_ms in range(0, 120_000, 10):
        for batch in box.due(now_ms):
            box.ended(batch, FAILED, now_ms)
        if box.given_up_changes and given_up_at is None:
            given_up_at = now_ms

    assert given_up_at is not None
    assert 60_000 <= given_up_at <= 60_000 + CONFIG.circuit_pause_ms_max + CONFIG.backoff_ms_max
    assert "not delivered within 60000 ms" in settled(box).rejections[0][1]


def test_failures_in_a_row_open_the_circuit_and_one_request_tries_it():
    box = outbox(lanes=4)
    box.take([change(n) for n in range(400)], "c", 0)
    for batch in box.due(0):
        box.ended(batch, FAILED, 0)
    assert box.trouble == "circuit open: 500 no database"

    assert box.due(749) == []
    assert box.wake_at_ms() == 750  # half of the pause and half of the rest
    probes = box.due(750)
    assert len(probes) == 1
    assert box.due(750) == []
    assert box.wake_at_ms() is None  # until it ends

    box.ended(probes[0], FAILED, 760)
    assert box.due(760 + 1_499) == []  # twice as long
    (probe,) = box.due(760 + 1_500)
    box.ended(probe, ACCEPTED, 2_300)
    assert box.circuit.closed
    assert len(box.due(2_300)) == 4


def test_a_batch_that_always_fails_does_not_keep_the_circuit_open_for_the_others():
    box = outbox(lanes=2, circuit_failures_max=1)
    in_one, in_other = keys_of_two_lanes()
    box.take([change(1, in_one)], "b", 0)
    (first,) = box.due(0)
    box.ended(first, FAILED, 0)
    box.take([change(n, in_other) for n in range(2, 40)], "c", 10)
    for now_ms in range(50, 55_000, 50):
        for batch in box.due(now_ms):
            box.ended(batch, FAILED if "c-1" in ids(batch) else ACCEPTED, now_ms)

    assert box.accepted_changes == 38
    assert [change_id for change_id, _ in settled(box).rejections] == ["c-1"]


def test_the_endpoint_is_left_alone_as_long_as_it_asks():
    box = outbox(lanes=4)
    box.take([change(n) for n in range(40)], "c", 0)
    first, *others = box.due(0)
    box.ended(first, Verdict(Outcome.PAUSED, "429", retry_after_ms=7_000), 100)
    for batch in others:
        box.ended(batch, ACCEPTED, 100)

    assert box.due(7_099) == []
    assert box.wake_at_ms() == 7_100
    assert ids(first) in [ids(batch) for batch in box.due(7_100)]
    assert box.circuit.closed, "it answers"


def test_gone_disables_and_loses_nothing():
    box = outbox(lanes=1)
    box.take([change(1)], "c", 0)
    (batch,) = box.due(0)
    box.ended(batch, Verdict(Outcome.GONE, "410"), 0)

    assert box.due(10**9) == []
    assert box.wake_at_ms() is None
    assert settled(box).cursor == ""  # only what keeps it from going on
    assert box.unsettled == 1


def test_what_keeps_it_from_going_on_is_told_once_and_so_is_its_end():
    box = outbox(lanes=1, circuit_failures_max=1)
    box.take([change(1)], "c", 0)
    (batch,) = box.due(0)
    box.ended(batch, FAILED, 0)
    assert settled(box).error == "circuit open: 500 no database"
    assert box.settlement() is None
    (batch,) = box.due(10_000)
    box.ended(batch, ACCEPTED, 10_000)
    assert (settled(box).cursor, box.settlement()) == ("c", None)


def test_a_cursor_is_never_told_before_the_rejections_it_covers():
    box = outbox(lanes=1, batch_events_max=1)
    box.take([change(n) for n in range(1_200)], "c", 0)
    while due := box.due(0):
        box.ended(due[0], REJECTED, 0)

    told: list[str] = []
    cursors: list[str] = []
    while (settlement := box.settlement()) is not None:
        told += [change_id for change_id, _ in settlement.rejections]
        cursors.append(settlement.cursor)

    assert told == [f"c-{n}" for n in range(1_200)]
    assert cursors == ["", "", "c"]


def test_it_takes_no_more_than_it_may():
    box = outbox(unsettled_changes_max=100)
    box.take([change(n) for n in range(60)], "c", 0)
    assert box.room == 40


def test_held_it_begins_nothing_and_forgets_when_told():
    box = outbox(lanes=1)
    box.take([change(1)], "c", 0)
    box.hold()
    assert box.due(0) == []
    box.forget()
    assert (box.unsettled, box.settlement()) == (0, None)
    box.take([change(2)], "d", 0)
    assert [ids(batch) for batch in box.due(0)] == [["c-2"]]


@pytest.mark.parametrize("poison_share", [0.0, 0.02])
def test_whatever_the_endpoint_does_nothing_is_lost_and_order_of_a_key_is_kept(seed, poison_share):
    """At least once, in order by first acceptance, and what is acknowledged is settled."""
    rng = random.Random(seed)
    numbers = itertools.count(1)
    box = Outbox(replace(CONFIG, lanes=5), rng.random, lambda: f"d-{next(numbers)}")
    every = [change(n, f"key-{rng.randrange(12)}") for n in range(600)]
    poison = {one.change_id for one in every if rng.random() < poison_share}
    accepted: dict[str, list[str]] = defaultdict(list)
    rejected: set[str] = set()
    under_way: list[Batch] = []
    acknowledged = taken = now_ms = 0
    while acknowledged < len(every):
        now_ms += rng.randrange(1, 400)
        assert now_ms < 10**8, "it got stuck"
        if taken < len(every) and rng.random() < 0.7:
            size = rng.randrange(0, 40)
            box.take(every[taken : taken + size], str(min(taken + size, len(every))), now_ms)
            taken = min(taken + size, len(every))
        under_way += box.due(now_ms)
        rng.shuffle(under_way)
        while under_way and rng.random() < 0.8:
            batch = under_way.pop()
            box.ended(batch, verdict_of(rng, batch, poison, accepted), now_ms)
        settlement = box.settlement()
        if settlement is not None:
            rejected |= {change_id for change_id, _ in settlement.rejections}
            acknowledged = int(settlement.cursor or acknowledged)
            settled_ids = {change_id for ids_of_key in accepted.values() for change_id in ids_of_key}
            assert {one.change_id for one in every[:acknowledged]} <= settled_ids | rejected

    assert poison <= rejected | {i for of_key in accepted.values() for i in of_key}
    for key, got in accepted.items():
        first_seen = list(dict.fromkeys(got))
        wanted = [one.change_id for one in every if one.order_key == key and one.change_id in set(got)]
        assert first_seen == wanted, key


def verdict_of(rng: random.Random, batch: Batch, poison: set[str], accepted: dict[str, list[str]]) -> Verdict:
    """A moody endpoint, which also loses answers of what it took."""
    mood = rng.random()
    if mood < 0.08:
        return Verdict(Outcome.PAUSED, "429", rng.randrange(3_000))
    if mood < 0.25:
        return FAILED
    if poison & set(ids(batch)):
        return REJECTED
    for item in batch.items:
        accepted[item.change.order_key].append(item.change.change_id)
    return FAILED if mood < 0.35 else ACCEPTED
