"""Every command and question that a shard host understands, one NamedTuple each: the body of a frame item.

Field order is wire format between gateway and host (msgpack arrays): append only, and only with a default. Values arrive
validated by the gateway (ids well formed, quantities in range, channel and warehouse known); the domain asserts again what
its state depends on. ``digest`` is the gateway's BLAKE2b-128 over the method and every field but the request id, as sent.
Times are int64 Unix milliseconds, durations milliseconds, quantities base units. 0 / "" / [] mean "not given".
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from actors.domain.consumer_commands import AcknowledgeChanges, AttachConsumer, ListConsumers
from actors.domain.errand_commands import ErrandAnswered, TakeErrand
from actors.domain.escrow_commands import ReadLines
from actors.domain.reconciliation_commands import RECONCILIATION_COMMANDS

# [line_id, stock_key, quantity, minimum_quantity]
LineItem = Sequence[Any]
# [] or [reservation_id, channel_id, order_reference, line_id]; reservation_id or (channel_id + order_reference) is filled
PromiseItem = Sequence[Any]


class Verb(IntEnum):
    """The first element of a frame item: which of the NamedTuples below its body is."""

    RESERVE = 1
    CONFIRM = 2
    RELEASE = 3
    EXTEND = 4
    AMEND = 5
    FULFILL = 6
    GET_RESERVATION = 10
    LIST_RESERVATIONS = 11
    GET_AVAILABILITY = 20
    EXPLAIN_AVAILABILITY = 21
    GET_STOCK = 22
    LIST_STOCK = 23
    LIST_EXCEPTIONS = 24
    REGISTER_STOCK = 30
    SET_STOCK_POLICY = 31
    SET_SELLING = 32
    INGEST = 40
    HEARTBEAT = 41
    GET_FEED_STATUS = 42
    RESOLVE_EXCEPTION = 43
    GET_EXCEPTION = 45
    LIST_TRANSFERS = 44
    GET_HOST_STATUS = 50  # answered by the host's shell, not by the engine
    READ_CHANGES = 51  # the same, as a long poll: [timeline, [[shard, after sequence], …], weight_max, wait_ms]
    ACKNOWLEDGE_CHANGES = 70
    LIST_CONSUMERS = 71
    BEGIN_RECONCILIATION = 60
    RECONCILE_LINES = 61
    FINISH_RECONCILIATION = 62
    GET_RECONCILIATION = 63
    LIST_RECONCILIATIONS = 64
    LIST_FINDINGS = 65
    LIST_COMPARABLE = 66
    LIST_AVAILABILITY = 72
    ATTACH_CONSUMER = 73
    TAKE_ERRAND = 80  # from one host to another: see ``actors.domain.errands``
    ERRAND_ANSWERED = 81
    READ_LINES = 85  # the same: see ``actors.domain.escrow``
    SEAL_SHARDS = 103  # between hosts, answered by the shell: let a shard go that moves, see ``actors.shard.moving``
    UNSEAL_SHARDS = 104
    PEER_BEAT = 105  # answered by the shell of the other host: [host id, wall ms, [[shard, epoch, last change], …]]


class Cause(NamedTuple):
    """Why something happened, journaled with each event. ``request_id``: the command's, or the event id of a warehouse fact."""

    verb: int
    channel_id: str
    request_id: str
    principal: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    source_id: str = ""
    stream_id: str = ""
    source_sequence: int = 0
    occur_time_ms: int = 0


class Reserve(NamedTuple):
    """ReserveStock. Item shard: that of the smallest stock key, or the home of ``replaces_reservation_id``."""

    request_id: str
    digest: bytes
    channel_id: str
    lines: Sequence[LineItem]
    ttl_ms: int
    confirm: bool
    fill_policy: int
    admission: int
    order_reference: str = ""
    customer_id: str = ""
    replaces_reservation_id: str = ""
    labels: Sequence[Sequence[str]] = ()  # [[key, value], …] sorted by key


class Confirm(NamedTuple):
    """ConfirmReservation. Item shard: the reservation's home. ``expected_version`` 0: any."""

    request_id: str
    digest: bytes
    reservation_id: str
    order_reference: str = ""
    expected_version: int = 0


