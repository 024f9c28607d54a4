"""What a home journals about operations over several shards. Field order is journal format, as in ``actors.domain.events``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class OperationBegun(NamedTuple):
    """INTENT: the home asks ``legs`` (shards) about a reservation because of a command.

    A reserve's ``reservation_id`` is new: its number is spent now, whatever becomes of it. ``replaced_id``: the hold that it
    takes over. ``until_ms``: when it is given up, 0: never. ``kept``: what was decided at the home already. ``cause``: the
    whole ``Cause``, for what follows from it later.
    """

    operation_id: str
    verb: int
    command: Sequence[Any]
    reservation_id: str
    replaced_id: str
    until_ms: int
    legs: Sequence[int]
    kept: Sequence[Any]
    cause: Sequence[Any]


class OperationEnded(NamedTuple):
    """It is over; ``outcome``: an ``operation_state.Outcome``. What it came to stands in the events beside this one."""

    operation_id: str
    outcome: int


class LegAnswered(NamedTuple):
    """A shard answered, and others have not yet. The last answer of a phase is what the next event comes of."""

    operation_id: str
    shard: int
    reply: Sequence[Any]


class OperationMoved(NamedTuple):
    """DECIDED: it is not given up any more, and ``legs`` are asked for what follows; none: units still to be told of by
    their shards are waited for."""

    operation_id: str
    phase: int
    legs: Sequence[int]
    kept: Sequence[Any]


Event = OperationBegun | OperationEnded | LegAnswered | OperationMoved

OPERATION_KINDS: dict[int, type[Event]] = {
    110: OperationBegun,
    111: OperationEnded,
    112: LegAnswered,
    113: OperationMoved,
}
