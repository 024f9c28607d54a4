"""Changes older than the host's ring, read back from the journal in bounded pieces, on the journal's thread.

A piece is a few records of the shards that lag; each ends at a record's end. It finds where a sequence is by halving, and
remembers where it stopped, so that the next piece of the same reader begins at once. Values are not the journal's business:
they are put in on the host's loop (``actors.domain.changes.with_values``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.domain.changes import changes_of, weight_of
from actors.journal.codec import decode_groups
from actors.journal.port import Journal

RECORDS_PER_READ = 64
PAYLOAD_BYTES_PER_PIECE = 512 * 1024  # about 10 ms of reading and decoding; turns are committed between pieces
PLACES_REMEMBERED_MAX = 4_096

Row = tuple[Any, ...]


class Piece(NamedTuple):
    """What was found of one shard: each record's changes, without values.

    ``gone_before``: the oldest sequence still kept, when the reader's next is older; else 0.
    ``upto``: nothing up to there is missing."""

    shard: int
    records: list[list[Row]]
    upto: int
    gone_before: int


class CatchUp:
    """Reads for all readers of one host; call it on the journal's thread only."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._places: OrderedDict[tuple[int, int], int] = OrderedDict()  # (shard, sequence) → record that ends there

    def read(self, wanted: Sequence[tuple[int, int, int]], weight_max: int) -> list[Piece]:
        """Pieces for [(shard, after sequence; −1: from the oldest kept, a durable sequence of that shard), …], as far as the
        bounds allow; at least one record of the first shard that has any."""
        pieces = []
        bytes_left = PAYLOAD_BYTES_PER_PIECE
        for shard, after, durable in wanted:
            piece, weight, size = self._read_shard(shard, after, durable, weight_max, bytes_left)
            pieces.append(piece)
            weight_max -= weight
            bytes_left -= size
            if weight_max <= 0 or bytes_left <= 0:
                break
        return pieces

    def _read_shard(
        self, shard: int, after: int, durable: int, weight_max: int, bytes_max: int
    ) -> tuple[Piece, int, int]:
        number, gone_before = self._place(shard, after, durable)
        if gone_before:
            return Piece(shard, [], after, gone_before), 0, 0
        upto = max(after, 0)
        found: list[list[Row]] = []
        weight = size = 0
        more = True
        while more and weight < weight_max and size < bytes_max:
            wanted = max(1, min(RECORDS_PER_READ, weight_max - weight))  # one who takes little shall cost little
            records = self._journal.read(shard, number, wanted)
            more = len(records) == wanted
            for record in records:
                if weight >= weight_max or size >= bytes_max:
                    more = True
                    break
                last = record.first_sequence + record.event_count - 1
                rows = changes_of(decode_groups(record.payload), record.first_sequence, record.time_ms)
                if record.first_sequence <= after:
                    rows = [row for row in rows if row[1] > after]
                if rows:
                    found.append(rows)
                    weight += sum(map(weight_of, rows))
                size += len(record.payload)
                number, upto = record.number, max(upto, last)
        if not more:  # every record was read: what none holds was before the oldest
            upto = max(upto, durable)
        self._remember(shard, upto, number)
        return Piece(shard, found, upto, 0), weight, size

    def _remember(self, shard: int, sequence: int, number: int) -> None:
        places = self._places
        places[shard, sequence] = number
        places.move_to_end((shard, sequence))
        if len(places) > PLACES_REMEMBERED_MAX:
            places.popitem(last=False)

    def _place(self, shard: int, after: int, durable: int) -> tuple[int, int]:
        """(number of the record after which to read, 0), or (0, oldest sequence kept) when what is asked for is gone."""
        remembered = self._places.get((shard, after))
        journal = self._journal
        first = journal.first_number(shard)
        if remembered is not None and remembered >= first - 1:
            return remembered, 0
        oldest = journal.read(shard, first - 1, 1)
        if not oldest:  # nothing is kept
            return (0, durable + 1) if 0 <= after < durable else (first - 1, 0)
        oldest_sequence = oldest[0].first_sequence
        if after < 0:
            return first - 1, 0
        if after + 1 < oldest_sequence:
            return 0, oldest_sequence
        low, high = first, journal.read_latest(shard, 1)[0].number
        while low < high:  # the first record that ends after the sequence
            middle = (low + high) // 2
            record = journal.read(shard, middle - 1, 1)[0]
            if record.first_sequence + record.event_count - 1 > after:
                high = middle
            else:
                low = middle + 1
        return low - 1, 0
