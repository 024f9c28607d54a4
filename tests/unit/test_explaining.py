"""The events behind a stock key are looked for from the newest record back, within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from actors.domain.commands import Cause, Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import Disposition, Fact
from actors.journal.codec import decode_groups, encode_groups
from actors.journal.memory import MemoryJournal, memory_store
from actors.journal.port import Record
from actors.shard import explaining
from actors.shard.explaining import events_behind, newest_first
from actors.shard.placement import shard_of
from tests.unit.world import SHARDS, World

KEY, OTHER = str(stock_key("main", "A")), str(stock_key("main", "B"))
RECEIVED = 12  # OnHandChanged
CAUSE = Cause(int(Verb.INGEST), "", "event-1", source_id="wms")


class CountingJournal(MemoryJournal):
    """Counts the records that were read."""

    records_read = 0

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        records = super().read(shard, after_number, limit)
        self.records_read += len(records)
        return records


def journal_of(*records: list[str]) -> CountingJournal:
    """A journal whose shard 0 has these records, each a list of the stock keys its events are about."""
    journal = CountingJournal(memory_store("c", "t", 1, 1, 0))
    journal.take_over([0])
    sequence = 1
    for number, keys in enumerate(records, start=1):
        events = [(RECEIVED, key, int(Fact.RECEIPT), int(Disposition.SELLABLE), number) for key in keys]
        payload = encode_groups([(CAUSE, events)])
        journal.append([Record(0, number, 1, sequence, len(keys), 1_000 + number, payload)], [], [])
        sequence += len(keys)
    return journal


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 10, 17, 40])
@pytest.mark.parametrize("most", [1, 9, 10, 200])
def test_records_come_newest_first_without_a_gap(count, most):
    journal = journal_of(*[[KEY]] * count)
    numbers = [record.number for record in newest_first(journal, 0, most)]
    assert numbers == list(range(count, max(0, count - most), -1))


def test_events_of_the_key_come_newest_first_with_sequence_time_and_cause():
    journal = journal_of([KEY, OTHER], [OTHER], [OTHER, KEY, KEY])
    found = events_behind(newest_first(journal, 0, 200), KEY, 20, decode_groups)
    assert [(sequence, time_ms) for sequence, time_ms, *_ in found] == [(6, 1_003), (5, 1_003), (1, 1_001)]
    assert {tuple(event[2:5]) for event in found if event[0] == 1} == {
        ("OnHandChanged", 1, "event event-1 of source wms")
    }


def test_no_more_is_read_than_was_asked_for():
    journal = journal_of(*[[KEY]] * 100)
    assert len(events_behind(newest_first(journal, 0, 100), KEY, 3, decode_groups)) == 3
    assert journal.records_read <= explaining.RECORDS_PER_READ


def test_a_quiet_key_in_a_busy_shard_is_given_up_after_a_bound():
    busy = [OTHER] * (explaining.EVENTS_LOOKED_THROUGH_MAX // 4)
    journal = journal_of([KEY], *[busy] * 20)
    assert events_behind(newest_first(journal, 0, 200), KEY, 20, decode_groups) == []
    assert journal.records_read <= explaining.RECORDS_PER_READ


def test_the_paper_of_every_fact_is_found_again():
    world = World()
    paper = {"document_id": "D-7", "document_line": "3", "lot_id": "L-1"}
    sellable, hold = int(Disposition.SELLABLE), int(Disposition.QUALITY_HOLD)
    order = ["", "web", "O-1", "2"]
    world.receive("A", 50)
    facts: tuple[tuple[Any, ...], ...] = (
        (Fact.RECEIPT, 5, sellable, "ASN-1", ""),
        (Fact.PICK, 2, order),
        (Fact.UNPICK, 1, order),
        (Fact.SHIPMENT, 1, "S-1", order, False, sellable),
        (Fact.ADJUSTMENT, -1, sellable, "broken", ""),
        (Fact.STOCK_COUNT, 40, sellable, 0, True, False),
        (Fact.STOCK_COUNT, 40, hold, 1, False, False),
        (Fact.DISPOSITION_CHANGE, 1, sellable, hold),
        (Fact.TRANSFER_DISPATCH, 1, "T-1", "1", "overflow", sellable),
        (Fact.TRANSFER_RECEIPT, 1, "T-2", "1", "overflow", False, sellable),
        (Fact.CUSTOMER_RETURN, 1, hold, order, "RMA-1"),
    )
    for number, (fact, *details) in enumerate(facts, start=1):
        told = world.tell(fact, "A", *details, event=f"paper-{number}", sequence=number, **paper)
        assert told.outcome == "APPLIED", (fact, told)
    found = events_behind(newest_first(world.journal, shard_of(KEY, SHARDS), 200), KEY, 500, decode_groups)
    for number, (fact, *_) in enumerate(facts, start=1):
        papers = {event[5:8] for event in found if event[4] == f"event paper-{number} of source wms"}
        assert ("D-7", "3", "L-1") in papers, fact
    [returned] = [event for event in found if event[8] == "RMA-1"]
    assert returned[9:] == (hold, "of order web/O-1 line 2")
    dispatched = [event for event in found if event[2] == "OnHandChanged" and event[8] == "T-1"]
    assert dispatched[0][10] == "1 to overflow"
    received = [event for event in found if event[2] == "TransferReceived"]
    assert received[0][3:4] + received[0][8:] == (1, "T-2", 0, "overflow")
    world.check_replay()
