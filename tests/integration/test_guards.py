"""What does not belong together is refused by name, with what to do about it: before anything is served, and over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from actors.journal.database_url import HIDDEN
from actors.journal.memory import MemoryJournal, MemoryStore, memory_store
from actors.journal.port import JournalMismatch
from actors.journal.postgres_link import LinkOptions
from actors.journal.postgres_open import open_postgres
from actors.journal.postgres_schema import SCHEMA
from actors.journal.sqlite_open import Wanted
from actors.journal.sqlite_schema import DATABASE_FILE
from actors.runtime import wiring
from actors.runtime.cluster_directory import ClusterDirectory, DirectoryTimes, HostReport
from actors.runtime.directory import InProcessDirectory
from actors.runtime.directory_server import DirectoryLink, DirectoryRefused, DirectoryServer, DirectoryUnreachable
from actors.runtime.settings import Settings, SettingsError, load_settings
from actors.shard import frames
from actors.shard.directory import HostRoute
from actors.shard.host import ShardHost
from actors.shard.messages import FrameKind
from actors.shard.placement import PLACEMENT_VERSION
from tests.integration.withstand_world import node_settings
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.timeout(60)
SHARDS = 64
TOKEN = "secret"
NOW_MS = 1_700_000_000_000


# --- one journal file, one data node -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting", [{"cluster.hosts_per_node": 2}, {"cluster.head_address": "head", "cluster_token": "t"}]
)
def test_a_journal_file_is_not_shared_by_several_hosts(setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(overrides=setting, environment={})
    for part in (next(iter(setting)), "SQLite journal has one owner", "journal.url", "stockade journal copy"):
        assert part in str(refused.value)


# --- the journal -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Place:
    """A journal that was made with 64 shards for the cluster "ours", and how to open it again."""

    open: Callable[[Wanted], Any]
    change_header: Callable[[str], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = f"guards_{secrets.token_hex(4)}"
        url = server.create_database(database)

        def open_it(wanted: Wanted) -> Any:
            open_postgres(LinkOptions(url), wanted, now_ms=NOW_MS).close()

        def change_it(column: str) -> None:
            server.execute(f"UPDATE {SCHEMA}.header SET {column}", database)

    else:

        def open_it(wanted: Wanted) -> Any:
            chosen = settings_of(wanted, tmp_path)
            wiring.open_data_journal(chosen, tmp_path, lambda _: None).close()

        def change_it(column: str) -> None:
            connection = apsw.Connection(str(tmp_path / "journal" / DATABASE_FILE))
            connection.execute(f"UPDATE header SET {column}")
            connection.close()

    open_it(Wanted(SHARDS, PLACEMENT_VERSION, "ours"))
    return Place(open_it, change_it)


def settings_of(wanted: Wanted, data_dir: Path) -> Settings:
    small = {"disk_floor_bytes": 2**20, "ballast_bytes": 2**20}
    overrides = {
        "shard_count": wanted.shard_count,
        "cluster.cluster_id": wanted.cluster_id,
        "data_dir": data_dir,
        **small,
    }
    return load_settings(overrides=overrides, environment={}).settings


def test_a_journal_of_another_cluster_is_refused(place: Place) -> None:
    with pytest.raises(JournalMismatch) as refused:
        place.open(Wanted(SHARDS, PLACEMENT_VERSION, "theirs"))
    for part in ("cluster id ours, asked for was theirs", "cluster.cluster_id"):
        assert part in str(refused.value)


def test_another_number_of_shards_is_refused(place: Place) -> None:
    with pytest.raises(JournalMismatch) as refused:
        place.open(Wanted(32, PLACEMENT_VERSION))
    for part in ("shard count 64, asked for was 32", "set shard_count = 64"):
        assert part in str(refused.value)


def test_a_reader_too_old_for_the_journal_is_refused(place: Place) -> None:
    place.change_header("minimum_reader_version = 99")
    with pytest.raises(JournalMismatch) as refused:
        place.open(Wanted(SHARDS, PLACEMENT_VERSION))
    for part in ("needs a reader of format 99", "install the release that wrote it"):
        assert part in str(refused.value)


def test_a_writer_that_is_newer_says_so_and_an_older_reader_that_is_let_in_reads(place: Place) -> None:
    place.change_header("format_version = 99")
    place.open(Wanted(SHARDS, PLACEMENT_VERSION))


# --- hosts at the directory --------------------------------------------------------------------------------------------------


def report(host_id: str, **changed: Any) -> HostReport:
    one = HostReport(
        host_id, f"node of {host_id}", "127.0.0.1:1", 1, 1, "serving", (), (), {}, NOW_MS, "ours", "now", SHARDS
    )
    return one._replace(**changed)


class Clock:
    """Time at the directory."""

    def __init__(self) -> None:
        self.now = 100.0


@contextlib.asynccontextmanager
async def directory(clock: Clock, name: str = "host", token: str = TOKEN) -> AsyncIterator[DirectoryLink]:
    """A cluster's directory behind its port, and somebody who asks it."""
    server = DirectoryServer(ClusterDirectory(DirectoryTimes(heartbeat_s=0.0), now=lambda: clock.now), TOKEN)
    await server.start("127.0.0.1", 0)
    link = DirectoryLink(f"127.0.0.1:{server.port}", token, name)
    try:
        yield link
    finally:
        link.close()
        server.close()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"cluster_id": "theirs"}, "is of cluster theirs, this is ours: its journal.url names another database"),
        ({"shard_count": 32}, "has 32 shards, this cluster has 64 for its life"),
        ({"timeline": "before"}, "is of timeline before, the cluster's hosts are of now"),
    ],
)
async def test_a_host_that_does_not_belong_to_the_cluster_is_refused_and_owns_nothing(
    changed: dict[str, Any], expected: str
) -> None:
    async with directory(Clock()) as link:
        await link.beat(report("a", shards=(1,), epochs=(1,)))
        with pytest.raises(DirectoryRefused) as refused:
            await link.beat(report("b", shards=(1, 2), epochs=(9, 9), **changed))
        assert expected in str(refused.value)
        assert "host b of node node of b" in str(refused.value)
        routes = await link.routes(0)
        assert [(host.host_id, host.shards) for host in routes.hosts] == [("a", (1,))]
        assert (routes.cluster_id, routes.timeline, routes.shard_count) == ("ours", "now", SHARDS)
        assert [host["host_id"] for host in (await link.overview())["hosts"]] == ["a"]


