"""The lines of a reconciliation: compared with the books, classified, booked within the tolerance, quarantined beyond it.

Each line is decided at its stock actor, once for (reconciliation, stock key, what is compared): a differing line leaves a
finding, and the same line again gets that finding. A line that matches leaves nothing, so it is compared anew; as of the same
place the answer is the same.

Why a line differs is told as far as it can be: TIMING when facts after the place, or waiting ones, make it up; a missed event
is suspected when the feed has a hole at or below the place, or an event of the stock key was rejected; else it is drift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.domain.alarms import raise_alarm, watch_shortage
from actors.domain.answers import Reply, error, ok
from actors.domain.drifts import quarantine, supersede
from actors.domain.events import StockKeyRegistered
from actors.domain.fulfilling import in_bounds
from actors.domain.history import Place
from actors.domain.identity import feed_key, order_key
from actors.domain.keys import split_stock_key
from actors.domain.outcomes import Disposition, ErrorReason, ExceptionKind
from actors.domain.placed_counts import book_at, expected_at, is_made_up_since, place_of_list
from actors.domain.quantities import available_to_sell
from actors.domain.reconciliation_commands import Header, ReconcileLines
from actors.domain.reconciliation_events import FindingMade
from actors.domain.reconciliation_state import finding_key
from actors.domain.reconciliation_views import LinesView, LineView, line_view
from actors.domain.reconciliation_words import (
    BeyondTolerance,
    FindingKind,
    FindingState,
    LineProblem,
    ReconciliationKind,
)
from actors.domain.state import ShardState, StockActor
from actors.domain.suspects import Suspects
from actors.domain.turn import Turn

MATCH = 0  # what a line that matches is answered with
WOULD = {FindingState.BOOKED: FindingState.WOULD_BOOK, FindingState.QUARANTINED: FindingState.WOULD_QUARANTINE}


class Run(NamedTuple):
    """What all lines of one command share."""

    id: str
    header: Header
    dry_run: bool
    place: Place | None  # None: the books of now
    suspects: Suspects
    as_of_ms: int


def reconcile_lines(turn: Turn, shard: ShardState, command: ReconcileLines) -> Reply:
    """Compare lines. OK payload: ``LinesView``."""
    for line in command.lines:
        if line[0] not in shard.stock and turn.books.shard_of(line[0]) != shard.id:
            return error(ErrorReason.WRONG_OWNER, f"shard {shard.id} is not the stock key's")
    header = Header(*command.header)
    stream = feed_key(header.source_id, header.stream_id) if header.source_id else ""
    place = place_of_list(header.source_id, header.stream_id, header.as_of_source_sequence, header.as_of_time_ms)
    as_of_ms = place.occur_time_ms if place is not None else turn.now_ms
    suspects = Suspects(turn.books, shard, stream, place)
    run = Run(command.reconciliation_id, header, command.dry_run, place, suspects, as_of_ms)
    compare = LINES[command.kind]
    results = [compare(turn, shard, run, *line) for line in command.lines]
    return ok(LinesView(results, turn.position(shard)))


# --- stock ----------------------------------------------------------------------------------------------------------------


class Counted(NamedTuple):
    """What a line of stock says, and what the books say."""

    disposition: int
    quantity: int
    includes_picked: bool
    expected: int

    @property
    def difference(self) -> int:
        """Counted less booked."""
        return self.quantity - self.expected


def _stock(  # noqa: PLR0913  what a line says
    turn: Turn,
    shard: ShardState,
    run: Run,
    key: str,
    disposition: int,
    quantity: int,
    includes_picked: bool,  # noqa: FBT001
) -> Any:
    made = shard.findings.get(finding_key(run.id, key, str(disposition)))
    if made is not None:
        same = (made.found, made.includes_picked) == (quantity, includes_picked)
        return line_view(made) if same else _problem(LineProblem.LISTED_TWICE, quantity)
    actor = shard.stock.get(key)
    if actor is None and not turn.books.rules.catalog_open:
        return _problem(LineProblem.UNKNOWN_STOCK_KEY, quantity)
    expected: int | None = 0
    if actor is not None:
        expected = expected_at(turn, actor, disposition, run.place, includes_picked=includes_picked)
    if expected is None:
        return _problem(LineProblem.BEFORE_HISTORY, quantity)
    counted = Counted(disposition, quantity, includes_picked, expected)
    if not counted.difference:
        if not run.dry_run:
            _agreed(turn, shard, key, run, counted)
        return MATCH
    if actor is not None and not in_bounds(actor, disposition, counted.difference):
        return _problem(LineProblem.QUANTITY_OUT_OF_RANGE, quantity)
    kind, suspects = _why(run, key, actor, counted)
    state = _what_to_do(run.header, kind, counted)
    if run.dry_run:
        return LineView(0, int(kind), int(WOULD.get(state, state)), quantity, expected, 0, "", suspects)
    if actor is None:
        turn.emit(shard, StockKeyRegistered(key))
        actor = shard.stock[key]
    return _settle(turn, actor, run, counted, kind, state, suspects)


def _agreed(turn: Turn, shard: ShardState, key: str, run: Run, counted: Counted) -> None:
    """Books and count are the same; what fills a hole of the feed later must find the count, also where nothing came yet."""
    holes = run.suspects.holes()
    if holes and key not in shard.stock:
        turn.emit(shard, StockKeyRegistered(key))
    actor = shard.stock.get(key)
    if actor is None:
        return
    if holes:
        _book(turn, actor, run, counted)
    supersede(turn, actor, counted.disposition, run.as_of_ms)


def _why(run: Run, key: str, actor: StockActor | None, counted: Counted) -> tuple[FindingKind, list[str]]:
    """The class of a difference, and what may be behind it."""
    disposition, _, includes_picked, _ = counted
    difference = counted.difference
    if actor is not None and is_made_up_since(
        actor, disposition, run.place, difference, includes_picked=includes_picked
    ):
        return FindingKind.TIMING, [f"what happened after the place of the count makes up {difference:+}"]
    waiting = run.suspects.waiting(key)
    if waiting:
        return FindingKind.TIMING, waiting
    missed = run.suspects.missed(key)
    return (FindingKind.MISSED_EVENT_SUSPECTED, missed) if missed else (FindingKind.GENUINE_DRIFT, [])


def _what_to_do(header: Header, kind: FindingKind, counted: Counted) -> FindingState:
    if kind == FindingKind.TIMING:
        return FindingState.REPORTED  # it goes away by itself
    if abs(counted.difference) <= tolerance(header, counted.expected):
        return FindingState.BOOKED
    if header.beyond_tolerance == BeyondTolerance.QUARANTINE:
        return FindingState.QUARANTINED
    return FindingState.REPORTED


def tolerance(header: Header, expected: int) -> int:
    """Units that a line may differ by."""
    return max(header.tolerance_units, abs(expected) * header.tolerance_permille // 1000)


def _book(turn: Turn, actor: StockActor, run: Run, counted: Counted) -> int:
    disposition, quantity, includes_picked, _ = counted
    booked = book_at(turn, actor, disposition, quantity, run.place, run.id, includes_picked=includes_picked)
    watch_shortage(turn, actor)
    return booked


def _settle(  # noqa: PLR0913  the parts of a finding
    turn: Turn,
    actor: StockActor,
    run: Run,
    counted: Counted,
    kind: FindingKind,
    state: FindingState,
    suspects: Sequence[str],
) -> LineView:
    """Book it, or quarantine the stock key, or only report it; in each case it leaves a finding."""
    shard = actor.shard
    booked, suspends, opened = 0, False, ""
    if state == FindingState.BOOKED:
        booked = _book(turn, actor, run, counted)
    elif state == FindingState.QUARANTINED:
        suspends = quarantine(turn, actor)
        message = _message(actor.key, run, counted, suspects)
        drift = ExceptionKind.RECONCILIATION_DRIFT
        opened = raise_alarm(turn, shard, drift, actor.key, message, abs(counted.difference), [])
    key = finding_key(run.id, actor.key, str(counted.disposition))
    made = FindingMade(
        key,
        int(kind),
        int(state),
        counted.quantity,
        counted.expected,
        booked,
        counted.includes_picked,
        suspends,
        opened,
        run.place or (),
        suspects,
    )
    turn.emit(shard, made)
    if state != FindingState.REPORTED:
        supersede(turn, actor, counted.disposition, run.as_of_ms, but=key)
    return line_view(shard.findings[key])


def _message(key: str, run: Run, counted: Counted, suspects: Sequence[str]) -> str:
    parts = split_stock_key(key)
    disposition = Disposition(counted.disposition).name.lower()
    why = f"; suspects: {'; '.join(suspects)}" if suspects else ""
    return (
        f"SKU {parts.sku!r} in warehouse {parts.warehouse_id!r}, {disposition}: {counted.quantity} counted, {counted.expected} "
        f"in the books (reconciliation {run.id}); selling is suspended until somebody decides{why}"
    )


def _problem(problem: LineProblem, found: int) -> LineView:
    return LineView(int(problem), 0, 0, found, 0, 0, "", ())


# --- open orders and channels -----------------------------------------------------------------------------------------------


def _open_order(  # noqa: PLR0913  what a line says
    turn: Turn, shard: ShardState, run: Run, key: str, channel_id: str, order_reference: str, quantity: int
) -> Any:
    actor = shard.stock.get(key)
    open_units = newer = fulfilled = 0
    if actor is not None and actor.orders is not None:
        as_of_ms = run.header.as_of_time_ms
        for reservation_id in actor.orders.get(order_key(channel_id, order_reference), ()):
            first = actor.claims[reservation_id]
            if not first.confirmed:
                continue
            units = sum(claim.open for claim in first.chain())
            open_units += units
            fulfilled += sum(claim.fulfilled for claim in first.chain())
            reservation = turn.books.reservations.get(reservation_id)
            if as_of_ms and reservation is not None and reservation.confirm_time_ms > as_of_ms:
                newer += units
    if open_units == quantity:
        return MATCH
    kind = FindingKind.CLAIM_QUANTITY_DIFFERS
    suspects: list[str] = []
    if run.header.as_of_time_ms and quantity in (open_units - newer, open_units + fulfilled):
        kind = FindingKind.TIMING
        suspects = ["confirmed or shipped after the time of the list"]
    elif not open_units:
        kind = FindingKind.CLAIM_MISSING
    elif not quantity:
        kind = FindingKind.CLAIM_EXCESS
    return _report(turn, shard, run, (key, channel_id, order_reference), kind, quantity, open_units, suspects)


def _channel(turn: Turn, shard: ShardState, run: Run, key: str, quantity: int) -> Any:
    actor = shard.stock.get(key)
    available = 0 if actor is None else available_to_sell(actor)
    if abs(quantity - available) <= tolerance(run.header, available):
        return MATCH
    kind = FindingKind.CHANNEL_SHOWS_MORE if quantity > available else FindingKind.CHANNEL_SHOWS_LESS
    return _report(turn, shard, run, (key,), kind, quantity, available, [])


def _report(  # noqa: PLR0913  the parts of a finding
    turn: Turn,
    shard: ShardState,
    run: Run,
    what: Sequence[str],
    kind: FindingKind,
    found: int,
    expected: int,
    suspects: list[str],
) -> LineView:
    """Nothing is booked: somebody else's list differs."""
    key = finding_key(run.id, *what)
    made = shard.findings.get(key)
    if made is not None and made.found == found:
        return line_view(made)
    reported = int(FindingState.REPORTED)
    if run.dry_run or made is not None:
        return LineView(0, int(kind), reported, found, expected, 0, "", suspects)
    turn.emit(shard, FindingMade(key, int(kind), reported, found, expected, 0, False, False, "", (), suspects))
    return line_view(shard.findings[key])


LINES: dict[int, Callable[..., Any]] = {
    ReconciliationKind.STOCK: _stock,
    ReconciliationKind.OPEN_ORDERS: _open_order,
    ReconciliationKind.CHANNEL_AVAILABILITY: _channel,
}
