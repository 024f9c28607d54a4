"""Verifies a journal from the outside: every record of every shard judged again by plain rules of its own.

It shares no deciding or applying code with the domain: what each kind of event means is written down here a second time, as
simply as possible, from the documents. It needs nothing but a ``Journal`` to read from, so it works offline, on a backup,
or beside a running server (then it judges what was durable when it read each shard).

What it proves: nothing was granted without cover at its sequence; claims and stock are exactly what the records add up to;
every unit ended once; reservations left HELD once and ended once; home and claims agree; ids were spent once; numbers and
sequences have no gap, epochs and times never go back, checksums hold, and every event has a cause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgpack

from actors.journal.codec import decode_groups
from actors.journal.port import Journal, JournalDamaged, Record, Snapshot

RECORDS_PER_READ = 500
VIOLATIONS_MAX = 100  # then it stops telling, not counting

# Kinds of events, as the journal numbers them.
OWNED = 1
REGISTERED, POLICY_SET, ON_HAND, ADRIFT = 10, 11, 12, 13
GRANTED, CONFIRMED, RELEASED, EXPIRED, FULFILLED, PICKED, FORGOTTEN = 20, 21, 22, 23, 24, 25, 26
OPENED, R_CONFIRMED, R_EXTENDED, R_AMENDED, R_UNITS, R_ENDED, R_SPENT, R_RETIRED = 30, 31, 32, 33, 34, 35, 36, 37
ENTRY_SPENT, ENTRY_RETIRED = 40, 41
X_OPENED, X_CHANGED, X_HEALED = 50, 51, 52
FIELDS = {
    OWNED: 3, REGISTERED: 1, POLICY_SET: 6, ON_HAND: 4, ADRIFT: 3, GRANTED: 11, CONFIRMED: 3, RELEASED: 5, EXPIRED: 2,
    FULFILLED: 5, PICKED: 4, FORGOTTEN: 2, OPENED: 8, R_CONFIRMED: 2, R_EXTENDED: 2, R_AMENDED: 4, R_UNITS: 4, R_ENDED: 2,
    R_SPENT: 4, R_RETIRED: 1, ENTRY_SPENT: 3, ENTRY_RETIRED: 1, X_OPENED: 11, X_CHANGED: 3, X_HEALED: 1,
}  # fmt: skip
CREATING = (REGISTERED, GRANTED, OPENED, ENTRY_SPENT, X_OPENED)

SELLABLE = 1
ALWAYS = 2
HELD, STATE_CONFIRMED, STATE_FULFILLED, STATE_RELEASED, STATE_EXPIRED = 1, 2, 3, 4, 5
CARRY_REASONS = (7, 9)  # REPLACED, AMENDED: what they free may be carried over in the same record
SHORTAGE_KIND = 1

Progress = Callable[[int, int, int], None]  # shards done, shards in all, events judged


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong, and where: the record, and the sequence of the event (0: the record as a whole)."""

    shard: int
    record_number: int
    sequence: int
    stock_key: str
    message: str


@dataclass(slots=True)
class VerifyReport:
    """What was judged. ``oversells``: claims granted without cover."""

    records: int = 0
    events: int = 0
    shards: int = 0
    stock_keys: int = 0
    claims_granted: int = 0
    units_granted: int = 0
    units_fulfilled: int = 0
    units_released: int = 0
    units_expired: int = 0
    reservations: int = 0
    imposed_uncovered_units: int = 0
    shortages_opened: int = 0
    shortages_healed: int = 0
    oversells: int = 0
    violation_count: int = 0
    from_snapshot_shards: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return self.violation_count == 0

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        return {"ok": self.ok, **asdict(self)}


class _Claim:
    __slots__ = ("confirmed", "expired", "fulfilled", "granted", "picked", "record", "released")

    def __init__(self, record: int) -> None:
        self.granted = self.fulfilled = self.released = self.expired = self.picked = 0
        self.confirmed = False
        self.record = record

    @property
    def open(self) -> int:
        return self.granted - self.fulfilled - self.released - self.expired


