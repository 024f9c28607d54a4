"""Reserve: deciding whether, and how much of, an order's lines may be promised.

Lines of one stock key are decided on their sum and kept apart in the record. The single covered line, most of a flash sale,
has a path of its own: the same rule without the bookkeeping that several lines need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import intern
from typing import Any

from actors.domain.alarms import watch_shortage
from actors.domain.answers import OK, Granted, Reply, error, ok, refused
from actors.domain.commands import Reserve
from actors.domain.escrow import busy
from actors.domain.events import (
    ClaimGranted,
    ClaimReleased,
    EntrySpent,
    ReservationEnded,
    ReservationOpened,
    ReservationUnitsEnded,
)
from actors.domain.identity import ANSWER_REFUSAL, request_key
from actors.domain.lifecycle import expire_due_on, expire_if_due, final_state
from actors.domain.outcomes import (
    Admission,
    ErrorReason,
    FillPolicy,
    RefusalReason,
    ReleaseReason,
    ReservationState,
)
from actors.domain.quantities import headroom
from actors.domain.state import OPEN, Reservation, ShardState, StockActor
from actors.domain.turn import Turn
from actors.domain.views import line_views, repeat

HELD = int(ReservationState.HELD)
CONFIRMED = int(ReservationState.CONFIRMED)
ALWAYS = int(Admission.ALWAYS)
WHEN_COVERED = int(Admission.WHEN_COVERED)
ALL_OR_NOTHING = int(FillPolicy.ALL_OR_NOTHING)
WHOLE_LINES = int(FillPolicy.WHOLE_LINES)
REPLACED = int(ReleaseReason.REPLACED)

# A NamedTuple without its own constructor, which is Python and takes as long as the tuple itself: the hot path's two events.
make: Callable[[type[Any], tuple[Any, ...]], Any] = tuple.__new__


class KeyPlan:
    """What is to be decided on one stock key: the request's lines there and what the replaced hold has there."""

    __slots__ = (
        "actor", "granted", "key", "lines", "own", "own_imposed", "own_picked", "own_uncovered", "requested", "uncovered",
    )  # fmt: skip

    def __init__(self, key: str, actor: StockActor | None) -> None:
        self.key = actor.key if actor is not None else key
        self.actor = actor
        self.lines: list[int] = []
        self.requested = 0
        self.own = 0  # open units of the replaced hold: available to this order, undecided
        self.own_imposed = 0
        self.own_picked = 0  # of them, off the shelf for the replaced hold: adrift once it is replaced
        self.own_uncovered = 0
        self.granted = 0
        self.uncovered = 0

    def free(self) -> int:
        """What is left for more than the replaced hold has."""
        return max(0, headroom(self.actor) - self.own_picked) if self.actor is not None else 0

    def grantable(self) -> tuple[int, RefusalReason]:
        """The most this order may get here, and why not more."""
        actor = self.actor
        if actor is None:
            return 0, RefusalReason.UNKNOWN_STOCK_KEY
        if actor.selling_state != OPEN:
            return self.own, RefusalReason.SELLING_SUSPENDED
        most = self.own + self.free()
        limit = actor.max_quantity_per_order
        if limit and max(limit, self.own) < most:
            return max(limit, self.own), RefusalReason.LIMIT_PER_ORDER
        if limit and self.requested > max(limit, self.own):
            return most, RefusalReason.LIMIT_PER_ORDER
        return most, RefusalReason.INSUFFICIENT_STOCK


