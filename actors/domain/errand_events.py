"""What is journaled about errands between shards. Field order is journal format, as in ``actors.domain.events``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class ErrandSent(NamedTuple):
    """This shard asks ``to_shard`` to do something, and keeps it open until that answered. Numbers are gapless per pair.

    ``verb`` and ``body``: what is to be done there. ``purpose``: [name, …], what the answer is for. ``cause``: the whole
    ``Cause`` of the command behind it, which is the cause of what happens there, too.
    """

    to_shard: int
    number: int
    verb: int
    body: Sequence[Any]
    purpose: Sequence[Any]
    cause: Sequence[Any]


class ErrandTaken(NamedTuple):
    """An errand of ``from_shard`` was done, in this record; ``reply`` is given again to whoever asks again.

    Replies to numbers below ``settled_below`` are forgotten: the asking shard has journaled that it has them.
    """

    from_shard: int
    number: int
    settled_below: int
    reply: Sequence[Any]


class ErrandSettled(NamedTuple):
    """The answer of ``to_shard`` arrived, and what followed from it is in this record. In the order of their numbers."""

    to_shard: int
    number: int


Event = ErrandSent | ErrandTaken | ErrandSettled

ERRAND_KINDS: dict[int, type[Event]] = {100: ErrandSent, 101: ErrandTaken, 102: ErrandSettled}
