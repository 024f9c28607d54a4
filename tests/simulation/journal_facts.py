"""The records of a journal → ``JournalFacts``: every decision that is durable, joined over the shards it touched.

It reads the journal by its port and codec and knows the numbers of the event kinds by itself; of the rules it knows nothing.
A command's events lie in one group (cause, events) in each shard that it touched; groups of one cause and time belong
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from actors.journal.codec import decode_groups
from actors.journal.port import Journal, Record
from tests.simulation.history import Effect, JournalFacts, Key, Span

RECORDS_PER_READ = 1_000

SHARD_OWNED = 1
STOCK_KEY_REGISTERED = 10
ON_HAND_CHANGED = 12
HISTORY_FORGOTTEN = 15
CLAIM_GRANTED, CLAIM_CONFIRMED, CLAIM_RELEASED, CLAIM_EXPIRED, CLAIM_FULFILLED, CLAIM_PICKED = range(20, 26)
CLAIMS_FORGOTTEN = 26
ADDED_UP = frozenset((ON_HAND_CHANGED, *range(CLAIM_GRANTED, CLAIMS_FORGOTTEN + 1)))
RESERVATION_OPENED = 30
RESERVATION_ENDED = 35
VERB_SPENT = 36
RESERVATION_RETIRED = 37
ENTRY_SPENT = 40
DEFERRED_ENDED = 62
FEED_GAP_CLOSED = 64
TRANSFER_FORGOTTEN = 73

CAUSE_OWNED = 0
CAUSE_INGEST = 40
CAUSE_EXPIRE = 100
CAUSE_HOUSEKEEPING = 101

VERBS = {
    1: "reserve",
    2: "confirm",
    3: "release",
    4: "extend",
    5: "amend",
    6: "fulfill",
    30: "register_stock",
    31: "set_stock_policy",
    32: "set_selling",
    40: "ingest",
}
DISPOSITIONS = {1: "SELLABLE", 2: "QUALITY_HOLD", 3: "DAMAGED", 4: "EXPIRED", 5: "RECALLED"}
OUTCOMES = {1: "APPLIED", 2: "DUPLICATE", 3: "DEFERRED", 4: "REJECTED"}
EVENT_ID_REUSED = 8  # a RejectReason: of an event that touched nothing because another had its id


def journal_facts(journal: Journal) -> JournalFacts:
    """Everything that a journal holds. Its records must reach back to the first."""
    reader = FactsReader(journal.header.timeline)
    for shard in range(journal.header.shard_count):
        after = 0
        while records := journal.read(shard, after, RECORDS_PER_READ):
            for record in records:
                reader.record(record)
            after = records[-1].number
    return reader.facts()


def facts_of_records(timeline: str, records: Iterable[Record]) -> JournalFacts:
    """The same from records at hand, those of one shard in order."""
    reader = FactsReader(timeline)
    for record in records:
        reader.record(record)
    return reader.facts()


class FactsReader:
    """Takes records, each shard's in order; ``facts`` when all were taken."""

    def __init__(self, timeline: str) -> None:
        self._facts = JournalFacts(timeline, [], {}, {}, {})
        self._numbers: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._claims: dict[tuple[Key, str], dict[str, list[int]]] = {}  # (key, reservation id) → line id → units
        self._commands: dict[Any, Effect] = {}  # (cause, time) → the command or expiry whose groups are being joined
        self._events: dict[Any, Effect] = {}  # … → the warehouse event that was decided then
        self._elsewhere: list[
            tuple[Any, Record, list[Any], Span]
        ] = []  # groups it left in other shards than its feed's

    def record(self, record: Record) -> None:
        """One record."""
        facts, shard = self._facts, record.shard
        last = facts.last_sequences.get(shard, 0)
        if record.number != self._numbers.get(shard, 0) + 1 or record.first_sequence != last + 1:
            facts.problems.append(
                f"shard {shard}: record {record.number} with first sequence {record.first_sequence} follows record "
                f"{self._numbers.get(shard, 0)} with last sequence {last}"
            )
        epochs = facts.epochs.setdefault(shard, [])
        if not epochs or epochs[-1][1] != record.epoch:
            if epochs and epochs[-1][1] > record.epoch:
                facts.problems.append(f"shard {shard}: record {record.number} is of epoch {record.epoch}, an older one")
            epochs.append((record.first_sequence, record.epoch))
        self._numbers[shard] = record.number
        if record.time_ms < self._times.get(shard, 0):
            facts.problems.append(f"shard {shard}: record {record.number} is of an earlier time than the one before")
        self._times[shard] = record.time_ms
        sequence = record.first_sequence
        for cause, events in decode_groups(record.payload):
            for event in events:
                if event[0] in ADDED_UP:
                    self._add_up(event)
                elif event[0] == STOCK_KEY_REGISTERED:
                    self._facts.shards[plain_key(event[1])] = shard
            self._group(record, cause, events, Span(record.epoch, sequence, sequence + len(events) - 1))
            sequence += len(events)
        facts.last_sequences[shard] = sequence - 1

    def _group(self, record: Record, cause: Sequence[Any], events: list[Any], span: Span) -> None:
        kind = cause[0]
        if kind == CAUSE_OWNED:
            for event in events:
                if event[0] == SHARD_OWNED:
                    owned = Effect("owned", record.time_ms, {record.shard: span}, home=record.shard)
                    owned.grace_until_ms = event[3]
                    self._facts.effects.append(owned)
        elif kind == CAUSE_HOUSEKEEPING:
            self._housekeeping(record, events, span)
        elif kind == CAUSE_EXPIRE:
            effect = self._joined(record, cause, span, "expiry")
            for event in events:
                if event[0] == RESERVATION_ENDED:
                    effect.reservation_id, effect.home = event[1], record.shard
        elif kind == CAUSE_INGEST:
            self._event(record, cause, events, span)
        elif kind in (30, 31, 32):  # a call over many stock keys has one cause: each key is a command of its own
            effect = Effect("command", record.time_ms, {record.shard: span}, VERBS[kind])
            self._facts.effects.append(effect)
            self._spent(effect, record, events)
        elif kind in VERBS:
            effect = self._joined(record, cause, span, "command")
            effect.verb = VERBS[kind]
            self._spent(effect, record, events)
        else:
            self._gaps_closed(record, events, span)

    def _gaps_closed(self, record: Record, events: list[Any], span: Span) -> None:
        """Somebody declared that what is missing in a stream is lost."""
        for event in events:
            if event[0] == FEED_GAP_CLOSED:
                closed = Effect("gap closed", record.time_ms, {record.shard: span}, home=record.shard)
                closed.feed, closed.up_to = tuple(event[1].split("\x1f")), event[2]
                self._facts.effects.append(closed)

    def _add_up(self, event: Sequence[Any]) -> None:
        """Units of claims and on hand."""
        kind, key = event[0], plain_key(event[1])
        if kind == ON_HAND_CHANGED:
            disposition = (key, DISPOSITIONS[event[3]])
            self._facts.on_hand[disposition] = self._facts.on_hand.get(disposition, 0) + event[4]
            return
        lines = self._claims.setdefault((key, event[2]), {})
        if kind == CLAIM_EXPIRED:
            for claim in lines.values():
                claim[3] += claim[0] - claim[1] - claim[2] - claim[3]
        elif kind == CLAIMS_FORGOTTEN:
            del self._claims[(key, event[2])]
        elif kind != CLAIM_CONFIRMED:
            claim = lines.setdefault(event[3], [0, 0, 0, 0, 0])
            if kind == CLAIM_FULFILLED:
                claim[1] += event[4]
                signed = len(event) > 6 and event[6]
                claim[4] -= event[5] if signed else min(claim[4], event[5])
            else:
                claim[{CLAIM_GRANTED: 0, CLAIM_RELEASED: 2, CLAIM_PICKED: 4}[kind]] += event[4]

    def _joined(self, record: Record, cause: Sequence[Any], span: Span, kind: str) -> Effect:
        """The effect of this cause and time, with the group's span; a second group in one shard is another effect."""
        key = (record.time_ms, tuple(cause))
        effect = self._commands.get(key)
        if effect is None or record.shard in effect.spans:
            effect = Effect(kind, record.time_ms)
            self._commands[key] = effect
            self._facts.effects.append(effect)
        effect.spans[record.shard] = span
        return effect

    def _housekeeping(self, record: Record, events: list[Any], span: Span) -> None:
        for sequence, event in enumerate(events, span.first):
            spans = {record.shard: Span(record.epoch, sequence, sequence)}
            left = Effect("forgotten", record.time_ms, spans, home=record.shard)
            if event[0] == CLAIMS_FORGOTTEN:
                left.key, left.reservation_id = plain_key(event[1]), event[2]
            elif event[0] == RESERVATION_RETIRED:
                left.kind, left.reservation_id = "retired", event[1]
            else:
                continue
            self._facts.effects.append(left)

    def _event(self, record: Record, cause: Sequence[Any], events: list[Any], span: Span) -> None:
        """A warehouse event: decided where its id is spent, its source's feed shard; the stock key's shard and homes of
        reservations are only told. What waited is decided in a group of its own, under the same cause."""
        key = (record.time_ms, tuple(cause))
        if not any(event[0] == ENTRY_SPENT and event[1][0] == "e" for event in events):
            self._elsewhere.append((key, record, events, span))
            return
        settled = any(event[0] == DEFERRED_ENDED for event in events)
        effect = Effect("settled" if settled else "command", record.time_ms, {record.shard: span}, "ingest")
        self._facts.effects.append(effect)
        self._spent(effect, record, events)
        self._tell(effect, events)
        if effect.answer[0] != "DEFERRED" and effect.answer[3] != EVENT_ID_REUSED:
            self._events[key] = effect

    @staticmethod
    def _tell(effect: Effect, events: list[Any]) -> None:
        """What a group of a warehouse event concerns beside its id."""
        effect.told |= {event[1] if 30 <= event[0] < 40 else event[2] for event in events if 20 <= event[0] < 40}
        forgotten = tuple((plain_key(event[1]), event[2]) for event in events if event[0] == HISTORY_FORGOTTEN)
        effect.history_forgotten += forgotten
        effect.transfers_forgotten += tuple(
            (plain_key(event[1]), event[2], event[3]) for event in events if event[0] == TRANSFER_FORGOTTEN
        )

    def _spent(self, effect: Effect, record: Record, events: list[Any]) -> None:
        """What identity the events spend, if they do."""
        facts = self._facts
        for sequence, event in enumerate(events, effect.spans[record.shard].first):
            kind = event[0]
            if kind == RESERVATION_OPENED:
                _, reservation_id, _, channel_id, request_id, digest, _, _, lines, *_ = event
                facts.channels[reservation_id] = channel_id
                effect.identity, effect.digest = ("request", channel_id, request_id), digest
                effect.reservation_id, effect.home = reservation_id, record.shard
                effect.lines = tuple((line[0], plain_key(line[1]), line[2], line[3]) for line in lines)
            elif kind == VERB_SPENT:
                _, reservation_id, request_id, digest, _, *refusal = event
                channel_id = facts.channels.get(reservation_id, "")
                effect.identity, effect.digest = ("request", channel_id, request_id), digest
                effect.reservation_id, effect.home = reservation_id, record.shard
                effect.refused = bool(refusal and refusal[0])
            elif kind == ENTRY_SPENT:
                self._entry(effect, record, event, sequence)
            elif kind == HISTORY_FORGOTTEN and effect.verb != "ingest":
                effect.history_forgotten += ((plain_key(event[1]), event[2]),)

    @staticmethod
    def _entry(effect: Effect, record: Record, event: Sequence[Any], sequence: int) -> None:
        letter, *parts = event[1].split("\x1f")
        if letter == "c":
            effect.identity, effect.digest = ("request", *parts), event[2]  # a tombstone's own id is spent last
            effect.refused = effect.verb == "reserve"
        elif letter == "o":
            effect.identity, effect.digest = ("operator", parts[0], plain_key("\x1f".join(parts[1:]))), event[2]
        elif letter == "e":
            effect.identity, effect.digest = ("event", *parts[:2]), event[2]
            _, outcome, shortage, exception_id, reason, *more = event[3]
            effect.answer = (OUTCOMES[outcome], shortage, exception_id, reason)
            effect.place = (record.shard, record.epoch, sequence)
            if more and more[0] >= 0:
                effect.place = (more[0], more[1], more[2])  # it is answered from where the units are
        else:
            return  # a shipment's identity
        effect.home = record.shard

    def facts(self) -> JournalFacts:
        """All of it. What an event left in other shards is joined to it by cause and time."""
        for key, record, events, span in self._elsewhere:
            effect = self._events.get(key)
            if effect is None or record.shard in effect.spans:
                self._facts.problems.append(f"shard {record.shard}: sequence {span.first}: of an event that is nowhere")
                continue
            effect.spans[record.shard] = span
            self._tell(effect, events)
        self._elsewhere = []
        for (key, reservation_id), lines in self._claims.items():
            self._facts.claims.update({(key, reservation_id, line_id): units for line_id, units in lines.items()})
        for effect in self._facts.effects:
            placed = effect.spans.get(effect.place[0]) if effect.place else None
            if placed is not None and not placed.first - 1 <= effect.place[2] <= placed.last:
                problem = f"event {effect.identity} is told at {effect.place}, which is none of its own: {placed}"
                self._facts.problems.append(problem)
            if effect.kind == "command" and not effect.identity:
                where = ", ".join(f"{shard}:{span.first}" for shard, span in effect.spans.items())
                self._facts.problems.append(f"a {effect.verb} changed something and spent no id, at {where}")
        return self._facts


def plain_key(key: str) -> Key:
    """A stock key as a history spells it."""
    _, warehouse_id, sku = key.split("\x1f")
    return (warehouse_id, sku)
