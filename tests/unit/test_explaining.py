"""The events behind a stock key are looked for from the newest record back, within bounds."""

from __future__ import annotations

import pytest

from actors.domain.commands import Cause, Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import Disposition, Fact
from actors.journal.codec import decode_groups, encode_groups
from actors.journal.memory import MemoryJournal, memory_store
from actors.journal.port import Record
from actors.shard import explaining
from actors.shard.explaining import events_behind, newest_first

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
    assert {tuple(event[2:]) for event in found if event[0] == 1} == {
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
