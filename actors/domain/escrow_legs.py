"""What a shard does about a reservation whose home is on another host: the other ends of ``actors.domain.escrow``'s errands.

Each is decided in the turn it comes in, by the rules that decide it on one host, and answers with the rows of its claims
there, [line id, stock key, granted, fulfilled, released, expired, picked, uncovered, imposed], and its position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from actors.domain.alarms import watch_shortage
from actors.domain.answers import Reply, ok
from actors.domain.commands import Reserve
from actors.domain.errand_registry import ERRANDS
from actors.domain.escrow import TELL_LINES, TRY_LINES, UNDO_LINES
from actors.domain.escrow_commands import ReadLines
from actors.domain.events import ClaimConfirmed, ClaimExpired, ClaimGranted, ClaimPicked, ClaimReleased, ClaimsForgotten
from actors.domain.identity import shipment_key
from actors.domain.lifecycle import expire_due_on
from actors.domain.outcomes import Admission, ReleaseReason
from actors.domain.picking import leave_net
from actors.domain.reserving import ALL_OR_NOTHING, ALWAYS, KeyPlan, fill, plan_keys
from actors.domain.state import Claim, ShardState, StockActor
from actors.domain.turn import Turn

ABORTED = int(ReleaseReason.ABORTED)
REPLACED = int(ReleaseReason.REPLACED)
WHEN_COVERED = int(Admission.WHEN_COVERED)

Row = list[Any]


def claims_at(shard: ShardState, reservation_id: str, keys: Iterable[str]) -> Iterator[tuple[StockActor, Claim]]:
    """The claims of a reservation on these stock keys here."""
    for key in keys:
        actor = shard.stock.get(key)
        first = actor.claims.get(reservation_id) if actor is not None else None
        if actor is not None and first is not None:
            for claim in first.chain():
                yield actor, claim


def rows_of(shard: ShardState, reservation_id: str, keys: Iterable[str]) -> list[Row]:
    """What a reservation has on these stock keys here."""
    return [
        [
            claim.line_id, actor.key, claim.granted, claim.fulfilled, claim.released, claim.expired, claim.picked,
            claim.uncovered, claim.imposed,
        ]
        for actor, claim in claims_at(shard, reservation_id, keys)
    ]  # fmt: skip


# --- a reserve is tried ---------------------------------------------------------------------------------------------------


def is_whole(command: Reserve) -> bool:
    """Whether one line that falls short refuses them all."""
    return command.admission == ALWAYS or command.fill_policy == ALL_OR_NOTHING


class Tried:
    """What one shard can do for its lines of a reserve: decided, nothing changed yet."""

    __slots__ = ("command", "granted", "plans", "reservation_id", "shortages")

    def __init__(self, turn: Turn, body: Sequence[Any]) -> None:
        """``body``: [reservation id, lines, fill policy, admission, channel, confirm, order reference, replaced id]."""
        self.reservation_id, lines, policy, admission, channel_id, confirm, order_reference, replaced_id = body
        self.command = Reserve("", b"", channel_id, lines, 0, confirm, policy, admission, order_reference)
        self.plans = plan_keys(turn, self.command, replaced_id)
        for plan in self.plans.values():
            if plan.actor is not None and plan.requested > plan.grantable()[0]:
                expire_due_on(turn, plan.actor)
        self.granted, self.shortages, _ = fill(self.command, self.plans)
        if self.falls_short:
            self.granted = [0] * len(lines)

    @property
    def falls_short(self) -> bool:
        """Whether the whole order is refused because of these lines."""
        return bool(self.shortages) and is_whole(self.command)

    def grant(self, turn: Turn, shard: ShardState) -> list[Any]:
        """Claim it. What a replaced hold has here is left with it until the whole order is decided: only what is asked
        beyond that is claimed now. The answer: [granted by line, of them carried later, shortages, position, rows]."""
        carried = [0] * len(self.granted)
        for plan in self.plans.values():
            if plan.actor is not None:
                self._grant_key(turn, plan, plan.actor, carried)
                watch_shortage(turn, plan.actor)
        rows = rows_of(shard, self.reservation_id, self.plans)
        return [self.granted, carried, self.shortages, turn.position(shard), rows]

    def _grant_key(self, turn: Turn, plan: KeyPlan, actor: StockActor, carried: list[int]) -> None:
        command = self.command
        carry = plan.own
        covered_left = max(0, plan.granted - plan.own) - plan.uncovered
        for index in plan.lines:
            units = self.granted[index]
            carried[index] = min(units, carry)
            carry -= carried[index]
            decided = units - carried[index]
            if not decided:
                continue
            imposed = uncovered = 0
            if command.admission == ALWAYS:
                imposed = decided
                covered = min(decided, covered_left)
                covered_left -= covered
                uncovered = decided - covered
            turn.emit(
                actor.shard,
                ClaimGranted(
                    plan.key, self.reservation_id, command.lines[index][0], decided, 0, command.admission, imposed,
                    uncovered, command.confirm, command.channel_id, command.order_reference,
                ),
            )  # fmt: skip


def try_lines(turn: Turn, shard: ShardState, _from_shard: int, body: Sequence[Any]) -> list[Any]:
    """TRY_LINES: claim what can be had of these lines. While the disk is nearly full: [] (nothing was claimed)."""
    if not turn.accept_claims:
        return []
    return Tried(turn, body).grant(turn, shard)


def undo_lines(turn: Turn, shard: ShardState, _from_shard: int, body: Sequence[Any]) -> list[Any]:
    """UNDO_LINES [reservation id, stock keys]: a reserve that was tried here came to nothing."""
    reservation_id, keys = body
    for key in keys:
        actor = shard.stock.get(key)
        first = actor.claims.get(reservation_id) if actor is not None else None
        if actor is not None and first is not None:
            for claim in first.chain():
                if claim.open:
                    turn.emit(shard, ClaimReleased(key, reservation_id, claim.line_id, claim.open, ABORTED))
            forget(turn, actor, first)
            watch_shortage(turn, actor)
    return [[], turn.position(shard)]


def forget(turn: Turn, actor: StockActor, first: Claim) -> None:
    """Ended claims leave memory. What is still off the shelf for them stays so, under the promise's name."""
    leave_net(turn, actor, first)
    for claim in first.chain():
        if claim.picked > 0:
            turn.emit(actor.shard, ClaimPicked(actor.key, claim.reservation_id, claim.line_id, -claim.picked))
    turn.emit(actor.shard, ClaimsForgotten(actor.key, first.reservation_id))


