"""What the model knows: stock keys with their claims, reservations, spent ids. Sums are made anew each time they are asked for.

The words and formulas are those of the design's model, written down a second time in the plainest way; nothing is shared with
the service. Keys are (warehouse_id, sku); promises are () or (reservation_id, channel_id, order_reference, line_id).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.history import Key

if TYPE_CHECKING:
    from tests.simulation.model_counts import Count, Note
    from tests.simulation.model_gate import Transfer

HELD, CONFIRMED, FULFILLED, RELEASED, EXPIRED = "HELD", "CONFIRMED", "FULFILLED", "RELEASED", "EXPIRED"
SELLABLE = "SELLABLE"
ON_HAND_MAX = 10**15
LINES_MAX = 2000

# When several reasons apply the first one is given.
REASONS = (
    "UNKNOWN_STOCK_KEY",
    "RESERVATION_EXPIRED",
    "RESERVATION_RELEASED",
    "RESERVATION_FULFILLED",
    "RESERVATION_ALREADY_CONFIRMED",
    "RESERVATION_NOT_CONFIRMED",
    "VERSION_MISMATCH",
    "FULFILLED_BY_WAREHOUSE",
    "QUANTITY_EXCEEDS_OPEN",
    "BELOW_FULFILLED",
    "LIFETIME_EXCEEDED",
    "SELLING_SUSPENDED",
    "LIMIT_PER_ORDER",
    "INSUFFICIENT_STOCK",
)


def first_reason(reasons: list[str]) -> str:
    """The one that precedes the others."""
    return min(reasons, key=REASONS.index)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the rules depend on. ``order_management_ships``: warehouses where order management tells of shipments."""

    catalog_open: bool = True
    order_management_ships: frozenset[str] = frozenset()
    lifetime_ms_max: int = 24 * 3600 * 1000
    dedupe_window_ms: int = 24 * 3600 * 1000
    ttl_ms_default: int = 15 * 60 * 1000
    takeover_grace_ms: int = 2_000
    exceptions_open_max: int = 10_000  # of a shard; beyond it a rejected event opens none
    deferral_ms_max: int = 15 * 60 * 1000
    history_ms: int = 72 * 3600 * 1000
    not_selling: frozenset[str] = frozenset()  # warehouses whose units do not start sellable
    quality_hold_suppliers: frozenset[str] = frozenset()
    feeds: bool = True  # False: sequences are not looked at, every event is decided at once (the search knows no order)


class Claim:
    """What one line of a reservation has on one stock key."""

    __slots__ = (
        "channel_id", "confirmed", "expired", "fulfilled", "granted", "imposed", "line_id", "net", "order_reference",
        "released", "reservation_id", "uncovered",
    )  # fmt: skip

    def __init__(self, reservation: Reservation, line_id: str) -> None:
        self.reservation_id = reservation.id
        self.channel_id = reservation.channel_id
        self.order_reference = reservation.order_reference
        self.line_id = line_id
        self.confirmed = reservation.state == CONFIRMED
        self.granted = self.fulfilled = self.released = self.expired = 0
        self.net = self.imposed = self.uncovered = 0  # net: picks − unpicks − shipped

    @property
    def picked(self) -> int:
        """What is off the shelf for it; a shipment that overtook its pick leaves nothing."""
        return max(0, self.net)

    @property
    def open(self) -> int:
        """Units not ended yet."""
        return self.granted - self.fulfilled - self.released - self.expired


