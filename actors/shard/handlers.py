"""Which command is decided by which rule: two tables, total over ``COMMANDS`` but for RESERVE and AMEND, which the
engine calls itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.domain.answers import Reply
from actors.domain.availability_pages import list_availability
from actors.domain.commands import Verb
from actors.domain.consumers import acknowledge, attach, list_consumers
from actors.domain.errand_registry import ANSWERS, ERRANDS
from actors.domain.errands import answered, take
from actors.domain.escrow_fulfilling import fulfill_anywhere
from actors.domain.escrow_legs import read_lines
from actors.domain.escrow_lifecycle import confirm_anywhere, extend_anywhere, get_anywhere, release_anywhere
from actors.domain.exception_pages import list_exceptions
from actors.domain.feed_watch import get_feed_status, heartbeat
from actors.domain.feeds import ingest
from actors.domain.policies import register_stock, set_selling, set_stock_policy
from actors.domain.reading import (
    explain_availability,
    get_availability,
    get_stock,
    list_reservations,
    list_stock,
    list_transfers,
)
from actors.domain.reconciling import RECONCILIATION_HANDLERS, RECONCILIATION_LISTS
from actors.domain.resolving import get_exception, resolve_exception
from actors.domain.state import ShardState
from actors.domain.turn import Turn

Handler = Callable[[Turn, ShardState, Any], Reply]

HANDLERS: dict[int, Handler] = {
    Verb.CONFIRM: confirm_anywhere,
    Verb.RELEASE: release_anywhere,
    Verb.EXTEND: extend_anywhere,
    Verb.FULFILL: fulfill_anywhere,
    Verb.GET_RESERVATION: get_anywhere,
    Verb.READ_LINES: read_lines,
    Verb.GET_AVAILABILITY: get_availability,
    Verb.EXPLAIN_AVAILABILITY: explain_availability,
    Verb.GET_STOCK: get_stock,
    Verb.REGISTER_STOCK: register_stock,
    Verb.LIST_AVAILABILITY: list_availability,
    Verb.ACKNOWLEDGE_CHANGES: acknowledge,
    Verb.ATTACH_CONSUMER: attach,
    Verb.SET_STOCK_POLICY: set_stock_policy,
    Verb.SET_SELLING: set_selling,
    Verb.INGEST: ingest,
    Verb.HEARTBEAT: heartbeat,
    Verb.RESOLVE_EXCEPTION: resolve_exception,
    Verb.GET_EXCEPTION: get_exception,
    Verb.TAKE_ERRAND: lambda turn, shard, command: take(turn, shard, command, ERRANDS),
    Verb.ERRAND_ANSWERED: lambda turn, shard, command: answered(turn, shard, command, ANSWERS),
    **RECONCILIATION_HANDLERS,
}
LISTS: dict[int, Callable[[Turn, Any], Reply]] = {
    Verb.LIST_RESERVATIONS: list_reservations,
    Verb.LIST_STOCK: list_stock,
    Verb.LIST_TRANSFERS: list_transfers,
    Verb.LIST_EXCEPTIONS: list_exceptions,
    Verb.LIST_CONSUMERS: list_consumers,
    Verb.GET_FEED_STATUS: get_feed_status,
    **RECONCILIATION_LISTS,
}
