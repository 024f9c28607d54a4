"""The PostgreSQL journal when the network, the server or another owner does what it can do to it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.journal.port import Fenced, JournalDamaged, JournalError, JournalWentBack
from actors.journal.postgres_link import LinkOptions
from actors.journal.postgres_open import begin_timeline, open_postgres
from actors.journal.postgres_schema import SCHEMA
from tests.integration.postgres_world import (
    DEADLINE_MS,
    WITHIN_S,
    InThread,
    link_of,
    owner_through,
    place,
    proxy,
    wait_until,
)
from tests.postgres_proxy import TO_CLIENT, TO_SERVER, TcpProxy
from tests.postgres_server import PostgresServer, running_postgres
from tests.unit.journal_places import NOW_MS, SHARD_COUNT, WANTED, Owner, PostgresPlace

__all__ = ["place", "proxy"]


# --- an outcome that nobody told ------------------------------------------------------------------------------------


def test_an_append_whose_answer_is_cut_off_is_found_durable_and_the_owner_goes_on(
    place: PostgresPlace, proxy: TcpProxy
) -> None:
    owner = owner_through(proxy, place)
    owner.append(1, 2)
    proxy.cut_after(TO_CLIENT, 0)
    owner.append(1, 2, 3)
    owner.append(1)
    assert [record.number for record in owner.journal.read(1, 0, 10)] == [1, 2, 3]
    assert owner.journal.heads([3])[3] == owner.heads[3]


def test_an_append_that_is_cut_off_on_its_way_was_not_written_and_nothing_is_written_again(
    place: PostgresPlace, proxy: TcpProxy
) -> None:
    owner = owner_through(proxy, place)
    owner.append(1, 2)
    proxy.cut_after(TO_SERVER, 100)
    with pytest.raises(JournalError, match="was not written") as caught:
        owner.append(1, 2, 3)
    assert not isinstance(caught.value, Fenced | JournalDamaged)
    with pytest.raises(JournalError, match="nothing may be written any more"):
        owner.append(4)
    assert {head.record_number for head in place.open().heads(range(SHARD_COUNT)).values()} == {0, 1}


def test_wherever_an_append_is_cut_what_is_said_of_it_is_true(place: PostgresPlace, proxy: TcpProxy, seed: int) -> None:
    draw = random.Random(seed)
    acknowledged = written = refused = 0
    owner = owner_through(proxy, place)
    for _ in range(40):
        shards = draw.sample(range(SHARD_COUNT), draw.randint(1, SHARD_COUNT))
        proxy.cut_after(*draw.choice([(TO_SERVER, draw.randrange(1_500)), (TO_CLIENT, draw.randrange(120))]))
        before = {shard: owner.heads[shard].record_number for shard in shards}
        try:
            owner.append(*shards)
            said = True
        except (Fenced, JournalDamaged):
            raise
        except JournalError:
            said = False
        proxy.calm()
        found = {shard: head.record_number for shard, head in place.open().heads(shards).items()}
        assert found == {shard: number + said for shard, number in before.items()}, "not what was said"
        acknowledged += said
        refused += not said
        written += sum(found.values()) > sum(before.values())
        if not said:
            owner.journal.close()
            owner = owner_through(proxy, place)
    assert written == acknowledged
    assert acknowledged and refused, "the cuts met nothing"


def test_settling_waits_for_the_old_transaction_and_believes_what_it_did(place: PostgresPlace, proxy: TcpProxy) -> None:
    owner = owner_through(proxy, place)
    place.open()
    with place.server.connected(place.database) as other:
        other.execute("BEGIN")
        other.execute(f"SELECT 1 FROM {SCHEMA}.shards WHERE shard = 2 FOR UPDATE")
        appending = InThread(lambda: owner.append(1, 2))
        wait_until(lambda: waiting_for_locks(place) == 1)
        proxy.cut()
        wait_until(lambda: waiting_for_locks(place) == 2)  # the one that nobody listens to, and the one that settles
        other.execute("COMMIT")
        assert appending.join() is None
    assert owner.journal.heads([1, 2]) == {shard: owner.heads[shard] for shard in (1, 2)}


def waiting_for_locks(place: PostgresPlace) -> int:
    [(count,)] = place.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(count)


def test_an_unknown_outcome_that_a_successor_overtook_is_a_fence(place: PostgresPlace, proxy: TcpProxy) -> None:
    owner = owner_through(proxy, place)
    with place.server.connected(place.database) as other:
        other.execute("BEGIN")
        other.execute(f"UPDATE {SCHEMA}.shards SET epoch = epoch + 1 WHERE shard = 2")
        appending = InThread(lambda: owner.append(1, 2))
        wait_until(lambda: waiting_for_locks(place) == 1)
        proxy.cut()
        other.execute("COMMIT")
        assert isinstance(appending.join(), Fenced)
    assert place.open().read(1, 0, 10) == []


def test_a_commit_that_was_not_replicated_as_asked_is_no_success() -> None:
    settings = {"synchronous_standby_names": "elsewhere", "synchronous_commit": "local"}
    with running_postgres(settings=settings) as server:
        options = LinkOptions(server.create_database("replicated"), DEADLINE_MS)
        owner = Owner(open_postgres(options, WANTED, now_ms=NOW_MS))
        owner.append(1)
        server.execute("ALTER DATABASE replicated SET synchronous_commit = on")  # for whoever connects from now on
        link_of(owner).rows("SELECT set_config('synchronous_commit', 'on', false)")
        appending = InThread(lambda: owner.append(1))
        waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_until(lambda: server.execute(f"SELECT count(*) {waits}") == [(1,)])
        server.execute(f"SELECT pg_cancel_backend(pid) {waits}")
        error = appending.join()
        assert isinstance(error, JournalError)
        assert "answered with a warning" in f"{error} {getattr(error, '__notes__', None)}"
        with pytest.raises(JournalError):
            owner.append(2)


# --- cut off --------------------------------------------------------------------------------------------------------


def test_a_host_that_is_cut_off_ends_at_its_deadline(place: PostgresPlace, proxy: TcpProxy) -> None:
    owner = owner_through(proxy, place)
    owner.append(1)
    proxy.hold()
    started = time.monotonic()
    with pytest.raises(JournalError):
        owner.append(1)
    assert time.monotonic() - started < 2.5 * DEADLINE_MS / 1000 + 2
    with pytest.raises(JournalError):
        owner.append(1)


def test_reads_and_checks_of_a_host_that_is_cut_off_end_too(place: PostgresPlace, proxy: TcpProxy) -> None:
    owner = owner_through(proxy, place)
    proxy.hold()
    with pytest.raises(JournalError):
        owner.journal.check([owner.heads[1]])
    with pytest.raises(JournalError):
        owner.journal.read(1, 0, 10)


def test_an_idle_host_notices_within_the_deadline_that_it_is_cut_off(place: PostgresPlace, proxy: TcpProxy) -> None:
    owner = owner_through(proxy, place)
    proxy.hold()
    until = time.monotonic() + WITHIN_S

    def keep_house() -> None:
        while time.monotonic() < until:
            owner.journal.checkpoint()
            time.sleep(0.01)

    with pytest.raises(JournalError):
        keep_house()


def test_connections_that_end_between_calls_are_replaced(place: PostgresPlace, proxy: TcpProxy) -> None:
    owner = owner_through(proxy, place)
    for _ in range(5):
        proxy.cut()
        wait_until(lambda: not link_of(owner).is_alive())
        owner.append(1, 2)
        proxy.cut()
        owner.journal.check(list(owner.heads.values()))
        proxy.cut()
        assert len(owner.journal.read(1, 0, 10)) == owner.heads[1].record_number


# --- the server -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_a_server_that_restarts_while_nothing_is_asked_is_found_again(how: str, tmp_path: Path) -> None:
    with running_postgres() as server:
        owner = Owner(
            open_postgres(LinkOptions(server.create_database("j")), WANTED, now_ms=NOW_MS, directory=tmp_path)
        )
        for _ in range(3):
            owner.append(1, 2)
        getattr(server, how)()
        server.start()
        owner.append(1, 2)
        owner.journal.check(list(owner.heads.values()))
        assert [record.number for record in owner.journal.read(1, 0, 10)] == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_whatever_a_restart_does_to_appends_under_way_what_was_acknowledged_is_there(how: str, tmp_path: Path) -> None:
    with running_postgres() as server:
        options = LinkOptions(server.create_database("j"))
        owner = Owner(open_postgres(options, WANTED, now_ms=NOW_MS, directory=tmp_path))
        stopped = threading.Event()

        def append_until_stopped() -> None:
            while not stopped.is_set():
                owner.append(1, 2, 3)

        appending = InThread(append_until_stopped)
        wait_until(lambda: owner.heads[1].record_number > 20)
        getattr(server, how)()
        server.start()
        stopped.set()
        failed = appending.join()
        assert failed is None or isinstance(failed, JournalError)
        assert not isinstance(failed, JournalWentBack)
        successor = open_postgres(options, WANTED, now_ms=NOW_MS, directory=tmp_path)
        heads = successor.take_over(range(SHARD_COUNT))
        assert heads[1].record_number == owner.heads[1].record_number
        assert len(successor.read(2, 0, 10_000)) == heads[2].record_number


@pytest.mark.parametrize("setting", ["synchronous_commit", "fsync", "full_page_writes"])
def test_a_server_that_does_not_keep_what_it_acknowledges_is_refused_unless_that_is_allowed(setting: str) -> None:
    with running_postgres(settings={setting: "off"}) as server:
        url = server.create_database("j")
        with pytest.raises(JournalDamaged, match=f"{setting} = off.*journal.allow_unsafe_durability"):
            open_postgres(LinkOptions(url), WANTED, now_ms=NOW_MS)
        journal = open_postgres(LinkOptions(url, allow_unsafe_durability=True), WANTED, now_ms=NOW_MS)
        assert f"{setting}=off" in journal.info().durability
        journal.close()


def test_synchronous_commit_that_is_off_for_a_database_only_is_refused_too(place: PostgresPlace) -> None:
    place.execute(f'ALTER DATABASE "{place.database}" SET synchronous_commit = off')
    with pytest.raises(JournalDamaged, match="synchronous_commit = off"):
        place.open()


def test_a_failover_that_lost_records_ends_a_running_host_and_refuses_every_start(tmp_path: Path) -> None:
    with running_postgres() as server:
        options = LinkOptions(server.create_database("j"))
        owner = Owner(open_postgres(options, WANTED, now_ms=NOW_MS, directory=tmp_path))
        owner.append(1, 2)
        go_back(server, lambda: owner.append(1))
        with pytest.raises(JournalWentBack, match="shard 1 stood at record 2"):
            owner.append(2)  # of another shard than the one that lost something
        with pytest.raises(JournalError):
            owner.append(2)
        with pytest.raises(JournalWentBack, match="behind its witness: shard 1 stands at record 1"):
            open_postgres(options, WANTED, now_ms=NOW_MS, directory=tmp_path)


@pytest.mark.parametrize("asked", ["check", "checkpoint", "take_over"])
def test_whatever_a_host_asks_first_after_records_were_lost_tells_it(asked: str, tmp_path: Path) -> None:
    with running_postgres() as server:
        options = LinkOptions(server.create_database("j"))
        owner = Owner(open_postgres(options, WANTED, now_ms=NOW_MS, directory=tmp_path))
        owner.append(1)
        go_back(server, lambda: owner.append(1))
        ask = {
            "check": lambda: owner.journal.check([owner.heads[1]]),
            "checkpoint": lambda: owner.journal.checkpoint(),
            "take_over": lambda: owner.journal.take_over([1]),
        }[asked]
        if asked == "checkpoint":
            wait_until(lambda: not link_of(owner).is_alive())
            link_of(owner).used_s = 0.0  # as if it had been idle for long
        with pytest.raises(JournalWentBack):
            ask()


def test_a_witness_of_another_journal_or_of_one_that_is_gone_is_told(tmp_path: Path, postgres: PostgresServer) -> None:
    first = LinkOptions(postgres.create_database("first_of_two"))
    open_postgres(first, WANTED, now_ms=NOW_MS, directory=tmp_path).close()
    second = LinkOptions(postgres.create_database("second_of_two"))
    with pytest.raises(JournalWentBack, match="is gone"):
        open_postgres(second, WANTED, now_ms=NOW_MS, directory=tmp_path)
    open_postgres(second, WANTED, now_ms=NOW_MS).close()
    with pytest.raises(JournalWentBack, match="its witness knows"):
        open_postgres(second, WANTED, now_ms=NOW_MS, directory=tmp_path)


def test_a_timeline_begun_on_purpose_fences_who_still_runs_and_is_no_accusation(
    tmp_path: Path, place: PostgresPlace
) -> None:
    owner = Owner(open_postgres(place.options, WANTED, now_ms=NOW_MS, directory=tmp_path))
    owner.append(1)
    owner.journal.close()
    owner = Owner(open_postgres(place.options, WANTED, now_ms=NOW_MS, directory=tmp_path))
    before = owner.journal.header
    after = begin_timeline(place.options)
    assert (after.cluster_id, after.timeline != before.timeline) == (before.cluster_id, True)
    with pytest.raises(Fenced):
        owner.append(1)
    owner.journal.close()
    again = open_postgres(place.options, WANTED, now_ms=NOW_MS, directory=tmp_path)
    assert again.header == after
    again.close()


def go_back(server: PostgresServer, lost: Callable[[], object]) -> None:
    """What a failover to a standby that had not got ``lost`` yet leaves."""
    server.crash()
    server.copy_data(server.data.with_name("standby"))
    server.start()
    lost()
    server.crash()
    server.put_back(server.data.with_name("standby"))
    server.start()
