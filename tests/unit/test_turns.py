# mypy: disable-error-code="union-attr"
"""The queues of a host: bounded by lines, fair between shards, in order within one."""

from __future__ import annotations

from actors.domain.commands import Verb
from actors.shard.host_config import HostConfig
from actors.shard.turns import (
    LINES_PER_SHARD_AND_ROUND,
    TurnQueue,
    Waiting,
    WaitingRun,
    items_of,
    one_by_one,
    stock_key_of,
)


def queue_of(**settings) -> TurnQueue:
    return TurnQueue(HostConfig("h", "t", **settings))


def waiting(shard: int, index: int = 0, *, weight: int = 1, key: str = "") -> Waiting:
    return Waiting([int(Verb.RESERVE), shard, 0, weight, [], []], None, index, key)


def drained(queue: TurnQueue) -> list[list[tuple[int, int]]]:
    """All turns until the queue is empty: (shard, index) of their items."""
    turns = []
    while taken := queue.take():
        turns.append([(one.item[1], one.index) for one in taken])
    return turns


def test_items_of_one_shard_come_in_the_order_given():
    queue = queue_of()
    for index in range(10):
        assert queue.offer(waiting(5, index))
    assert drained(queue) == [[(5, index) for index in range(10)]]
    assert (queue.lines, queue.depth(5)) == (0, 0)


def test_a_turn_has_at_most_its_lines_and_at_least_one_item():
    queue = queue_of(turn_lines_max=100)
    for index in range(250):
        queue.offer(waiting(index % 3, index))
    assert [len(turn) for turn in drained(queue)] == [100, 100, 50]
    queue.offer(waiting(1, weight=5_000))
    assert drained(queue) == [[(1, 0)]]


def test_a_turn_ends_with_the_item_that_reaches_the_bound():
    queue = queue_of(turn_lines_max=100)
    for index in range(4):
        queue.offer(waiting(1, index, weight=60))
    assert [len(turn) for turn in drained(queue)] == [2, 2]


def test_a_flooded_shard_leaves_the_others_their_place_in_the_next_turn():
    queue = queue_of(turn_lines_max=4_000)
    for index in range(20_000):
        queue.offer(waiting(1, index))
    for shard in range(2, 12):
        queue.offer(waiting(shard, 0))
    first = [(one.item[1], one.index) for one in queue.take()]
    assert {shard for shard, _ in first} == set(range(1, 12))
    assert first[LINES_PER_SHARD_AND_ROUND] == (2, 0)
    assert len(first) == 4_000


def test_round_robin_goes_on_where_the_last_turn_ended():
    queue = queue_of(turn_lines_max=LINES_PER_SHARD_AND_ROUND)
    for shard in (1, 2, 3):
        for index in range(LINES_PER_SHARD_AND_ROUND * 2):
            queue.offer(waiting(shard, index))
    assert [turn[0][0] for turn in drained(queue)] == [1, 2, 3, 1, 2, 3]


def test_a_full_shard_refuses_and_its_neighbour_does_not():
    queue = queue_of(queue_lines_per_shard_max=10)
    assert [queue.offer(waiting(1, index)) for index in range(12)] == [True] * 10 + [False] * 2
    assert queue.offer(waiting(2))
    assert (queue.depth(1), queue.depth(2), queue.lines) == (10, 1, 11)
    queue.take()
    assert queue.offer(waiting(1))


def test_an_order_larger_than_the_queue_is_taken_when_nothing_waits():
    queue = queue_of(queue_lines_per_shard_max=10)
    assert queue.offer(waiting(1, weight=2_000))
    assert not queue.offer(waiting(1))


def test_one_stock_key_may_fill_a_quarter_of_its_shards_queue():
    queue = queue_of(queue_lines_per_shard_max=40)
    assert [queue.offer(waiting(1, key="hot")) for _ in range(12)] == [True] * 10 + [False] * 2
    assert queue.offer(waiting(1, key="other"))
    assert queue.offer(waiting(1))
    queue.take()
    assert queue.offer(waiting(1, key="hot"))


