"""The shard engine: all shards of one host, sans-IO. ``step`` takes a batch and the time, decides and applies it.

It owns the order of decisions, the records a turn leaves, and when ended things leave memory. It does no IO, reads no
clock, awaits nothing: durability, queues and links are the shell's (``actors.shard.host``). Everything a step answers must
stay inside the process until its records are durable.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from actors.domain.answers import Reply, error
from actors.domain.changes import last_change
from actors.domain.commands import COMMANDS, Cause, Ingest, Reserve, Verb
from actors.domain.consumers import entry_keys, next_look_ms
from actors.domain.consumers import watch as watch_consumers
from actors.domain.errand_registry import ANSWER_KEYS, ASKS, ERRAND_KEYS
from actors.domain.errand_state import Errand
from actors.domain.escrow import give_up_due
from actors.domain.escrow_amending import amend_anywhere
from actors.domain.escrow_reserving import reserve_anywhere
from actors.domain.events import ShardOwned
from actors.domain.exception_kinds import EVENT_KINDS
from actors.domain.fact_runs import book_run
from actors.domain.feed_watch import next_look_ms as next_feed_look_ms
from actors.domain.feed_watch import watch as watch_feeds
from actors.domain.feeds import decide_waiting, ingest, placed
from actors.domain.identity import event_key, operator_key, request_key, reservation_row_key, shipment_key
from actors.domain.lifecycle import expire_due
from actors.domain.outcomes import ErrorReason, Fact
from actors.domain.reconciliation_state import FAR_MS
from actors.domain.reconciliation_watch import watch as watch_reconciliations
from actors.domain.reserving import reserve
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.domain.turn import Turn, make
from actors.journal.codec import encode_groups
from actors.journal.port import EntryRow, Record, ShardHead
from actors.shard.books_status import books_status
from actors.shard.causes import cause_of
from actors.shard.encoding import read_entry_row, read_reservation_row
from actors.shard.handlers import HANDLERS, LISTS
from actors.shard.placement import feed_shard_of, shard_of
from actors.shard.retiring import retire

log = logging.getLogger(__name__)

RESERVE = int(Verb.RESERVE)
RESERVE_FIELDS = len(Reserve._fields)
INGEST = int(Verb.INGEST)
INGEST_FIELDS = len(Ingest._fields)
FED = frozenset((int(Verb.INGEST), int(Verb.HEARTBEAT)))  # verbs whose shard is their source's feed shard
_PROMISE_AT = {int(Fact.PICK): 1, int(Fact.UNPICK): 1, int(Fact.SHIPMENT): 2}  # where in an event's details
NOT_TOLD = ("", "", "")  # principal, correlation id, traceparent

Item = Sequence[Any]
Found = Mapping[str, EntryRow | None]

Opened = tuple[int, int, int, Errand | None]  # from shard, to shard, number, what was sent; None: it is settled


class TurnResult(NamedTuple):
    """What a step leaves. ``replies`` are aligned with the items and may go out only when all of it is durable."""

    replies: list[Reply]
    records: list[Record]
    entries: list[EntryRow]
    read_heads: list[ShardHead]
    wakeup_ms: int | None
    expired: int
    groups: Mapping[int, Any] = {}  # by shard, what its record holds: for the change log
    finished: Sequence[
        tuple[str, Reply]
    ] = ()  # (token, reply): for those who were answered PENDING with it, now or before
    errands: Sequence[Opened] = ()  # for the courier, once durable


class Engine:
    """All shards of one host. Make it with ``actors.shard.recovery.recover``; use it from one thread."""

    def __init__(self, cluster_id: str, timeline: str, shard_count: int, rules: Rules, now_ms: int) -> None:
        self.cluster_id = cluster_id
        self.timeline = timeline
        self.shard_count = shard_count
        self.now_ms = now_ms
        self.books = Books(
            rules, lambda key: shard_of(key, shard_count), lambda source_id: feed_shard_of(source_id, shard_count)
        )
        self.met_leaving = False  # whether the last look at what is unresolved met one of these:
        self._leaving: dict[str, EntryRow] = {}  # rows of what left memory in a turn that is not durable yet

    # --- what must be looked up before a step --------------------------------------------------------------------------

    def unresolved(self, items: Sequence[Item], found: Found, may_be_stored: Container[str]) -> list[str]:
        """Keys of the entries table that these items may depend on and that are neither in memory nor in ``found``.

        The shell looks them up, puts absent ones into ``found`` as None, and asks again until there are none; then it
        steps in the same loop iteration: what leaves memory in between is in ``_leaving`` or in the filter. When none was
        stored it need not ask again, unless ``met_leaving``: such a row may be in the table, and nowhere else, by then.
        """
        self.met_leaving = False
        wanted: dict[str, None] = {}
        leaving, request_ids = self._leaving, self.books.request_ids
        for item in items:
            if item[0] == INGEST:
                body = item[5]
                key = f"e\x1f{body[0]}\x1f{body[2]}"  # identity.event_key, without the call
                if body[7] not in _PROMISE_AT and key not in request_ids and key not in leaving and not found.get(key):
                    if key in may_be_stored and key not in found:  # a new id, as nearly all are
                        wanted[key] = None
                    continue
                keys = self._event_keys(body, found)
            else:
                keys = self._keys(item, found)
            for key in keys:
                if key in leaving:
                    self.met_leaving = True
                elif key not in found and key in may_be_stored:
                    wanted[key] = None
        for waiting in placed(self.books) if self.books.feeds_moved else ():
            for key in self._event_keys(waiting.body, found):
                if key in leaving:
                    self.met_leaving = True
                elif key not in found and key in may_be_stored:
                    wanted[key] = None
        return list(wanted)

    def _keys(self, item: Item, found: Found) -> list[str]:
        verb, body = item[0], item[5]
        books = self.books
        if verb == Verb.RESERVE:
            keys = [request_key(body[2], body[0])]
            if len(body) > 10 and body[10]:
                keys.append(reservation_row_key(body[10]))
            return [key for key in keys if key not in books.request_ids and key[2:] not in books.reservations]
        if verb in (Verb.REGISTER_STOCK, Verb.SET_STOCK_POLICY, Verb.SET_SELLING):
            return [operator_key(body[0], body[2])]
        if verb == Verb.ACKNOWLEDGE_CHANGES:
            known = books.shards[item[1]].entries if item[1] in books.shards else {}
            return [key for key in entry_keys(body) if key not in known]
        if verb == Verb.RESOLVE_EXCEPTION:
            return self._resolution_keys(item[1], body, found)
        if verb == Verb.GET_RESERVATION:
            return [] if body[0] in books.reservations else [reservation_row_key(body[0])]
        if verb in (Verb.CONFIRM, Verb.RELEASE, Verb.EXTEND, Verb.AMEND, Verb.FULFILL):
            return self._verb_keys(verb, body)
        if verb == Verb.TAKE_ERRAND:
            keys_of = ERRAND_KEYS.get(body[3])
            return keys_of(books, body[4]) if keys_of is not None else []
        if verb == Verb.READ_LINES:
            return [shipment_key(*identity) for identity in body[3]] if len(body) > 3 else []  # noqa: PLR2004
        if verb == Verb.ERRAND_ANSWERED:
            return self._answer_keys(item[1], body)
        return []

    def _answer_keys(self, shard_id: int, body: Sequence[Any]) -> list[str]:
        shard = self.books.shards.get(shard_id)
        outbound = shard.outbound.get(body[0]) if shard is not None else None
        errand = outbound.open.get(body[1]) if outbound is not None else None
        keys_of = ANSWER_KEYS.get(errand.purpose[0]) if errand is not None else None
        return keys_of(self.books, errand, body[2]) if keys_of is not None and errand is not None else []

    def _resolution_keys(self, shard_id: int, body: Sequence[Any], found: Found) -> list[str]:
        """Its own id, and what the event that it may have decided again depends on."""
        keys = [operator_key(body[0], body[2])]
        shard = self.books.shards.get(shard_id)
        exception = shard.exceptions.get(body[2]) if shard is not None else None
        if exception is not None and exception.fields[0] in EVENT_KINDS:
            for event in (exception.payload, body[6] if len(body) > 6 else ()):
                keys += self._event_keys(event, found) if event else []
        return keys

    def _event_keys(self, body: Sequence[Any], found: Found) -> list[str]:
        books = self.books
        key, fact, details = event_key(body[0], body[2]), body[7], body[8]
        known = books.request_ids.get(key)
        keys = [key] if known is None else []
        if known is not None or found.get(key) is not None or key in self._leaving:  # perhaps by other content
            other = f"{key}\x1f{body[6].hex()}"
            if other not in books.request_ids:
                keys.append(other)
        if fact not in _PROMISE_AT:
            return keys
        promise = details[_PROMISE_AT[fact]]
        if promise and promise[0] and promise[0] not in books.reservations:
            keys.append(reservation_row_key(promise[0]))
        if fact == Fact.SHIPMENT:
            identity = shipment_key(
                body[5], details[1], (body[10] if len(body) > 10 else "") or (promise[3] if promise else "")
            )
            there = books.stock.get(body[5])
            if there is None or identity not in there.shard.entries:
                keys.append(identity)
        return keys

    def _verb_keys(self, verb: int, body: Sequence[Any]) -> list[str]:
        request_id, reservation_id = body[0], body[2]
        if verb == Verb.RELEASE and not reservation_id:
            return [request_key(body[3], body[4]), request_key(body[3], request_id)]
        reservation = self.books.reservations.get(reservation_id)
        if reservation is None:
            return [reservation_row_key(reservation_id)]
        keys = [request_key(reservation.channel_id, request_id)]
        if verb == Verb.FULFILL:
            wanted = {line[0]: line[2] or line[0] for line in body[4]}
            for line_id, key, _, _ in reservation.lines:
                if not wanted or line_id in wanted:
                    keys.append(shipment_key(key, body[3], wanted.get(line_id, line_id)))
        return [key for key in keys if key not in self.books.request_ids]

    # --- a turn ------------------------------------------------------------------------------------------------------------

    def step(
        self,
        items: Sequence[Item],
        found: Found,
        now_ms: int,
        *,
        accept_claims: bool = True,
        told: Mapping[int, Sequence[Any]] | None = None,
    ) -> TurnResult:
        """Decide and apply all items in order at ``now_ms`` (never taken back), expire what is due, retire what is old.

        ``told``: by place among the items, what other hosts answered to an item's ``asks``.
        Raises only when an invariant broke (AssertionError) or an event could not be applied: then the owner must end.
        """
        self.now_ms = now_ms = max(now_ms, self.now_ms)
        known: Mapping[str, Any] = {**found, **self._leaving} if self._leaving else found
        books = self.books
        books.partial = len(books.shards) < self.shard_count
        turn = Turn(books, now_ms, known, read_reservation_row, read_entry_row)
        turn.accept_claims = accept_claims
        expired = expire_due(turn, self.books.rules.expiries_per_turn_max)
        if books.operations_due and books.operations_due[0][0] <= now_ms:
            give_up_due(turn)
        decide_waiting(turn)
        if told:
            replies = []
            for at, item in enumerate(items):
                turn.told = told.get(at, ())
                replies.append(self._decide(turn, item, accept_claims))
        else:
            replies = self._decide_all(turn, items, accept_claims)
        if self.books.consumers:
            watch_consumers(turn)
        watch_feeds(turn)
        watch_reconciliations(turn)
        entries = retire(turn, len(items))
        for row in entries:
            self._leaving[row.key] = row
        return self._result(turn, replies, entries, expired)

    def _decide_all(self, turn: Turn, items: Sequence[Item], accept_claims: bool) -> list[Reply]:  # noqa: FBT001  one caller
        """One after the other; plain events that follow each other in one go."""
        if INGEST not in [item[0] for item in items]:
            return [self._decide(turn, item, accept_claims) for item in items]
        replies: list[Reply] = []
        shards, shard_count = self.books.shards, self.shard_count
        at, count = 0, len(items)
        while at < count:
            item = items[at]
            if item[0] == INGEST:
                shard = shards.get(item[1])
                if shard is not None and feed_shard_of(item[5][0], shard_count) == shard.id:
                    booked = book_run(turn, shard, items, at, replies)
                    if booked:
                        at += booked
                        continue
            replies.append(self._decide(turn, item, accept_claims))
            at += 1
        return replies

    def _decide(self, turn: Turn, item: Item, accept_claims: bool) -> Reply:  # noqa: FBT001  the hot path, one caller
        verb, shard_id, _, _, cause, body = item
        turn.emitted = 0  # the last command's events are no trace of this one
        try:
            if verb == RESERVE:
                shard = self.books.shards.get(shard_id)
                if shard is not None:
                    order = make(Reserve, body) if len(body) == RESERVE_FIELDS else Reserve(*body)
                    told = cause if cause else NOT_TOLD
                    turn.begin(make(Cause, (RESERVE, order[2], order[0], *told, "", "", 0, 0)))
                    turn.reads.add(shard_id)
                    if self.books.partial:
                        return reserve_anywhere(turn, shard, order, accept_claims=accept_claims)
                    return reserve(turn, shard, order, accept_claims=accept_claims)
            elif verb == INGEST and len(body) == INGEST_FIELDS:
                shard = self.books.shards.get(shard_id)
                if shard is not None and feed_shard_of(body[0], self.shard_count) == shard_id:
                    event = make(Ingest, body)
                    told = cause if cause else NOT_TOLD
                    turn.begin(make(Cause, (INGEST, "", event[2], *told, event[0], event[1], event[3], event[4])))
                    return ingest(turn, shard, event)
            command = COMMANDS[verb](*body)
            if verb in LISTS:
                turn.begin(cause_of(verb, command, cause))
                turn.reads.update(self.books.shards)
                return LISTS[verb](turn, command)
            shard = self.books.shards.get(shard_id)
            if shard is None:
                return error(ErrorReason.WRONG_OWNER, f"shard {shard_id} is not here")
            if verb in FED:
                home = feed_shard_of(command.source_id, self.shard_count)
                if home != shard_id:  # an id must be spent nowhere else
                    return error(ErrorReason.WRONG_OWNER, f"shard {shard_id} is not the source's: that is {home}")
            elif verb == Verb.REGISTER_STOCK and command.stock_key not in shard.stock:
                home = self.books.shard_of(command.stock_key)
                if home != shard_id:  # a stock actor must be made nowhere else
                    return error(ErrorReason.WRONG_OWNER, f"shard {shard_id} is not the stock key's: that is {home}")
            turn.begin(cause_of(verb, command, cause))
            turn.reads.add(shard_id)
            if verb == Verb.AMEND:
                return amend_anywhere(turn, shard, command, accept_claims=accept_claims)
            return HANDLERS[verb](turn, shard, command)
        except Exception:
            if turn.emitted:
                raise
            log.exception(
                "command refused: it raised before it changed anything", extra={"verb": verb, "shard": shard_id}
            )
            return error(ErrorReason.INTERNAL)

    def _result(self, turn: Turn, replies: list[Reply], entries: list[EntryRow], expired: int) -> TurnResult:
        records = []
        shards = self.books.shards
        for shard_id, groups in turn.groups.items():
            shard = shards[shard_id]
            first = turn.first[shard_id]
            count = shard.sequence - first + 1
            shard.record_number += 1
            shard.time_ms = turn.now_ms
            payload = encode_groups(groups)
            changed = last_change(groups, shard.sequence)
            if changed:
                self.books.changed[shard_id] = changed
            records.append(Record(shard_id, shard.record_number, shard.epoch, first, count, turn.now_ms, payload))
        read_heads = [
            self.head(shard_id) for shard_id in turn.reads if shard_id not in turn.groups and shard_id in shards
        ]
        return TurnResult(
            replies, records, entries, read_heads, self.wakeup_ms(), expired, turn.groups, turn.finished, turn.errands
        )

    def head(self, shard_id: int) -> ShardHead:
        """Where the shard's journal ends once everything stepped so far is durable."""
        shard = self.books.shards[shard_id]
        return ShardHead(shard_id, shard.epoch, shard.record_number, shard.sequence, shard.time_ms)

    def own(self, heads: Mapping[int, ShardHead], now_ms: int) -> TurnResult:
        """Journal that this owner serves now: the first records of its epoch, to be durable before anything is served."""
        self.now_ms = now_ms = max(now_ms, self.now_ms, *(head.time_ms for head in heads.values()), 0)
        turn = Turn(self.books, now_ms, {}, read_reservation_row, read_entry_row)
        turn.begin(Cause(0, "", ""))
        grace_until_ms = now_ms + self.books.rules.takeover_grace_ms
        for shard_id, head in heads.items():
            shard = self.books.shards[shard_id]
            assert head.sequence == shard.sequence, "replay did not reach the head"
            shard.epoch = head.epoch
            turn.emit(shard, ShardOwned(head.epoch, self.timeline, grace_until_ms))
        return self._result(turn, [], [], 0)

    def open_errands(self) -> list[Opened]:
        """Every errand that is open, by shards and number: what a courier begins with."""
        return [
            (shard.id, errand.to_shard, errand.number, errand)
            for shard in self.books.shards.values()
            for outbound in shard.outbound.values()
            for errand in outbound.open.values()
        ]

    @property
    def whole(self) -> bool:
        """Whether every shard there is is here, so that nothing is to be asked of other hosts."""
        return len(self.books.shards) == self.shard_count

    def asks(self, item: Item) -> list[tuple[int, int, Sequence[Any]]]:
        """[(shard, verb, body), …]: what must be read at other hosts before this item can be decided. Only to be asked
        where not every shard is here (``whole``)."""
        asks_of = ASKS.get(item[0])
        return asks_of(self.books, item[1], item[5]) if asks_of is not None else []

    def durable(self, result: TurnResult) -> None:
        """The turn's append returned: what it retired is in the table, memory lets go of it."""
        for row in result.entries:
            if self._leaving.get(row.key) is row:
                del self._leaving[row.key]

    # --- what is due ------------------------------------------------------------------------------------------------------

    def wakeup_ms(self) -> int | None:
        """Shard time of the next deadline or housekeeping; None: none. In the past: more is due, step again soon."""
        books = self.books
        memory_ms = books.rules.dedupe_memory_ms
        times = []
        if books.deadlines:
            times.append(books.deadlines[0][0])
        if books.ended:
            times.append(books.ended[0][0] + memory_ms)
        if books.entries_spent:
            times.append(books.entries_spent[0][0] + memory_ms)
        if books.operations_due:
            times.append(books.operations_due[0][0])
        if books.waiting_until:
            times.append(books.waiting_until[0][0])
        if books.consumers:
            look_ms = next_look_ms(books)
            if look_ms is not None:
                times.append(look_ms)
        look_ms = next_feed_look_ms(books)
        if look_ms < FAR_MS:
            times.append(look_ms)
        if books.feeds_moved:
            times.append(self.now_ms)
        if books.reconciliations.look_ms < FAR_MS:
            times.append(books.reconciliations.look_ms)
        if books.exceptions_healed:
            times.append(books.exceptions_healed[0][0] + books.rules.healed_memory_ms)
        return min(times) if times else None

    # --- what operators see ---------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Counts by shard and in all, plain values."""
        counts = {"cluster_id": self.cluster_id, "timeline": self.timeline, "shard_count": self.shard_count}
        return {**counts, **books_status(self.books, self.now_ms)}
