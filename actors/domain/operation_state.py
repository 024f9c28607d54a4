"""What a home has under way with other shards about one reservation: an operation. Data, no rules."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class Outcome(IntEnum):
    """How an operation ended. Journal format."""

    DONE = 1
    REFUSED = 2
    ABORTED = 3  # a shard did not answer in time: nothing happened, the request id is not spent


class Operation:
    """One operation over several shards, from its intent to its end; the home alone decides it.

    ``command``: the fields of the command behind it. ``legs``: the shards asked in this phase, by what they answered (None:
    not yet). ``kept``: what earlier steps decided and later ones need. ``serial``: the sequence of its intent, which tells
    it from an earlier one of the same request that was aborted. ``until_ms`` 0: it cannot be aborted any more.
    """

    __slots__ = (
        "cause",
        "command",
        "id",
        "kept",
        "legs",
        "phase",
        "replaced_id",
        "reservation_id",
        "serial",
        "until_ms",
        "verb",
    )

    def __init__(  # noqa: PLR0913  as many as it has
        self,
        operation_id: str,
        verb: int,
        command: Sequence[Any],
        reservation_id: str,
        replaced_id: str,
        until_ms: int,
        kept: Sequence[Any],
        cause: Sequence[Any],
        serial: int,
    ) -> None:
        self.id = operation_id
        self.verb = verb
        self.command = command
        self.reservation_id = reservation_id
        self.replaced_id = replaced_id
        self.until_ms = until_ms
        self.kept = kept
        self.cause = cause
        self.serial = serial
        self.phase = 1
        self.legs: dict[int, Sequence[Any] | None] = {}

    @property
    def request_key(self) -> str:
        """The request id it spends or will spend, as ``identity`` spells it; empty: a deadline's or housekeeping's."""
        return self.id if self.id[0] == "c" else ""

    @property
    def is_answered(self) -> bool:
        """Whether every shard asked in this phase has answered."""
        return all(reply is not None for reply in self.legs.values())
