"""What one host knows: stock actors, claims, reservations, dedupe entries and exceptions, by shard. Data, no rules.

``Books`` holds the shards of a host and the indices derived from them (never journaled, rebuilt by recovery). Long-lived
objects are few, slotted and free of cycles: the cyclic garbage collector is off in the host's loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from actors.domain.claims import Claim, Reservation, Spent
from actors.domain.consumer_state import Consumer
from actors.domain.errand_state import Inbound, Outbound
from actors.domain.exception_state import StockException
from actors.domain.feed_state import Deferred, Feed
from actors.domain.history import History
from actors.domain.operation_state import Operation
from actors.domain.outcomes import Disposition, SellingState
from actors.domain.reconciliation_state import Finding, Reconciliation, ReconciliationIndex
from actors.domain.rules import Rules
from actors.domain.stock_parts import SaleGate, Transfer

__all__ = ["OPEN", "SELLABLE", "Books", "Claim", "Entry", "Reservation", "ShardState", "Spent", "StockActor"]

NO_CLAIMS: Mapping[str, Claim] = MappingProxyType({})
SELLABLE = int(Disposition.SELLABLE)
OPEN = int(SellingState.OPEN)


class StockActor:
    """The authoritative state of one stock key. ``held``, ``confirmed``, ``picked`` and ``picked_adrift`` are sums kept up."""

    __slots__ = (
        "adrift",
        "base_unit",
        "confirmed",
        "gate",
        "held",
        "history",
        "kept_claims",
        "key",
        "max_quantity_per_order",
        "on_hand",
        "orders",
        "picked",
        "picked_adrift",
        "policy_version",
        "safety_stock",
        "sellable",
        "selling_state",
        "shard",
        "shortage_exception_id",
        "transfers",
    )

    def __init__(self, key: str, shard: ShardState) -> None:
        self.key = key
        self.shard = shard
        self.sellable = 0  # on_hand[SELLABLE], apart because every decision reads it
        self.on_hand: dict[int, int] | None = None  # the other dispositions
        self.safety_stock = 0
        self.selling_state = OPEN
        self.max_quantity_per_order = 0
        self.base_unit = ""
        self.policy_version = 1
        self.held = 0
        self.confirmed = 0
        self.picked = 0
        self.picked_adrift = 0
        self.kept_claims: dict[str, Claim] | Claim | None = None  # one claim alone needs no dictionary; see ``claims``
        self.adrift: dict[str, int] | None = None  # promise text → net of units picked for no known claim
        self.history: History | None = None
        self.orders: dict[str, list[str]] | None = None  # channel US order reference → reservation ids
        self.shortage_exception_id = ""
        self.gate: SaleGate | None = None  # None: the defaults
        self.transfers: dict[str, Transfer] | None = None  # transfer US line → what is under way to here

    @property
    def claims(self) -> Mapping[str, Claim]:
        """The first claim of each reservation by its id, in the order granted. To look at: changed by the two below."""
        kept = self.kept_claims
        if kept is None:
            return NO_CLAIMS
        return kept if isinstance(kept, dict) else MappingProxyType({kept.reservation_id: kept})

    def put_claim(self, first: Claim) -> None:
        """A reservation's first claim here."""
        kept = self.kept_claims
        if isinstance(kept, dict):
            kept[first.reservation_id] = first
        elif kept is None:
            self.kept_claims = first
        else:
            self.kept_claims = {kept.reservation_id: kept, first.reservation_id: first}

    def pop_claim(self, reservation_id: str) -> Claim:
        """That reservation's first claim, which is not here any more. Raises KeyError."""
        first = self.claims[reservation_id]
        kept = self.kept_claims
        if isinstance(kept, dict):
            del kept[reservation_id]
        if not isinstance(kept, dict) or not kept:
            self.kept_claims = None
        return first

    def on_hand_of(self, disposition: int) -> int:
        """Units on hand in that disposition; may be negative for a while."""
        if disposition == SELLABLE:
            return self.sellable
        return self.on_hand.get(disposition, 0) if self.on_hand else 0


class Entry:
    """One id spent without a reservation: warehouse events, shipments, operator calls, tombstones, refusals that spend."""

    __slots__ = ("answer", "digest", "epoch", "key", "sequence", "shard", "time_ms")

    def __init__(  # noqa: PLR0913  as many as it has
        self,
        key: str,
        digest: bytes,
        answer: Sequence[Any],
        shard: int,
        time_ms: int = 0,
        epoch: int = 0,
        sequence: int = 0,
    ) -> None:
        self.key = key
        self.digest = digest
        self.answer = answer
        self.shard = shard
        self.time_ms = time_ms
        self.epoch = epoch
        self.sequence = sequence


