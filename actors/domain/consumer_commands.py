"""What consumers of changes say and are asked, one NamedTuple each; as ``actors.domain.commands``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class AcknowledgeChanges(NamedTuple):
    """Item shard: ``placement.consumer_shard_of``. Empty ``positions``: only rejections and the error are told.

    ``positions``: [[shard, sequence], …]. ``rejections``: [[change_id, reason], …].
    """

    consumer_id: str
    timeline: str
    cursor_time_ms: int
    positions: Sequence[Sequence[int]]
    rejections: Sequence[Sequence[str]]
    error: str = ""


class AttachConsumer(NamedTuple):
    """Somebody begins to read as that consumer: where does it stand? Made known when it is declared and new."""

    consumer_id: str


class ListConsumers(NamedTuple):
    """Item shard -1 (the whole host)."""