def test_a_stock_keys_share_is_given_back_item_by_item():
    queue = queue_of(queue_lines_per_shard_max=40, turn_lines_max=4)
    for index in range(10):
        queue.offer(waiting(1, index, key="hot"))
    assert not queue.offer(waiting(1, key="hot"))
    queue.take()
    assert [queue.offer(waiting(1, key="hot")) for _ in range(5)] == [True] * 4 + [False]


def test_a_refused_item_leaves_no_trace():
    queue = queue_of(queue_lines_per_shard_max=8)
    for _ in range(2):
        queue.offer(waiting(1, key="hot"))
    assert not queue.offer(waiting(1, key="hot"))
    for index in range(6):
        assert queue.offer(waiting(1, index))
    assert not queue.offer(waiting(1, key="cold"))
    assert (queue.lines, len(queue.take())) == (8, 8)
    assert queue.offer(waiting(1, key="hot", weight=2))


def test_the_stock_key_of_an_item_is_that_of_a_single_line():
    line = ["0", "\x1fmain\x1fA", 1, 0]
    rows = [
        ([int(Verb.RESERVE), 0, 0, 1, [], ["r", b"", "web", [line]]], "\x1fmain\x1fA"),
        ([int(Verb.RESERVE), 0, 0, 2, [], ["r", b"", "web", [line, line]]], ""),
        ([int(Verb.INGEST), 0, 0, 1, [], ["wms", "", "e", 0, 0, "\x1fmain\x1fB"]], ""),
        ([int(Verb.CONFIRM), 0, 0, 1, [], ["r", b"", "id"]], ""),
    ]
    for item, key in rows:
        assert stock_key_of(item) == key


def test_a_flood_of_events_leaves_the_orders_of_its_feed_shard_their_place():
    queue = queue_of(queue_lines_per_shard_max=20_000)
    for index in range(20_000):
        assert queue.offer(Waiting([int(Verb.INGEST), 5, 0, 1, [], []], None, index, ""))
    assert queue.offer(waiting(5, 0))
    assert queue.depth(5) == 20_001
    first = queue.take()
    assert [one.item[0] for one in first[: LINES_PER_SHARD_AND_ROUND + 1]].count(int(Verb.RESERVE)) == 1


def run_of(count: int, first: int = 0, shard: int = 5) -> WaitingRun:
    return WaitingRun(
        [[int(Verb.INGEST), shard, 0, 1, [], [number]] for number in range(first, first + count)], None, first
    )


def test_a_run_of_events_is_taken_in_pieces_and_in_order():
    queue = queue_of(turn_lines_max=100)
    assert queue.offer_run(run_of(250)) == 250
    assert queue.offer_run(run_of(10, 250)) == 10
    assert (queue.lines, queue.depth(5)) == (260, 260)
    turns = []
    while taken := queue.take():
        turns.append([item[5][0] for item in items_of(taken)])
        assert [one.index for one in one_by_one(taken)] == turns[-1]
    assert [len(turn) for turn in turns] == [100, 100, 60]
    assert [index for turn in turns for index in turn] == list(range(260))
    assert (queue.lines, queue.depth(5)) == (0, 0)


def test_of_a_run_as_much_is_taken_as_there_is_room_for():
    queue = queue_of(queue_lines_per_shard_max=40)
    assert [queue.offer_run(run_of(30)), queue.offer_run(run_of(30)), queue.offer_run(run_of(30))] == [30, 10, 0]
    assert len(items_of(queue.take())) == 40
    assert queue.offer_run(run_of(30)) == 30


def test_a_run_of_events_leaves_other_shards_their_place():
    queue = queue_of(turn_lines_max=4_000)
    queue.offer_run(run_of(6_000))
    for index in range(10):
        queue.offer(waiting(7, index))
    first = queue.take()
    assert [one.index for one in first if not isinstance(one, WaitingRun)] == list(range(10))
    assert len(items_of(first)) == 4_000
