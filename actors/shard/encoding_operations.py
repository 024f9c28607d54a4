"""The canonical encoding of operations over several shards, as ``actors.shard.encoding`` does it for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.operation_state import Operation


def encode_operation(operation: Operation) -> tuple[Any, ...]:
    """One that is under way. ``legs``: [[shard, [] or [its answer]], …]."""
    return (
        operation.id,
        operation.verb,
        operation.command,
        operation.reservation_id,
        operation.replaced_id,
        operation.until_ms,
        operation.kept,
        operation.cause,
        operation.serial,
        operation.phase,
        [(shard, () if reply is None else (reply,)) for shard, reply in operation.legs.items()],
    )


def decode_operation(fields: Sequence[Any]) -> Operation:
    """From ``encode_operation``."""
    operation = Operation(*fields[:9])
    operation.phase = fields[9]
    operation.legs = {shard: told[0] if told else None for shard, told in fields[10]}
    return operation
