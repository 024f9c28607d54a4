"""The comparison: the same gateway, interceptors and validation, with a handler that returns a constant. Own process."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from actors.shard.directory import Routes
from gateway.config import ChannelConfig, GatewayConfig, WarehouseConfig
from gateway.server import start_gateway
from gateway.servicers.constant import ConstantReservationService

CHANNEL, WAREHOUSE = "web", "main"


class NoHosts:
    """A directory without hosts: the constant needs none."""

    async def routes(self, after_version: int) -> Routes:
        """An empty map."""
        if after_version:
            await asyncio.sleep(30)
        return Routes(1, "noop", "noop", 64, ())


async def serve(port: int) -> None:
    """Serve until standard input closes: then the benchmark has gone."""
    config = GatewayConfig(
        cluster_token="noop",  # noqa: S106  nobody is behind it
        channels={CHANNEL: ChannelConfig()},
        warehouses={WAREHOUSE: WarehouseConfig()},
        bind_port=port,
    )
    gateway = await start_gateway(config, NoHosts(), reservation_servicer=ConstantReservationService)
    print(gateway.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await gateway.stop(0.1)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
