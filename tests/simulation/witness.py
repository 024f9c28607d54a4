"""What hosts decided, seen at their engines: for decisions of which no answer reached its caller.

A judge orders decisions by the positions in their answers. When the answer is lost, the journal still holds the decision, but
not which other shards it had read and how far. The simulation sees every answer that an engine makes, so it can add that answer
to the history, as one that arrived after everything else. Only durable decisions: the others never were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from actors.domain.answers import ERROR
from actors.domain.answers import REFUSED as REFUSED_REPLY
from actors.domain.commands import Verb
from actors.shard.engine import Engine
from tests.simulation.history import OK, REFUSED, Effect, JournalFacts, Operation
from tests.simulation.history_frames import answered, attempted
from tests.simulation.trace import TIMELINE, Attempt, Recording

INGEST = int(Verb.INGEST)
POSITION_AT = {
    int(Verb.RESERVE): 5, int(Verb.INGEST): 2, int(Verb.GET_AVAILABILITY): 1, int(Verb.GET_STOCK): 13,
    int(Verb.REGISTER_STOCK): 13, int(Verb.SET_STOCK_POLICY): 13, int(Verb.SET_SELLING): 13,
} | dict.fromkeys(
    map(int, (Verb.CONFIRM, Verb.RELEASE, Verb.EXTEND, Verb.AMEND, Verb.FULFILL, Verb.GET_RESERVATION)), 12
)  # fmt: skip

Key = tuple[int, int, int, str]  # shard, epoch, sequence, id


def position_of(verb: int, reply: Sequence[Any] | None) -> Any:
    """[shard, epoch, sequence, time] of an answer, or None."""
    if reply is None or reply[0] == ERROR:
        return None
    if reply[0] == REFUSED_REPLY:
        return reply[2][4]
    at = POSITION_AT.get(verb)
    return None if at is None else reply[2][at]


def id_of(item: Sequence[Any]) -> str:
    """The id that a call spends; an event's is one of its source."""
    body = item[5]
    return f"{body[0]}/{body[2]}" if item[0] == INGEST else str(body[0])


def spent_by(effect: Effect) -> str:
    """The id that a decision of the journal spent, as ``id_of`` spells it."""
    kind, first, second = effect.identity
    return f"{first}/{second}" if kind == "event" else str(first if kind == "operator" else second)


class Witness:
    """Watches engines. One for a history."""

    def __init__(self) -> None:
        self._seen: dict[Key, Sequence[Any]] = {}

    def watch(self, engine: Engine) -> None:
        """From now on what this engine answers is kept."""
        step = engine.step

        def watched(items: Sequence[Sequence[Any]], *arguments: Any, **options: Any) -> Any:
            result = step(items, *arguments, **options)
            for item, reply in zip(items, result.replies, strict=True):
                if reply[0] != ERROR and not reply[1] and item[0] in POSITION_AT:
                    position = position_of(item[0], reply)
                    if position:
                        self._seen[position[0], position[1], position[2], id_of(item)] = reply
            return result

        setattr(engine, "step", watched)  # noqa: B010  on this one object

    def lost_answers(self, recording: Recording, facts: JournalFacts) -> list[Operation]:
        """An operation for each decision of the journal whose own answer no caller got, as old as the first that asked."""
        attempts: dict[str, list[Attempt]] = {}
        told: set[Key] = set()
        for attempt in recording.attempts:
            operation = attempt.operation
            if operation is None or attempt.item[0] not in POSITION_AT:
                continue
            attempts.setdefault(id_of(attempt.item), []).append(attempt)
            if operation.status in (OK, REFUSED) and not operation.replayed:
                position = position_of(attempt.item[0], attempt.reply)
                if position:
                    told.add((position[0], position[1], position[2], id_of(attempt.item)))
        found = (self._lost_answer(effect, attempts, told) for effect in facts.effects if effect.kind == "command")
        return [operation for operation in found if operation is not None]

    def _lost_answer(self, effect: Effect, attempts: dict[str, list[Attempt]], told: set[Key]) -> Operation | None:
        if not effect.told_at:
            return None
        spent = spent_by(effect)
        shard, epoch, sequence = effect.told_at
        key = (shard, epoch, sequence, spent)
        reply = self._seen.get(key)
        if reply is None or key in told:
            return None
        for attempt in attempts.get(spent, ()):
            if attempt.operation is not None and attempt.operation.digest == effect.digest:
                operation = attempted("witness", attempt.item, attempt.invoked_s)
                return answered(operation, reply, TIMELINE, math.inf)
        return None
