"""What ``verify`` finds: violations that say where, what the record did there and which rule it broke; and the report.

It judges nothing; the words are ``verify_format``'s.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from actors.journal.verify_format import RULES, readable

TEXT_MAX = 400
# Told, and gathered a shard: the first of all shards are among the first of each. All are counted.
VIOLATIONS_MAX = 100


class Where(NamedTuple):
    """A place in the journal. ``sequence`` 0: the record as a whole."""

    shard: int
    record_number: int
    sequence: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong, and where: the record, and the sequence of the event (0: the record as a whole).

    ``stock_key``: what it is about: a stock key, or an id of a reservation, request or exception; may be empty.
    ``cause``, ``event``: because of whom, and what the record did there, in words; may be empty. ``rule``: a short stable
    word, a key of ``RULES``. ``expected``, ``found``: in words, empty where the message says all there is to say.
    """

    shard: int
    record_number: int
    sequence: int
    time_ms: int
    stock_key: str
    rule: str
    message: str
    cause: str = ""
    event: str = ""
    expected: str = ""
    found: str = ""

    @property
    def did(self) -> str:
        """Because of whom the record did what."""
        return ": ".join(text for text in (self.cause, self.event) if text)

    @property
    def place(self) -> str:
        """Where, in words."""
        return f"shard {self.shard}, record {self.record_number}" + (
            f", sequence {self.sequence}" if self.sequence else ""
        )

    def plain(self) -> dict[str, Any]:
        """JSON-able; the rule in words as well."""
        return {**asdict(self), "rule_text": RULES.get(self.rule, ""), "did": self.did}

    def __str__(self) -> str:
        about = f", {readable(self.stock_key)}" if self.stock_key else ""
        return f"{self.place}{about}: {self.message}" + (f" [{self.did}]" if self.did else "")


@dataclass(slots=True)
class VerifyReport:
    """What was judged. Units are base units; ``oversells``: claims granted without cover.

    Where a shard's first records are gone its counts begin at a snapshot (``from_snapshot_shards``). ``violations`` has
    the first ones, ``violation_count`` counts all. ``on_hand``: disposition → units over all stock keys, at the end.
    ``snapshots_compared``: slices of snapshots that were compared with what the records say, holding
    ``entities_compared``. ``cpu_seconds``: of all processes (``jobs``) that judged; ``rounds``: 2 when the sums over
    shards did not come out even and the records were walked again to say where.
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
    errands_open: int = 0  # between shards, not answered yet
    operations_open: int = 0  # orders over several shards that are not decided and followed everywhere yet
    imposed_units: int = 0
    imposed_uncovered_units: int = 0
    shortages_opened: int = 0
    shortages_healed: int = 0
    oversells: int = 0
    oversold_units: int = 0
    violation_count: int = 0
    violations_by_rule: dict[str, int] = field(default_factory=dict)
    from_snapshot_shards: int = 0
    snapshots_compared: int = 0
    entities_compared: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    jobs: int = 1
    rounds: int = 1
    violations: list[Violation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return self.violation_count == 0

    @property
    def units_left_over(self) -> int:
        """Granted − fulfilled − released − expired − open, in the whole journal: nothing when every unit ended once."""
        ended = self.units_fulfilled + self.units_released + self.units_expired
        return self.units_granted - ended - self.units_open if not self.from_snapshot_shards else 0

    @property
    def conserved(self) -> bool:
        """No unit came from nowhere, ended twice or is told differently by home and claim."""
        broken = {"conservation", "units end once", "units match", "picked"}
        return not self.units_left_over and not broken & self.violations_by_rule.keys()

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        rate = self.events / self.seconds if self.seconds else 0.0
        return {
            "ok": self.ok,
            **told,
            "conserved": self.conserved,
            "events_per_second": round(rate),
            "violations": [one.plain() for one in self.violations],
        }

    def add(self, violation: Violation) -> None:
        """Note a violation: all are counted, the first are kept."""
        self.violation_count += 1
        _count(self.violations_by_rule, violation.rule, 1)
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(violation)

    def merge(self, other: VerifyReport) -> None:
        """Add what was found in other shards; seconds are added as well."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for disposition, units in other.on_hand.items():
            _count(self.on_hand, disposition, units)
        for rule, count in other.violations_by_rule.items():
            _count(self.violations_by_rule, rule, count)
        self.violations += other.violations
        self.notes += other.notes

    def tell_the_first(self) -> None:
        """Order the violations by the time of their records and keep the first ones: the cause comes before what follows
        from it.
        """
        self.violations.sort(key=lambda one: (one.time_ms, one.shard, one.record_number))
        del self.violations[VIOLATIONS_MAX:]
        self.notes.sort()


def _count(sums: dict[Any, int], key: Any, units: int) -> None:
    sums[key] = sums.get(key, 0) + units


NOT_SUMMED = {"shards", "jobs", "rounds", "violations_by_rule", "on_hand", "violations", "notes"}
COUNTS = tuple(one.name for one in fields(VerifyReport) if one.type in ("int", "float") and one.name not in NOT_SUMMED)