async def test_after_a_restore_the_new_timeline_is_taken_once_nobody_of_the_old_one_lives() -> None:
    clock = Clock()
    async with directory(clock) as link:
        await link.beat(report("a", shards=(1,), epochs=(1,)))
        restored = report("b", shards=(1,), epochs=(2,), timeline="restored")
        with pytest.raises(DirectoryRefused):
            await link.beat(restored)
        clock.now += 10.0
        await link.beat(restored)
        assert (await link.routes(0)).timeline == "restored"
        with pytest.raises(DirectoryRefused, match=r"timeline now.*are of restored"):
            await link.beat(report("a", shards=(1,), epochs=(1,)))


async def test_a_node_with_another_secret_is_told_so() -> None:
    async with directory(Clock(), token="anöther") as link:
        with pytest.raises(DirectoryUnreachable, match="cluster_token must be the same on every node"):
            await link.overview()


# --- links between gateways and hosts ----------------------------------------------------------------------------------------


def store_of(cluster_id: str = "ours", timeline: str = "now") -> MemoryStore:
    return memory_store(cluster_id, timeline, SHARDS, PLACEMENT_VERSION, NOW_MS)


@contextlib.asynccontextmanager
async def host(store: MemoryStore) -> AsyncIterator[ShardHost]:
    started = wiring.make_host(node_settings(), lambda: MemoryJournal(store), TOKEN, 0)
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


async def greeted(port: int, *, kind: int = 1, least: int = 1, most: int = 1, **said: str) -> list[Any]:
    """What a host answers to a hello: its welcome, or its goodbye."""
    hello = {"cluster_id": "ours", "timeline": "now", "token": TOKEN, "peer_name": "test", **said}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(frames.encode([kind, least, most, *hello.values()]))
        decoder = frames.FrameDecoder()
        async with asyncio.timeout(10):
            while data := await reader.read(65_536):
                for message in decoder.feed(data):
                    return list(message)
    finally:
        writer.close()
    return []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"cluster_id": "theirs"}, "this is cluster ours, not 'theirs'"),
        ({"timeline": "before"}, "this is timeline now of the cluster, not 'before'"),
        ({"token": "guessed"}, "the token is not this cluster's"),
        ({"least": 90, "most": 99}, "are spoken here, not 90 to 99: upgrade the older side, one release at a time"),
        ({"least": -3, "most": 0}, "are spoken here, not -3 to 0"),
    ],
)
async def test_a_host_says_goodbye_to_who_does_not_belong_to_it(said: dict[str, Any], reason: str) -> None:
    async with host(store_of()) as ours:
        kind, told = await greeted(ours.port, **said)
    assert kind == FrameKind.GOODBYE
    assert reason in told


async def test_a_host_welcomes_who_speaks_a_later_protocol_too_and_who_does_not_know_the_timeline_yet() -> None:
    async with host(store_of()) as ours:
        welcome = await greeted(ours.port, most=99, timeline="")
    assert welcome[0] == FrameKind.WELCOME
    assert frames.read_welcome(welcome).timeline == "now"


@pytest.mark.parametrize(
    ("cluster_id", "timeline", "token", "reason"),
    [
        ("theirs", "now", TOKEN, "this is cluster ours, not 'theirs'"),
        ("ours", "before", TOKEN, "this is timeline now of the cluster"),
        ("ours", "now", "guessed", "the token is not this cluster's"),
    ],
)
async def test_a_gateway_that_does_not_belong_says_why_it_has_no_host(
    caplog: pytest.LogCaptureFixture, cluster_id: str, timeline: str, token: str, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    async with host(store_of()) as ours:
        known = InProcessDirectory(first_version=1)
        route = HostRoute(ours.config.host_id, f"127.0.0.1:{ours.port}", 1, tuple(range(SHARDS)), (1,) * SHARDS)
        await known.register(route, cluster_id, timeline, SHARDS)
        config = wiring.gateway_config(node_settings(), token, name="gateway-0", grpc_port=0)
        gateway = await wiring.start_gateway(config, known)
        try:
            async with asyncio.timeout(20):
                while "no link to shard host" not in caplog.text:
                    await asyncio.sleep(0.01)
            assert not gateway.ready
        finally:
            await gateway.stop(0)
    told = [record for record in caplog.records if "no link to shard host" in record.getMessage()]
    assert reason in told[0].getMessage()
    assert told[0].levelno == logging.WARNING
    assert TOKEN not in caplog.text
    assert HIDDEN not in told[0].getMessage()
