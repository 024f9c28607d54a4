"""What each kind of exception means to the people who look after it: how soon, which team, what to do, what may be done.

A table, read when an exception is shown: nothing of it is journaled, so it may change. What a resolution does is
``actors.domain.resolving``'s.
"""

from __future__ import annotations

from typing import NamedTuple

from actors.domain.outcomes import ExceptionKind, ExceptionPriority, RejectReason, ResolveAction
from actors.domain.rules import Rules

LOW, NORMAL, HIGH, URGENT = ExceptionPriority
RETRY, CORRECT, DISCARD, ACKNOWLEDGE = ResolveAction

WAREHOUSE = "warehouse"  # who runs the shelves and the system that tells of them
INVENTORY = "inventory_control"  # who answers for the books being right
ORDERS = "order_desk"  # who talks to customers
INTEGRATION = "integration"  # who runs what connects the systems
CHANNELS = "channels"  # who runs marketplaces and shops

EVENT_KINDS = frozenset(
    (ExceptionKind.EVENT_REJECTED, ExceptionKind.EVENT_NOT_PLACED, ExceptionKind.SHIPMENT_MISMATCH)
)  # about an event that was not booked and may be decided again


class Meaning(NamedTuple):
    """How soon, who, what to do, and which actions end it (ACKNOWLEDGE is allowed always)."""

    priority: ExceptionPriority
    team: str
    suggested_action: str
    actions: tuple[ResolveAction, ...]


