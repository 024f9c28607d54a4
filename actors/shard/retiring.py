"""What ended long ago leaves memory: its row goes into the entries table, in the same transaction as the event that says so.

Bounded a turn, and in step with what the turn spent: however fast ids come, memory stays bounded.
"""

from __future__ import annotations

from actors.domain.apply import forget_entry
from actors.domain.commands import Cause
from actors.domain.escrow import TELL_LINES, begin, is_spread, keys_ever, shards_of, tell
from actors.domain.events import KIND_OF, ClaimsForgotten, EntryRetired, ExceptionRetired, ReservationRetired
from actors.domain.identity import retirement_key
from actors.domain.lifecycle import CAUSE_RETIRE
from actors.domain.picking import leave_net
from actors.domain.state import Books, Reservation, StockActor
from actors.domain.turn import Turn
from actors.domain.views import line_views
from actors.journal.port import EntryRow
from actors.shard.encoding import entry_row, reservation_rows

ENTRY_RETIRED = KIND_OF[EntryRetired]
RETIRED_PER_TURN_MAX = 500  # and twice as many entries as the turn had items
DEFERRED_RETIREMENT_MS = 60_000  # an ended reservation with units still picked is looked at again after this


def retire(turn: Turn, decided: int) -> list[EntryRow]:
    """Move what ended long ago from memory to the entries table. ``decided``: how many items the turn had."""
    books = turn.books
    rules = books.rules
    before_ms = turn.now_ms - rules.dedupe_memory_ms
    rows: list[EntryRow] = []
    turn.begin(Cause(CAUSE_RETIRE, "", ""))
    for _ in range(min(RETIRED_PER_TURN_MAX, len(books.ended))):
        end_ms, reservation_id = books.ended[0]
        if end_ms > before_ms and len(books.ended) <= rules.ended_in_memory_max:
            break
        books.ended.popleft()
        rows += _retire_reservation(turn, reservation_id)
    for reservation_id, picked in turn.retirable:
        rows += _retire_asked(turn, reservation_id, picked=picked)
    _retire_entries(turn, before_ms, RETIRED_PER_TURN_MAX + 2 * decided, rows)
    _retire_healed(turn)
    return rows


def _retire_entries(turn: Turn, before_ms: int, most: int, rows: list[EntryRow]) -> None:
    books = turn.books
    spent, shards = books.entries_spent, books.shards
    in_memory_max = books.rules.ended_in_memory_max
    for _ in range(min(most, len(spent))):
        spent_ms, shard_id, key = spent[0]
        if spent_ms > before_ms and len(spent) <= in_memory_max:
            return
        spent.popleft()
        shard = shards[shard_id]
        entry = shard.entries.get(key)
        if entry is not None and entry.time_ms == spent_ms:  # else it was spent anew since: its turn comes
            rows.append(entry_row(entry))
            # ``emit(EntryRetired(key))``, written out: as many leave as events come
            turn.events_of(shard).append((ENTRY_RETIRED, key))
            shard.sequence += 1
            forget_entry(books, shard, key)


def _retire_healed(turn: Turn) -> None:
    """Forget exceptions that healed long ago, or the oldest of too many: nothing asks for them again."""
    healed, rules = turn.books.exceptions_healed, turn.books.rules
    for _ in range(min(RETIRED_PER_TURN_MAX, len(healed))):
        healed_ms, shard_id, exception_id = healed[0]
        if healed_ms > turn.now_ms - rules.healed_memory_ms and len(healed) <= rules.healed_in_memory_max:
            return
        healed.popleft()
        shard = turn.books.shards[shard_id]
        if exception_id in shard.exceptions:
            turn.emit(shard, ExceptionRetired(exception_id))


def _retire_reservation(turn: Turn, reservation_id: str) -> list[EntryRow]:
    books = turn.books
    reservation = books.reservations.get(reservation_id)
    if reservation is None:
        return []
    if is_spread(books, keys_ever(reservation)):
        _ask_elsewhere(turn, reservation)
        return []
    actors = _actors_with_claims(books, reservation)
    if any(claim.picked > 0 for actor in actors.values() for claim in actor.claims[reservation_id].chain()):
        # Its picked units are still off the shelf: they stay visible until they are shipped or put back.
        books.ended.append((turn.now_ms - books.rules.dedupe_memory_ms + DEFERRED_RETIREMENT_MS, reservation_id))
        return []
    home = books.home_of(reservation)
    rows = reservation_rows(reservation, home.id, line_views(turn, reservation))
    for actor in actors.values():
        leave_net(turn, actor, actor.claims[reservation_id])
        turn.emit(actor.shard, ClaimsForgotten(actor.key, reservation_id))
    turn.emit(home, ReservationRetired(reservation_id))
    return rows


def _actors_with_claims(books: Books, reservation: Reservation) -> dict[str, StockActor]:
    stock = books.stock
    keys = keys_ever(reservation)
    return {key: stock[key] for key in keys if key in stock and reservation.id in stock[key].claims}


def _ask_elsewhere(turn: Turn, reservation: Reservation) -> None:
    """Some of its claims are on other hosts: how they ended belongs into its row."""
    home = turn.books.home_of(reservation)
    operation_id = retirement_key(reservation.id)
    if operation_id in home.operations:
        return
    legs = {
        shard_id: (TELL_LINES, ("picked", reservation.id, keys))
        for shard_id, keys in shards_of(turn.books, home, keys_ever(reservation)).items()
    }
    begin(turn, home, operation_id, CAUSE_RETIRE, (), reservation.id, legs)


def _retire_asked(turn: Turn, reservation_id: str, *, picked: bool) -> list[EntryRow]:
    """Every shard has told how it ended (``turn.remote``). Nobody waits for them to forget it, too."""
    books = turn.books
    reservation = books.reservations[reservation_id]
    home = books.home_of(reservation)
    own = {key: actor for key, actor in _actors_with_claims(books, reservation).items() if actor.shard is home}
    if picked or any(claim.picked > 0 for actor in own.values() for claim in actor.claims[reservation_id].chain()):
        books.ended.append((turn.now_ms - books.rules.dedupe_memory_ms + DEFERRED_RETIREMENT_MS, reservation_id))
        return []
    rows = reservation_rows(reservation, home.id, line_views(turn, reservation))
    for actor in own.values():
        leave_net(turn, actor, actor.claims[reservation_id])
        turn.emit(home, ClaimsForgotten(actor.key, reservation_id))
    for shard_id, keys in shards_of(books, home, keys_ever(reservation)).items():
        tell(turn, home, shard_id, TELL_LINES, ("forget", reservation_id, keys))
    turn.emit(home, ReservationRetired(reservation_id))
    return rows
