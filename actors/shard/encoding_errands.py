"""The canonical encoding of errands under way, as ``actors.shard.encoding`` does it for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.errand_state import Errand, Inbound, Outbound


def encode_outbound(outbound: Outbound) -> tuple[Any, ...]:
    """What is open to one other shard."""
    return (outbound.to_shard, outbound.next_number, [errand[1:] for errand in outbound.open.values()])


def decode_outbound(fields: Sequence[Any]) -> Outbound:
    """From ``encode_outbound``."""
    to_shard, next_number, errands = fields
    outbound = Outbound(to_shard)
    outbound.next_number = next_number
    outbound.open = {errand[0]: Errand(to_shard, *errand) for errand in errands}
    return outbound


def encode_inbound(inbound: Inbound) -> tuple[Any, ...]:
    """What was taken of one other shard."""
    return (inbound.from_shard, inbound.last, inbound.settled_below, list(inbound.replies.items()))


def decode_inbound(fields: Sequence[Any]) -> Inbound:
    """From ``encode_inbound``."""
    inbound = Inbound(fields[0])
    inbound.last, inbound.settled_below = fields[1:3]
    inbound.replies = dict(fields[3])
    return inbound
