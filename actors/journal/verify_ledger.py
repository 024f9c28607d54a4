"""``verify``'s books across shards: what homes say against what claims say, and ids spent twice, in bounded memory.

A command's events lie in the records of several shards, and shards are walked one after the other and in several
processes. So the first round keeps no balance by name, only sums of hashes: for each of the four things that happen to
units, a claim adds ``hash × units`` and its home takes them away, into the bucket its hash falls in. When all shards were
walked each bucket is nothing (a wrong balance would have to be a multiple of 2**64 to hide). Ids spent are kept as hashes
of 8 bytes, on disk when they are many. What does not come out even are suspects: a second round, with the same hashes,
gathers those by name and says where they are.

Hashes are Python's own, of strings and tuples of them: all processes of a run must share ``PYTHONHASHSEED``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.journal.verify_format import cause_text
from actors.journal.verify_report import TEXT_MAX, VerifyReport, Violation, Where

UNITS = ("granted", "fulfilled", "released", "expired")
SUM_BUCKETS = 4096
SUM_MASK = SUM_BUCKETS - 1
ID_BUCKETS = 64
ID_MASK = ID_BUCKETS - 1
IDS_IN_MEMORY_MAX = 4_000_000  # a process: 32 MiB; then they go to files, 8 bytes an id

LineOf = tuple[str, str]  # stock key, line id; ("", ""): all lines of the reservation together
ALL_LINES: LineOf = ("", "")


@dataclass(slots=True)
class Suspects:
    """What the first round found uneven: buckets of sums, hashes of lines and of ids."""

    balances: set[int] = field(default_factory=set)
    opens: set[int] = field(default_factory=set)
    lines: set[int] = field(default_factory=set)
    ids: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.balances or self.opens or self.lines or self.ids)


class Balance:
    """Of a suspect: what claims say minus what the home says, and where: the claims' last place in each shard."""

    def __init__(self) -> None:
        self.units = [0, 0, 0, 0]
        self.claims_at: dict[int, Where] = {}
        self.home_at: Where | None = None


class OpenUnits:
    """Of a suspect: units open by its claims and by its home, at the end."""

    def __init__(self) -> None:
        self.by_claims = 0
        self.by_home = 0
        self.key = ""
        self.claim_at: Where | None = None
        self.home_at: Where | None = None