class _Stock:
    __slots__ = ("adrift", "claims", "on_hand", "safety")

    def __init__(self) -> None:
        self.on_hand: dict[int, int] = {}
        self.safety = 0
        self.adrift: dict[str, int] = {}
        self.claims = [0, 0]  # open units of live claims; units picked beyond what is open of their claim


class _Reservation:
    __slots__ = ("fulfilled", "lines", "open", "record", "shard", "state")

    def __init__(self, lines: Any, state: int, open_units: int, shard: int, record: int) -> None:
        self.lines = lines
        self.state = state
        self.open = open_units
        self.fulfilled = 0
        self.shard = shard
        self.record = record


def verify(journal: Journal, progress: Progress | None = None) -> VerifyReport:
    """Judge all shards. Never raises for what is wrong in the journal: it is in the report."""
    judge = _Judge(journal)
    started = time.monotonic()
    for shard in range(journal.header.shard_count):
        judge.shard(shard)
        if progress is not None:
            progress(shard + 1, journal.header.shard_count, judge.report.events)
    judge.homes_and_claims_agree()
    judge.report.seconds = time.monotonic() - started
    return judge.report


class _Judge:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.report = VerifyReport(shards=journal.header.shard_count)
        self.reservations: dict[str, _Reservation] = {}
        self.claims: dict[tuple[str, str], dict[str, _Claim]] = {}  # (stock key, reservation id) → line id → claim
        self.stock: dict[str, _Stock] = {}
        self.entries: set[str] = set()
        self.spent: dict[str, int] = {}  # channel US request id → shard
        self.exceptions: dict[str, int] = {}  # id → kind of the open ones
        self.where = (0, 0, 0)
        self.whole = True  # False while early events after a sliced snapshot are applied part by part
        self.carry: dict[str, int] = {}  # stock key → units freed in this group that may be carried over
        self.forgotten: dict[tuple[str, str], dict[str, _Claim]] = {}
        self.from_snapshot: set[int] = set()

    # --- walking -----------------------------------------------------------------------------------------------------------

    def shard(self, shard: int) -> None:
        """All records of one shard, from the first or from a snapshot."""
        number = sequence = epoch = time_ms = 0
        placed: dict[Any, int] = {}
        highest = 0
        self.where = (shard, 0, 0)
        if self.journal.first_number(shard) > 1:
            snapshot = self._load(shard, placed)
            if snapshot is None:
                self.wrong("its first records are gone and no snapshot of it can be read")
                return
            self.report.from_snapshot_shards += 1
            self.from_snapshot.add(shard)
            number, sequence, epoch = snapshot.lowest_record_number, snapshot.lowest_sequence, 0
            highest = snapshot.highest_sequence
        self.whole = sequence >= highest
        if self.whole and placed:
            self._make_whole(shard, placed)
        for record in self._records(shard, number):
            self.where = (shard, record.number, 0)
            self.report.records += 1
            if record.number != number + 1:
                self.wrong(f"record {record.number} follows record {number}: records are missing or doubled")
            if record.first_sequence != sequence + 1:
                self.wrong(f"first sequence {record.first_sequence} follows sequence {sequence}")
            if record.epoch < epoch:
                self.wrong(f"epoch {record.epoch} after epoch {epoch}")
            if record.time_ms < time_ms:
                self.wrong(f"time {record.time_ms} is before {time_ms}")
            number, epoch, time_ms = record.number, record.epoch, record.time_ms
            sequence = record.first_sequence - 1
            try:
                groups = decode_groups(record.payload)
                for cause, events in groups:
                    self._cause(cause)
                    self.carry = {}
                    for kind, *fields in events:
                        sequence += 1
                        self.where = (shard, record.number, sequence)
                        self._event(kind, fields, sequence, placed, highest, shard)
            except (ValueError, TypeError, IndexError, KeyError) as error:
                self.wrong(f"it cannot be read: {error!r}")
            if sequence != record.first_sequence + record.event_count - 1:
                self.wrong(f"it counts {record.event_count} events and holds {sequence - record.first_sequence + 1}")
                sequence = record.first_sequence + record.event_count - 1

    def _records(self, shard: int, after: int) -> Iterator[Record]:
        while True:
            try:
                records = self.journal.read(shard, after, RECORDS_PER_READ)
            except JournalDamaged as damage:
                self.wrong(str(damage))
                return
            if not records:
                return
            yield from records
            after = records[-1].number

    def _cause(self, cause: Any) -> None:
        if not isinstance(cause, list) or len(cause) < 3 or not isinstance(cause[0], int):
            self.wrong("events without a cause")

    def wrong(self, message: str, stock_key: str = "") -> None:
        """Note a violation at the place where the walk is."""
        self.report.violation_count += 1
        if len(self.report.violations) < VIOLATIONS_MAX:
            self.report.violations.append(Violation(*self.where, stock_key, message))

    # --- events --------------------------------------------------------------------------------------------------------------

    def _event(
        self, kind: int, fields: Sequence[Any], sequence: int, placed: dict[Any, int], highest: int, shard: int
    ) -> None:
        self.report.events += 1
        known = FIELDS.get(kind)
        if known is None or len(fields) < known:
            self.wrong(f"an event of unknown shape: kind {kind} with {len(fields)} fields")
            return
        if not self.whole:
            if self._seen_by_its_slice(kind, fields, sequence, placed, shard):
                if sequence >= highest:
                    self._make_whole(shard, placed)
                return
            self._apply(kind, fields)
            if sequence >= highest:
                self._make_whole(shard, placed)
            return
        self._apply(kind, fields)

    def _apply(self, kind: int, fields: Sequence[Any]) -> None:
        if kind < 20:
            self._stock_event(kind, fields)
        elif kind < 30:
            self._claim_event(kind, fields)
        elif kind < 40:
            self._reservation_event(kind, fields)
        elif kind < 50:
            self._entry_event(kind, fields)
        else:
            self._exception_event(kind, fields)

    def _stock_event(self, kind: int, fields: Sequence[Any]) -> None:
        if kind == OWNED:
            return
        key = fields[0]
        if kind == REGISTERED:
            if key in self.stock:
                self.wrong("registered twice", key)
            self.stock[key] = _Stock()
            self.report.stock_keys += 1
            return
        stock = self._known(key)
        if kind == POLICY_SET:
            stock.safety = fields[1]
        elif kind == ON_HAND:
            stock.on_hand[fields[2]] = stock.on_hand.get(fields[2], 0) + fields[3]
        else:
            units = stock.adrift.get(fields[1], 0) + fields[2]
            if units < 0 and self.whole:
                self.wrong(f"{-units} units more left adrift than were picked adrift", key)
            stock.adrift[fields[1]] = units

    def _known(self, key: str) -> _Stock:
        stock = self.stock.get(key)
        if stock is None:
            self.wrong("an event about a stock key that nobody registered", key)
            stock = self.stock[key] = _Stock()
        return stock

    def _headroom(self, stock: _Stock) -> int:
        """cover − claims."""
        adrift = stock.claims[1] + sum(stock.adrift.values())
        return stock.on_hand.get(SELLABLE, 0) - adrift - stock.safety - stock.claims[0]

    def _claim_event(self, kind: int, fields: Sequence[Any]) -> None:
        key, reservation_id = fields[0], fields[1]
        stock = self._known(key)
        place = (key, reservation_id)
        if kind == GRANTED:
            self._granted(stock, place, fields)
            return
        lines = self.claims.get(place)
        if lines is None:
            self.wrong(f"kind {kind} for claims that do not exist: {reservation_id}", key)
            return
        if kind == CONFIRMED:
            for claim in lines.values():
                claim.confirmed = True
        elif kind == EXPIRED:
            for claim in lines.values():
                units = claim.open
                if claim.confirmed and units:
                    self.wrong(f"{units} confirmed units of {reservation_id} expired", key)
                self.report.units_expired += units
                self._change(stock, claim, expired=units)
        elif kind == FORGOTTEN:
            if any(claim.open or claim.picked for claim in lines.values()):
                self.wrong(f"claims of {reservation_id} were forgotten while units are open or picked", key)
            self.forgotten[place] = self.claims.pop(place)
        else:
            claim_found = lines.get(fields[2])
            if claim_found is None:
                self.wrong(f"kind {kind} for a line that has no claim: {reservation_id} line {fields[2]!r}", key)
                return
            self._line_event(kind, stock, claim_found, fields)

    def _line_event(self, kind: int, stock: _Stock, claim: _Claim, fields: Sequence[Any]) -> None:
        key, quantity = fields[0], fields[3]
        if kind == RELEASED:
            self._change(stock, claim, released=quantity)
            self.report.units_released += quantity
            if fields[4] in CARRY_REASONS:
                self.carry[key] = self.carry.get(key, 0) + quantity
        elif kind == FULFILLED:
            self._change(stock, claim, fulfilled=quantity, picked=-min(claim.picked, fields[4]))
            self.report.units_fulfilled += quantity
        else:
            self._change(stock, claim, picked=quantity)
        if self.whole and quantity < 0 and kind != PICKED:
            self.wrong(f"a negative quantity {quantity}", key)
        if self.whole and (claim.open < 0 or claim.picked < 0):
            self.wrong(
                f"a unit of {fields[1]} line {fields[2]!r} ended twice (open {claim.open}, picked {claim.picked})", key
            )

    def _change(
        self, stock: _Stock, claim: _Claim, *, fulfilled: int = 0, released: int = 0, expired: int = 0, picked: int = 0
    ) -> None:
        stock.claims[0] -= claim.open
        stock.claims[1] -= max(0, claim.picked - claim.open)
        claim.fulfilled += fulfilled
        claim.released += released
        claim.expired += expired
        claim.picked += picked
        stock.claims[0] += claim.open
        stock.claims[1] += max(0, claim.picked - claim.open)

    def _granted(self, stock: _Stock, place: tuple[str, str], fields: Sequence[Any]) -> None:
        key, reservation_id, line_id, quantity, carried, admission, imposed, uncovered, confirmed = fields[:9]
        if self.whole:
            if quantity <= 0 or not 0 <= carried <= quantity or not 0 <= uncovered <= imposed <= quantity:
                self.wrong(
                    f"a grant of {quantity} units with carried {carried}, imposed {imposed}, uncovered {uncovered}", key
                )
            if carried > self.carry.get(key, 0):
                self.wrong(
                    f"{carried} units carried over to {reservation_id}, {self.carry.get(key, 0)} were freed for it", key
                )
            self.carry[key] = self.carry.get(key, 0) - carried
            if admission != ALWAYS:
                if imposed > carried:
                    self.wrong(f"{imposed} units imposed without admission ALWAYS for {reservation_id}", key)
                if quantity > carried and self._headroom(stock) < quantity:
                    self.report.oversells += 1
                    self.wrong(
                        f"OVERSELL: {quantity} units ({carried} carried) granted to {reservation_id} line {line_id!r} "
                        f"where only {max(0, self._headroom(stock))} were available",
                        key,
                    )
            elif quantity - carried > imposed:
                self.wrong(
                    f"{quantity - carried} units admitted ALWAYS for {reservation_id}, {imposed} marked as imposed", key
                )
        self.report.claims_granted += 1
        self.report.units_granted += quantity
        self.report.imposed_uncovered_units += uncovered if admission == ALWAYS else 0
        lines = self.claims.setdefault(place, {})
        claim = lines.get(line_id)
        if claim is None:
            claim = lines[line_id] = _Claim(self.where[1])
            claim.confirmed = confirmed
        claim.record = self.where[1]
        stock.claims[0] -= claim.open
        stock.claims[1] -= max(0, claim.picked - claim.open)
        claim.granted += quantity
        stock.claims[0] += claim.open
        stock.claims[1] += max(0, claim.picked - claim.open)

    def _reservation_event(self, kind: int, fields: Sequence[Any]) -> None:
        reservation_id = fields[0]
        if kind == OPENED:
            self._opened(fields)
            return
        reservation = self.reservations.get(reservation_id)
        if reservation is None:
            self.wrong(f"kind {kind} for a reservation that does not exist: {reservation_id}")
            return
        if kind == R_CONFIRMED:
            if reservation.state != HELD:
                self.wrong(f"{reservation_id} was confirmed in state {reservation.state}")
            reservation.state = STATE_CONFIRMED
        elif kind == R_AMENDED:
            reservation.lines = fields[1]
            reservation.open += fields[2] - fields[3]
            reservation.record = self.where[1]
        elif kind == R_UNITS:
            reservation.open -= fields[1] + fields[2] + fields[3]
            reservation.fulfilled += fields[1]
        elif kind == R_ENDED:
            self._ended(reservation_id, reservation, fields[1])
        elif kind == R_SPENT:
            # its scope is the reservation's channel, which its home's record names; twice on one reservation is enough here
            self._spend(f"v\x1f{reservation_id}\x1f{fields[1]}")
        elif kind == R_RETIRED and reservation.state in (HELD, STATE_CONFIRMED):
            self.wrong(f"{reservation_id} left memory while it lives")
        if reservation.open < 0 and self.whole:
            self.wrong(f"{reservation_id} has {reservation.open} open units")

    def _opened(self, fields: Sequence[Any]) -> None:
        reservation_id, _, channel_id, request_id, _, state, _, lines = fields[:8]
        if reservation_id in self.reservations:
            self.wrong(f"{reservation_id} was opened twice")
        self._spend(f"{channel_id}\x1f{request_id}")
        if state not in (HELD, STATE_CONFIRMED):
            self.wrong(f"{reservation_id} was opened in state {state}")
        units = sum(line[3] for line in lines)
        self.reservations[reservation_id] = _Reservation(lines, state, units, self.where[0], self.where[1])
        self.report.reservations += 1

    def _spend(self, key: str) -> None:
        if key in self.spent and self.whole:
            self.wrong(f"the request id {key.rsplit(chr(31), maxsplit=1)[-1]!r} was spent twice")
        self.spent[key] = self.where[0]

    def _ended(self, reservation_id: str, reservation: _Reservation, state: int) -> None:
        if reservation.state not in (HELD, STATE_CONFIRMED):
            self.wrong(f"{reservation_id} ended twice")
        if self.whole and reservation.open:
            self.wrong(f"{reservation_id} ended with {reservation.open} open units")
        if self.whole and (state == STATE_FULFILLED) != (reservation.fulfilled > 0):
            self.wrong(f"{reservation_id} ended in state {state} with {reservation.fulfilled} units fulfilled")
        if state == STATE_EXPIRED and reservation.state != HELD:
            self.wrong(f"{reservation_id} expired though it was confirmed")
        reservation.state = state

    def _entry_event(self, kind: int, fields: Sequence[Any]) -> None:
        key = fields[0]
        if kind == ENTRY_SPENT:
            if key in self.entries and self.whole:
                self.wrong(f"the id {key!r} was spent twice")
            self.entries.add(key)
        elif key not in self.entries:
            self.wrong(f"the id {key!r} left memory without being there")

    def _exception_event(self, kind: int, fields: Sequence[Any]) -> None:
        exception_id = fields[0]
        if kind == X_OPENED:
            self.exceptions[exception_id] = fields[2]
            self.report.shortages_opened += fields[2] == SHORTAGE_KIND
        elif exception_id not in self.exceptions:
            self.wrong(f"an exception that is not open: {exception_id}")
        elif kind == X_HEALED:
            self.report.shortages_healed += self.exceptions.pop(exception_id) == SHORTAGE_KIND

    # --- over all shards -------------------------------------------------------------------------------------------------------

    def homes_and_claims_agree(self) -> None:
        """Conservation across shards: what a home decided is what its claims have, line by line and in open units."""
        open_units: dict[str, int] = {}
        claims = {**self.forgotten, **self.claims}
        for (key, reservation_id), lines in claims.items():
            reservation = self.reservations.get(reservation_id)
            shard = -1 if reservation is None else reservation.shard
            decided = {} if reservation is None else {line[0]: line[3] for line in reservation.lines if line[1] == key}
            for line_id, claim in lines.items():
                open_units[reservation_id] = open_units.get(reservation_id, 0) + claim.open
                self.where = (shard, claim.record, 0)
                if reservation is None:
                    # A home read from a snapshot no longer knows what had left memory by then; live claims it must know.
                    if (key, reservation_id) in self.claims or _home_shard(reservation_id) not in self.from_snapshot:
                        self.wrong(f"a claim of {reservation_id} that no home decided", key)
                elif line_id in decided and decided[line_id] != claim.granted:
                    self.wrong(
                        f"{claim.granted} units are granted to {reservation_id} line {line_id!r}, its home "
                        f"(record {reservation.record}) decided {decided[line_id]}",
                        key,
                    )
        for reservation_id, reservation in self.reservations.items():
            self.where = (reservation.shard, reservation.record, 0)
            if self.from_snapshot and reservation.state not in (HELD, STATE_CONFIRMED):
                continue  # its claims may have left memory before another shard's snapshot; it has no open units
            claimed = open_units.get(reservation_id, 0)
            if claimed != reservation.open:
                self.wrong(f"{reservation_id} has {reservation.open} open units, its claims have {claimed}")

    # --- snapshots -------------------------------------------------------------------------------------------------------------

    def _load(self, shard: int, placed: dict[Any, int]) -> Snapshot | None:
        for snapshot in self.journal.snapshots(shard):
            try:
                slices = self.journal.read_slices(snapshot)
            except JournalDamaged:
                continue
            for part in slices:
                for tag, key, fields in msgpack.unpackb(part.payload, raw=False, strict_map_key=False):
                    placed[(tag, tuple(key) if isinstance(key, list) else key)] = part.sequence
                    if fields is not None:
                        self._place(shard, tag, fields)
            return snapshot
        return None

    def _place(self, shard: int, tag: int, fields: Any) -> None:
        if tag == 1:
            stock = self.stock[fields[0]] = _Stock()
            stock.on_hand = {SELLABLE: fields[1], **dict(fields[2])}
            stock.safety = fields[3]
            stock.adrift = dict(fields[8])
            self.report.stock_keys += 1
        elif tag == 2:
            key, reservation_id, _, _, confirmed, lines = fields
            there = self.claims.setdefault((key, reservation_id), {})
            for line_id, granted, fulfilled, released, expired, picked, *_ in lines:
                claim = there[line_id] = _Claim(0)
                claim.granted, claim.fulfilled, claim.released = granted, fulfilled, released
                claim.expired, claim.picked, claim.confirmed = expired, picked, confirmed
        elif tag == 3:
            reservation = _Reservation(fields[11], fields[9], fields[12], shard, 0)
            reservation.fulfilled = fields[13]
            self.reservations[fields[0]] = reservation
            self.spent[f"{fields[2]}\x1f{fields[3]}"] = shard
            for spent in fields[19]:
                self.spent[f"v\x1f{fields[0]}\x1f{spent[0]}"] = shard
        elif tag == 4:
            self.entries.add(fields[0])
        elif tag == 5 and fields[4] == 1:
            self.exceptions[fields[0]] = fields[1][0]

    def _seen_by_its_slice(
        self, kind: int, fields: Sequence[Any], sequence: int, placed: dict[Any, int], shard: int
    ) -> bool:
        tag = kind // 10
        key: Any = (fields[0], fields[1]) if tag == 2 else fields[0] if tag else ""
        stands_at = placed.get((tag, key))
        if stands_at is None:
            if kind in CREATING:
                placed[(tag, key)] = sequence
                return False
            placed[(tag, key)] = 0
            return True
        return not sequence > stands_at > 0

    def _make_whole(self, shard: int, placed: dict[Any, int]) -> None:
        """Every entity stands at the same sequence now: make the sums that cover is judged by."""
        keys = {key for tag, key in placed if tag == 1}
        for key in keys:
            if key in self.stock:
                self.stock[key].claims = [0, 0]
        for (key, _), lines in self.claims.items():
            if key in keys:
                for claim in lines.values():
                    self.stock[key].claims[0] += claim.open
                    self.stock[key].claims[1] += max(0, claim.picked - claim.open)
        self.whole = True


def _home_shard(reservation_id: str) -> int:
    """Which shard decided a reservation: its id says so."""
    parts = reservation_id.split("-")
    return int(parts[2]) if len(parts) == 4 and parts[2].isdigit() else -1