# --- what the home decided is told ------------------------------------------------------------------------------------------


def tell_lines(turn: Turn, shard: ShardState, _from_shard: int, body: Sequence[Any]) -> list[Any]:
    """TELL_LINES [what, reservation id, stock keys, …]: follow the home. The answer: [rows, position, units ended]."""
    what, reservation_id, keys, *details = body
    ended = TOLD[what](turn, shard, reservation_id, keys, details)
    return [rows_of(shard, reservation_id, keys), turn.position(shard), ended]


def confirm_claims(
    turn: Turn, shard: ShardState, reservation_id: str, keys: Sequence[str], details: Sequence[Any]
) -> int:
    """[order reference]"""
    for key in dict.fromkeys(actor.key for actor, _ in claims_at(shard, reservation_id, keys)):
        turn.emit(shard, ClaimConfirmed(key, reservation_id, details[0]))
    return 0


def release_claims(
    turn: Turn, shard: ShardState, reservation_id: str, keys: Sequence[str], details: Sequence[Any]
) -> int:
    """[reason, [[line id, stock key, quantity], …]]; no lines: all that is open. What ended meanwhile is not released."""
    reason, lines = details
    wanted = {(line_id, key): quantity for line_id, key, quantity in lines}
    released = 0
    touched: dict[str, StockActor] = {}
    for actor, claim in list(claims_at(shard, reservation_id, keys)):
        units = min(claim.open, wanted.get((claim.line_id, actor.key), 0)) if wanted else claim.open
        if units:
            released += units
            touched[actor.key] = actor
            turn.emit(shard, ClaimReleased(actor.key, reservation_id, claim.line_id, units, reason))
    for actor in touched.values():
        watch_shortage(turn, actor)
    return released


