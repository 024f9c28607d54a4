"""The engine and the model side by side, one item after the other: whoever answers otherwise is told at once.

Here nothing comes from the journal: the model expires what is due by itself, so that deadlines are exact to the millisecond,
neither early nor late. Nothing leaves memory (that, and whole turns, are ``test_model_properties``' third machine and
``recording``'s trader, whose histories the judge judges).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.domain.commands import Verb
from actors.domain.keys import parse_reservation_id, stock_key
from actors.domain.outcomes import Door
from actors.domain.rules import Rules
from actors.shard.placement import feed_shard_of, shard_of
from tests.simulation.checker import check
from tests.simulation.history import OK, REFUSED, Operation
from tests.simulation.linearize import unexplained
from tests.simulation.model import Model
from tests.simulation.recording import Item, RecordingWorld, settings_of
from tests.unit.world import SHARDS, Answer

NEVER_MS = 10**12
RULES = Rules(doors={"east": Door.ORDER_MANAGEMENT}, lifetime_ms_max=200_000, dedupe_memory_ms=NEVER_MS)


class Lockstep:
    """A world and a model that must agree. ``ids``: reservations made so far."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.world = RecordingWorld(rules)
        self.model = Model(settings_of(rules))
        self.ids: list[str] = []
        self.sent: list[Item] = []
        self._own()

    def _own(self) -> None:
        now_ms = self.world.now_ms
        for shard in range(SHARDS):
            self.model.own(shard, now_ms, now_ms + self.world.rules.takeover_grace_ms)

    # --- what happens -------------------------------------------------------------------------------------------------------

    def ask(self, item: Item) -> Answer:
        """One item, to both."""
        (answer,) = self.world.step(item)
        self._expire()
        operation = self.world.operations[-1]
        made = operation.answer.get("reservation_id", "") if operation.verb == "reserve" else ""
        outcome = self.model.call(
            operation.verb,
            operation.arguments,
            self.world.now_ms,
            new_id=made,
            shard=item[1],
            digest=operation.digest,
        )
        agree(operation, outcome)
        self.sent.append(item)
        if made and operation.status == OK and not operation.replayed:
            self.ids.append(made)
        return answer

    def again(self, index: int) -> None:
        """An item sent before, as it was."""
        if self.sent:
            self.ask(self.sent[index % len(self.sent)])

    def pass_ms(self, milliseconds: int) -> None:
        """Time passes, and both expire what is due."""
        self.world.pass_ms(milliseconds)
        self._expire()

    def _expire(self) -> None:
        now_ms = self.world.now_ms
        due = [one for one in self.model.reservations.values() if self.model.due(one, now_ms)]
        for reservation in sorted(due, key=lambda one: one.expire_time_ms):
            self.model.expire(reservation.id, now_ms)

    def restart(self, down_ms: int) -> None:
        """The process dies; the next one starts so much later, and equals the old one byte for byte."""
        self.world.now_ms += down_ms
        self.world.restart()
        self._own()

    # --- what is asked ------------------------------------------------------------------------------------------------------

    def item(self, verb: Verb, key: str, *body: Any) -> Item:
        """An item about a stock key."""
        shard = feed_shard_of(str(body[0]), SHARDS) if verb == Verb.INGEST else shard_of(key, SHARDS)
        return [int(verb), shard, 0, 1, [], list(body)]

    def about(self, verb: Verb, index: int, *fields: Any) -> Item:
        """An item about one of the reservations, or about one that is unknown."""
        return self.world._verb(verb, self.id(index), *fields)

    def id(self, index: int) -> str:
        """One of the reservations; a negative index: an unknown one."""
        return self.ids[index % len(self.ids)] if self.ids and index >= 0 else "1-t1-3-999"

    def look_at_stock(self, sku: str, warehouse: str) -> None:
        key = stock_key(warehouse, sku)
        self.ask(self.item(Verb.GET_STOCK, key, key))
        self.ask(self.item(Verb.GET_AVAILABILITY, key, "web", [key]))

    def look_at(self, reservation_id: str) -> None:
        parts = parse_reservation_id(reservation_id)
        assert parts is not None
        self.ask([int(Verb.GET_RESERVATION), parts.shard, 0, 1, [], [reservation_id]])

    def judge(self) -> None:
        """At the end: every answer once more, by the judge and by the search, and the state by its journal."""
        self.world.check_replay()
        settings = settings_of(self.world.rules)
        assert check(self.world.history(), settings) == []
        in_turn = [replace(one) for one in self.world.operations]
        assert unexplained(in_turn, settings) == []


def agree(operation: Operation, outcome: Any) -> None:
    """Fails when the model says otherwise. Exceptions have other names there, but exist or not alike."""
    expected, got = dict(outcome.answer), dict(operation.answer)
    if "exception_id" in got:
        expected["exception_id"], got["exception_id"] = bool(expected["exception_id"]), bool(got["exception_id"])
    status = operation.status if operation.status in (OK, REFUSED) else "error"
    told = {name: expected.get(name) for name in got}
    assert (status, operation.replayed, got) == (outcome.status, outcome.replayed, told), operation.about