def reserve(turn: Turn, item_shard: ShardState, command: Reserve, *, accept_claims: bool) -> Reply:
    """Decide a reserve. OK payload: ``Granted``."""
    request_id, channel_id = command.request_id, command.channel_id
    key = f"c\x1f{channel_id}\x1f{request_id}"  # identity.request_key, without the call
    if key in turn.books.request_ids or key in turn.found or request_id < turn.oldest_uuid7:
        again = repeat(turn, item_shard, channel_id, request_id, command.digest, is_reserve=True)
        if again is not None:
            return again
    if not accept_claims:
        return error(ErrorReason.JOURNAL_FULL, "disk space is below the floor: new claims are refused", 5000)
    if len(command.lines) == 1 and command.admission == WHEN_COVERED and not command.replaces_reservation_id:
        line_id, key, quantity, _ = command.lines[0]
        actor = turn.books.stock.get(key)
        if actor is not None and actor.selling_state == OPEN:
            limit = actor.max_quantity_per_order
            if quantity <= headroom(actor) and (not limit or quantity <= limit):
                return _grant_single(turn, actor, command, line_id, quantity)
    return _reserve_lines(turn, item_shard, command)


def _grant_single(turn: Turn, actor: StockActor, command: Reserve, line_id: str, quantity: int) -> Reply:
    shard = actor.shard
    number = shard.next_reservation_number
    reservation_id = f"{shard.id_prefix}{number}"
    now_ms = turn.now_ms
    request_id, digest, channel_id, _, ttl_ms, confirm, _, _, order_reference, customer_id, _, labels = command
    # Texts that are kept with every hold: one object for all of them, not the frame's
    key, channel_id = actor.key, intern(channel_id)
    if confirm:
        state, expire_time_ms = CONFIRMED, 0
    else:
        if ttl_ms != turn.ttl_ms:
            turn.ttl_ms, turn.expire_time_ms = ttl_ms, now_ms + ttl_ms
        state, expire_time_ms = HELD, turn.expire_time_ms
    lines = ((line_id, key, quantity, quantity),)
    turn.emit_pair(
        shard,
        make(
            ClaimGranted,
            (key, reservation_id, line_id, quantity, 0, WHEN_COVERED, 0, 0, confirm, channel_id, order_reference),
        ),
        make(
            ReservationOpened,
            (
                reservation_id,
                number,
                channel_id,
                request_id,
                digest,
                state,
                expire_time_ms,
                lines,
                order_reference,
                customer_id,
                "",
                labels,
            ),
        ),
    )
    position = (shard.id, shard.epoch, shard.sequence, now_ms)
    return (OK, False, (reservation_id, state, 1, now_ms, expire_time_ms, position, None, ()))  # ok(Granted(…)), plain


def _reserve_lines(turn: Turn, item_shard: ShardState, command: Reserve) -> Reply:
    replaced, refusal = replaced_hold(turn, item_shard, command)
    if refusal is not None:
        return spend_refusal(turn, item_shard, command, refusal)
    plans = plan_keys(turn, command, replaced.id if replaced is not None else "")
    if turn.books.deadlines and turn.books.deadlines[0][0] <= turn.now_ms:
        for plan in plans.values():
            if plan.actor is not None and plan.requested > plan.grantable()[0]:
                expire_due_on(turn, plan.actor)
    granted, shortages, reason = fill(command, plans)
    if reason is not None:
        others = _others(turn, plans, item_shard)
        refusal = refused(reason, turn.position(item_shard), shortages=shortages, other_positions=others)
        return spend_refusal(turn, item_shard, command, refusal)
    return _grant(turn, item_shard, command, plans, granted, replaced)


def spend_refusal(turn: Turn, item_shard: ShardState, command: Reserve, refusal: Reply) -> Reply:
    """A refusal changes nothing and spends nothing, except where a late copy that wins would never lapse by itself."""
    if not command.confirm or refusal[0] != 1:
        return refusal
    view = refusal[2]
    answer = (ANSWER_REFUSAL, view.reason, view.shortages, view.state, view.version)
    turn.emit(item_shard, EntrySpent(request_key(command.channel_id, command.request_id), command.digest, answer))
    return (refusal[0], refusal[1], view._replace(position=turn.position(item_shard)))


