"""The one place where concrete adapters are named and parts are put together. What the command line may call is here.

Nothing here decides; nothing here imports Ray (the node process does, see ``node``).
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.journal.lock import take_lock
from actors.journal.memory import MemoryJournal, MemoryStore, memory_store
from actors.journal.port import Journal, JournalError, ReadableJournal
from actors.journal.postgres_link import LinkOptions
from actors.journal.postgres_open import open_postgres, open_postgres_read_only
from actors.journal.sqlite_open import Wanted, open_journal, open_read_only
from actors.runtime.actor_process import load_entry_point
from actors.runtime.announcements import Announcer
from actors.runtime.directory import InProcessDirectory
from actors.runtime.plan import EntryPoints
from actors.runtime.run_directory import read_ready
from actors.runtime.settings import Settings
from actors.runtime.supervisor import EXIT_UNAVAILABLE, Supervisor
from actors.shard.host import ShardHost
from actors.shard.host_config import HostConfig
from actors.shard.placement import PLACEMENT_VERSION

__all__ = [
    "InProcessNode",
    "database",
    "gateway_config",
    "journal_directory",
    "make_host",
    "new_memory_store",
    "open_data_journal",
    "read_data_journal",
    "read_journal",
    "read_status",
    "serve_main",
    "start_gateway",
    "start_in_process",
    "start_webhooks",
    "webhook_configs",
]

GATEWAY_CONFIG_MODULE = "gateway.config"
WEBHOOK_CONFIG_MODULE = "gateway.webhooks.config"
START_GATEWAY = "gateway.server:start_gateway"
START_WEBHOOKS = "gateway.webhooks.service:start_webhooks"
LOOPBACK = "127.0.0.1"
HOST_ID = "host-0"  # an embedded node has one
LOCK_WAIT_BEYOND_PATIENCE_S = 5.0  # a killed holder may still have to let go of its memory
GATEWAY_READY_WITHIN_S = 10.0

JournalFactory = Callable[[], Journal]


# --- serving --------------------------------------------------------------------------------------------------------


def serve_main(settings: Settings, *, entry_points: EntryPoints | None = None) -> int:
    """Run ``stockade serve`` in this process until SIGTERM or SIGINT; the exit code (0: stopped cleanly, 5: cannot
    serve).

    Progress goes to standard output in the form of ``settings.log_format`` and as JSON to ``logs/serve.log``.
    """
    announcer = Announcer(settings.log_format)
    try:
        check_binding = load_entry_point(f"{GATEWAY_CONFIG_MODULE}:check_binding")
        check_binding(gateway_config(settings, cluster_token="", name="", grpc_port=settings.grpc_port))
        webhook_configs(settings)
    except (ValueError, OSError) as error:
        announcer.say("failed", f"cannot serve: {error}")
        return EXIT_UNAVAILABLE
    return asyncio.run(Supervisor(settings, announcer, entry_points or EntryPoints()).run())


def read_status(data_dir: Path) -> dict[str, Any] | None:
    """What the ``serve`` of this data directory says of its processes and ports; None when none runs."""
    return read_ready(data_dir)


# --- parts ----------------------------------------------------------------------------------------------------------


def make_host(
    settings: Settings,
    journal_factory: JournalFactory,
    cluster_token: str,
    frame_port: int,
    *,
    host_id: str = HOST_ID,
    address: str = LOOPBACK,
    shards: tuple[int, ...] | None = None,
    **options: Any,
) -> ShardHost:
    """A shard host that has not opened its journal yet. ``shards``: those it starts with; None: all."""
    config = HostConfig(
        host_id=host_id,
        token=cluster_token,
        address=address,
        port=frame_port,
        shards=shards,
        advertise_port=settings.host_advertise_port,
        snapshot_after_events=settings.snapshot_after_events,
        records_retention_ms=settings.retention_ms,
        compact_interval_ms=settings.compact_interval_ms,
        disk_floor_bytes=settings.disk_floor_bytes,
    )
    return ShardHost(config, journal_factory, settings.rules(), **options)


def gateway_config(settings: Settings, cluster_token: str, *, name: str, grpc_port: int) -> Any:
    """``gateway.config.GatewayConfig`` for one gateway; its own metrics port is any free one on loopback."""
    kinds = vars(importlib.import_module(GATEWAY_CONFIG_MODULE))
    tls = settings.tls
    return kinds["GatewayConfig"](
        cluster_token=cluster_token,
        channels={
            channel_id: kinds["ChannelConfig"](may_impose=channel.may_impose)
            for channel_id, channel in settings.channels.items()
        },
        warehouses={
            warehouse_id: kinds["WarehouseConfig"](
                fulfilment_door=warehouse.door, sources=warehouse.sources_by_fact, feeds=frozenset(warehouse.feeds)
            )
            for warehouse_id, warehouse in settings.warehouses.items()
        },
        consumers={consumer_id: consumer.principal for consumer_id, consumer in settings.declared_consumers.items()},
        name=name,
        bind_host=settings.grpc_host,
        bind_port=grpc_port,
        catalog_open=settings.catalog == "open",
        ttl_default_ms=settings.ttl_default_ms,
        ttl_ms_min=settings.ttl_ms_min,
        ttl_ms_max=settings.ttl_ms_max,
        tls=kinds["TlsFiles"](
            certificate=str(tls.certificate),
            private_key=str(tls.private_key),
            client_ca=str(tls.client_ca or ""),
        )
        if tls
        else None,
        credentials=tuple(
            kinds["Credential"](
                token=credential.secret(),
                principal=credential.principal,
                channels=frozenset(credential.channels),
                sources=frozenset(credential.sources),
                operator=credential.operator,
            )
            for credential in settings.credentials
        ),
        allow_insecure_network=settings.allow_insecure_network,
    )


def webhook_configs(settings: Settings) -> tuple[Any, ...]:
    """``gateway.webhooks.config.WebhookConfig`` of every webhook. ValueError or OSError says which secret cannot be used."""
    kinds = vars(importlib.import_module(WEBHOOK_CONFIG_MODULE))
    return tuple(kinds["from_settings"](webhook_id, webhook) for webhook_id, webhook in settings.webhooks.items())


async def start_webhooks(config: Any, webhooks: tuple[Any, ...], directory: Any) -> Any:
    """Running webhooks (``gateway.webhooks.service.RunningWebhooks``): ``http_port``, ``stop(grace_s)``."""
    return await load_entry_point(START_WEBHOOKS)(config, webhooks, directory)


async def start_gateway(config: Any, directory: Any) -> Any:
    """A running gateway (``gateway.server.RunningGateway``): ``port``, ``http_port``, ``stop(grace_s)``."""
    return await load_entry_point(START_GATEWAY)(config, directory)


# --- journals -------------------------------------------------------------------------------------------------------


def journal_directory(data_dir: Path) -> Path:
    """Where the journal of a data directory lives."""
    return data_dir / "journal"


def open_data_journal(
    settings: Settings, data_dir: Path, say: Callable[[str], None], *, end_holder: bool = True
) -> Journal:
    """The journal of these settings, to write it; made when there is none. Blocks.

    In PostgreSQL any number of hosts may have it open; the data directory holds what this one has seen of it. A SQLite
    file belongs to one process: a former holder of its lock gets ``leftover_patience_ms`` to end, then is killed and
    ``say`` is told; the lock is the fence there. Without ``end_holder`` a held lock is JournalLocked at once. Raises
    ``JournalError`` and says why.
    """
    now_ms = time.time_ns() // 1_000_000
    if settings.journal.is_shared:
        directory = journal_directory(data_dir)
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        wanted = Wanted(settings.shard_count, PLACEMENT_VERSION, settings.cluster.cluster_id)
        return open_postgres(database(settings), wanted, now_ms=now_ms, directory=directory)
    patience_s = settings.leftover_patience_ms / 1000
    lock = take_lock(
        journal_directory(data_dir),
        role="shard host" if end_holder else "maintenance",
        wait_s=patience_s + LOCK_WAIT_BEYOND_PATIENCE_S if end_holder else 0.0,
        kill_holder_after_s=patience_s if end_holder else None,
        say=say,
    )
    try:
        wanted = Wanted(settings.shard_count, PLACEMENT_VERSION, settings.cluster.cluster_id)
        return open_journal(lock, wanted, now_ms=now_ms, ballast_bytes=settings.ballast_bytes)
    except BaseException:
        lock.release()
        raise


def read_data_journal(data_dir: Path) -> ReadableJournal:
    """The SQLite journal of a data directory to look at, also while a server runs. JournalError when there is none or it is
    damaged.
    """
    return open_read_only(journal_directory(data_dir))


def read_journal(settings: Settings) -> ReadableJournal:
    """The journal of these settings to look at, wherever it is, also while hosts write it."""
    if settings.journal.is_shared:
        return open_postgres_read_only(database(settings))
    return read_data_journal(settings.data_dir)


def database(settings: Settings) -> LinkOptions:
    """The one database of a PostgreSQL journal. JournalError when it is split over several."""
    urls = settings.journal.database_urls
    if len(urls) > 1:
        raise JournalError("journals split over several databases (journal.urls) are not served yet: use journal.url")
    return LinkOptions(urls[0], settings.journal.deadline_ms, settings.journal.allow_unsafe_durability)


def new_memory_store(settings: Settings) -> MemoryStore:
    """An empty journal in memory, as a disk that any number of journals may open one after the other."""
    cluster_id, timeline = secrets.token_hex(8), secrets.token_hex(4)
    return memory_store(cluster_id, timeline, settings.shard_count, PLACEMENT_VERSION, time.time_ns() // 1_000_000)


# --- a node in one process ------------------------------------------------------------------------------------------


class InProcessNode:
    """A host and its gateways in the caller's loop, without Ray and supervisor: for tests and benchmarks.

    ``target``: what clients connect to. The gateways share it as they do in a real node.
    """

    def __init__(self, settings: Settings, journal_factory: JournalFactory, cluster_token: str) -> None:
        self.settings = settings
        self.host: ShardHost
        self.gateways: list[Any] = []
        self.directory = InProcessDirectory(first_version=time.time_ns() // 1_000_000)
        self.target = ""
        self._journal_factory = journal_factory
        self._cluster_token = cluster_token
        self._frame_port = 0

    async def start(self) -> None:
        """Start the host, then the gateways; calls are answered when this returns."""
        await self.start_host()
        port = self.settings.grpc_port
        for number in range(self.settings.gateways):
            config = gateway_config(self.settings, self._cluster_token, name=f"gateway-{number}", grpc_port=port)
            gateway = await start_gateway(config, self.directory)
            self.gateways.append(gateway)
            port = gateway.port
        self.target = f"{self.settings.grpc_host}:{port}"
        for gateway in self.gateways:
            async with asyncio.timeout(GATEWAY_READY_WITHIN_S):
                while not gateway.ready:
                    await asyncio.sleep(0.005)

    async def start_host(self) -> None:
        """Start the host, or another one after ``stop_host``, at the same endpoint."""
        self.host = make_host(self.settings, self._journal_factory, self._cluster_token, self._frame_port)
        route = await self.host.start()
        self._frame_port = self.host.port
        engine = self.host.engine
        await self.directory.register(route, engine.cluster_id, engine.timeline, engine.shard_count)

    async def stop_host(self) -> None:
        """Close the host alone; the gateways go on and look for its successor."""
        await self.host.stop()

    async def stop(self) -> None:
        """Gateways first, then the host."""
        for gateway in self.gateways:
            await gateway.stop(1.0)
        await self.host.stop()


async def start_in_process(settings: Settings, journal_factory: JournalFactory | None = None) -> InProcessNode:
    """A running node in this loop. Without ``journal_factory`` its journal is in memory and ends with it."""
    if journal_factory is None:
        store = new_memory_store(settings)
        journal_factory = lambda: MemoryJournal(store)  # noqa: E731  one line says it all
    node = InProcessNode(settings, journal_factory, secrets.token_hex(16))
    await node.start()
    return node
