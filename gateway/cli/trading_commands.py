"""``demo`` and ``replay``: the main job, shown and proved."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gateway.cli.endings import Exit, fail, print_json
from gateway.cli.local_service import local_service, write_settings
from gateway.cli.options import Json, Token
from gateway.cli.showing import console, table
from gateway.cli.verify_command import run_verify, show_verified

if TYPE_CHECKING:
    from gateway.trading.traffic import Traffic

LINE_EVERY_S = 5.0  # progress in plain lines when nobody looks at a terminal


class Watcher:
    """Live progress on standard error: a bar for people, a line now and then for logs."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._said = 0.0
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Watcher:
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, traffic: Traffic) -> None:
        """So much is done."""
        counts = traffic.counts
        elapsed = time.monotonic() - self._started
        rate = counts.lines_asked / elapsed if elapsed else 0.0
        refused = counts.lines_refused / counts.lines_asked if counts.lines_asked else 0.0
        note = f"{counts.lines_asked:,} lines, {rate:,.0f}/s, {refused:.1%} refused, {counts.expiries:,} expired"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif elapsed - self._said >= LINE_EVERY_S or done == total:
            self._said = elapsed
            typer.echo(f"{self._what}: {done:,}/{total:,}  {note}  {elapsed:.0f} s", err=True)


@contextlib.contextmanager
def working_directory(data_dir: Path | None, what: str) -> Iterator[Path]:
    """The data directory asked for, which must be empty or absent, or a fresh one that is removed at the end."""
    if data_dir is None:
        with tempfile.TemporaryDirectory(prefix=f"stockade-{what}-") as made:
            yield Path(made)
        return
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if any(data_dir.iterdir()):
            fail(f"--data-dir {data_dir}: it must be empty or not exist, the {what} starts from nothing", Exit.USAGE)
    except OSError as error:
        fail(f"--data-dir {data_dir}: {error.strerror}", Exit.USAGE)
    yield data_dir.resolve()


def say(text: str) -> None:
    """Progress in words, on standard error."""
    typer.echo(text, err=True)


class Story(Enum):
    """What ``demo`` shows."""

    DAY = "day"
    SYNC = "sync"


def demo(
    story: Annotated[
        Story,
        typer.Argument(
            help="day: a trading day; sync: a warehouse's line breaks, and what that must not do to what is sold"
        ),
    ] = Story.DAY,
    *,
    orders: Annotated[int, typer.Option("--orders", help="orders of the day", min=200)] = 3_000,
    seed: Annotated[int, typer.Option("--seed", help="the same seed, the same day")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="how long the day lasts, at least", min=0.0)] = 40.0,
    gateways: Annotated[int, typer.Option("--gateways", help="gateway processes", min=1)] = 2,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", "-d", help="keep the journal here; must be empty")
    ] = None,
    as_json: Json = False,
) -> None:
    """A story on a service of its own, told and proved: a trading day with channels, warehouses, shortages and expiries; or
    (sync) a broken feed, its exceptions, the requested count and a marketplace that lags. --orders, --seed, --seconds and
    --gateways belong to the day."""
    if story is Story.SYNC:
        demo_sync(data_dir, as_json=as_json)
        return
    from gateway.trading import day_driver, trading_day

    plan = trading_day.make_day(orders, seed)
    say(f"a day of {orders:,} orders with {plan.order_lines:,} lines, seed {seed}")
    with working_directory(data_dir, "demo") as directory:
        settings = write_settings(
            directory, trading_day.CHANNELS, (trading_day.IMPOSING_CHANNEL,), trading_day.WAREHOUSES, gateways
        )
        say("starting the service (a local Ray, a shard host, a directory, gateways) …")
        with local_service(settings, directory) as target:
            say(f"serving at {target}")
            with Watcher("trading") as watcher:
                report = asyncio.run(day_driver.run_day(plan, target, seconds=seconds, progress=watcher))
        say("the service has stopped; verifying its journal …")
        verified = run_verify(directory)
        kept = data_dir is not None
    failures = day_driver.failures(report)
    if not verified.ok:
        failures.append(f"verify found {verified.violation_count} violations")
    if as_json:
        print_json({"report": asdict(report), "verify": verified.plain(), "failures": failures})
    else:
        day_driver_rows = [
            (name.replace("_", " "), value)
            for name, value in asdict(report).items()
            if isinstance(value, (int, float, str))
        ]
        table(
            "the trading day",
            ("", ""),
            [(name, _figure(name, value)) for name, value in day_driver_rows],
        )
        _show_latencies(report.latencies_ms)
        show_verified(verified)
        if not failures:
            proof = f"oversells {verified.oversells}, every stock key agrees with what the channels were answered"
            console().print(f"[bold green]proved[/]: {proof}")
    _end(failures, kept, data_dir)


