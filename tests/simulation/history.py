"""What happened, in neutral words: every attempt of every call as its client saw it, and what only the journal knows.

The simulation and the chaos harness write histories; ``checker`` judges them against ``model``, ``linearize`` without their
positions. Everything here is plain data: names instead of numbers, tuples and dicts instead of the service's own types. It
decides nothing. Converters: ``history_frames`` (frame items and replies), ``history_client`` (requests and results of the
client), ``journal_facts`` (records).

Keys are (warehouse_id, sku). Times ``*_ms`` are Unix milliseconds of shard time; ``invoked`` and ``returned`` are on one
monotonic scale of the harness's own, in any unit. An absent text is "", an absent time 0.

Verbs and their arguments (``asked`` in the converters spells them):

    reserve              request_id channel_id lines ttl_ms (0: the default) confirm fill_policy admission order_reference
                         customer_id replaces_reservation_id labels; lines: ((line_id, key, quantity, minimum), …)
    confirm              request_id reservation_id order_reference expected_version
    release              request_id reservation_id lines reason note; lines: ((line_id, quantity), …), empty: all
    release_by_request   request_id channel_id reserve_request_id lines reason note
    extend               request_id reservation_id ttl_ms
    amend                request_id reservation_id target_lines removed_line_ids expected_version
    fulfill              request_id reservation_id shipment_id lines close_remainder occur_time_ms;
                         lines: ((line_id, quantity, document_line), …)
    get_reservation      reservation_id
    get_availability     channel_id keys
    get_stock            key
    register_stock       request_id key safety_stock_quantity selling_state max_quantity_per_order base_unit
    set_stock_policy     the same and expected_version (None: leave as it is)
    suspend_selling, resume_selling   request_id key note
    ingest               source_id stream_id event_id source_sequence occur_time_ms key fact details document_id
                         document_line lot_id lot_expire_time_ms attributes reject_reason; details: see ``FACT_DETAILS``

Answers of status ok (a part that the caller was not told is absent):

    reserve              reservation_id state version create_time_ms expire_time_ms lines
    verbs, get_reservation   the same and channel_id customer_id order_reference confirm_time_ms end_time_ms
    get_availability     items: ((available, known), …)
    get_stock and operator calls   key on_hand held confirmed picked picked_adrift shortage safety_stock selling_state
                         max_quantity_per_order base_unit policy_version available item_state receipt_disposition
                         recalled_lots in_transit; on_hand: {disposition: units ≠ 0}
    ingest               outcome shortage exception_id reject_reason booked_disposition gate_reasons, and unless replayed
                         watermark (of its stream)

Answers of status refused: reason state version shortages; shortages: ((line_id, key, requested, available, reason), …).
Of status not_done and unknown: error, the service's word for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Key = tuple[str, str]

OK = "ok"
REFUSED = "refused"
NOT_DONE = "not_done"
UNKNOWN = "unknown"  # the call failed and may have happened, or was never answered

RESERVATION_VERBS = frozenset(("confirm", "release", "release_by_request", "extend", "amend", "fulfill"))
OPERATOR_VERBS = frozenset(("register_stock", "set_stock_policy", "suspend_selling", "resume_selling"))
READS = frozenset(("get_reservation", "get_availability", "get_stock"))

# Details of a warehouse fact by its name, in the order in which frames carry them. A promise is () or (reservation_id,
# channel_id, order_reference, line_id).
FACT_DETAILS: dict[str, tuple[str, ...]] = {
    "RECEIPT": ("quantity", "disposition", "inbound_reference", "inbound_line"),
    "PICK": ("quantity", "promise"),
    "UNPICK": ("quantity", "promise"),
    "SHIPMENT": ("quantity", "shipment_id", "promise", "close_remainder", "disposition"),
    "ADJUSTMENT": ("delta", "disposition", "reason", "note"),
    "STOCK_COUNT": ("quantity", "disposition", "as_of_source_sequence", "take_as_now", "includes_picked"),
    "DISPOSITION_CHANGE": ("quantity", "from_disposition", "to_disposition"),
    "TRANSFER_DISPATCH": ("quantity", "transfer_id", "transfer_line", "to_warehouse_id", "disposition"),
    "TRANSFER_RECEIPT": ("quantity", "transfer_id", "transfer_line", "from_warehouse_id", "final", "disposition"),
    "CUSTOMER_RETURN": ("quantity", "disposition", "promise", "return_id"),
}


class Place(NamedTuple):
    """How far an answer had seen one shard."""

    timeline: str
    epoch: int
    sequence: int


class LineSeen(NamedTuple):
    """One line of a reservation as an answer shows it."""

    line_id: str
    key: Key
    requested: int
    granted: int
    fulfilled: int = 0
    released: int = 0
    expired: int = 0
    picked: int = 0
    uncovered: int = 0
    imposed: bool = False


@dataclass(slots=True)
class Operation:
    """One attempt of one call item, as its client saw it.

    A first answer's ``positions`` hold every shard that it saw. A replayed answer gives the first decision again: its
    ``positions`` are then those of that decision and of whatever else it shows; no order follows from the first's.
    ``digest``: what the gateway made of the content, where the harness knows it; else arguments are compared.
    """

    client: str
    verb: str
    arguments: dict[str, Any]
    invoked: float
    returned: float = math.inf
    status: str = UNKNOWN
    replayed: bool = False
    answer: dict[str, Any] = field(default_factory=dict)
    home: int = -1  # the shard of the answer's own position; -1: it has none
    positions: dict[int, Place] = field(default_factory=dict)
    time_ms: int = 0  # of the answer's own position
    digest: bytes = b""

    @property
    def about(self) -> str:
        """The operation in a line, for people."""
        asked = " ".join(
            f"{name}={value!r}" for name, value in self.arguments.items() if value not in ("", 0, (), None)
        )
        places = ", ".join(f"{shard}:{place.epoch}/{place.sequence}" for shard, place in sorted(self.positions.items()))
        again = " again" if self.replayed else ""
        return f"{self.client} {self.verb}({asked}) → {self.status}{again} {self.answer} at [{places}] {self.time_ms}"


class Span(NamedTuple):
    """Where an effect lies in one shard: its events' sequences, first to last."""

    epoch: int
    first: int
    last: int