EVENT_ACTIONS = (RETRY, CORRECT, DISCARD)
KINDS: dict[int, Meaning] = {
    ExceptionKind.SHORTAGE: Meaning(
        URGENT,
        ORDERS,
        "look for the units, buy or transfer more, or release the newest reservations named; it heals by itself",
        (),
    ),
    ExceptionKind.SHIPMENT_MISMATCH: Meaning(
        HIGH,
        WAREHOUSE,
        "find out how many units left; if the books are wrong, send an adjustment; then discard",
        EVENT_ACTIONS,
    ),
    ExceptionKind.SHIPMENT_EXCEEDS_OPEN: Meaning(
        NORMAL, ORDERS, "ask the customer to keep or return what was sent too much; then discard", (DISCARD,)
    ),
    ExceptionKind.SHIPMENT_WITHOUT_CLAIM: Meaning(
        NORMAL,
        ORDERS,
        "find the order the shipment belongs to and release what it still holds; then discard",
        (DISCARD,),
    ),
    ExceptionKind.EVENT_REJECTED: Meaning(
        NORMAL, INTEGRATION, "mend what the message says and retry, correct the event, or discard it", EVENT_ACTIONS
    ),
    ExceptionKind.FEED_GAP: Meaning(
        HIGH,
        INTEGRATION,
        "make the source send what is missing again; if it is lost, discard: the feed goes on, and count what it was about",
        (DISCARD,),
    ),
    ExceptionKind.FEED_STALE: Meaning(
        HIGH, INTEGRATION, "see why the source is silent; it heals with the next event or heartbeat", ()
    ),
    ExceptionKind.EVENT_NOT_PLACED: Meaning(
        NORMAL,
        INTEGRATION,
        "make the source send what is missing before it; retry books it at once, without waiting; or discard it",
        EVENT_ACTIONS,
    ),
    ExceptionKind.TRANSFER_SHORT: Meaning(
        HIGH,
        WAREHOUSE,
        "look for the units with the carrier and in both warehouses; if they are lost, discard; it heals if they come",
        (DISCARD,),
    ),
    ExceptionKind.CHANGE_REJECTED: Meaning(
        NORMAL, CHANNELS, "see in the consumer why it did not take the change; mend it there, then discard", (DISCARD,)
    ),
    ExceptionKind.CONSUMER_LAGGING: Meaning(
        HIGH, CHANNELS, "see why the consumer does not keep up: it may oversell; it heals when it caught up", ()
    ),
    ExceptionKind.RECONCILIATION_DRIFT: Meaning(
        HIGH,
        INVENTORY,
        "count the shelf: retry books what the list said, discard keeps the books; either way it is sold again",
        (RETRY, DISCARD),
    ),
    ExceptionKind.RECONCILIATION_REQUESTED: Meaning(
        NORMAL, INVENTORY, "have the warehouse send a full list of its stock; it heals when it was reconciled", ()
    ),
    ExceptionKind.TRANSFER_KEY_UNKNOWN: Meaning(
        NORMAL,
        INVENTORY,
        "register the stock key, or declare the warehouse, and retry; or discard if the units go out of the network",
        (RETRY, DISCARD),
    ),
}
REASONS: dict[int, tuple[ExceptionPriority, str, str]] = {
    RejectReason.UNKNOWN_FACT: (NORMAL, INTEGRATION, "correct it to a fact that this version knows, or discard it"),
    RejectReason.UNKNOWN_WAREHOUSE: (
        NORMAL,
        INTEGRATION,
        "declare the warehouse in the settings, restart and retry; or correct a misspelt id",
    ),
    RejectReason.UNKNOWN_STOCK_KEY: (NORMAL, INVENTORY, "register the stock key and retry; or correct a misspelt SKU"),
    RejectReason.AS_OF_MISSING: (
        NORMAL,
        INTEGRATION,
        "correct it: say as of which sequence it was counted, or take it as now",
    ),
    RejectReason.FULFILLED_BY_ORDER_MANAGEMENT: (
        NORMAL,
        INTEGRATION,
        "discard it if order management told of it too; or change the warehouse's fulfilment_door and retry",
    ),
    RejectReason.TOO_OLD: (
        NORMAL,
        INVENTORY,
        "retry books it: only when you know that it was not booked before; else discard it",
    ),
    RejectReason.SOURCE_NOT_ALLOWED: (
        HIGH,
        INTEGRATION,
        "find out who sends it; retry books it on your word; to allow the source, change its sources setting",
    ),
    RejectReason.EVENT_ID_REUSED: (
        HIGH,
        INTEGRATION,
        "one id, two contents: discard it if the first was right; retry books this one too, as an event of its own",
    ),
    RejectReason.SHIPMENT_MISMATCH: (HIGH, WAREHOUSE, "find out how many units left; send an adjustment; then discard"),
    RejectReason.QUANTITY_OUT_OF_RANGE: (NORMAL, INVENTORY, "correct the quantity, or discard it"),
    RejectReason.SEQUENCE_REUSED: (
        HIGH,
        INTEGRATION,
        "two events, one place: discard it if it was sent by mistake; retry books it, without a place",
    ),
    RejectReason.BEFORE_HISTORY: (NORMAL, INVENTORY, "count again, and discard this one"),
    RejectReason.LOT_RECALLED: (
        HIGH,
        INVENTORY,
        "keep the units apart: their lot is called back; if it is not any more, set the policy and retry",
    ),
}


_BY_REASON = {
    (int(ExceptionKind.EVENT_REJECTED), int(reason)): Meaning(priority, team, text, EVENT_ACTIONS)
    for reason, (priority, team, text) in REASONS.items()
}
_UNKNOWN = Meaning(NORMAL, INTEGRATION, "", (DISCARD,))


def meaning_of(rules: Rules, kind: int, reject_reason: int) -> Meaning:
    """What is shown of an exception of that kind; the team as the settings name it."""
    meaning = _BY_REASON.get((kind, reject_reason)) or KINDS.get(kind) or _UNKNOWN
    if not rules.exception_teams:
        return meaning
    team = rules.exception_teams.get(kind_name(kind))
    return meaning._replace(team=team) if team else meaning


def kind_name(kind: int) -> str:
    """A kind as settings and metrics spell it."""
    return ExceptionKind(kind).name.lower() if kind in ExceptionKind._value2member_map_ else f"kind_{kind}"


def priorities_of(kind: int) -> set[ExceptionPriority]:
    """Those that an exception of that kind may have."""
    found = {KINDS[kind].priority} if kind in KINDS else {NORMAL}
    return found | {priority for priority, _, _ in REASONS.values()} if kind == ExceptionKind.EVENT_REJECTED else found