def demo_sync(data_dir: Path | None, *, as_json: bool) -> None:
    """``stockade demo sync``."""
    from gateway.trading import sync_story
    from stockade import AsyncClient

    async def tell(target: str) -> sync_story.SyncReport:
        async with AsyncClient(target, channel_id=sync_story.WEB) as client:
            return await sync_story.SyncStory(client, say if as_json else typer.echo).run()

    with working_directory(data_dir, "demo") as directory:
        settings = directory / "stockade.toml"
        settings.write_text(sync_story.SETTINGS, encoding="utf-8")
        say("starting the service (a local Ray, a shard host, a directory, a gateway) …")
        with local_service(settings, directory) as target:
            report = asyncio.run(tell(target))
        say("the service has stopped; verifying its journal …")
        verified = run_verify(directory)
    failures = list(report.failures)
    if not verified.ok:
        failures.append(f"verify found {verified.violation_count} violations")
    if as_json:
        print_json({"report": report.plain(), "verify": verified.plain(), "failures": failures})
    else:
        columns = ("article", *next(iter(report.stock.values()), {}))
        table("the stock at the end", columns, [(sku, *figures.values()) for sku, figures in report.stock.items()])
        show_verified(verified)
        if not failures:
            proof = f"{len(report.checks)} checks hold, oversells {verified.oversells}, the books are what lies on the floor"
            console().print(f"[bold green]proved[/] in {report.seconds:.0f} s: {proof}")
    _end(failures, data_dir is not None, data_dir)


def replay(
    file: Annotated[Path, typer.Argument(help="UCI Online Retail layout, CSV, optionally gzipped", dir_okay=False)],
    seed: Annotated[int, typer.Option("--seed", help="of warehouses, stock and holds")] = 1,
    refusal_rate: Annotated[
        float, typer.Option("--stock-out-rate", help="share of lines that shall find too little", min=0.0, max=0.5)
    ] = 0.03,
    limit: Annotated[int, typer.Option("--limit", help="only so many lines; 0: all", min=0)] = 0,
    speed: Annotated[
        float, typer.Option("--speed", help="time compressed so many times; 0: as fast as it can", min=0.0)
    ] = 0.0,
    target: Annotated[
        str, typer.Option("--target", "-t", help="a running service, empty of stock; default: one of its own")
    ] = "",
    token: Token = "",
    gateways: Annotated[int, typer.Option("--gateways", help="gateway processes", min=1)] = 2,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", "-d", help="keep the journal here; must be empty")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay a retailer's orders through the service, and judge every stock key by an independent oracle."""
    from gateway.trading import retail_plan
    from gateway.trading.replay import Replay, ReplayReport
    from gateway.trading.retail_file import RetailFileError, read_retail_lines
    from gateway.trading.traffic import Traffic
    from stockade import AsyncClient

    try:
        started = time.monotonic()
        say(f"reading {file} and sizing its stock …")
        plan = retail_plan.make_plan(read_retail_lines(file, limit), seed, refusal_rate)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}", Exit.USAGE)
    except RetailFileError as error:
        fail(str(error), Exit.USAGE)
    if not plan.orders:
        fail(f"{file}: no line of it is a sale", Exit.USAGE)
    say(
        f"{plan.lines_read:,} lines: {len(plan.orders):,} orders over {len(plan.days):,} days, planned with "
        f"{plan.expected_refusal_rate:.2%} of lines refused ({time.monotonic() - started:.0f} s)"
    )

    async def drive(at: str) -> ReplayReport:
        async with AsyncClient(at, token=token) as client:
            with Watcher("replaying") as watcher:
                return await Replay(plan, Traffic(client, "replay"), speed=speed, progress=watcher).run()

    failures: list[str] = []
    verified = None
    if target:
        report = asyncio.run(drive(target))
    else:
        with working_directory(data_dir, "replay") as directory:
            settings = write_settings(directory, retail_plan.CHANNELS, (), retail_plan.WAREHOUSES, gateways)
            say("starting the service …")
            with local_service(settings, directory) as own:
                say(f"serving at {own}")
                report = asyncio.run(drive(own))
            say("the service has stopped; verifying its journal …")
            verified = run_verify(directory)
            if not verified.ok:
                failures.append(f"verify found {verified.violation_count} violations")
    failures += [f"oracle: {difference}" for difference in report.differences]
    if as_json:
        print_json({"report": asdict(report), "verify": verified.plain() if verified else None, "failures": failures})
    else:
        rows = [
            (name.replace("_", " "), value) for name, value in asdict(report).items() if isinstance(value, (int, float))
        ]
        table(
            "the replay",
            ("", ""),
            [(name, _figure(name, value)) for name, value in rows],
        )
        _show_latencies(report.latencies_ms)
        if verified is not None:
            show_verified(verified)
        if not failures:
            console().print(
                f"[bold green]proved[/]: the service agrees with the oracle on all {report.stock_keys:,} stock keys"
            )
    _end(failures, data_dir is not None, data_dir)


def _figure(name: str, value: Any) -> Any:
    """A figure of a report as people read it."""
    if not isinstance(value, float):
        return value
    return f"{value:.2%}" if name.endswith(("share", "rate")) else f"{value:,.1f}"


def _show_latencies(latencies: Any) -> None:
    from gateway.trading.report import LATENCY_COLUMNS, latency_rows

    table("latency seen by the clients", LATENCY_COLUMNS, latency_rows(latencies))


def _end(failures: list[str], kept: bool, data_dir: Path | None) -> None:
    if kept:
        say(f"the journal is kept in {data_dir}; look at it with: stockade verify --data-dir {data_dir}")
    for failure in failures:
        typer.secho(f"FAILED: {failure}", fg="red" if sys.stderr.isatty() else None, err=True)
    if failures:
        raise typer.Exit(int(Exit.VERIFY_FAILED))
