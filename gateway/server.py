"""Starts and stops a gateway: the gRPC port with its services, health, reflection and channelz; the links; the probes'
port.

``start_gateway`` is the only door. It needs a running loop (uvloop is worth a third of the work, but that is the
process's choice), configures no logging, installs no signal handler and reads no environment: whoever runs the process
does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from actors.shard.directory import Directory, Overseer, Routes
from gateway.access import Access
from gateway.changes.hub import ChangeHub
from gateway.config import (
    CLIENT_PING_MS_MIN,
    RECEIVE_BYTES_MAX,
    SEND_BYTES_MAX,
    STREAM_PING_MS,
    STREAM_PING_PATIENCE_MS,
    UNTAKEN_CALLS_MAX,
    GatewayConfig,
    check_binding,
    is_loopback,
)
from gateway.core import Core
from gateway.entrance import Entrance, ServerCalls
from gateway.http import Answer, HttpServer, text
from gateway.links import HostLinks
from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.rpc import Wrapper
from gateway.servicers.admin import AdminService
from gateway.servicers.availability import AvailabilityService
from gateway.servicers.change_feed import ChangeFeedService
from gateway.servicers.desk import Desk
from gateway.servicers.exceptions import ExceptionService
from gateway.servicers.reconciliation import ReconciliationService
from gateway.servicers.reservation import ReservationService
from gateway.servicers.stock import StockService
from gateway.servicers.warehouse_events import WarehouseEventService
from gateway.streams import handler
from gateway.validation import KnownNames
from stockade.v1 import (
    admin_service_pb2,
    availability_service_pb2,
    change_feed_service_pb2,
    exception_service_pb2,
    reconciliation_service_pb2,
    reservation_service_pb2,
    stock_service_pb2,
    warehouse_event_service_pb2,
)

# Objects between two runs of the cyclic collector's youngest generation, and how many of those make the older run. A
# batch of 1,000 makes some 20,000 objects that die without its help; at Python's own 700 it costs a tenth of the CPU.
COLLECTOR_THRESHOLDS = (50_000, 20, 50)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

log = logging.getLogger(__name__)

MakeServicer = Callable[[Desk], Any]

# The file that declares a service, its name there, and what serves it.
SERVICES: tuple[tuple[Any, str, MakeServicer], ...] = (
    (reservation_service_pb2, "ReservationService", ReservationService),
    (availability_service_pb2, "AvailabilityService", AvailabilityService),
    (stock_service_pb2, "StockService", StockService),
    (warehouse_event_service_pb2, "WarehouseEventService", WarehouseEventService),
    (exception_service_pb2, "ExceptionService", ExceptionService),
    (reconciliation_service_pb2, "ReconciliationService", ReconciliationService),
    (change_feed_service_pb2, "ChangeFeedService", ChangeFeedService),
    (admin_service_pb2, "AdminService", AdminService),
)


class RunningGateway:
    """A gateway that serves. ``port`` and ``http_port``: where, also when the settings said "any free one"."""

    def __init__(
        self,
        config: GatewayConfig,
        links: HostLinks,
        server: grpc.aio.Server,
        health_servicer: health.aio.HealthServicer,
        closing: asyncio.Event,
        changes: ChangeHub,
    ) -> None:
        self.config = config
        self.port = 0
        self.http_port = 0
        self._links = links
        self._server = server
        self._health = health_servicer
        self._http: HttpServer | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self._closing = closing
        self._changes = changes

    @property
    def ready(self) -> bool:
        """Whether every shard is reached and the gateway does not stop: what ``/readyz`` and health say."""
        return not self._stopping and self._links.core.routable

    def status(self) -> dict[str, Any]:
        """Plain values for a supervisor."""
        core = self._links.core
        return {
            "name": self.config.name,
            "version": self.config.version,
            "port": self.port,
            "http_port": self.http_port,
            "ready": self.ready,
            "stopping": self._stopping,
            "hosts": core.host_ids(),
            "linked_hosts": self._links.host_count,
            "pending_lines": core.pending_lines(),
            "retried_items": core.retried_items,
            "refused_calls": core.refused_calls,
        }

    async def stop(self, grace_s: float) -> None:
        """Health NOT_SERVING, no new calls, those under way get ``grace_s`` seconds; then everything is closed."""
        if self._stopping:
            return
        self._stopping = True
        self._closing.set()
        self._changes.close()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self._changes.stop()
        await self._links.stop()
        if self._http is not None:
            await self._http.stop()
        log.info("%s stopped", self.config.name)

    async def serve(self, metrics: Metrics) -> None:
        """Start listening; called once, by ``start_gateway``."""
        await self._server.start()
        self._links.start()
        self._http = HttpServer(
            {
                "/metrics": lambda: Answer(200, CONTENT_TYPE, metrics.text()),
                "/livez": lambda: text(200, "alive\n"),
                "/readyz": self._readyz,
            }
        )
        await self._http.start(self.config.http_host, self.config.http_port)
        self.http_port = self._http.port
        self._watcher = asyncio.get_running_loop().create_task(self._watch_routes())
        log.info("%s listens on port %d, probes on port %d", self.config.name, self.port, self.http_port)

    def _readyz(self) -> Answer:
        body = json.dumps({"ready": self.ready, "linked_hosts": self._links.host_count, "stopping": self._stopping})
        return Answer(200 if self.ready else 503, "application/json", body.encode())

    async def _watch_routes(self) -> None:
        """Keep health in step with whether every shard is reached."""
        names = ["", *(_full_name(file, name) for file, name, _ in SERVICES)]
        shown: bool | None = None
        while True:
            ready = self._links.core.routable
            if ready != shown:
                shown = ready
                for name in names:
                    await self._health.set(name, _SERVING if ready else _NOT_SERVING)
            self._links.changed.clear()
            await self._links.changed.wait()


async def start_gateway(
    config: GatewayConfig, directory: Directory, *, reservation_servicer: MakeServicer | None = None
) -> RunningGateway:
    """Start a gateway; it serves when this returns, though calls fail with SHARD_UNAVAILABLE until a host is found.

    The process's cyclic garbage collector is made rarer (``calm_collector``).

    ``reservation_servicer``: makes another servicer of ReservationService (benchmarks measure the rest with a constant
    one). Raises RefusedBinding for settings that would open an unprotected port, OSError when a port is taken or a file
    is missing.
    """
    check_binding(config)
    calm_collector()
    links = HostLinks(Core(config), directory, config)
    names = KnownNames(config)
    sources = frozenset(
        source
        for each in config.warehouses.values()
        for told in (*each.sources.values(), each.feeds)
        for source in told
    )
    metrics = Metrics(
        name=config.name,
        version=config.version,
        build=config.build,
        sources=sources,
        warehouses=frozenset(config.warehouses),
    )
    metrics.watch(
        pending_lines=lambda: sum(links.core.pending_lines().values()),
        links=lambda: links.host_count,
        retried=lambda: links.core.retried_items,
    )
    desk = Desk(config, names, links, metrics)
    desk.overseer = directory if isinstance(directory, Overseer) else None

    def told_of(routes: Routes) -> None:
        names.set_shard_count(routes.shard_count)
        desk.changes.set_routes(routes)

    links.on_routes = told_of
    calls = ServerCalls()
    server = grpc.aio.server(options=_options(config))
    calls.found()
    # Its own bound in place of gRPC's (maximum_concurrent_rpcs), which says nothing about when to try again
    wrapper = Wrapper(config, Access(config.credentials), metrics, Entrance(config.concurrent_rpcs_max, calls))
    replaced = {"ReservationService": reservation_servicer} if reservation_servicer is not None else {}
    _add_services(server, wrapper, desk, replaced)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection(
        (
            *(_full_name(file, name) for file, name, _ in SERVICES),
            health.SERVICE_NAME,
            channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name,
            reflection.SERVICE_NAME,
        ),
        server,
    )
    gateway = RunningGateway(config, links, server, health_servicer, desk.closing, desk.changes)
    gateway.port = _bind(server, config)
    try:
        await gateway.serve(metrics)
    except BaseException:
        await gateway.stop(0)
        raise
    return gateway


def calm_collector() -> None:
    """Make Python's cyclic collector rare and let it forget what was loaded until now. For the whole process, once."""
    if gc.get_threshold()[0] < COLLECTOR_THRESHOLDS[0]:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _add_services(server: grpc.aio.Server, wrapper: Wrapper, desk: Desk, replaced: Mapping[str, MakeServicer]) -> None:
    """Every method that the protos declare, whether its servicer knows it or not: a missing one fails here, not in a
    call.
    """
    for file, name, make in SERVICES:
        servicer = replaced.get(name, make)(desk)
        handlers = {
            method.name: handler(wrapper, method, GetMessageClass(method.input_type), getattr(servicer, method.name))
            for method in file.DESCRIPTOR.services_by_name[name].methods
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_full_name(file, name), handlers),))