def replaced_hold(turn: Turn, item_shard: ShardState, command: Reserve) -> tuple[Reservation | None, Reply | None]:
    """The hold to be replaced (None: none, or ended, which contributes nothing), or why it cannot be."""
    if not command.replaces_reservation_id:
        return None, None
    old = turn.reservation(command.replaces_reservation_id)
    if old is None or old.channel_id != command.channel_id:
        detail = f"replaces_reservation_id {command.replaces_reservation_id!r} is unknown"
        return None, error(ErrorReason.RESERVATION_NOT_FOUND, detail)
    if old.final_lines is not None:
        return None, None
    expire_if_due(turn, item_shard, old)
    under_way = busy(item_shard, old.id)
    if under_way is not None:
        return None, under_way
    if old.state == CONFIRMED:
        return None, refused(
            RefusalReason.RESERVATION_ALREADY_CONFIRMED,
            turn.position(item_shard),
            state=old.state,
            version=old.version,
        )
    return (old if old.state == HELD else None), None


def plan_keys(turn: Turn, command: Reserve, replaced_id: str) -> dict[str, KeyPlan]:
    """What is asked of each stock key, and what the replaced hold has there."""
    plans: dict[str, KeyPlan] = {}
    stock = turn.books.stock
    for index, line in enumerate(command.lines):
        key = line[1]
        plan = plans.get(key)
        if plan is None:
            plan = plans[key] = KeyPlan(key, stock.get(key))
            if plan.actor is not None and replaced_id:
                for claim in _chain(plan.actor, replaced_id):
                    plan.own += claim.open
                    plan.own_imposed += min(claim.imposed, claim.open)
                    plan.own_picked += max(0, min(claim.picked, claim.open))
                    plan.own_uncovered += min(claim.uncovered, claim.open)
        plan.lines.append(index)
        plan.requested += line[2]
    return plans


def _chain(actor: StockActor, reservation_id: str) -> Sequence[Any]:
    first = actor.claims.get(reservation_id)
    return tuple(first.chain()) if first is not None else ()


def fill(
    command: Reserve, plans: dict[str, KeyPlan]
) -> tuple[list[int], list[tuple[str, str, int, int, int]], RefusalReason | None]:
    """Granted quantity per line, the lines that fell short, and the refusal's reason when nothing may be granted."""
    lines = command.lines
    granted = [0] * len(lines)
    shortages: list[tuple[str, str, int, int, int]] = []
    policy = ALL_OR_NOTHING if command.admission == ALWAYS else command.fill_policy
    for key, plan in plans.items():
        most, reason = plan.grantable()
        if command.admission == ALWAYS and plan.actor is not None:
            for index in plan.lines:
                granted[index] = lines[index][2]
            plan.granted = plan.requested
            excess = max(0, plan.requested - plan.own)
            plan.uncovered = max(0, excess - plan.free())
            continue
        left = most
        whole_key = policy == ALL_OR_NOTHING and plan.requested > most
        for index in plan.lines:
            line_id, _, quantity, minimum = lines[index]
            if whole_key:
                units = 0
            elif quantity <= left:
                units = quantity
            elif policy in (ALL_OR_NOTHING, WHOLE_LINES) or left < max(1, minimum):
                units = 0
            else:
                units = left
            if units < quantity:
                shortages.append((line_id, key, quantity, left, int(reason)))
            granted[index] = units
            left -= units
            plan.granted += units
    nothing = not any(granted)
    if shortages and (policy == ALL_OR_NOTHING or nothing):
        return granted, shortages, RefusalReason(min(shortage[4] for shortage in shortages))
    return granted, shortages, None