@dataclass(slots=True, eq=False)
class Stock:
    """One stock key."""

    key: Key
    shard: int = 0
    on_hand: dict[str, int] = field(default_factory=dict)
    safety_stock: int = 0
    selling_state: str = "OPEN"
    max_quantity_per_order: int = 0
    base_unit: str = ""
    policy_version: int = 1
    claims: dict[str, dict[str, Claim]] = field(default_factory=dict)  # reservation id → line id → claim
    live: dict[tuple[str, str], Claim] = field(default_factory=dict)  # those with open or picked units
    adrift: dict[tuple[str, ...], int] = field(
        default_factory=dict
    )  # promise without line → net picked for no known claim
    orders: dict[tuple[str, str], set[str]] = field(default_factory=dict)  # (channel, order) → reservation ids
    arrivals: dict[str, int] = field(default_factory=dict)  # reservation id → its place among those claimed here
    booked: dict[tuple[str, str], int] = field(default_factory=dict)  # (shipment id, document line) → quantity
    shortage_exception: str = ""
    notes: list[Note] = field(default_factory=list)  # what moved its units
    counts: list[Count] = field(default_factory=list)
    history_from_ms: int = 0  # what moved before it may be forgotten
    item_state: str = "ACTIVE"
    receipt_disposition: str = SELLABLE
    recalled_lots: tuple[str, ...] = ()
    transfers: dict[tuple[str, str], Transfer] = field(default_factory=dict)  # (transfer id, line) of what comes here

    def policy(self) -> tuple[Any, ...]:
        """Everything that an operator sets."""
        return (
            self.safety_stock, self.selling_state, self.max_quantity_per_order, self.base_unit, self.item_state,
            self.receipt_disposition, self.recalled_lots,
        )  # fmt: skip

    def on_hand_of(self, disposition: str) -> int:
        """Units there in that condition."""
        return self.on_hand.get(disposition, 0)

    def claim(self, reservation_id: str, line_id: str) -> Claim | None:
        """That line's claim here."""
        return self.claims.get(reservation_id, {}).get(line_id)

    def touched(self, claim: Claim) -> None:
        """A claim changed: it is worth counting while a unit of it is open or picked."""
        if claim.open or claim.picked:
            self.live[(claim.reservation_id, claim.line_id)] = claim
        else:
            self.live.pop((claim.reservation_id, claim.line_id), None)

    def held(self) -> int:
        return sum([claim.open for claim in self.live.values() if not claim.confirmed])

    def confirmed(self) -> int:
        return sum([claim.open for claim in self.live.values() if claim.confirmed])

    def claimed(self) -> int:
        return sum([claim.open for claim in self.live.values()])

    def picked(self) -> int:
        return sum([claim.picked for claim in self.live.values()]) + self._piled()

    def _piled(self) -> int:
        return sum([max(0, units) for units in self.adrift.values()])

    def picked_adrift(self) -> int:
        beyond = sum([max(0, claim.picked - claim.open) for claim in self.live.values() if claim.picked])
        return beyond + self._piled()

    def headroom(self) -> int:
        """Cover less claims; may be negative."""
        cover = self.on_hand_of(SELLABLE) - self.picked_adrift() - self.safety_stock
        return cover - self.claimed()

    def available(self) -> int:
        """ATS."""
        return max(0, self.headroom()) if self.selling_state == "OPEN" else 0

    def shortage(self) -> int:
        return max(0, self.claimed() - (self.on_hand_of(SELLABLE) - self.picked_adrift()))

    def seen(self) -> dict[str, Any]:
        """As an answer shows it."""
        return {
            "key": self.key,
            "on_hand": {disposition: units for disposition, units in self.on_hand.items() if units},
            "held": self.held(),
            "confirmed": self.confirmed(),
            "picked": self.picked(),
            "picked_adrift": self.picked_adrift(),
            "shortage": self.shortage(),
            "safety_stock": self.safety_stock,
            "selling_state": self.selling_state,
            "max_quantity_per_order": self.max_quantity_per_order,
            "base_unit": self.base_unit,
            "policy_version": self.policy_version,
            "available": self.available(),
            "item_state": self.item_state,
            "receipt_disposition": self.receipt_disposition,
            "recalled_lots": self.recalled_lots,
            "in_transit": sum([transfer.in_transit for transfer in self.transfers.values()]),
        }


@dataclass(slots=True, eq=False)
class Reservation:
    """The home's record. ``lines``: (line_id, key, requested, granted at the last decision)."""

    id: str
    channel_id: str
    request_id: str
    state: str
    customer_id: str = ""
    order_reference: str = ""
    version: int = 1
    lines: list[tuple[str, Key, int, int]] = field(default_factory=list)
    fulfilled_units: int = 0
    create_time_ms: int = 0
    expire_time_ms: int = 0
    confirm_time_ms: int = 0
    end_time_ms: int = 0
    in_memory: bool = True
    claims: dict[tuple[str, Key], Claim] = field(default_factory=dict)  # (line id, key) → its claim there

    @property
    def live(self) -> bool:
        return self.state in (HELD, CONFIRMED)


@dataclass(slots=True)
class Spent:
    """An id and the first decision under it: what a repeat with the same content gets."""

    verb: str
    arguments: Mapping[str, Any]
    digest: bytes
    status: str
    answer: dict[str, Any]
    reservation_id: str = ""
    tombstone: bool = False  # a release by request id came before this reserve
    earlier: dict[str, Any] | None = None  # of an event that waited: its answer as long as it did


@dataclass(slots=True)
class Outcome:
    """What the model says: ok, refused or error (then ``answer["error"]``)."""

    status: str
    answer: dict[str, Any]
    replayed: bool = False
    changed: bool = False  # something was journaled: a yes, or a refusal that spends its id


def refused(
    reason: str, reservation: Reservation | None = None, shortages: Iterable[Any] = (), version: int = 0
) -> Outcome:
    """A business "no"."""
    state = reservation.state if reservation is not None else ""
    version = reservation.version if reservation is not None else version
    answer = {"reason": reason, "state": state, "version": version, "shortages": tuple(shortages)}
    return Outcome("refused", answer)


def told(
    outcome: str, shortage: int = 0, exception: str = "", reason: str = "", held: tuple[str, tuple[str, ...]] = ("", ())
) -> Outcome:  # fmt: skip
    """What became of an event. ``held``: where its units start instead of sellable, and why."""
    answer = {
        "outcome": outcome, "shortage": shortage, "exception_id": exception, "reject_reason": reason,
        "booked_disposition": held[0], "gate_reasons": held[1],
    }  # fmt: skip
    return Outcome("ok", answer, changed=True)


def failed(reason: str) -> Outcome:
    """The call failed."""
    return Outcome("error", {"error": reason})