class Release(NamedTuple):
    """ReleaseReservation, by id, or (``reservation_id`` empty) by the reserve's channel and request id at its home."""

    request_id: str
    digest: bytes
    reservation_id: str
    channel_id: str
    reserve_request_id: str
    lines: Sequence[Sequence[Any]]  # [[line_id, quantity], …]; empty: all that is open
    reason: int
    note: str = ""


class Extend(NamedTuple):
    """ExtendReservation: the deadline becomes now + ``ttl_ms`` when that is later."""

    request_id: str
    digest: bytes
    reservation_id: str
    ttl_ms: int


class Amend(NamedTuple):
    """AmendReservation: target = open + fulfilled of a line id; lines not named stay; all or nothing."""

    request_id: str
    digest: bytes
    reservation_id: str
    target_lines: Sequence[LineItem]
    removed_line_ids: Sequence[str] = ()
    expected_version: int = 0


class Fulfill(NamedTuple):
    """FulfillReservation: shipment told by order management. ``lines`` empty: all that is open."""

    request_id: str
    digest: bytes
    reservation_id: str
    shipment_id: str
    lines: Sequence[Sequence[Any]]  # [[line_id, quantity, document_line], …]
    close_remainder: bool = False
    occur_time_ms: int = 0


class GetReservation(NamedTuple):
    reservation_id: str


class ListReservations(NamedTuple):
    """Item shard -1 (the whole host). Filters are ANDed; ``page_token`` is the last answer's, opaque."""

    channel_id: str
    order_reference: str
    stock_key: str
    states: Sequence[int]
    page_size: int
    page_token: str = ""


class GetAvailability(NamedTuple):
    """Keys of ONE shard, in any order; answered in that order."""

    channel_id: str
    stock_keys: Sequence[str]


class ExplainAvailability(NamedTuple):
    channel_id: str
    stock_key: str
    quantity: int = 0


class GetStock(NamedTuple):
    stock_key: str


class ListStock(NamedTuple):
    """Item shard -1 (the whole host)."""

    warehouse_id: str
    only_shortage: bool
    page_size: int
    page_token: str = ""


class ListTransfers(NamedTuple):
    """Item shard -1 (the whole host). Lines of transfers on their way to ``to_warehouse_id``; empty filters: all."""

    to_warehouse_id: str
    from_warehouse_id: str
    transfer_id: str
    page_size: int
    page_token: str = ""


class ListExceptions(NamedTuple):
    """Item shard -1 (the whole host). Empty ``kinds`` / ``states`` / ``priorities`` / ``team``: all. Opened in [from, to)."""

    kinds: Sequence[int]
    warehouse_id: str
    stock_key: str
    states: Sequence[int]
    page_size: int
    page_token: str = ""
    priorities: Sequence[int] = ()
    team: str = ""
    open_from_ms: int = 0
    open_to_ms: int = 0
    newest_first: bool = False
    source_id: str = ""


class GetException(NamedTuple):
    """Item shard: the one in the exception's id."""

    exception_id: str


class ResolveException(NamedTuple):
    """Item shard: the one in the exception's id. ``resolver``: who, when the principal does not say. ``corrected``: an Ingest."""

    request_id: str
    digest: bytes
    exception_id: str
    action: int
    note: str
    resolver: str = ""
    corrected: Sequence[Any] = ()


class ListAvailability(NamedTuple):
    """One shard's keys, for a picture that changes then keep up. ``start``: the last page's ``next_start``; empty warehouse: all."""

    warehouse_id: str
    page_size: int
    start: int = 0


class RegisterStock(NamedTuple):
    """One item of RegisterStock: creates the key when absent. Negative / empty: leave as it is (or the default)."""

    request_id: str
    digest: bytes
    stock_key: str
    safety_stock_quantity: int = -1
    selling_state: int = 0
    max_quantity_per_order: int = -1
    base_unit: str = ""
    item_state: int = 0
    receipt_disposition: int = 0
    recalled_lot_ids: Sequence[Sequence[str]] = ()  # [the lots], or [] to leave them