@dataclass(slots=True)
class Effect:
    """One decision that the journal holds, whoever was told of it.

    ``kind``: command · expiry (of ``reservation_id``) · owned (``shard``, ``grace_until_ms``) · forgotten (the claims
    of ``reservation_id`` on ``key`` left memory) · retired (``reservation_id`` did) · settled (a warehouse event that waited
    was decided) · gap closed (what is missing in ``feed`` up to ``up_to`` is lost). A command and what is settled have
    ``identity``:

        ("request", channel_id, request_id) · ("event", source_id, event_id) · ("operator", request_id, key)
    """

    kind: str
    time_ms: int
    spans: dict[int, Span] = field(default_factory=dict)
    verb: str = ""
    identity: tuple[Any, ...] = ()
    digest: bytes = b""
    home: int = -1  # the shard where the id was spent
    reservation_id: str = ""  # made, changed or expired
    refused: bool = False  # a refusal that spent its id
    lines: tuple[tuple[str, Key, int, int], ...] = ()  # of a reserve: line_id, key, requested, granted
    answer: tuple[Any, ...] = ()  # of an event: outcome, shortage, exception_id, reject_reason
    grace_until_ms: int = 0
    key: Key = ("", "")
    told: frozenset[str] = frozenset()  # reservations whose claims a warehouse event changed
    place: tuple[int, ...] = ()  # of an event that touched stock: (shard, epoch, sequence) that its answers name
    history_forgotten: tuple[tuple[Key, int], ...] = ()  # stock keys whose history before that time was let go of
    transfers_forgotten: tuple[
        tuple[Key, str, str], ...
    ] = ()  # lines of transfers that were complete, or closed long ago
    feed: tuple[str, ...] = ()  # (source, stream)
    up_to: int = 0

    @property
    def told_at(self) -> tuple[int, ...]:
        """(shard, epoch, sequence) that its answers name as theirs; empty: it has none."""
        span = self.spans.get(self.home)
        return self.place or ((self.home, span.epoch, span.last) if span is not None else ())


@dataclass(slots=True)
class JournalFacts:
    """What the journal says: every effect, and where each shard's records end."""

    timeline: str
    effects: list[Effect]
    last_sequences: dict[int, int]
    epochs: dict[int, list[tuple[int, int]]]  # shard → [(first sequence of the epoch's first record, epoch), …]
    channels: dict[str, str]  # reservation id → channel
    problems: list[str] = field(
        default_factory=list
    )  # gaps, epochs or times that went back, effects that hang in the air
    # What the events add up to: [granted, fulfilled, released, expired, picked] of claims in memory; units on hand.
    claims: dict[tuple[Key, str, str], list[int]] = field(default_factory=dict)  # (key, reservation id, line id)
    on_hand: dict[tuple[Key, str], int] = field(default_factory=dict)  # (key, disposition)
    shards: dict[Key, int] = field(default_factory=dict)  # where each stock key is


@dataclass(slots=True)
class History:
    """All that is to be judged."""

    operations: list[Operation]
    journal: JournalFacts
