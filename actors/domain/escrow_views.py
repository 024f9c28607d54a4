"""What other shards told of a reservation's lines, laid out for the answers of this turn (``Turn.remote``).

Rows as ``escrow_legs`` makes them. ``views.line_views`` looks here for a line whose claim is not on this host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from actors.domain.turn import Turn


def note_rows(
    turn: Turn, reservation_id: str, rows: Iterable[Sequence[Any]], positions: Iterable[Sequence[int]]
) -> None:
    """Keep them for this turn's answers about the reservation; later ones win."""
    by_entry, seen = turn.remote.setdefault(reservation_id, ({}, {}))
    for position in positions:
        seen[position[0]] = tuple(position)
    for row in rows:
        by_entry[row[0], row[1]] = row


def note_told(turn: Turn, reservation_id: str) -> None:
    """What was read at other hosts before this command: the payloads of its asks."""
    rows = [row for told in turn.told for row in told[0]]
    note_rows(turn, reservation_id, rows, [told[1] for told in turn.told])


def rows_told(turn: Turn, reservation_id: str) -> dict[tuple[str, str], Sequence[Any]]:
    """By (line id, stock key): what other shards have."""
    return turn.remote[reservation_id][0] if reservation_id in turn.remote else {}
