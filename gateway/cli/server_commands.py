"""Commands of the machine that serves: serve, status, config, doctor, journal, backup, restore."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.cli.endings import Exit, fail, print_json, told_plainly
from gateway.cli.options import TARGET, Config, DataDir, Json, Target, Timeout, Token, connect
from gateway.cli.showing import table, when

CLOCK_SKEW_WARNED_MS = 250  # as hosts do themselves
UNREACHABLE = "unreachable"  # a host's state in GetClusterStatus
DEAD = "dead"


def load(config: Path | None, **overrides: Any) -> Any:
    """Settings with where they came from; a bad one ends the command with its name and the fix. A name with a dot:
    ``**{"cluster.ray_address": …}``.
    """
    from actors.runtime.settings import SettingsError, load_settings

    try:
        loaded = load_settings(config, overrides)
    except SettingsError as error:
        fail(str(error), Exit.USAGE)
    return loaded


@contextlib.contextmanager
def journal_told_plainly() -> Iterator[None]:
    """The journal's failures as one line."""
    from actors.journal.port import JournalDamaged, JournalError, JournalMismatch, JournalMissing, JournalWentBack

    endings = {
        JournalMissing: Exit.NOT_FOUND,
        JournalMismatch: Exit.USAGE,
        JournalDamaged: Exit.VERIFY_FAILED,
        JournalWentBack: Exit.VERIFY_FAILED,
    }
    try:
        yield
    except JournalError as error:
        fail(str(error), endings.get(type(error), Exit.UNAVAILABLE))
    except OSError as error:
        fail(f"{error.filename or ''}: {error.strerror}", Exit.UNAVAILABLE)


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, when somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console

    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def serve(
    config: Config = None,
    data_dir: DataDir = None,
    grpc_port: Annotated[int | None, typer.Option("--port", "-p", help="the gRPC port; 0: any free one")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="port of /metrics, /livez, /readyz")] = None,
    gateways: Annotated[int | None, typer.Option("--gateways", help="gateway processes")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="text or json")] = None,
) -> None:
    """Run the service on this machine until SIGTERM: shard host, directory and gateways under a Ray of its own. With a
    journal in PostgreSQL it is the head that other nodes join (`stockade node`).
    """
    from actors.runtime import wiring

    loaded = load(
        config, data_dir=data_dir, grpc_port=grpc_port, http_port=http_port, gateways=gateways, log_format=log_format
    )
    if head := loaded.settings.cluster.head_address:
        fail(f"this node is to join the head {head}: use `stockade node`, or unset cluster.head_address", Exit.USAGE)
    raise typer.Exit(wiring.serve_main(loaded.settings))


