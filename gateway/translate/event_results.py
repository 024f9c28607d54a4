"""The results of a batch of warehouse events, as the bytes of the repeated field that holds them.

An applied event's result is spelled here, byte for byte as protobuf would: of a batch of a thousand only ids and sequences differ,
and to make, fill, copy and serialize as many messages cost the gateway more than to read the events. Every other result is a
message (``gateway.translate.events.Results``), serialized. A unit test compares both for whatever fits into an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.outcomes import IngestOutcome
from gateway.translate.events import Results
from stockade.v1 import warehouse_event_service_pb2 as pb

_APPLIED = int(IngestOutcome.APPLIED)
_SHORT = [bytes((number,)) for number in range(128)]  # varints of one byte


def varint(number: int) -> bytes:
    """A number as protobuf writes it; not negative."""
    if number < 128:  # noqa: PLR2004
        return _SHORT[number]
    out = bytearray()
    while number > 127:  # noqa: PLR2004
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


class ResultBytes:
    """Of one batch. ``field``: the number of ``results`` in the message that they are for."""

    __slots__ = ("_fill", "_heads", "_tag", "_tails", "_timeline", "parts")

    def __init__(self, field: int, timeline: str) -> None:
        self._tag = varint(field << 3 | 2)
        self._timeline = timeline
        self._fill = Results().fill
        self._heads: dict[tuple[int, int], bytes] = {}  # shard and epoch → how their positions begin …
        self._tails: dict[int, bytes] = {}  # … and time → how they end
        self.parts: list[bytes] = []

    def add(self, view: Sequence[Any]) -> str:
        """The result of an ``IngestView``; returns the outcome's name for the metrics."""
        event_id, outcome, place, short = view[:4]
        if outcome != _APPLIED or short or view[4] or (len(view) > 6 and view[6]) or not place[2]:  # noqa: PLR2004
            result = pb.IngestResult()
            name = self._fill(result, self._timeline, view)
            self.add_message(result)
            return name
        shard, epoch, sequence, time_ms = place
        head = self._heads.get((shard, epoch)) or self._head(shard, epoch)
        tail = self._tails.get(time_ms) or self._tail(time_ms)
        number = varint(sequence)
        spelled = event_id.encode()
        size = len(spelled)
        there = 1 + len(head) + len(number) + len(tail)  # of the position, its sequence's tag included
        if size < 64 and there < 50:  # noqa: PLR2004  then every length takes one byte
            self.parts += (
                self._tag, _SHORT[size + there + 6], b"\n", _SHORT[size], spelled, b"\x12", _SHORT[there + 2], b"\n",
                _SHORT[there], head, b" ", number, tail,
            )  # fmt: skip
        else:
            applied = b"".join((b"\n", varint(there), head, b" ", number, tail))
            result_bytes = b"".join((b"\n", varint(size), spelled, b"\x12", varint(len(applied)), applied))
            self.parts += (self._tag, varint(len(result_bytes)), result_bytes)
        return "applied"

    def add_message(self, result: pb.IngestResult) -> None:
        """Any result."""
        raw = result.SerializeToString()
        self.parts += (self._tag, varint(len(raw)), raw)

    def _head(self, shard: int, epoch: int) -> bytes:
        timeline = self._timeline.encode()
        parts = [b"\n", varint(len(timeline)), timeline] if timeline else []
        parts += (b"\x10", varint(shard)) if shard else ()
        parts += (b"\x18", varint(epoch)) if epoch else ()
        head = self._heads[shard, epoch] = b"".join(parts)
        return head

    def _tail(self, time_ms: int) -> bytes:
        seconds, nanos = time_ms // 1000, time_ms % 1000 * 1_000_000
        parts = [b"\x08", varint(seconds)] if seconds else []
        parts += (b"\x10", varint(nanos)) if nanos else ()
        time = b"".join(parts)
        tail = self._tails[time_ms] = b"".join((b"*", varint(len(time)), time)) if time_ms else b""
        return tail
