"""What the events of operations over several shards do, live and in replay; deciding is ``actors.domain.escrow``'s."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

from actors.domain.operation_events import LegAnswered, OperationBegun, OperationEnded, OperationMoved
from actors.domain.operation_state import Operation
from actors.domain.outcomes import ReservationState
from actors.domain.state import Books, ShardState

HELD = int(ReservationState.HELD)
CAUSE_RETIRE = 101  # the verb of housekeeping, ``lifecycle``'s


def _begun(books: Books, shard: ShardState, event: OperationBegun, _time_ms: int) -> None:
    operation_id, verb, command, reservation_id, replaced_id, until_ms, legs, kept, cause = event
    operation = Operation(
        operation_id, verb, command, reservation_id, replaced_id, until_ms, kept, cause, shard.sequence
    )
    operation.legs = dict.fromkeys(legs)
    assert operation_id not in shard.operations, "begun twice"
    shard.operations[operation_id] = operation
    number = int(reservation_id.rpartition("-")[2])
    if number >= shard.next_reservation_number:
        shard.next_reservation_number = number + 1
    index_operation(books, shard, operation)


def index_operation(books: Books, shard: ShardState, operation: Operation) -> None:
    """Find it by its reservations, by its request and when it is to be given up."""
    if operation.verb != CAUSE_RETIRE:  # an ended reservation does not change any more, whoever asks
        shard.busy[operation.reservation_id] = operation
    if operation.replaced_id:
        shard.busy[operation.replaced_id] = operation
    if operation.request_key:
        books.request_ids[operation.request_key] = operation
    if operation.until_ms:
        heappush(books.operations_due, (operation.until_ms, shard.id, operation.id, operation.serial))


def _ended(books: Books, shard: ShardState, event: OperationEnded, _time_ms: int) -> None:
    operation = shard.operations.pop(event.operation_id)
    for reservation_id in (operation.reservation_id, operation.replaced_id):
        if shard.busy.get(reservation_id) is operation:
            del shard.busy[reservation_id]
        reservation = shard.reservations.get(reservation_id)
        if reservation is not None and reservation.state == HELD:  # its deadline may have passed by unheard meanwhile
            heappush(books.deadlines, (reservation.expire_time_ms, shard.id, reservation_id))
    if books.request_ids.get(operation.id) is operation:
        del books.request_ids[operation.id]


def _leg_answered(_books: Books, shard: ShardState, event: LegAnswered, _time_ms: int) -> None:
    legs = shard.operations[event.operation_id].legs
    assert event.shard in legs, "answered by a shard that was not asked"
    assert legs[event.shard] is None, "answered twice"
    legs[event.shard] = event.reply


def _moved(_books: Books, shard: ShardState, event: OperationMoved, _time_ms: int) -> None:
    operation = shard.operations[event.operation_id]
    assert event.phase == operation.phase + 1, "a phase follows the one before it"
    operation.phase = event.phase
    operation.legs = dict.fromkeys(event.legs)
    operation.kept = event.kept
    operation.until_ms = 0


def rebuild_operations(books: Books) -> None:
    """Make the indices anew, after recovery; after those of reservations and entries."""
    books.operations_due = []
    for shard in books.shards.values():
        shard.busy = {}
        for operation in shard.operations.values():
            index_operation(books, shard, operation)


APPLY_OPERATIONS: dict[type[Any], Callable[[Books, ShardState, Any, int], None]] = {
    OperationBegun: _begun,
    OperationEnded: _ended,
    LegAnswered: _leg_answered,
    OperationMoved: _moved,
}