class ShardState:
    """One shard: the unit of ownership, ordering and journaling. ``sequence``: of the last event applied."""

    __slots__ = (
        "busy",
        "consumers",
        "deferred",
        "entries",
        "epoch",
        "exceptions",
        "exceptions_open",
        "feeds",
        "findings",
        "grace_until_ms",
        "id",
        "id_prefix",
        "inbound",
        "next_exception_number",
        "next_reservation_number",
        "operations",
        "outbound",
        "owned_time_ms",
        "reconciliations",
        "record_number",
        "reservations",
        "sequence",
        "stock",
        "strict",
        "time_ms",
        "timeline",
        "transferring",
    )

    def __init__(self, shard_id: int) -> None:
        self.id = shard_id
        self.epoch = 0
        self.timeline = ""
        self.id_prefix = ""
        self.sequence = 0
        self.record_number = 0
        self.time_ms = 0
        self.owned_time_ms = 0
        self.grace_until_ms = 0
        self.next_reservation_number = 1
        self.next_exception_number = 1
        self.exceptions_open = 0
        self.strict = True  # False while a sliced snapshot's early events are applied part by part
        self.transferring: dict[str, None] = {}  # derived: stock keys with transfers
        self.stock: dict[str, StockActor] = {}
        self.reservations: dict[str, Reservation] = {}
        self.entries: dict[str, Entry] = {}
        self.exceptions: dict[str, StockException] = {}
        self.feeds: dict[str, Feed] = {}  # by identity.feed_key
        self.consumers: dict[str, Consumer] = {}
        self.outbound: dict[int, Outbound] = {}  # errands to other shards
        self.operations: dict[str, Operation] = {}  # under way with other shards, by their id
        self.busy: dict[str, Operation] = {}  # derived: by the reservations they are about
        self.inbound: dict[int, Inbound] = {}  # errands of other shards
        self.deferred: dict[str, Deferred] = {}  # by identity.event_key, in the order they came
        self.reconciliations: dict[str, Reconciliation] = {}
        self.findings: dict[str, Finding] = {}  # by finding_key, in the order they were made


class Books:
    """All shards of one host, and what is derived from them."""

    __slots__ = (
        "changed",
        "consumers",
        "consumers_due_ms",
        "deadlines",
        "ended",
        "entries_spent",
        "exceptions_healed",
        "exceptions_open",
        "feed_shard_of",
        "feeds_moved",
        "feeds_of",
        "gaps",
        "gaps_watched",
        "held_reservations",
        "imposed_uncovered_units",
        "operations_due",
        "orders",
        "oversells",
        "partial",
        "reconciliations",
        "request_ids",
        "reservations",
        "resolution_times",
        "rules",
        "shard_of",
        "shards",
        "shortage_units",
        "silence_look_ms",
        "stale_feeds",
        "stale_warehouses",
        "stock",
        "waiting",
        "waiting_until",
    )

    def __init__(
        self, rules: Rules, shard_of: Callable[[str], int], feed_shard_of: Callable[[str], int] = lambda _source_id: -1
    ) -> None:
        self.rules = rules
        self.shard_of = shard_of
        self.feed_shard_of = feed_shard_of
        self.shards: dict[int, ShardState] = {}
        self.stock: dict[str, StockActor] = {}
        self.reservations: dict[str, Reservation] = {}
        self.request_ids: dict[
            str, Reservation | Entry | Operation
        ] = {}  # identity.request_key, event_key → who spent it
        self.orders: dict[str, list[str]] = {}  # identity.order_key → reservation ids in memory
        self.deadlines: list[tuple[int, int, str]] = []  # heap: (deadline ms, shard, reservation id), lazily cleaned
        self.ended: deque[tuple[int, str]] = deque()  # (end time ms, reservation id)
        self.entries_spent: deque[tuple[int, int, str]] = deque()  # (time ms, shard, entry key)
        self.exceptions_healed: deque[tuple[int, int, str]] = deque()  # (time ms, shard, exception id)
        self.exceptions_open: dict[tuple[int, int], int] = {}  # (kind, reject reason) → how many are open
        self.resolution_times: dict[int, list[float]] = {}  # kind → [seconds in all, ended ones by bucket …], live ones
        self.partial = False  # not every shard there is is here: others may hold lines of reservations that live here
        self.operations_due: list[tuple[int, int, str, int]] = []  # heap: (until ms, shard, operation id, serial)
        self.held_reservations = 0
        self.oversells = 0
        self.imposed_uncovered_units = 0
        self.shortage_units = 0
        self.reconciliations = ReconciliationIndex()

        self.waiting: dict[
            str, list[tuple[int, int, str, int]]
        ] = {}  # feed key → heap: (place, sequence, event key, shard)
        self.waiting_until: list[tuple[int, int, str]] = []  # heap: (until ms, shard, event key), lazily cleaned
        self.feeds_of: dict[str, list[Feed]] = {}  # source → its streams
        self.silence_look_ms = 0  # when the next source may have fallen silent
        self.feeds_moved: dict[str, None] = {}  # feeds with waiting events whose watermark moved
        self.gaps: list[tuple[int, int, str]] = []  # heap: (missing since ms, shard, feed key), lazily cleaned
        self.gaps_watched: set[str] = set()  # the feeds in it
        self.changed: dict[int, int] = {}  # shard → sequence of its last change
        self.consumers: dict[str, Consumer] = {}  # of all shards
        self.consumers_due_ms = 0  # when their lag is looked at next
        self.stale_feeds: set[tuple[str, str]] = set()  # (source, warehouse) that fell silent
        self.stale_warehouses: dict[str, int] = {}  # warehouse → how many of its sources fell silent

    def feed_shard(self, source_id: str) -> ShardState | None:
        """The shard of a source's feeds; None: it is not here."""
        return self.shards.get(self.feed_shard_of(source_id))

    def set_stale(self, source_id: str, warehouse_id: str, *, stale: bool) -> None:
        """A source is silent about a warehouse, or is heard again."""
        if stale == ((source_id, warehouse_id) in self.stale_feeds):
            return
        count = self.stale_warehouses.get(warehouse_id, 0) + (1 if stale else -1)
        if stale:
            self.stale_feeds.add((source_id, warehouse_id))
        else:
            self.stale_feeds.discard((source_id, warehouse_id))
        if count:
            self.stale_warehouses[warehouse_id] = count
        else:
            self.stale_warehouses.pop(warehouse_id, None)

    def home_of(self, reservation: Reservation) -> ShardState:
        """The shard that holds a reservation's record."""
        return self.shards[int(reservation.id.split("-")[2])]
