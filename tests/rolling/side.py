"""One process of either version: a shard host or a gateway, without Ray. Run as a script, it imports whichever version
PYTHONPATH names, so it may use only what both have.

``side.py host DATA_DIR TOKEN FRAME_PORT``: prints its route as a line of JSON when it serves, or why it does not.
``side.py gateway DATA_DIR TOKEN GRPC_PORT``: reads routes as such lines, prints its port when it is ready. Both end with
SIGTERM, or when their standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from actors.journal.port import JournalError
from actors.runtime.directory import InProcessDirectory
from actors.runtime.settings import load_settings
from actors.runtime.wiring import gateway_config, make_host, open_data_journal, start_gateway
from actors.shard.directory import HostRoute

REFUSED = 3


async def main(role: str, data_dir: str, token: str, port: int) -> int:
    fixed = {"grpc_port": port, "http_port": 0, "gateways": 1, "disk_floor_bytes": 2**20, "ballast_bytes": 2**20}
    settings = load_settings(overrides={**fixed, "data_dir": data_dir}, environment={}).settings
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    lines = asyncio.Queue[str]()
    reading = asyncio.create_task(read_lines(lines, stop))
    try:
        if role == "host":
            return await host(settings, Path(data_dir), token, port, stop)
        return await gateway(settings, token, port, lines, stop)
    finally:
        reading.cancel()


async def read_lines(lines: asyncio.Queue[str], stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        lines.put_nowait(line.decode())
    stop.set()


async def host(settings: Any, data_dir: Path, token: str, port: int, stop: asyncio.Event) -> int:
    own = make_host(settings, lambda: open_data_journal(settings, data_dir, say), token, port)
    try:
        route = await own.start()
    except JournalError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        return REFUSED
    engine = own.engine
    told = {"route": list(route), "cluster": [engine.cluster_id, engine.timeline, engine.shard_count], "port": own.port}
    print(json.dumps(told), flush=True)
    await stop.wait()
    await own.stop(5.0)
    return 0


async def gateway(settings: Any, token: str, port: int, lines: asyncio.Queue[str], stop: asyncio.Event) -> int:
    directory = InProcessDirectory(first_version=1)

    async def follow() -> None:
        while True:
            told = json.loads(await lines.get())
            fields: list[Any] = [tuple(one) if isinstance(one, list) else one for one in told["route"]]
            await directory.register(HostRoute(*fields), *told["cluster"])

    following = asyncio.create_task(follow())
    own = await start_gateway(gateway_config(settings, token, name=f"gateway-{os.getpid()}", grpc_port=port), directory)
    while not own.ready:
        await asyncio.sleep(0.005)
    print(json.dumps({"port": own.port}), flush=True)
    await stop.wait()
    following.cancel()
    await own.stop(1.0)
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
