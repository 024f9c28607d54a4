"""One process of a node: a shard host, a gateway or the directory, told on standard input what it is.

``python -m tests.nodes.member`` reads one line of JSON (``Spec``), starts, prints one line of JSON and serves until
SIGTERM. Everything it does is the product's; only who starts it, and the addresses at which it finds the others, are ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

from actors.runtime import wiring
from actors.runtime.cluster_directory import ClusterDirectory
from actors.runtime.cluster_host import ClusterHost
from actors.runtime.directory_server import DirectoryLink, DirectoryServer
from actors.runtime.directory_service import directory_times
from actors.runtime.processes import stop_with_parent
from actors.runtime.settings import Settings, load_settings
from actors.shard.directory import Routes

GATEWAY_GRACE_S = 1.0
HOST = "host"
GATEWAY = "gateway"
DIRECTORY = "directory"


@dataclass(frozen=True)
class Spec:
    """What a process is. ``environment``: its settings. ``port``: of its listener; 0: any free one. ``via``: host id →
    where this process reaches it, instead of where the host says."""

    role: str
    name: str
    node: str
    token: str
    environment: Mapping[str, str]
    address: str = "127.0.0.1"
    port: int = 0
    directory: str = ""
    via: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> bytes:
        """As it travels."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @property
    def settings(self) -> Settings:
        return load_settings(environment=dict(self.environment)).settings


class LedLink(DirectoryLink):
    """The directory, with the addresses of hosts replaced by those that lead there from here."""

    def __init__(self, endpoint: str, token: str, name: str, via: Mapping[str, str]) -> None:
        super().__init__(endpoint, token, name)
        self._via = via

    async def routes(self, after_version: int) -> Routes:
        routes = await super().routes(after_version)
        hosts = tuple(host._replace(endpoint=self._via.get(host.host_id, host.endpoint)) for host in routes.hosts)
        return routes._replace(hosts=hosts)

    async def beat(self, report: Any) -> Any:
        wishes = await super().beat(report)
        return wishes._replace(take=tuple((s, owner, self._via.get(owner, at)) for s, owner, at in wishes.take))


async def run_directory(spec: Spec, stop: asyncio.Event) -> None:
    directory = ClusterDirectory(directory_times(spec.settings))
    server = DirectoryServer(directory, spec.token)
    await server.start(spec.address, spec.port)
    directory.start()
    say(port=server.port)
    await stop.wait()
    directory.close()
    server.close()


async def run_host(spec: Spec, stop: asyncio.Event) -> None:
    settings = spec.settings
    link = LedLink(spec.directory, spec.token, spec.name, spec.via)
    host: Any = wiring.make_host(
        settings,
        lambda: wiring.open_data_journal(settings, settings.data_dir, logging.warning),
        spec.token,
        spec.port,
        host_id=spec.name,
        address=spec.address,
        shards=(),
        directory=link,
    )
    member = ClusterHost(host, link, spec.node, settings.cluster.node_heartbeat_ms / 1000)
    await member.start()
    say(port=host.port)
    await stop.wait()
    await member.close(settings.drain_ms_max / 1000)
    link.close()


async def run_gateway(spec: Spec, stop: asyncio.Event) -> None:
    config = wiring.gateway_config(spec.settings, spec.token, name=spec.name, grpc_port=spec.port)
    link = LedLink(spec.directory, spec.token, spec.name, spec.via)
    gateway = await wiring.start_gateway(config, link)
    say(port=gateway.port, http_port=gateway.http_port)
    await stop.wait()
    await gateway.stop(GATEWAY_GRACE_S)
    link.close()


RUN = {DIRECTORY: run_directory, HOST: run_host, GATEWAY: run_gateway}


def say(**facts: Any) -> None:
    """The one line that the starter waits for."""
    print(json.dumps({"pid": os.getpid(), **facts}), flush=True)


async def live(spec: Spec) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await RUN[spec.role](spec, stop)


def main() -> None:
    stop_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    spec = Spec(**json.loads(sys.stdin.readline()))
    uvloop.run(live(spec))


if __name__ == "__main__":
    main()
