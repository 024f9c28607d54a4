"""What a journal must say when ``Memory`` is what callers were told: all of it, and nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.domain.events import EVENT_KINDS
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.codec import decode_groups
from actors.journal.port import Journal
from actors.runtime.wiring import read_data_journal
from actors.shard.encoding import canonical_state
from actors.shard.engine import Engine
from actors.shard.recovery import load_shard
from tests.e2e.shopping import Memory

RECORDS_PER_READ = 1_000


def events_of(journal: Journal) -> Iterator[Any]:
    """Every event of every shard, as its NamedTuple."""
    for shard in range(journal.header.shard_count):
        number = journal.first_number(shard) - 1
        assert number == 0, "these checks need every record"
        while records := journal.read(shard, number, RECORDS_PER_READ):
            number = records[-1].number
            for record in records:
                for _cause, events in decode_groups(record.payload):
                    for kind, *fields in events:
                        yield EVENT_KINDS[kind](*fields)


def check_against_answers(data_dir: Path, memory: Memory, received_by_sku: int) -> int:
    """Compare the journal with what callers were told; how many events it has. Assertions name what differs."""
    opened: Counter[str] = Counter()  # reservation id → times
    by_request: Counter[str] = Counter()
    confirmed: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    open_units: Counter[str] = Counter()  # stock key → units claimed and not released
    count = 0
    journal = read_data_journal(data_dir)
    try:
        for event in events_of(journal):
            count += 1
            name = type(event).__name__
            if name == "ReservationOpened":
                opened[event.reservation_id] += 1
                by_request[event.request_id] += 1
            elif name == "ReservationConfirmed":
                confirmed[event.reservation_id] += 1
            elif name == "ReservationEnded":
                ended[event.reservation_id] += 1
            elif name == "ClaimGranted":
                open_units[event.stock_key] += event.quantity
                assert open_units[event.stock_key] <= received_by_sku, f"{event.stock_key} oversold"
            elif name == "ClaimReleased":
                open_units[event.stock_key] -= event.quantity
    finally:
        journal.close()
    told = {answered.reservation_id for answered in memory.granted}
    assert told - set(opened) == set(), "acknowledged reservations are missing"
    assert {request_id for request_id, times in by_request.items() if times > 1} == set(), "requests decided twice"
    assert {one for one, times in (opened + Counter()).items() if times > 1} == set(), "reservations opened twice"
    assert set(opened) - told == set(), "reservations that nobody was told of, although every request was answered"
    assert memory.confirmed - set(confirmed) == set(), "acknowledged confirmations are missing"
    assert memory.released - set(ended) == set(), "acknowledged releases are missing"
    assert max(confirmed.values(), default=1) == 1
    assert max(ended.values(), default=1) == 1
    return count


def check_snapshots_against_full_replay(data_dir: Path, rules: Rules) -> int:
    """``check_snapshots`` of a data directory's journal."""
    journal = read_data_journal(data_dir)
    try:
        return check_snapshots(journal, rules)
    finally:
        journal.close()


def check_snapshots(journal: Journal, rules: Rules) -> int:
    """Each shard's state from snapshot and tail equals that from all records, byte for byte; how many had one."""
    with_snapshot = 0
    for shard in range(journal.header.shard_count):
        with_snapshot += bool(journal.snapshots(shard))
        states = []
        for use_snapshots in (True, False):
            books = fresh_books(journal, rules)
            load_shard(journal, books, shard, use_snapshots=use_snapshots)
            states.append(canonical_state(books, shard))
        assert states[0] == states[1], f"shard {shard}: snapshot and tail differ from the full replay"
    return with_snapshot


def fresh_books(journal: Journal, rules: Rules) -> Books:
    header = journal.header
    return Engine(header.cluster_id, header.timeline, header.shard_count, rules, 0).books