class Ledger:
    """The books of one process over its shards. Picklable; ``merge`` adds another process's."""

    def __init__(self, window_ms: int, suspects: Suspects | None = None, spill: Path | None = None) -> None:
        """``window_ms``: within it no id may be spent twice. ``spill``: a directory, for ids that are too many."""
        self.window_ms = window_ms
        self.suspects = suspects or Suspects()
        self.sums = tuple([0] * SUM_BUCKETS for _ in UNITS)
        self.opens = [0] * SUM_BUCKETS  # hash of a reservation × units: open by claims − open by homes
        self.ids = [array("q") for _ in range(ID_BUCKETS)]
        self.home_lines = array("q")  # lines of live reservations whose claim is in another shard, with what they got
        self.claim_lines = array("q")  # claims whose reservation is in another shard, with what they got
        self.home_lines_of_nothing = array("q")  # the same, without what they got, where a home says nothing …
        self.claim_lines_of_something = array("q")  # … and where a claim says something
        self.distrusted = False  # a shard was not walked to its end: sums over shards cannot come out even
        # (from shard, to shard) → next number, answered below; last taken, forgotten below; and where that stands
        self.errands_sent: dict[tuple[int, int], tuple[int, int, Where]] = {}
        self.errands_taken: dict[tuple[int, int], tuple[int, int, Where]] = {}
        self.under_way: set[str] = set()  # reservations that not all of their shards have followed yet
        # second round: suspects by name
        self.balances: dict[tuple[str, LineOf, int, Any], Balance] = {}
        self.open_units: dict[str, OpenUnits] = {}
        self.line_faults: list[Violation] = []
        # id → where, cause and event in words, content
        self.spent: dict[str, list[tuple[Where, tuple[str, str], bytes]]] = {}
        self._spills = [spill] if spill is not None else []

    # --- ids ----------------------------------------------------------------------------------------------------------

    def ids_bounded(self) -> None:
        """Called after every shard: what is too much for memory goes to files. A second round needs none."""
        if self.suspects:
            self.ids = [array("q") for _ in range(ID_BUCKETS)]
        elif self._spills and sum(map(len, self.ids)) > IDS_IN_MEMORY_MAX:
            for bucket, ids in enumerate(self.ids):
                with (self._spills[0] / f"ids-{bucket}").open("ab") as file:
                    ids.tofile(file)
                self.ids[bucket] = array("q")

    def _ids_spent_twice(self) -> set[int]:
        """Hashes that stand here more than once; a bucket at a time."""
        twice: set[int] = set()
        for bucket, ids in enumerate(self.ids):
            for spilled in (directory / f"ids-{bucket}" for directory in self._spills):
                if spilled.exists():
                    ids = ids + array("q", spilled.read_bytes())
            if len(set(ids)) < len(ids):
                seen: set[int] = set()
                for one in ids:
                    (twice if one in seen else seen).add(one)
        return twice

    # --- after a round ------------------------------------------------------------------------------------------------

    def merge(self, other: Ledger) -> None:
        """Add the books of other shards."""
        for sums, others in zip((*self.sums, self.opens), (*other.sums, other.opens), strict=True):
            for bucket, units in enumerate(others):
                sums[bucket] += units
        for bucket, ids in enumerate(other.ids):
            self.ids[bucket].extend(ids)
        for name in ("home_lines", "claim_lines", "home_lines_of_nothing", "claim_lines_of_something"):
            getattr(self, name).extend(getattr(other, name))
        self.distrusted |= other.distrusted
        self.errands_sent |= other.errands_sent
        self.errands_taken |= other.errands_taken
        self.under_way |= other.under_way
        self._spills += other._spills

    def uneven(self) -> Suspects:
        """What did not come out even; needs a second round to be told."""
        suspects = Suspects(ids=self._ids_spent_twice())
        if not self.distrusted:
            suspects.balances = {bucket for sums in self.sums for bucket, units in enumerate(sums) if units}
            suspects.opens = {bucket for bucket, units in enumerate(self.opens) if units}
            suspects.lines = set(self.home_lines).difference(self.claim_lines)
            suspects.lines |= set(self.home_lines_of_nothing).intersection(self.claim_lines_of_something)
        return suspects

    # --- second round -------------------------------------------------------------------------------------------------

    def balance(self, reservation_id: str, line: LineOf, cause: Any, time_ms: int) -> Balance:
        """The balance of a suspect."""
        return self.balances.setdefault((reservation_id, line, time_ms, cause), Balance())

    def open_of(self, reservation_id: str) -> OpenUnits:
        """The open units of a suspect."""
        return self.open_units.setdefault(reservation_id, OpenUnits())

    def tell(self, report: VerifyReport) -> None:
        """Say of every suspect what is wrong with it; most were only in a bucket with one that is."""
        line_faults = [fault for fault in self.line_faults if fault.stock_key not in self.under_way]
        told = [*self._ids_told(), *self._balances_told(), *self._opens_told(), *line_faults]
        # in an order that does not depend on the one the shards were walked in
        told.sort(key=lambda one: (one.time_ms, one.shard, one.record_number, one.sequence, one.stock_key, one.message))
        for violation in told:
            report.add(violation)

    def _ids_told(self) -> Iterator[Violation]:
        for key, places in self.spent.items():
            places.sort(key=lambda place: (place[0].time_ms, place[0]))
            for at, (where, did, content) in enumerate(places):
                earlier = (
                    place
                    for place, _, other in reversed(places[:at])
                    if where.time_ms < place.time_ms + self.window_ms
                    and (not content or place.shard == where.shard or other == content)
                )
                before = next(earlier, None)
                if before is not None:
                    message = f"was spent already, in shard {before.shard}, record {before.record_number}"
                    expected = f"once within {self.window_ms} ms"
                    found = f"again after {where.time_ms - before.time_ms} ms"
                    yield violation_at(where, "request id", key, message, did, expected=expected, found=found)

    def _balances_told(self) -> Iterator[Violation]:
        for (reservation_id, line, _, cause), balance in self.balances.items():
            if not any(balance.units) or reservation_id in self.under_way:
                continue
            left = ", ".join(f"{units:+} {name}" for name, units in zip(UNITS, balance.units, strict=True) if units)
            about = f"line {line[1]!r}: " if line != ALL_LINES else ""
            claims = [balance.claims_at[shard] for shard in sorted(balance.claims_at)]
            where = claims[0] if claims else balance.home_at
            assert where is not None, "a balance that nobody made"
            if balance.home_at is None:
                text = f"its claims changed here and its home does not say so: {left}"
            elif not claims:
                text = f"its home says so here and no claim does: {left} by its claims"
            else:
                text = f"its claims say {left} against its home in {place_text(balance.home_at)}"
            if len(claims) > 1:
                text += "; other claims changed in " + "; ".join(place_text(other) for other in claims[1:])
            did = (cause_text(cause), "")
            yield violation_at(where, "units match", reservation_id, about + text, did, expected="the same", found=left)

    def _opens_told(self) -> Iterator[Violation]:
        for reservation_id, units in self.open_units.items():
            if units.by_claims == units.by_home or reservation_id in self.under_way:
                continue
            if units.home_at is not None:
                where, key = units.home_at, reservation_id
                text = f"{units.by_home} units are open by its home and {units.by_claims} by its claims"
            else:
                assert units.claim_at is not None, "open units that nobody has"
                where, key = units.claim_at, units.key
                text = f"{units.by_claims} units are claimed by {reservation_id}, which no home knows"
            expected, found = f"{units.by_home} open", f"{units.by_claims} open"
            yield violation_at(where, "units match", key, text, expected=expected, found=found)


def violation_at(
    where: Where,
    rule: str,
    key: str,
    message: str,
    did: tuple[str, str] = ("", ""),
    *,
    expected: str = "",
    found: str = "",
) -> Violation:
    """A violation in a place; ``did``: cause and event in words."""
    cause, event = (text[:TEXT_MAX] for text in did)
    return Violation(
        where.shard,
        where.record_number,
        where.sequence,
        where.time_ms,
        key,
        rule,
        message,
        cause,
        event,
        expected,
        found,
    )


def place_text(where: Where) -> str:
    """A place in words."""
    return f"shard {where.shard}, record {where.record_number}, sequence {where.sequence}"