def status(
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = 5.0,
    shards: Annotated[bool, typer.Option("--shards", help="each shard as well")] = False,
    as_json: Json = False,
) -> None:
    """How the service is: hosts, journal, counters."""
    from google.protobuf import json_format

    with told_plainly(target, as_json=as_json, reads=True), connect(target, "", token, timeout) as client:
        found = client.cluster_status()
    if as_json:
        print_json(
            json_format.MessageToDict(
                found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
    else:
        _show_status(found, shards=shards)
    silent = [host.host_id for host in found.hosts if host.state in (UNREACHABLE, DEAD)]
    if silent or not found.hosts:
        fail(f"no answer from {', '.join(silent) or 'any shard host'}: the figures are without it", Exit.UNAVAILABLE)


def _show_status(found: Any, *, shards: bool) -> None:
    actors = sum(shard.stock_actors for shard in found.shards)
    live = sum(shard.reservations for shard in found.shards)
    rows = [
        ("cluster", found.cluster_id),
        ("timeline", found.timeline),
        ("version", found.version),
        ("shards", f"{found.shard_count}, waiting lines {sum(shard.queue_depth for shard in found.shards)}"),
        ("stock keys", f"{actors:,}"),
        ("reservations in memory", f"{live:,}"),
        ("oversells", found.oversells),
        ("shortage units", f"{found.shortage_units:,}"),
        ("imposed and uncovered", f"{found.imposed_uncovered_units:,} units"),
        (
            "journal",
            f"{found.journal.kind}, {found.journal.size_bytes / 2**20:,.1f} MiB{told_free(found.journal.free_bytes or None)}",
        ),
        ("durability", found.journal.durability),
    ]
    table("", ("", ""), rows)
    table(
        "hosts",
        ("host", "node", "state", "endpoint", "pid", "shards", "waiting", "clock", ""),
        [_host_row(host) for host in found.hosts],
    )
    for one in found.shards_on_their_way:
        source = one.from_host_id or "a host that died"
        typer.echo(f"shard {one.shard} is on its way from {source} to {one.to_host_id}")
    if shards:
        each = [
            (s.shard, s.host_id, s.epoch, s.record_number, s.sequence, s.stock_actors, s.reservations, s.queue_depth)
            for s in found.shards
        ]
        table(
            "shards", ("shard", "host", "epoch", "records", "sequence", "stock keys", "reservations", "waiting"), each
        )


def _host_row(host: Any) -> tuple[Any, ...]:
    remark = "" if host.accepts_claims or host.state in (UNREACHABLE, DEAD) else "refuses new claims: disk"
    if host.state == DEAD:
        remark = f"silent for {host.silent_ms / 1000:.0f} s; its shards are others' now"
    against, skew_ms = worst_clock_skew(host)
    skew = f"{skew_ms:+d} ms ({against})" if against else ""
    if abs(skew_ms) > CLOCK_SKEW_WARNED_MS:
        remark = f"{remark}; clocks differ: look at time synchronization".removeprefix("; ")
    return (
        host.host_id, host.node_id, host.state, host.endpoint, str(host.pid), host.shards, host.queue_lines, skew, remark,
    )  # fmt: skip


def worst_clock_skew(host: Any) -> tuple[str, int]:
    """The clock that a host's is farthest from, and by how much it is ahead of that; ("", 0): none was compared."""
    known = {**({"directory": host.clock_skew_ms} if host.node_id else {}), **dict(host.clock_skews_ms)}
    return max(known.items(), key=lambda one: abs(one[1]), default=("", 0))


class Form(StrEnum):
    """How settings are shown."""

    TABLE = "table"
    JSON = "json"


def show_config(
    config: Config = None,
    data_dir: DataDir = None,
    form: Annotated[Form, typer.Option("--format", help="for people or for programs")] = Form.TABLE,
    as_json: Json = False,
) -> None:
    """Every setting, its value, and where it came from: default, file:line, environment or command line. Secrets are ***."""
    loaded = load(config, data_dir=data_dir)
    values = loaded.effective()
    if as_json or form is Form.JSON:
        print_json([{"name": one.name, "value": one.value, "origin": one.origin} for one in values])
        return
    rows = [
        (one.name, json.dumps(one.value, ensure_ascii=False, default=str), one.origin, one.description)
        for one in values
    ]
    table("", ("setting", "value", "from", "what it is"), rows)


def doctor(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Look for what would keep the service from starting or staying up."""
    import importlib.metadata
    import socket

    loaded = load(config, data_dir=data_dir)
    settings = loaded.settings
    checks: list[tuple[str, bool, str]] = []

    def check(name: str, good: bool, detail: str) -> None:
        checks.append((name, good, detail))

    check("Python", sys.version_info >= (3, 11), platform.python_version())
    for package in ("ray", "grpcio", "apsw", "uvloop"):
        check(package, True, importlib.metadata.version(package))
    directory = Path(settings.data_dir)
    there = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    floor = settings.disk_floor_bytes
    check("disk", free > floor * 2, f"{free / 2**30:.1f} GiB free below {there}, floor {floor / 2**20:.0f} MiB")
    try:
        probe = there / f".doctor-{time.monotonic_ns()}"
        probe.write_bytes(b"")
        probe.unlink()
        check("data directory", True, f"{directory} can be written")
    except OSError as error:
        check("data directory", False, f"{there}: {error.strerror}")
    for name, host, port in (
        ("gRPC port", settings.grpc_host, settings.grpc_port),
        ("metrics port", settings.http_host, settings.http_port),
    ):
        if not port:
            check(name, True, "any free one")
            continue
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, port))
                check(name, True, f"{host}:{port} is free")
            except OSError as error:
                check(name, False, f"{host}:{port}: {error.strerror} (a running service holds it)")
    if as_json:
        print_json([{"check": name, "ok": good, "detail": detail} for name, good, detail in checks])
    else:
        table("", ("", "", ""), [(name, "ok" if good else "PROBLEM", detail) for name, good, detail in checks])
    if not all(good for _, good, _ in checks):
        raise typer.Exit(int(Exit.UNAVAILABLE))


def journal_info(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """What the journal is and holds."""
    from actors.runtime import wiring

    with journal_told_plainly():
        journal = wiring.read_journal(load(config, data_dir=data_dir).settings)
        try:
            info = journal.info()
        finally:
            journal.close()
    if as_json:
        print_json(
            {
                "kind": info.kind,
                "location": info.location,
                "header": info.header._asdict(),
                "records": info.record_count,
                "entries": info.entry_count,
                "snapshots": info.snapshot_count,
                "size_bytes": info.size_bytes,
                "free_bytes": info.free_bytes,
                "durability": info.durability,
                "heads": [head._asdict() for head in info.heads],
            }
        )
        return
    header = info.header
    rows = [
        ("journal", f"{info.kind} at {info.location}"),
        ("cluster, timeline", f"{header.cluster_id}, {header.timeline}"),
        ("made", when(header.create_time_ms)),
        ("format", f"{header.format_version}, readable from version {header.minimum_reader_version}"),
        ("shards", f"{header.shard_count}, placement {header.placement_version}"),
        ("records", f"{info.record_count:,}, last sequences {sum(head.sequence for head in info.heads):,} in all"),
        ("dedupe entries", f"{info.entry_count:,}"),
        ("snapshots", f"{info.snapshot_count:,}"),
        ("size", f"{info.size_bytes / 2**20:,.1f} MiB{told_free(info.free_bytes)}"),
        ("durability", info.durability),
    ]
    table("", ("", ""), rows)


def told_free(free_bytes: int | None) -> str:
    """Behind a size: what is free; of a database's disk nobody tells."""
    return "" if free_bytes is None else f", {free_bytes / 2**30:,.1f} GiB free"


def journal_begin_timeline(
    cluster: Annotated[str, typer.Option("--cluster", help="cluster id of the journal that was restored")],
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """After a restore of a PostgreSQL journal: begin a new timeline. Hosts that still run are fenced; caches begin anew."""
    from actors.runtime import offline

    settings = load(config, data_dir=data_dir).settings
    with journal_told_plainly():
        header = offline.begin_journal_timeline(settings, cluster)
    if as_json:
        print_json(header._asdict())
    else:
        typer.echo(f"cluster {header.cluster_id} goes on as timeline {header.timeline}")


def journal_compact(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Drop now what retention allows; a running service does it by itself. One with SQLite must be stopped."""
    from actors.runtime import offline

    settings = load(config, data_dir=data_dir).settings
    with journal_told_plainly():
        result = offline.compact_journal(settings, lambda text: typer.echo(text, err=True))
    if as_json:
        print_json({name: getattr(result, name) for name in result.__dataclass_fields__})
    else:
        table("", ("", ""), [(name.replace("_", " "), getattr(result, name)) for name in result.__dataclass_fields__])


def backup(
    destination: Annotated[Path, typer.Argument(help="the file to be made; must not exist")],
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Copy the journal as it is now, also while a server writes it, with a manifest beside it."""
    from actors.runtime import offline

    if destination.exists():
        fail(f"{destination} exists already: a backup never overwrites one", Exit.USAGE)
    if not destination.absolute().parent.is_dir():
        fail(f"there is no directory {destination.parent} to put the backup in", Exit.USAGE)
    settings = load(config, data_dir=data_dir).settings
    with journal_told_plainly(), bar("copying") as progress:
        manifest = offline.backup_journal(settings, destination, progress)
    if as_json:
        print_json({name: getattr(manifest, name) for name in manifest.__dataclass_fields__})
    else:
        typer.echo(
            f"{destination}: {manifest.size_bytes / 2**20:,.1f} MiB, timeline {manifest.timeline}, sha256 {manifest.sha256}"
        )


def restore(
    source: Annotated[Path, typer.Argument(help="a backup made by `stockade backup`")],
    config: Config = None,
    data_dir: DataDir = None,
    replace: Annotated[
        str, typer.Option("--replace", help="cluster id of a journal that is there: it is put aside")
    ] = "",
    as_json: Json = False,
) -> None:
    """Put a backup back, as a new timeline. The service must be stopped. What came after the backup is gone."""
    from actors.runtime import offline

    if not source.is_file():
        fail(f"there is no backup at {source}", Exit.NOT_FOUND)
    settings = load(config, data_dir=data_dir).settings
    with journal_told_plainly(), bar("restoring") as progress:
        restored = offline.restore_journal(settings, source, progress, replace=replace, say=typer.echo)
    if as_json:
        print_json({"timeline": restored.timeline, "put_aside": str(restored.put_aside or "")})
    else:
        typer.echo(f"restored as timeline {restored.timeline}; start the service again")
        if restored.put_aside:
            typer.echo(f"the journal that was there lies in {restored.put_aside}")