def expire_claims(
    turn: Turn, shard: ShardState, reservation_id: str, keys: Sequence[str], _details: Sequence[Any]
) -> int:
    """The deadline passed."""
    expired = 0
    touched: dict[str, StockActor] = {}
    for actor, claim in claims_at(shard, reservation_id, keys):
        if claim.open:
            expired += claim.open
            touched[actor.key] = actor
    for actor in touched.values():
        turn.emit(shard, ClaimExpired(actor.key, reservation_id))
        watch_shortage(turn, actor)
    return expired


def units_picked(
    _turn: Turn, shard: ShardState, reservation_id: str, keys: Sequence[str], _details: Sequence[Any]
) -> int:
    """How many units are still off the shelf for it: before it is forgotten. Changes nothing."""
    return sum(max(0, claim.picked) for _, claim in claims_at(shard, reservation_id, keys))


def forget_claims(
    turn: Turn, shard: ShardState, reservation_id: str, keys: Sequence[str], _details: Sequence[Any]
) -> int:
    """The reservation left memory at its home."""
    for key in keys:
        actor = shard.stock.get(key)
        first = actor.claims.get(reservation_id) if actor is not None else None
        if actor is not None and first is not None:
            forget(turn, actor, first)
            watch_shortage(turn, actor)
    return 0


def take_over(turn: Turn, shard: ShardState, reservation_id: str, keys: Sequence[str], details: Sequence[Any]) -> int:
    """[the replaced hold's id, channel, confirmed, order reference, [[line id, stock key, units to carry], …]]: its units
    end, and up to so many go on as the new one's. How many of the old one's ended."""
    old_id, channel_id, confirmed, order_reference, lines = details
    pool: dict[str, list[int]] = {}  # stock key → [units, of them imposed, of them uncovered]
    touched: dict[str, StockActor] = {}
    ended = 0
    for actor, claim in list(claims_at(shard, old_id, keys)):
        if not claim.open:
            continue
        kept = pool.setdefault(actor.key, [0, 0, 0])
        kept[0] += claim.open
        kept[1] += min(claim.imposed, claim.open)
        kept[2] += min(claim.uncovered, claim.open)
        ended += claim.open
        touched[actor.key] = actor
        turn.emit(shard, ClaimReleased(actor.key, old_id, claim.line_id, claim.open, REPLACED))
    for line_id, key, units in lines:
        kept = pool.get(key, [0, 0, 0])
        carried = min(units, kept[0])
        imposed = min(carried, kept[1])
        uncovered = min(imposed, kept[2])
        if carried:
            kept[0] -= carried
            kept[1] -= imposed
            kept[2] -= uncovered
            turn.emit(
                shard,
                ClaimGranted(
                    key, reservation_id, line_id, carried, carried, WHEN_COVERED, imposed, uncovered, confirmed,
                    channel_id, order_reference,
                ),
            )  # fmt: skip
    for actor in touched.values():
        watch_shortage(turn, actor)
    return ended


TOLD: dict[str, Callable[[Turn, ShardState, str, Sequence[str], Sequence[Any]], int | list[Any]]] = {
    "confirm": confirm_claims,
    "release": release_claims,
    "expire": expire_claims,
    "picked": units_picked,
    "read": lambda _turn, _shard, _reservation_id, _keys, _details: 0,
    "forget": forget_claims,
    "take over": take_over,
}


# --- what a home wants to know ------------------------------------------------------------------------------------------------


def read_lines(turn: Turn, shard: ShardState, command: ReadLines) -> Reply:
    """READ_LINES. OK payload: [rows, position, what the named shipments were booked with (-1: nothing), version as asked]."""
    booked = []
    for key, shipment_id, line in command.shipments:
        entry = turn.entry(shard, shipment_key(key, shipment_id, line))
        booked.append(-1 if entry is None else int(entry.answer[1]))
    rows = rows_of(shard, command.reservation_id, command.stock_keys)
    return ok((rows, turn.position(shard), booked, command.version))


ERRANDS[TRY_LINES] = try_lines
ERRANDS[UNDO_LINES] = undo_lines
ERRANDS[TELL_LINES] = tell_lines