class SetStockPolicy(NamedTuple):
    """Negative / empty: leave as it is. ``max_quantity_per_order`` 0: no limit. ``expected_version`` 0: any."""

    request_id: str
    digest: bytes
    stock_key: str
    safety_stock_quantity: int = -1
    max_quantity_per_order: int = -1
    base_unit: str = ""
    expected_version: int = 0
    selling_state: int = 0
    item_state: int = 0
    receipt_disposition: int = 0
    recalled_lot_ids: Sequence[Sequence[str]] = ()  # [the lots], or [] to leave them


class SetSelling(NamedTuple):
    """SuspendSelling / ResumeSelling. ``selling_state``: a ``SellingState``."""

    request_id: str
    digest: bytes
    stock_key: str
    selling_state: int
    note: str = ""


class Ingest(NamedTuple):
    """One warehouse event. Item shard: its source's feed shard. ``fact``: a ``Fact`` (or an unknown number: rejected). ``details`` by fact:

    RECEIPT [quantity, disposition, inbound_reference, inbound_line] · PICK, UNPICK [quantity, promise] ·
    SHIPMENT [quantity, shipment_id, promise, close_remainder, disposition] · ADJUSTMENT [delta, disposition, reason, note] ·
    STOCK_COUNT [quantity, disposition, as_of_source_sequence, take_as_now, includes_picked] ·
    DISPOSITION_CHANGE [quantity, from_disposition, to_disposition] ·
    TRANSFER_DISPATCH [quantity, transfer_id, transfer_line, to_warehouse_id, disposition] ·
    TRANSFER_RECEIPT [quantity, transfer_id, transfer_line, from_warehouse_id, final, disposition] ·
    CUSTOMER_RETURN [quantity, disposition, promise, return_id]
    """

    source_id: str
    stream_id: str
    event_id: str
    source_sequence: int
    occur_time_ms: int
    stock_key: str
    digest: bytes
    fact: int
    details: Sequence[Any]
    document_id: str = ""
    document_line: str = ""
    lot_id: str = ""
    lot_expire_time_ms: int = 0
    attributes: Sequence[Sequence[str]] = ()
    reject_reason: int = (
        0  # a RejectReason the gateway already found (unknown warehouse, source not allowed, unknown fact)
    )


class Heartbeat(NamedTuple):
    """The feed lives, and this is the last sequence it gave out (0: it does not count). Item shard: the feed shard."""

    source_id: str
    stream_id: str
    warehouse_id: str
    last_source_sequence: int = 0


class GetFeedStatus(NamedTuple):
    """Item shard -1 (the whole host). Empty: all."""

    source_id: str
    stream_id: str
    warehouse_id: str
    page_size: int
    page_token: str = ""


COMMANDS: dict[int, type[Any]] = {
    Verb.RESERVE: Reserve,
    Verb.CONFIRM: Confirm,
    Verb.RELEASE: Release,
    Verb.EXTEND: Extend,
    Verb.AMEND: Amend,
    Verb.FULFILL: Fulfill,
    Verb.GET_RESERVATION: GetReservation,
    Verb.LIST_RESERVATIONS: ListReservations,
    Verb.GET_AVAILABILITY: GetAvailability,
    Verb.EXPLAIN_AVAILABILITY: ExplainAvailability,
    Verb.GET_STOCK: GetStock,
    Verb.LIST_STOCK: ListStock,
    Verb.LIST_EXCEPTIONS: ListExceptions,
    Verb.REGISTER_STOCK: RegisterStock,
    Verb.LIST_AVAILABILITY: ListAvailability,
    Verb.SET_STOCK_POLICY: SetStockPolicy,
    Verb.SET_SELLING: SetSelling,
    Verb.INGEST: Ingest,
    Verb.HEARTBEAT: Heartbeat,
    Verb.GET_FEED_STATUS: GetFeedStatus,
    Verb.RESOLVE_EXCEPTION: ResolveException,
    Verb.GET_EXCEPTION: GetException,
    Verb.ACKNOWLEDGE_CHANGES: AcknowledgeChanges,
    Verb.LIST_CONSUMERS: ListConsumers,
    Verb.ATTACH_CONSUMER: AttachConsumer,
    **{Verb(number): command for number, command in RECONCILIATION_COMMANDS.items()},
    Verb.LIST_TRANSFERS: ListTransfers,
    Verb.TAKE_ERRAND: TakeErrand,
    Verb.ERRAND_ANSWERED: ErrandAnswered,
    Verb.READ_LINES: ReadLines,
}