def _full_name(file: Any, name: str) -> str:
    return str(file.DESCRIPTOR.services_by_name[name].full_name)


def _options(config: GatewayConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(config.so_reuseport)),
        ("grpc.max_receive_message_length", max(RECEIVE_BYTES_MAX, config.bytes_per_call_max)),
        ("grpc.max_send_message_length", SEND_BYTES_MAX),
        ("grpc.enable_channelz", 1),
        ("grpc.server.max_pending_requests", UNTAKEN_CALLS_MAX // 2),
        ("grpc.server.max_pending_requests_hard_limit", UNTAKEN_CALLS_MAX),
        # streams may be silent for long: the caller's pings are welcome, and a caller that is gone is noticed
        ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PING_MS_MIN),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", STREAM_PING_MS),
        ("grpc.keepalive_timeout_ms", STREAM_PING_PATIENCE_MS),
    ]


def _bind(server: grpc.aio.Server, config: GatewayConfig) -> int:
    host = f"[{config.bind_host}]" if ":" in config.bind_host.strip("[]") else config.bind_host
    address = f"{host}:{config.bind_port}"
    try:
        if config.tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _server_credentials(config))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if not is_loopback(config.bind_host) and config.tls is None:
        log.warning("the gRPC port %s is open to the network without TLS", address)
    return int(port)


def _server_credentials(config: GatewayConfig) -> grpc.ServerCredentials:
    assert config.tls is not None
    pair = (Path(config.tls.private_key).read_bytes(), Path(config.tls.certificate).read_bytes())
    roots = Path(config.tls.client_ca).read_bytes() if config.tls.client_ca else None
    return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=roots is not None)
