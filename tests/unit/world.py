"""A world of one engine over a journal in memory, for tests that read as sentences. Every step is journaled; ``restart``
rebuilds the engine from the journal and asserts that it is the same, byte for byte."""

from __future__ import annotations

import itertools
from typing import Any

from actors.domain.answers import ERROR, OK, REFUSED, Granted
from actors.domain.apply import rebuild_indices
from actors.domain.commands import Verb
from actors.domain.keys import parse_reservation_id, stock_key
from actors.domain.outcomes import (
    Admission,
    Disposition,
    ErrorReason,
    Fact,
    FillPolicy,
    IngestOutcome,
    RefusalReason,
    RejectReason,
    ReleaseReason,
    ReservationState,
)
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.memory import MemoryJournal, memory_store
from actors.shard.encoding import canonical_state
from actors.shard.filter import EntryFilter
from actors.shard.placement import feed_shard_of, shard_of
from actors.shard.recovery import load_shard, recover
from actors.shard.snapshot import Snapshotter

SHARDS = 64
START_MS = 1_700_000_000_000


class Answer:
    """An answer with its parts by name."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.ok = reply[0] == OK
        self.replayed = reply[0] != ERROR and reply[1]
        payload = reply[2] if reply[0] == OK else None
        self.payload: Any = Granted(*payload) if type(payload) is tuple else payload  # a single grant travels plain
        self.refusal = RefusalReason(reply[2].reason).name if reply[0] == REFUSED else ""
        self.error = ErrorReason(reply[1]).name if reply[0] == ERROR else ""
        self.shortages: Any = reply[2].shortages if reply[0] == REFUSED else ()

    @property
    def id(self) -> str:
        assert self.ok, self.reply
        return str(self.payload.reservation_id)

    @property
    def state(self) -> str:
        number = self.reply[2].state
        return ReservationState(number).name if number else ""

    def __repr__(self) -> str:
        return f"Answer({self.reply})"


class World:
    """One warehouse system, some channels, one engine."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.store = memory_store("cluster", "t1", SHARDS, 1, START_MS)
        self.now_ms = START_MS
        self._ids = itertools.count(1)
        self.filter = EntryFilter()
        self._start()

    def _start(self) -> None:
        self.journal = MemoryJournal(self.store)
        recovered = recover(self.journal, range(SHARDS), self.rules, self.now_ms)
        self.engine = recovered.engine
        own = recovered.ownership
        self.journal.append(own.records, own.entries, own.read_heads)
        self.filter = EntryFilter(self.journal.entry_keys())

    # --- time and failure ---------------------------------------------------------------------------------------------

    def pass_ms(self, milliseconds: int) -> None:
        """Time passes; what is due expires."""
        self.now_ms += milliseconds
        self.step()

    def restart(self) -> None:
        """The process dies and its successor replays."""
        self.check_replay()
        self._start()

    def check_replay(self) -> None:
        """Full replay, and snapshot plus tail, equal the live state byte for byte."""
        for use_snapshots in (False, True):
            books = Books(self.rules, lambda key: shard_of(key, SHARDS))
            for shard in range(SHARDS):
                load_shard(MemoryJournal(self.store), books, shard, use_snapshots=use_snapshots)
            rebuild_indices(books)
            for shard in range(SHARDS):
                assert canonical_state(books, shard) == canonical_state(self.engine.books, shard), (
                    shard,
                    use_snapshots,
                )

    def snapshot(self, between: Any = lambda: None) -> None:
        """Snapshot every shard that has anything; ``between`` is called after each slice, as other turns would come."""
        for shard in range(SHARDS):
            state = self.engine.books.shards[shard]
            if not (state.stock or state.feeds or state.consumers):
                continue
            snapshotter = Snapshotter(self.engine, shard, self.now_ms)
            while (part := snapshotter.next_slice()) is not None:
                self.journal.write_slice(part, snapshotter.epoch)
                between()
            self.journal.publish_snapshot(snapshotter.snapshot())

    # --- steps ----------------------------------------------------------------------------------------------------------

    def step(self, *items: list[Any], accept_claims: bool = True) -> list[Answer]:
        """One turn with these items, made durable."""
        found: dict[str, Any] = {}
        while wanted := self.engine.unresolved(items, found, self.filter):
            rows = self.journal.find_entries(wanted)
            found.update(dict.fromkeys(wanted))
            found.update(rows)
        result = self.engine.step(items, found, self.now_ms, accept_claims=accept_claims)
        for row in result.entries:
            self.filter.add(row.key)
        if result.records or result.entries:
            self.journal.append(result.records, result.entries, result.read_heads)
        else:
            self.journal.check(result.read_heads)
        self.engine.durable(result)
        return [Answer(reply) for reply in result.replies]

    def one(self, item: list[Any], **options: Any) -> Answer:
        return self.step(item, **options)[0]

    def fresh_id(self, prefix: str) -> str:
        return f"{prefix}{next(self._ids)}"

    # --- commands ---------------------------------------------------------------------------------------------------------

    def reserve_item(
        self,
        *lines: tuple[Any, ...],
        request: str = "",
        channel: str = "web",
        ttl_ms: int = 60_000,
        confirm: bool = False,
        fill: FillPolicy = FillPolicy.ALL_OR_NOTHING,
        always: bool = False,
        order: str = "",
        replaces: str = "",
        digest: bytes | None = None,
    ) -> list[Any]:
        """Lines: (sku, quantity), (sku, quantity, line id) or (sku, quantity, line id, warehouse[, minimum])."""
        wanted = []
        for index, line in enumerate(lines):
            sku, quantity, *rest = line
            line_id = rest[0] if rest else str(index)
            warehouse = rest[1] if len(rest) > 1 else "main"
            minimum = rest[2] if len(rest) > 2 else 0
            wanted.append([line_id, stock_key(warehouse, sku), quantity, minimum])
        if replaces:
            parts = parse_reservation_id(replaces)
            assert parts is not None
            home = parts.shard
        else:
            home = shard_of(min(line[1] for line in wanted), SHARDS)
        admission = Admission.ALWAYS if always else Admission.WHEN_COVERED
        content = digest or repr((wanted, ttl_ms, confirm, fill, admission, order, replaces)).encode()
        body = [
            request or self.fresh_id("r"), content, channel, wanted, ttl_ms, confirm, int(fill), int(admission),
            order, "", replaces, [],
        ]  # fmt: skip
        return [int(Verb.RESERVE), home, 0, len(wanted), [], body]

    def reserve(self, *lines: tuple[Any, ...], **options: Any) -> Answer:
        return self.one(self.reserve_item(*lines, **options))

    def _verb(self, verb: Verb, reservation: Answer | str, *fields: Any, request: str = "") -> list[Any]:
        reservation_id = reservation if isinstance(reservation, str) else reservation.id
        parts = parse_reservation_id(reservation_id)
        content = repr((verb, reservation_id, fields)).encode()
        shard = parts.shard if parts is not None else 0
        return [int(verb), shard, 0, 1, [], [request or self.fresh_id("v"), content, reservation_id, *fields]]

    def confirm(self, reservation: Answer | str, order: str = "", version: int = 0, request: str = "") -> Answer:
        return self.one(self._verb(Verb.CONFIRM, reservation, order, version, request=request))

    def extend(self, reservation: Answer | str, ttl_ms: int, request: str = "") -> Answer:
        return self.one(self._verb(Verb.EXTEND, reservation, ttl_ms, request=request))

    def release(self, reservation: Answer | str, *lines: tuple[str, int], request: str = "") -> Answer:
        reason = int(ReleaseReason.CUSTOMER_CANCELLED)
        return self.one(
            self._verb(Verb.RELEASE, reservation, "", "", [list(line) for line in lines], reason, request=request)
        )

    def release_by_request(self, reserve_request: str, sku: str, channel: str = "web", request: str = "") -> Answer:
        content = f"release {channel} {reserve_request}".encode()
        body = [request or self.fresh_id("v"), content, "", channel, reserve_request, [], 1, ""]
        return self.one([int(Verb.RELEASE), shard_of(stock_key("main", sku), SHARDS), 0, 1, [], body])

    def amend(
        self,
        reservation: Answer,
        *targets: tuple[Any, ...],
        remove: tuple[str, ...] = (),
        version: int = 0,
        request: str = "",
    ) -> Answer:
        """Targets: (line id, sku, quantity[, warehouse])."""
        lines = [
            [line_id, stock_key(rest[0] if rest else "main", sku), quantity, 0]
            for line_id, sku, quantity, *rest in targets
        ]
        return self.one(self._verb(Verb.AMEND, reservation, lines, list(remove), version, request=request))

    def fulfill(
        self, reservation: Answer, shipment: str, *lines: tuple[Any, ...], close: bool = False, request: str = ""
    ) -> Answer:
        parts = [[line[0], line[1], line[2] if len(line) > 2 else ""] for line in lines]
        return self.one(self._verb(Verb.FULFILL, reservation, shipment, parts, close, 0, request=request))

    def event(
        self,
        fact: Fact | int,
        sku: str,
        *details: Any,
        event: str = "",
        warehouse: str = "main",
        document_line: str = "",
        age_ms: int = 0,
        reject: int = 0,
        source: str = "wms",
        stream: str = "",
        sequence: int = 0,
        lot_id: str = "",
        document_id: str = "",
        attributes: list[list[str]] | None = None,
    ) -> list[Any]:
        key = stock_key(warehouse, sku)
        content = repr((int(fact), key, details, document_line)).encode()
        body = [
            source, stream, event or self.fresh_id("e"), sequence, self.now_ms - age_ms, key, content, int(fact), list(details),
            document_id, document_line, lot_id, 0, attributes or [], reject,
        ]  # fmt: skip
        return [int(Verb.INGEST), feed_shard_of(source, SHARDS), 0, 1, [], body]

    def tell(self, fact: Fact | int, sku: str, *details: Any, **options: Any) -> Told:
        return Told(self.one(self.event(fact, sku, *details, **options)))

    def receive(self, sku: str, quantity: int, disposition: Disposition = Disposition.SELLABLE, **options: Any) -> Told:
        return self.tell(Fact.RECEIPT, sku, quantity, int(disposition), "", "", **options)

    def ship(
        self, sku: str, quantity: int, shipment: str, promise: Any = None, close: bool = False, **options: Any
    ) -> Told:
        return self.tell(
            Fact.SHIPMENT, sku, quantity, shipment, self.promise(promise), close, int(Disposition.SELLABLE), **options
        )

    def pick(self, sku: str, quantity: int, promise: Any = None) -> Told:
        return self.tell(Fact.PICK, sku, quantity, self.promise(promise))

    def unpick(self, sku: str, quantity: int, promise: Any = None) -> Told:
        return self.tell(Fact.UNPICK, sku, quantity, self.promise(promise))

    def count(self, sku: str, quantity: int, includes_picked: bool = False, **options: Any) -> Told:
        return self.tell(
            Fact.STOCK_COUNT, sku, quantity, int(Disposition.SELLABLE), 0, True, includes_picked, **options
        )

    @staticmethod
    def promise(promise: Any) -> list[str]:
        """None, a reservation's answer, its id, or (channel, order)."""
        if promise is None:
            return []
        if isinstance(promise, tuple):
            return ["", promise[0], promise[1], ""]
        return [promise if isinstance(promise, str) else promise.id, "", "", ""]

    def set_policy(self, sku: str, **policy: int) -> Answer:
        key = stock_key("main", sku)
        fields = [
            policy.get("safety", -1),
            policy.get("limit", -1),
            "",
            policy.get("version", 0),
            policy.get("selling", 0),
        ]
        body = [self.fresh_id("o"), repr(fields).encode(), key, *fields]
        return self.one([int(Verb.SET_STOCK_POLICY), shard_of(key, SHARDS), 0, 1, [], body])

    def set_gate(
        self, sku: str, *, item_state: int = 0, receipt_disposition: int = 0, recalled_lot_ids: list[str] | None = None
    ) -> Answer:
        """Register the stock key, if need be, with this sale gate."""
        key = stock_key("main", sku)
        fields = [
            -1,
            0,
            -1,
            "",
            int(item_state),
            int(receipt_disposition),
            [] if recalled_lot_ids is None else [recalled_lot_ids],
        ]
        body = [self.fresh_id("o"), repr(fields).encode(), key, *fields]
        answer = self.one([int(Verb.REGISTER_STOCK), shard_of(key, SHARDS), 0, 1, [], body])
        assert answer.ok, answer
        return answer

    # --- questions --------------------------------------------------------------------------------------------------------

    def ats(self, sku: str, warehouse: str = "main") -> int:
        key = stock_key(warehouse, sku)
        answer = self.one([int(Verb.GET_AVAILABILITY), shard_of(key, SHARDS), 0, 1, [], ["web", [key]]])
        return int(answer.payload.items[0][0])

    def stock(self, sku: str, warehouse: str = "main") -> Any:
        key = stock_key(warehouse, sku)
        return self.one([int(Verb.GET_STOCK), shard_of(key, SHARDS), 0, 1, [], [key]]).payload

    def on_hand(self, sku: str, disposition: Disposition = Disposition.SELLABLE, warehouse: str = "main") -> int:
        return dict(self.stock(sku, warehouse).on_hand).get(disposition, 0)

    def get(self, reservation: Answer | str) -> Any:
        """The ReservationView, its lines LineViews."""
        reservation_id = reservation if isinstance(reservation, str) else reservation.id
        parts = parse_reservation_id(reservation_id)
        assert parts is not None
        answer = self.one([int(Verb.GET_RESERVATION), parts.shard, 0, 1, [], [reservation_id]])
        assert answer.ok, answer
        return answer.payload

    def state(self, reservation: Answer | str) -> str:
        return ReservationState(self.get(reservation).state).name

    def exceptions(self, *states: int) -> list[Any]:
        return list(
            self.one([int(Verb.LIST_EXCEPTIONS), -1, 0, 1, [], [[], "", "", list(states), 1000, ""]]).payload.items
        )


class Told:
    """What became of a warehouse event."""

    def __init__(self, answer: Answer) -> None:
        assert answer.ok, answer
        self.view = view = answer.payload
        self.outcome = IngestOutcome(view.outcome).name
        self.shortage = view.shortage_quantity
        self.exception = view.exception_id
        self.reason = RejectReason(view.reject_reason).name if view.reject_reason else ""
        self.position = view.position
