"""Commands of a service on several nodes: node (joins one), drain (empties a host)."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from gateway.cli.endings import Exit, fail, print_json, told_plainly
from gateway.cli.options import TARGET, Config, DataDir, Json, Target, Timeout, Token, connect
from gateway.cli.server_commands import load

LOOK_INTERVAL_S = 0.25


def node(
    head: Annotated[str | None, typer.Option("--head", help="HOST or HOST:PORT of the head (`stockade serve`)")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    grpc_port: Annotated[int | None, typer.Option("--port", "-p", help="the gRPC port; 0: any free one")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="port of /metrics, /livez, /readyz")] = None,
    gateways: Annotated[int | None, typer.Option("--gateways", help="gateway processes")] = None,
    hosts: Annotated[int | None, typer.Option("--hosts", help="shard hosts")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="text or json")] = None,
) -> None:
    """Run another node of a service whose journal is in PostgreSQL, until SIGTERM; its shards move away before it stops."""
    from actors.runtime import wiring

    given: dict[str, Any] = {
        "data_dir": data_dir,
        "grpc_port": grpc_port,
        "http_port": http_port,
        "gateways": gateways,
        "log_format": log_format,
        "cluster.head_address": head,
        "cluster.hosts_per_node": hosts,
    }
    settings = load(config, **given).settings
    if not settings.journal.is_shared:
        fail(
            "a node shares its journal with the head: set journal.url to the head's PostgreSQL database; with a SQLite "
            "journal the service is one node (`stockade serve`)",
            Exit.USAGE,
        )
    if not settings.cluster.head_address:
        fail(
            "which head? give --head HOST, or set cluster.head_address; the head itself is `stockade serve`", Exit.USAGE
        )
    raise typer.Exit(wiring.serve_main(settings))


def drain(
    host_id: Annotated[str, typer.Argument(help="the host, as `stockade status` names it")],
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = 60.0,
    undo: Annotated[bool, typer.Option("--undo", help="take it back: the host gets shards again")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="until it has no shard left, --timeout at most")
    ] = True,
    as_json: Json = False,
) -> None:
    """Let a host give its shards to the others, one after the other, while everything goes on."""
    with told_plainly(target, as_json=as_json, reads=False), connect(target, "", token, timeout) as client:
        left = client.drain_host(host_id, undo=undo)
        deadline = time.monotonic() + timeout
        while wait and not undo and left and time.monotonic() < deadline:
            time.sleep(LOOK_INTERVAL_S)
            left = next((host.shards for host in client.cluster_status().hosts if host.host_id == host_id), 0)
    if as_json:
        print_json({"host_id": host_id, "shards": left})
    elif undo:
        typer.echo(f"{host_id} gets shards again")
    else:
        typer.echo(f"{host_id} has {left or 'no'} shards left")
    if left and wait and not undo:
        fail(f"{host_id} still has {left} shards; it goes on giving them away, see `stockade status`", Exit.UNAVAILABLE)
