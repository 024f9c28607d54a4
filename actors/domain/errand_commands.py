"""The two items that errands travel in, see ``actors.domain.errands``. Field order is wire format between hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class TakeErrand(NamedTuple):
    """Do this for ``from_shard``. Item shard: the one it was sent to. Answer: [number, reply]."""

    from_shard: int
    number: int
    settled_below: int
    verb: int
    body: Sequence[Any]
    cause: Sequence[Any]


class ErrandAnswered(NamedTuple):
    """``to_shard`` did it. Item shard: the one that sent it; only its own host says so, never a peer."""

    to_shard: int
    number: int
    reply: Sequence[Any]
