"""Several owners, several hosts that start, readers beside them, and what a PostgreSQL journal refuses or never says."""

from __future__ import annotations

import random
import threading
from functools import partial

import pytest

from actors.journal.port import Fenced, Journal, JournalError, JournalMismatch, Record
from actors.journal.postgres_link import LinkOptions
from actors.journal.postgres_open import open_postgres, open_postgres_read_only
from actors.journal.postgres_schema import SCHEMA
from actors.journal.sqlite_open import Wanted
from tests.integration.postgres_world import (
    InThread,
    place,
    proxy,
)
from tests.postgres_proxy import TcpProxy
from tests.postgres_server import PostgresServer
from tests.unit.journal_places import NOW_MS, SHARD_COUNT, WANTED, Owner, PostgresPlace, next_record

__all__ = ["place", "proxy"]


# --- several owners -------------------------------------------------------------------------------------------------


def test_owners_that_take_shards_from_each_other_never_both_write(place: PostgresPlace, seed: int) -> None:
    journals = [place.open() for _ in range(3)]
    acknowledged: list[Record] = []
    kept = threading.Lock()

    def live(journal: Journal, number: int) -> None:
        draw = random.Random(f"{seed}-{number}")
        for _ in range(12):
            try:
                owner = Owner(journal, draw.sample(range(SHARD_COUNT), draw.randint(1, SHARD_COUNT)))
            except Fenced:
                continue
            for _ in range(draw.randint(1, 12)):
                shards = draw.sample(sorted(owner.heads), draw.randint(1, len(owner.heads)))
                records = [next_record(owner.heads[shard], text=f"of {number}") for shard in shards]
                read = [head for shard, head in owner.heads.items() if shard not in shards and draw.random() < 0.3]
                try:
                    owner.journal.append(records, [], read)
                except Fenced:
                    break
                with kept:
                    acknowledged.extend(records)
                for record in records:
                    owner.heads[record.shard] = owner.heads[record.shard]._replace(
                        record_number=record.number, sequence=record.first_sequence
                    )

    lives = [InThread(partial(live, one, number)) for number, one in enumerate(journals)]
    assert [one.join() for one in lives] == [None] * 3
    for shard in range(SHARD_COUNT):
        records = journals[0].read(shard, 0, 10_000)
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert [record.epoch for record in records] == sorted(record.epoch for record in records)
        mine = sorted((record for record in acknowledged if record.shard == shard), key=lambda record: record.number)
        assert records == mine, "acknowledged twice, lost, or written though it was refused"


def test_sixty_four_shards_are_one_append(postgres: PostgresServer) -> None:
    wanted = Wanted(64, 1, "c0ffee")
    journal = open_postgres(LinkOptions(postgres.create_database("sixty_four")), wanted, now_ms=NOW_MS)
    owner = Owner(journal, range(64))
    for _ in range(3):
        owner.append(*range(64), events=50)
    assert {head.record_number for head in journal.heads(range(64)).values()} == {3}
    other = open_postgres(journal.options, wanted, now_ms=NOW_MS)
    other.take_over([63])
    with pytest.raises(Fenced, match="shard 63"):
        owner.append(*range(64))
    assert {head.record_number for head in journal.heads(range(64)).values()} == {3}
    journal.close()
    other.close()


# --- schema, readers, secrets ---------------------------------------------------------------------------------------


def test_hosts_that_start_together_make_one_journal(place: PostgresPlace) -> None:
    starting = [InThread(place.open) for _ in range(4)]
    assert [one.join() for one in starting] == [None] * 4
    assert len({journal.header.timeline for journal in place.journals}) == 1


def test_a_schema_of_a_newer_version_is_refused_by_its_migrations_names(place: PostgresPlace) -> None:
    place.open()
    place.execute(f"INSERT INTO {SCHEMA}.schema_versions VALUES (2, 'projection'), (3, 'colours')")
    for opening in (place.open, lambda: open_postgres_read_only(place.options)):
        with pytest.raises(JournalMismatch, match=r"2 \(projection\), 3 \(colours\).*knows up to 1"):
            opening()


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (WANTED._replace(shard_count=16), "shard count 8"),
        (WANTED._replace(cluster_id="beef"), "cluster id c0ffee"),
        (WANTED._replace(placement_version=2), "placement version 1"),
    ],
)
def test_another_journal_than_the_one_asked_for_is_refused(place: PostgresPlace, wanted: Wanted, what: str) -> None:
    place.open()
    with pytest.raises(JournalMismatch, match=what):
        open_postgres(place.options, wanted, now_ms=NOW_MS)


def test_what_somebody_reads_is_not_dropped_meanwhile(place: PostgresPlace) -> None:
    owner = Owner(place.open())
    old_ms = NOW_MS - 10**9
    for _ in range(3):
        owner.append(1, time_ms=old_ms)
        owner.snapshot(1)
    reader = open_postgres_read_only(place.options)
    with reader.reading():
        heads, snapshots = reader.all_heads(), reader.snapshots(1)
        owner.append(1, 2)
        owner.snapshot(1)
        assert owner.journal.compact(NOW_MS, NOW_MS).records_dropped == 0
        assert (reader.all_heads(), reader.snapshots(1)) == (heads, snapshots)
        assert all(len(reader.read_slices(one)) == 2 for one in snapshots)
    assert reader.all_heads() != heads
    reader.close()
    owner.append(1)
    owner.snapshot(1)
    assert owner.journal.compact(NOW_MS, NOW_MS).records_dropped == 3
    assert len(owner.journal.snapshots(1)) == 2


def test_a_reader_writes_nothing(place: PostgresPlace) -> None:
    place.open()
    reader = open_postgres_read_only(place.options)
    with pytest.raises(JournalError):
        reader.take_over([1])
    with pytest.raises(JournalError):
        reader.put_fact("name", b"value")
    reader.close()


def test_a_password_is_nowhere_in_what_it_says(place: PostgresPlace, proxy: TcpProxy) -> None:
    secret = "Spargelzeit"
    url = place.options.url.replace("postgres@", f"postgres:{secret}@")
    journal = open_postgres(LinkOptions(url), WANTED, now_ms=NOW_MS)
    said = [repr(journal.options), str(journal.info())]
    journal.close()
    proxy.refuse()
    elsewhere = url.replace("/journal", "/nothing")
    refusing = url.replace(str(place.server.port), str(proxy.port))
    for broken in (LinkOptions(elsewhere, 200), LinkOptions(refusing, 200)):
        with pytest.raises(JournalError) as caught:
            open_postgres(broken, WANTED, now_ms=NOW_MS)
        said.append(f"{caught.value!r} {caught.value}")
    assert not [text for text in said if secret in text]
    assert all("***" in text for text in said)
