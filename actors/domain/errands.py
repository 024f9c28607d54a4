"""Errands: calls from one shard to another, each done exactly once and in order, whatever is lost, doubled or restarted.

The sending shard journals the errand and keeps it open (``ErrandSent``). Its host's courier delivers it once that is
durable, as often as it must. The shard it is for takes exactly the number after the last (``ErrandTaken``, in the record of
what it did) and answers any older one with the reply it kept. The reply comes back as an item of the sending shard's own:
what follows from it and that it arrived (``ErrandSettled``) are one record. So whichever host dies, at whichever step, its
successor goes on from its journal. Pairs of shards are independent of each other; an errand never waits for anything.

What an errand does, and what its answer is for, stand in ``errand_registry``. Delivery is ``actors.shard.courier``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors.domain.answers import Reply, error, ok
from actors.domain.commands import Cause
from actors.domain.errand_commands import ErrandAnswered, TakeErrand
from actors.domain.errand_events import ErrandSent, ErrandSettled, ErrandTaken
from actors.domain.errand_state import Errand
from actors.domain.outcomes import ErrorReason
from actors.domain.state import ShardState
from actors.domain.turn import Turn

OPEN_PER_PAIR_MAX = 10_000  # some MiB, and a second or two of delivering; more is load that must be refused

# (turn, shard, from shard, body) → the reply, plain (None: not yet, come again); (turn, shard, the errand, its reply)
ErrandHandler = Callable[[Turn, ShardState, int, Sequence[Any]], Sequence[Any] | None]
AnswerHandler = Callable[[Turn, ShardState, Errand, Sequence[Any]], None]


def has_room(shard: ShardState, to_shard: int) -> bool:
    """Whether a command may send one more there; else it is refused OVERLOADED, before it changed anything. What must
    follow from things decided earlier (an undo, a release) is sent all the same: those things are bounded themselves."""
    outbound = shard.outbound.get(to_shard)
    return outbound is None or len(outbound.open) < OPEN_PER_PAIR_MAX


def send(
    turn: Turn, shard: ShardState, to_shard: int, verb: int, body: Sequence[Any], purpose: Sequence[Any]
) -> Errand:
    """Send an errand, in this turn's record and because of its cause. Any shard may be meant, one of this host too."""
    outbound = shard.outbound.get(to_shard)
    number = outbound.next_number if outbound is not None else 1
    turn.emit(shard, ErrandSent(to_shard, number, verb, plain(body), plain(purpose), list(turn.cause)))
    errand = shard.outbound[to_shard].open[number]
    turn.errands.append((shard.id, to_shard, number, errand))
    return errand


def take(turn: Turn, shard: ShardState, command: TakeErrand, handlers: Mapping[int, ErrandHandler]) -> Reply:
    """TAKE_ERRAND: do it if it is the next one, or say what was said when it was done."""
    from_shard, number, settled_below, verb, body, cause = command
    inbound = shard.inbound.get(from_shard)
    last = inbound.last if inbound is not None else 0
    if inbound is not None and number in inbound.replies:
        return ok((number, inbound.replies[number]), replayed=True)
    if number != last + 1:  # one before it is missing; or an old copy of what was settled long ago: nobody waits for it
        return error(ErrorReason.OUT_OF_ORDER, str(last + 1))
    if settled_below > number:
        return error(ErrorReason.INVALID_FIELD, "an errand that is settled before it is taken")
    handler = handlers.get(verb)
    if handler is None:  # of a newer version: it stays with its sender until this host is renewed
        return error(ErrorReason.INTERNAL, f"errand {verb} is not known here")
    turn.begin(Cause(*cause[: len(Cause._fields)]))
    told = handler(turn, shard, from_shard, body)
    if told is None:  # it must wait for something that this shard decides within seconds
        return error(ErrorReason.SHARD_UNAVAILABLE, "not yet")
    reply = plain(told)
    turn.emit(shard, ErrandTaken(from_shard, number, settled_below, reply))
    return ok((number, reply))


def answered(turn: Turn, shard: ShardState, command: ErrandAnswered, handlers: Mapping[str, AnswerHandler]) -> Reply:
    """ERRAND_ANSWERED: what follows from a reply, once, and in the order in which the errands were sent."""
    to_shard, number, reply = command
    outbound = shard.outbound.get(to_shard)
    expected = outbound.settled_below if outbound is not None else 1
    if outbound is None or number < expected:
        return ok(())
    if number > expected or number not in outbound.open:
        return error(ErrorReason.OUT_OF_ORDER, str(expected))
    errand = outbound.open[number]
    turn.begin(Cause(*errand.cause[: len(Cause._fields)]))
    handlers[errand.purpose[0]](turn, shard, errand, reply)
    turn.emit(shard, ErrandSettled(to_shard, number))
    turn.errands.append((shard.id, to_shard, number, None))
    return ok(())


def plain(value: Any) -> Any:
    """The value with lists where tuples were, as it comes back from the journal and from other hosts."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
