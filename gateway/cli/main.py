"""The tree of commands."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated

import typer

from gateway.cli import changes_command, events_command, feeds_command, transfer_commands, webhooks_command
from gateway.cli import client_commands as client
from gateway.cli import cluster_commands as clustering
from gateway.cli import exception_commands as excepting
from gateway.cli import projection_command as projecting
from gateway.cli import reconcile_command as reconciling
from gateway.cli import server_commands as server
from gateway.cli import trading_commands as trading
from gateway.cli import verify_command as verifying
from gateway.cli.endings import quiet_broken_pipe

app = typer.Typer(
    name="stockade",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reservations that cannot oversell. Exit codes: 0 ok, 2 usage, 3 refused, 4 not found, 5 unavailable, "
    "6 unknown outcome, 7 verify failed.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("stockade-server"))
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Reservations that cannot oversell."""


SERVICE, STOCK, RESERVATIONS, DATA = "The service", "Stock", "Reservations", "The journal"

for name, panel, command in (
    ("serve", SERVICE, server.serve),
    ("node", SERVICE, clustering.node),
    ("drain", SERVICE, clustering.drain),
    ("status", SERVICE, server.status),
    ("config", SERVICE, server.show_config),
    ("doctor", SERVICE, server.doctor),
    ("demo", SERVICE, trading.demo),
    ("replay", SERVICE, trading.replay),
    ("ats", STOCK, client.ats),
    ("stock", STOCK, client.stock),
    ("explain", STOCK, client.explain),
    ("suspend", STOCK, client.suspend),
    ("resume", STOCK, client.resume),
    ("reconcile", STOCK, reconciling.reconcile),
    ("feeds", STOCK, feeds_command.show_feeds),
    ("transfers", STOCK, transfer_commands.transfers),
    ("watch", STOCK, changes_command.watch),
    ("changes", SERVICE, changes_command.read_changes),
    ("consumers", SERVICE, changes_command.consumers),
    ("project", SERVICE, projecting.project),
    ("reserve", RESERVATIONS, client.reserve),
    ("confirm", RESERVATIONS, client.confirm),
    ("release", RESERVATIONS, client.release),
    ("extend", RESERVATIONS, client.extend),
    ("amend", RESERVATIONS, client.amend),
    ("fulfill", RESERVATIONS, client.fulfill),
    ("verify", DATA, verifying.verify),
    ("backup", DATA, server.backup),
    ("restore", DATA, server.restore),
):
    app.command(name, rich_help_panel=panel)(command)

exceptions = typer.Typer(no_args_is_help=True, help="What somebody must look at, and what they do about it.")
exceptions.command("list")(excepting.list_exceptions)
exceptions.command("show")(excepting.show_exception)
exceptions.command("resolve")(excepting.resolve_exception)
app.add_typer(exceptions, name="exceptions", rich_help_panel=STOCK)

reservations = typer.Typer(no_args_is_help=True, help="List reservations, or get one.")
reservations.command("list")(client.list_reservations)
reservations.command("get")(client.get_reservation)
app.add_typer(reservations, name="reservations", rich_help_panel=RESERVATIONS)

reconciliations = typer.Typer(no_args_is_help=True, help="Lists compared with the books, and asked for.")
reconciliations.command("list")(reconciling.list_reconciliations)
reconciliations.command("get")(reconciling.get_reconciliation)
app.add_typer(reconciliations, name="reconciliations", rich_help_panel=STOCK)

policy = typer.Typer(no_args_is_help=True, help="Safety stock, limits and the sale gate of a stock key.")
policy.command("set")(client.set_policy)
policy.callback()(lambda: None)
app.add_typer(policy, name="policy", rich_help_panel=STOCK)

events = typer.Typer(no_args_is_help=True, help="Warehouse events from files.")
events.command("push")(events_command.push_events)
events.callback()(lambda: None)
app.add_typer(events, name="events", rich_help_panel=STOCK)

webhooks = typer.Typer(no_args_is_help=True, help="Endpoints that changes are posted to.")
webhooks.command("status")(webhooks_command.status)
webhooks.command("test")(webhooks_command.ping)
app.add_typer(webhooks, name="webhooks", rich_help_panel=SERVICE)

journal = typer.Typer(no_args_is_help=True, help="Look at the journal, or compact it.")
journal.command("info")(server.journal_info)
journal.command("compact")(server.journal_compact)
journal.command("begin-timeline")(server.journal_begin_timeline)
app.add_typer(journal, name="journal", rich_help_panel=DATA)


def main() -> None:
    """Entry point of the ``stockade`` script."""
    try:
        app()
    except BrokenPipeError:
        quiet_broken_pipe()
        sys.exit(0)
