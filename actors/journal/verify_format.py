"""The journal's format as ``verify`` knows it, by itself and not from the domain: event kinds, their fields, verbs; and
events, causes and broken rules in words. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OWNED = 1
RESERVE, WAREHOUSE_EVENT, HEARTBEAT, TAKEOVER, HOUSEKEEPING = 1, 40, 41, 0, 101
# Causes that have no id of their own: a consumer's place only ever moves on, the service's own doing is its own.
WITHOUT_ID = (TAKEOVER, HOUSEKEEPING, HEARTBEAT, 70, 73, 103)

# kind → (name, fewest fields, names of all of them): what a record of format 1 may hold
EVENTS: dict[int, tuple[str, int, tuple[str, ...]]] = {
    kind: (name, fewest, tuple(fields.split()))
    for kind, name, fewest, fields in (
        (1, "ShardOwned", 3, "epoch timeline grace_until_ms"),
        (10, "StockKeyRegistered", 1, "stock_key"),
        (
            11,
            "StockPolicySet",
            6,
            "stock_key safety_stock_quantity selling_state max_quantity_per_order base_unit version item_state "
            "receipt_disposition recalled_lot_ids",
        ),
        (
            12,
            "OnHandChanged",
            4,
            "stock_key fact disposition delta reference document_id document_line lot_id lot_expire_time_ms note "
            "attributes stream_key sequence occur_time_ms",
        ),
        (13, "AdriftPicked", 3, "stock_key promise delta was"),
        (
            14,
            "FactNoted",
            7,
            "stock_key stream_key sequence occur_time_ms disposition on_hand_delta picked_delta promise "
            "document_id document_line lot_id",
        ),
        (15, "HistoryForgotten", 2, "stock_key before_ms"),
        (
            20,
            "ClaimGranted",
            11,
            "stock_key reservation_id line_id quantity carried admission imposed uncovered confirmed channel_id "
            "order_reference",
        ),
        (21, "ClaimConfirmed", 3, "stock_key reservation_id order_reference"),
        (22, "ClaimReleased", 5, "stock_key reservation_id line_id quantity reason"),
        (23, "ClaimExpired", 2, "stock_key reservation_id"),
        (24, "ClaimFulfilled", 5, "stock_key reservation_id line_id quantity shipped signed"),
        (25, "ClaimPicked", 4, "stock_key reservation_id line_id delta"),
        (26, "ClaimsForgotten", 2, "stock_key reservation_id"),
        (
            30,
            "ReservationOpened",
            8,
            "reservation_id number channel_id request_id digest state expire_time_ms lines order_reference "
            "customer_id replaces_reservation_id labels",
        ),
        (31, "ReservationConfirmed", 2, "reservation_id order_reference channel_id"),
        (32, "ReservationExtended", 2, "reservation_id expire_time_ms channel_id"),
        (33, "ReservationAmended", 4, "reservation_id lines added released channel_id"),
        (34, "ReservationUnitsEnded", 4, "reservation_id fulfilled released expired channel_id"),
        (35, "ReservationEnded", 2, "reservation_id state channel_id"),
        (36, "VerbSpent", 4, "reservation_id request_id digest verb refusal"),
        (37, "ReservationRetired", 1, "reservation_id"),
        (40, "EntrySpent", 3, "entry_key digest answer"),
        (41, "EntryRetired", 1, "entry_key"),
        (
            50,
            "ExceptionOpened",
            11,
            "exception_id number kind stock_key message quantity reservation_ids source_id event_id request_id "
            "channel_id reject_reason payload cause",
        ),
        (51, "ExceptionChanged", 3, "exception_id quantity reservation_ids"),
        (52, "ExceptionHealed", 1, "exception_id"),
        (53, "ExceptionRetired", 1, "exception_id"),
        (54, "ExceptionResolved", 4, "exception_id action resolver note"),
        (55, "ExceptionHandled", 4, "exception_id action resolver note reject_reason"),
        (74, "FeedCorrected", 3, "feed_key warehouse_id outcome"),
        (60, "FeedReceived", 5, "feed_key sequence warehouse_id occur_time_ms outcome"),
        (
            61,
            "EventDeferred",
            5,
            "event_key feed_key place until_ms body principal correlation_id traceparent",
        ),
        (62, "DeferredEnded", 2, "event_key outcome"),
        (63, "FeedStaleSet", 3, "feed_key warehouse_id stale exception_id"),
        (64, "FeedGapClosed", 2, "feed_key up_to"),
        (65, "FeedSettled", 3, "feed_key warehouse_id outcome"),
        (66, "FeedGapSet", 2, "feed_key exception_id"),
        (67, "FeedHeard", 3, "feed_key warehouse_id last_source_sequence"),
        (
            68,
            "CountPlaced",
            8,
            "stock_key stream_key place occur_time_ms disposition includes_picked sequence event_id",
        ),
        (80, "ConsumerStarted", 3, "consumer_id timeline positions"),
        (81, "ChangesAcknowledged", 4, "consumer_id timeline cursor_time_ms positions error rejected"),
        (82, "ConsumerLagSet", 2, "consumer_id exception_id"),
        (83, "ConsumerForgotten", 1, "consumer_id"),
        (90, "ReconciliationRequested", 3, "reconciliation_id warehouse_id reason source_id stream_id"),
        (91, "ReconciliationAlerted", 2, "reconciliation_id exception_id"),
        (92, "ReconciliationBegun", 6, "reconciliation_id request_id digest warehouse_id kind header"),
        (93, "ReconciliationEnded", 3, "reconciliation_id state counts note"),
        (94, "ReconciliationForgotten", 1, "reconciliation_id"),
        (
            95,
            "FindingMade",
            10,
            "finding_key kind state found expected booked includes_picked suspends exception_id place suspects",
        ),
        (96, "FindingResolved", 3, "finding_key state booked"),
        (97, "FindingForgotten", 1, "finding_key"),
        (121, "EntrySettled", 3, "entry_key digest answer"),
        (100, "ErrandSent", 6, "to_shard number verb body purpose cause"),
        (101, "ErrandTaken", 4, "from_shard number settled_below reply"),
        (102, "ErrandSettled", 2, "to_shard number"),
        (
            110,
            "OperationBegun",
            9,
            "operation_id verb command reservation_id replaced_id until_ms legs kept cause",
        ),
        (111, "OperationEnded", 2, "operation_id outcome"),
        (112, "LegAnswered", 3, "operation_id shard reply"),
        (113, "OperationMoved", 4, "operation_id phase legs kept"),
        (70, "TransferDispatched", 5, "stock_key transfer_id transfer_line from_warehouse_id quantity"),
        (71, "TransferReceived", 6, "stock_key transfer_id transfer_line from_warehouse_id quantity final"),
        (72, "TransferAlarmed", 4, "stock_key transfer_id transfer_line exception_id"),
        (73, "TransferForgotten", 3, "stock_key transfer_id transfer_line"),
    )
}
VERBS = {
    0: "takeover",
    1: "reserve",
    2: "confirm",
    3: "release",
    4: "extend",
    5: "amend",
    6: "fulfill",
    30: "register stock",
    31: "set stock policy",
    32: "set selling",
    40: "warehouse event",
    41: "heartbeat",
    43: "resolve exception",
    60: "begin reconciliation",
    61: "reconcile",
    62: "finish reconciliation",
    100: "expiry",
    101: "housekeeping",
    70: "acknowledge changes",
    73: "attach consumer",
    102: "feed watch",
    103: "consumer watch",
}
# What each rule says, in a sentence: the word of a violation's ``rule`` → what did not hold
RULES = {
    "record": "records follow each other without a gap, and each can be read whole",
    "sequence": "events are numbered without a gap",
    "head": "the last record is the one that the shard's head names",
    "epoch": "an epoch never goes back, and begins with its owner saying so",
    "time": "a shard's time never goes back",
    "cause": "every event says whose command or fact it was",
    "event": "every event is of a known kind and can be understood",
    "stock key": "a stock key is registered once, before anything happens to it; its policies are numbered",
    "conservation": "units come and go only by facts, and what leaves is what was booked",
    "picked": "nothing is put back that was not picked",
    "grant": "a claim has units, and says truly how many of them are carried over or imposed",
    "cover": "a claim that needs cover is granted only what is available: no oversell",
    "imposed": "an imposed claim says how much of it was not covered",
    "units end once": "every unit ends once: fulfilled, released or expired",
    "reservation": "a reservation is opened once, and goes only from states that allow it",
    "units match": "what a reservation's home says, its claims say",
    "expiry": "a hold ends at its deadline: not before, and nothing happens to it afterwards",
    "request id": "an id is spent once within its window",
    "feed": "an event of a source is received once, in its place, and waits only for what is missing before it",
    "transfer": "a transfer's sums only grow, and units are lost exactly when an exception says how many",
    "exception": "an exception is opened, changed, ended (healed or resolved) and retired once each, in this order",
    "shortage": "promised units are missing exactly when an open exception says by how much",
    "consumer": "a consumer is first seen once; its place in the feed belongs to one timeline and only moves on",
    "reconciliation": "a list is begun and ended once, and a difference did what it says: booked, or not sold any more",
    "errand": "what one shard asks of another is done once, in order, and answered once",
    "operation": "an order over several shards is begun once, decided by its home alone, and ended once",
    "snapshot": "a snapshot is what the records up to it make",
}


def readable(key: str) -> str:
    """A key for people: the separators as slashes."""
    return key.strip("\x1f").replace("\x1f", "/")


def cause_text(cause: Sequence[Any]) -> str:
    """Who or what it was, in few words."""
    if len(cause) < 3:
        return "without a cause"
    verb, channel_id, request_id = cause[:3]
    source_id = cause[6] if len(cause) > 6 else ""
    scope = source_id or channel_id
    words = [VERBS.get(verb, f"verb {verb}"), f"{scope}:{request_id}" if scope else str(request_id)]
    return " ".join(word for word in words if word)


def event_text(event: Any) -> str:
    """An event with its fields by name, for people."""
    if not isinstance(event, tuple) or not event:
        return f"event {event!r}"
    name, _, fields = EVENTS.get(event[0], (f"event of kind {event[0]!r}", 0, ()))
    parts = [
        f"{fields[at]}={_field_text(value)}" if at < len(fields) else _field_text(value)
        for at, value in enumerate(event[1:])
        if value not in ("", ()) or at < 3
    ]
    return f"{name}({', '.join(parts)})"


def _field_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, tuple):
        return f"[{', '.join(_field_text(one) for one in value)}]"
    return readable(value) if isinstance(value, str) else str(value)
