"""What may be behind a difference: events that wait, events that were rejected, and holes in the feed. It looks and names.

One ``Suspects`` serves the lines of one command: what it looks for is gathered once, and only when a line differs.
"""

from __future__ import annotations

from actors.domain.feed_state import Feed
from actors.domain.history import Place
from actors.domain.identity import split_feed_key
from actors.domain.outcomes import ExceptionKind, ExceptionState
from actors.domain.state import Books, ShardState

SUSPECTS_NAMED_MAX = 10  # of one difference
HOLES_NAMED_MAX = 3


class Suspects:
    """By stock key, for the feed that a count belongs to (``stream_key`` "": to none)."""

    def __init__(self, books: Books, shard: ShardState, stream_key: str, place: Place | None) -> None:
        self._books = books
        self._shard = shard
        self._stream_key = stream_key
        self._place = place
        self._waiting: dict[str, list[str]] | None = None
        self._rejected: dict[str, list[str]] | None = None
        self._holes: list[str] | None = None

    def waiting(self, key: str) -> list[str]:
        """Events of that stock key that wait in the feed."""
        if self._waiting is None:
            self._waiting = {}
            shard = _feed_shard(self._books, self._stream_key)
            for one in shard.deferred.values() if shard is not None else ():
                if one.feed_key == self._stream_key:
                    text = f"event {one.body[2]!r} waits for sequence {one.place}"
                    self._waiting.setdefault(one.body[5], []).append(text)
        return self._waiting.get(key, [])[:SUSPECTS_NAMED_MAX]

    def missed(self, key: str) -> list[str]:
        """Rejected events of that stock key, and holes in the feed at or below the place."""
        if self._rejected is None:
            self._rejected = {}
            feed_shards = [each for each in self._books.shards.values() if each.feeds and each is not self._shard]
            for shard in (self._shard, *feed_shards):
                for exception in shard.exceptions.values():
                    fields = exception.fields
                    if fields[0] == ExceptionKind.EVENT_REJECTED and exception.state == ExceptionState.OPEN:
                        text = f"event {fields[4]!r} of source {fields[3]!r} was rejected ({exception.id})"
                        self._rejected.setdefault(fields[1], []).append(text)
        return (self._rejected.get(key, []) + self.holes())[:SUSPECTS_NAMED_MAX]

    def holes(self) -> list[str]:
        """What is missing in the feed at or below the place."""
        if self._holes is None:
            self._holes = self._find_holes()
        return self._holes

    def _find_holes(self) -> list[str]:
        place = self._place
        if place is None or not place.sequence:
            return []
        source_id, stream_id = split_feed_key(self._stream_key)
        name = f"{source_id}/{stream_id}" if stream_id else source_id
        shard = _feed_shard(self._books, self._stream_key)
        feed: Feed | None = shard.feeds.get(self._stream_key) if shard is not None else None
        if feed is None:
            return [f"feed {name} never told anything"]
        if feed.sequences.watermark >= place.sequence:
            return []
        holes = [hole for hole in feed.sequences.missing(HOLES_NAMED_MAX) if hole[0] <= place.sequence]
        found = [f"sequences {first} to {last} of feed {name} are missing" for first, last in holes]
        highest = feed.sequences.highest
        if highest < place.sequence:
            found.append(f"feed {name} has told up to {highest} only; the count is as of {place.sequence}")
        return found


def _feed_shard(books: Books, stream_key: str) -> ShardState | None:
    for shard in books.shards.values():
        if stream_key in shard.feeds:
            return shard
    return None
