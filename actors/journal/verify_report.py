"""What ``verify`` finds and how it says so: violations that name shard, record, sequence and key, and the report.

It judges nothing. Event names and the order of their fields are known here from the journal's format, not from the
domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# kind → (name, fewest fields, most fields): what a record of format 1 may hold
EVENTS: dict[int, tuple[str, int, int]] = {
    1: ("ShardOwned", 3, 3),
    10: ("StockKeyRegistered", 1, 1),
    11: ("StockPolicySet", 6, 6),
    12: ("OnHandChanged", 4, 11),
    13: ("AdriftPicked", 3, 3),
    20: ("ClaimGranted", 11, 11),
    21: ("ClaimConfirmed", 3, 3),
    22: ("ClaimReleased", 5, 5),
    23: ("ClaimExpired", 2, 2),
    24: ("ClaimFulfilled", 5, 5),
    25: ("ClaimPicked", 4, 4),
    26: ("ClaimsForgotten", 2, 2),
    30: ("ReservationOpened", 8, 12),
    31: ("ReservationConfirmed", 2, 2),
    32: ("ReservationExtended", 2, 2),
    33: ("ReservationAmended", 4, 4),
    34: ("ReservationUnitsEnded", 4, 4),
    35: ("ReservationEnded", 2, 2),
    36: ("VerbSpent", 4, 5),
    37: ("ReservationRetired", 1, 1),
    40: ("EntrySpent", 3, 3),
    41: ("EntryRetired", 1, 1),
    50: ("ExceptionOpened", 11, 12),
    51: ("ExceptionChanged", 3, 3),
    52: ("ExceptionHealed", 1, 1),
    53: ("ExceptionRetired", 1, 1),
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
    100: "expiry",
    101: "housekeeping",
}
TEXT_MAX = 400
VIOLATIONS_MAX = 100  # then it stops telling, not counting
VIOLATIONS_GATHERED_MAX = 2_000  # of these the earliest are told: the cause of it comes before what follows from it


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the journal. ``sequence`` 0: the record as a whole."""

    shard: int
    record_number: int
    sequence: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong, and where: the record, and the sequence of the event (0: the record as a whole).

    ``stock_key``: what it is about: a stock key, or an id of a reservation, request or exception; may be empty.
    ``did``: what the record did there, and because of whom. ``rule``: a short stable word for what was broken.
    """

    shard: int
    record_number: int
    sequence: int
    stock_key: str
    message: str
    did: str
    rule: str
    time_ms: int

    def __str__(self) -> str:
        place = f"shard {self.shard}, record {self.record_number}"
        if self.sequence:
            place += f", sequence {self.sequence}"
        about = f", {readable(self.stock_key)}" if self.stock_key else ""
        return f"{place}{about}: {self.message}" + (f" [{self.did}]" if self.did else "")


@dataclass(slots=True)
class VerifyReport:
    """What was judged. Units are base units; ``oversells``: claims granted without cover.

    Where a shard's first records are gone its counts begin at a snapshot (``from_snapshot_shards``). ``violations`` has
    the first ones, ``violation_count`` counts all. ``on_hand``: disposition → units over all stock keys, at the end.
    """

    cluster_id: str = ""
    timeline: str = ""
    records: int = 0
    events: int = 0
    shards: int = 0
    stock_keys: int = 0
    facts: int = 0
    claims_granted: int = 0
    units_granted: int = 0
    units_fulfilled: int = 0
    units_released: int = 0
    units_expired: int = 0
    units_open: int = 0
    units_short: int = 0
    on_hand: dict[int, int] = field(default_factory=dict)
    reservations: int = 0
    reservations_live: int = 0
    reservations_expired: int = 0
    imposed_units: int = 0
    imposed_uncovered_units: int = 0
    shortages_opened: int = 0
    shortages_healed: int = 0
    oversells: int = 0
    oversold_units: int = 0
    violation_count: int = 0
    from_snapshot_shards: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return self.violation_count == 0

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        return {"ok": self.ok, **asdict(self)}

    def add(self, rule: str, where: Where, key: str, message: str, did: str = "") -> None:
        """Note a violation: all are counted."""
        self.violation_count += 1
        if len(self.violations) < VIOLATIONS_GATHERED_MAX:
            place = (where.shard, where.record_number, where.sequence)
            self.violations.append(Violation(*place, key, message, did[:TEXT_MAX], rule, where.time_ms))

    def tell_the_first(self) -> None:
        """Order the violations by the time of their records and keep the first ones."""
        self.violations.sort(key=lambda violation: violation.time_ms)
        del self.violations[VIOLATIONS_MAX:]


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


def event_text(event: Sequence[Any]) -> str:
    """An event with its fields, for people."""
    name = EVENTS[event[0]][0] if event and event[0] in EVENTS else "event"
    return f"{name}({', '.join(_field_text(value) for value in event[1:])})"


def _field_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    return readable(value) if isinstance(value, str) else str(value)