def _grant(  # noqa: PLR0913  the parts of one decision
    turn: Turn,
    item_shard: ShardState,
    command: Reserve,
    plans: dict[str, KeyPlan],
    granted: list[int],
    replaced: Reservation | None,
) -> Reply:
    """Nothing below may fail: the events are applied as they are emitted."""
    command = command._replace(channel_id=intern(command.channel_id))  # it is kept with every claim: one object for all
    home = item_shard
    number = home.next_reservation_number
    reservation_id = f"{home.id_prefix}{number}"
    touched = _release_replaced(turn, home, replaced) if replaced is not None else {}
    for plan in plans.values():
        if plan.granted and plan.actor is not None:
            touched[plan.key] = plan.actor
            _grant_key(turn, command, plan, granted, reservation_id)
    state = CONFIRMED if command.confirm else HELD
    expire_time_ms = 0 if command.confirm else turn.now_ms + command.ttl_ms
    lines = tuple(
        (line[0], plans[line[1]].key, line[2], units) for line, units in zip(command.lines, granted, strict=True)
    )
    for actor in touched.values():
        watch_shortage(turn, actor)
    turn.emit(
        home,
        ReservationOpened(
            reservation_id,
            number,
            command.channel_id,
            command.request_id,
            command.digest,
            state,
            expire_time_ms,
            lines,
            command.order_reference,
            command.customer_id,
            command.replaces_reservation_id,
            command.labels,
        ),
    )
    as_asked = command.admission == WHEN_COVERED and replaced is None and all(line[2] == line[3] for line in lines)
    reservation = turn.books.reservations[reservation_id]
    return ok(
        Granted(
            reservation_id,
            state,
            1,
            turn.now_ms,
            expire_time_ms,
            turn.position(home),
            None if as_asked else line_views(turn, reservation),
            _others(turn, plans, home),
        )
    )


def _others(turn: Turn, plans: dict[str, KeyPlan], home: ShardState) -> list[tuple[int, int, int, int]]:
    """One position for every shard but the home in which units were looked for, found or not, or given back by the hold
    that is replaced."""
    books = turn.books
    shards = {books.shard_of(key) for key in plans}.union(turn.changed_beside(home)) - {home.id}
    return [turn.position(books.shards[shard]) for shard in sorted(shards) if shard in books.shards]


def _grant_key(turn: Turn, command: Reserve, plan: KeyPlan, granted: list[int], reservation_id: str) -> None:
    """Grant one stock key's lines: units up to the replaced hold's carry over and keep their mark, the rest is decided."""
    actor = plan.actor
    assert actor is not None, "granted on an unknown stock key"
    carry, carry_imposed, carry_uncovered = plan.own, plan.own_imposed, plan.own_uncovered
    covered_left = max(0, plan.granted - plan.own) - plan.uncovered
    for index in plan.lines:
        units = granted[index]
        if not units:
            continue
        carried = min(units, carry)
        imposed = min(carried, carry_imposed)
        uncovered = min(imposed, carry_uncovered)
        carry -= carried
        carry_imposed -= imposed
        carry_uncovered -= uncovered
        decided = units - carried
        if command.admission == ALWAYS:
            imposed += decided
            covered = min(decided, covered_left)
            covered_left -= covered
            uncovered += decided - covered
        turn.emit(
            actor.shard,
            ClaimGranted(
                plan.key,
                reservation_id,
                command.lines[index][0],
                units,
                carried,
                command.admission,
                imposed,
                uncovered,
                command.confirm,
                command.channel_id,
                command.order_reference,
            ),
        )


def _release_replaced(turn: Turn, home: ShardState, replaced: Reservation) -> dict[str, StockActor]:
    touched: dict[str, StockActor] = {}
    released = 0
    for key in dict.fromkeys(line[1] for line in replaced.lines):
        actor = turn.books.stock.get(key)
        if actor is None:
            continue
        for claim in _chain(actor, replaced.id):
            if claim.open:
                released += claim.open
                touched[key] = actor
                turn.emit(actor.shard, ClaimReleased(key, replaced.id, claim.line_id, claim.open, REPLACED))
    turn.emit(home, ReservationUnitsEnded(replaced.id, 0, released, 0, replaced.channel_id))
    turn.emit(
        home, ReservationEnded(replaced.id, final_state(replaced, ReservationState.RELEASED), replaced.channel_id)
    )
    return touched
