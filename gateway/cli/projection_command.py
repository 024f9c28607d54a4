"""``stockade project``: a SQL picture of stock and reservations in a SQLite file or a PostgreSQL database, kept up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import Annotated

import typer

from actors.journal.database_url import shown, without_password
from gateway.cli.endings import Exit, fail, print_json, told_plainly
from gateway.cli.options import TARGET, TIMEOUT_S, Json, Target, Timeout, Token
from gateway.projection.projector import Projector
from gateway.projection.store import ProjectionStore, ProjectionUnusable
from stockade import AsyncClient

PROGRESS_S = 1.0


def project(
    to: Annotated[str, typer.Argument(help="a file for SQLite, or postgresql://USER@HOST/DATABASE")],
    until_now: Annotated[
        bool, typer.Option("--until-now", help="stop when all that is durable now is in it; else follow until stopped")
    ] = False,
    consumer: Annotated[
        str, typer.Option("--consumer", help="acknowledge as this declared consumer, so that its lag is watched")
    ] = "",
    target: Target = TARGET,
    token: Token = "",
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Keep SQL tables of stock, reservations and their lines, for queries and joins. Nothing is ever decided by them.

    Tables: stock, reservations, reservation_lines, projection (how current they are); views: open_lines, stock_by_product.
    Run again it goes on where it was; after a restore of the service it is built anew by itself.
    """
    try:
        store = ProjectionStore(to)
    except ProjectionUnusable as error:
        fail(_plainly(error, to), Exit.USAGE)
    progress = _Progress(quiet=as_json)
    try:
        with told_plainly(target, as_json=as_json, reads=True):
            as_of_ms = asyncio.run(_project(store, target, token, timeout, consumer, until_now, progress))
        stocks, reservations = store.counts()
    except ProjectionUnusable as error:
        fail(_plainly(error, to), Exit.USAGE)
    finally:
        store.close()
    if as_json:
        print_json({"to": _named(to), "stock_keys": stocks, "reservations": reservations, "as_of_ms": as_of_ms})
    else:
        typer.echo(f"{_named(to)}: {stocks:,} stock keys, {reservations:,} reservations")


def _named(to: str) -> str:
    return shown(to) if "://" in to else to


def _plainly(error: ProjectionUnusable, to: str) -> str:
    return without_password(str(error), to) if "://" in to else str(error)


async def _project(
    store: ProjectionStore,
    target: str,
    token: str,
    timeout_s: float,
    consumer_id: str,
    until_now: bool,  # noqa: FBT001
    progress: _Progress,
) -> int:
    as_of_ms = 0
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread, where nobody can signal it
            loop.add_signal_handler(number, stop.set)
    began_ms = time.time_ns() // 1_000_000
    async with AsyncClient(target, token=token, timeout_s=timeout_s) as client:
        projector = Projector(client, store, target, consumer_id=consumer_id, told=progress.told)
        steps = projector.run()
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while True:
                step = asyncio.ensure_future(anext(steps))
                await asyncio.wait((step, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await step
                    return as_of_ms
                written = step.result()
                as_of_ms = written.as_of_ms or as_of_ms
                progress.told("changed rows", written.stocks + written.reservations)
                if until_now and written.as_of_ms >= began_ms:
                    return as_of_ms
        finally:
            stopping.cancel()
            await steps.aclose()


class _Progress:
    """A line a second to a terminal; what is new to a log."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._next_s = 0.0

    def told(self, what: str, count: int) -> None:
        now = time.monotonic()
        if self._quiet or (count and now < self._next_s) or (what == "changed rows" and not self._terminal):
            return
        self._next_s = now + PROGRESS_S
        typer.echo(f"{what}{f': {count:,}' if count else ''}", err=True)
