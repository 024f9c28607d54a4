"""A stock actor's memory of what moved its units lately, for counts that were taken in the past. Data and arithmetic, no rules.

Compact: six machine words a fact (48 bytes), in the order in which they were booked; stream keys and promises are kept once.
Facts of one event may be several: one for each promise whose picked units it changed.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from sys import intern
from types import MappingProxyType
from typing import Any, NamedTuple

WORDS = 6  # occur time, sequence, on hand delta, picked delta, stream × 256 + disposition, promise
FACT_BYTES = 8 * WORDS
FACTS_MAX = 10_000  # of one stock actor: half a megabyte; beyond it the older half is forgotten
FACTS_BEFORE_FORGETTING = 16  # fewer are not worth an event


class Place(NamedTuple):
    """Where in the order of things a fact or a count stands. ``sequence`` 0: unsequenced; ``stream_key`` "": order management."""

    stream_key: str
    sequence: int
    occur_time_ms: int


class Marker(NamedTuple):
    """A count that was booked as of ``place``. ``sequence``: its event's own."""

    place: Place
    includes_picked: bool
    sequence: int
    event_id: str

    def rank_in_stream(self) -> tuple[int, int, int, str]:
        """The greatest of one stream's counts is its newest."""
        return (self.place.sequence, self.place.occur_time_ms, self.sequence, self.event_id)

    def rank(self) -> tuple[int, str, int, int, str]:
        """The greatest of the streams' newest counts is the newest of all."""
        place = self.place
        return (place.occur_time_ms, place.stream_key, place.sequence, self.sequence, self.event_id)


class Moved(NamedTuple):
    """What facts after some place moved: by disposition, and picked units by promise."""

    on_hand: dict[int, int]
    picked: dict[str, int]


NO_PROMISES: Mapping[str, int] = MappingProxyType({"": 0})
NO_NAMES: Sequence[str] = ("",)
NO_MARKERS: Mapping[int, dict[str, Marker]] = MappingProxyType({})


class History:
    """Most have one stream, no promises and no counts, and are small for it: what is not needed is one empty object for all.

    ``from_ms``: facts that occurred before it may be forgotten. ``markers``: by disposition, the newest count of each stream."""

    __slots__ = ("facts", "from_ms", "markers", "names", "promises", "streams", "words_to_check")

    def __init__(self) -> None:
        self.facts = array("q")
        self.streams: tuple[str, ...] = ()  # by number
        self.promises = NO_PROMISES  # name → number; 0 is no promise
        self.names = NO_NAMES  # number → name: a promise that gets another name keeps its number
        self.from_ms = 0
        self.markers = NO_MARKERS
        self.words_to_check = (
            WORDS * FACTS_BEFORE_FORGETTING
        )  # so many: look for old ones; no state, only spares looking

    def __len__(self) -> int:
        return len(self.facts) // WORDS

    def note(  # noqa: PLR0913  a fact has this many parts
        self,
        stream_key: str,
        sequence: int,
        occur_time_ms: int,
        disposition: int,
        on_hand_delta: int,
        picked_delta: int,
        promise: str,
    ) -> None:
        """Remember one fact."""
        streams = self.streams
        if streams and streams[0] == stream_key:
            stream = 0
        else:
            stream = self._stream_of(stream_key)
        name = self._number_of(promise) if promise else 0
        self.facts.fromlist(  # half of what ``extend`` takes
            [occur_time_ms, sequence, on_hand_delta, picked_delta, stream << 8 | disposition, name]
        )

    def moved_after(self, place: Place) -> Moved:
        """The sums of what counts as after a count at ``place``: of its own stream what has a higher sequence, of everything
        else what occurred later."""
        facts = self.facts
        same = self._known_stream(place.stream_key)
        sequence, occur_time_ms = place.sequence, place.occur_time_ms
        on_hand: dict[int, int] = {}
        picked: dict[int, int] = {}
        for at in range(0, len(facts), WORDS):
            where = facts[at + 4]
            if facts[at + 1] and where >> 8 == same:
                if facts[at + 1] <= sequence:
                    continue
            elif facts[at] <= occur_time_ms:
                continue
            disposition = where & 255
            on_hand[disposition] = on_hand.get(disposition, 0) + facts[at + 2]
            if facts[at + 3]:
                picked[facts[at + 5]] = picked.get(facts[at + 5], 0) + facts[at + 3]
        if not picked:
            return Moved(on_hand, {})
        names = self.names
        return Moved(on_hand, {names[name]: units for name, units in picked.items()})

    def facts_after(self, place: Place, disposition: int) -> list[tuple[int, int, int, int]]:
        """What ``moved_after`` sums up of one disposition, one by one: (occur time, sequence, on hand delta, picked delta)."""
        facts = self.facts
        same = self._known_stream(place.stream_key)
        found = []
        for at in range(0, len(facts), WORDS):
            where = facts[at + 4]
            if facts[at + 1] and where >> 8 == same:
                later = facts[at + 1] > place.sequence
            else:
                later = facts[at] > place.occur_time_ms
            if later and where & 255 == disposition:
                found.append((facts[at], facts[at + 1], facts[at + 2], facts[at + 3]))
        return found

    def picked_by_promise(self) -> dict[str, int]:
        """The sum of what is remembered of each promise's picked units."""
        names = self.names
        picked: dict[str, int] = {}
        for at in range(0, len(self.facts), WORDS):
            if self.facts[at + 3]:
                name = names[self.facts[at + 5]]
                picked[name] = picked.get(name, 0) + self.facts[at + 3]
        return picked

    def place_count(self, disposition: int, marker: Marker) -> None:
        """Remember a count, unless its stream has a newer one."""
        streams = self.markers.get(disposition)
        if streams is None:
            streams = {}
            self.markers = {**self.markers, disposition: streams}
        known = streams.get(marker.place.stream_key)
        if known is None or marker.rank_in_stream() > known.rank_in_stream():
            streams[marker.place.stream_key] = marker

    def newest_count(self, disposition: int) -> Marker | None:
        """The count that says what is on hand of that disposition."""
        streams = self.markers.get(disposition)
        return max(streams.values(), key=Marker.rank) if streams else None

    def old_facts(self, before_ms: int) -> int:
        """How many facts occurred before that."""
        return sum(occur_time_ms < before_ms for occur_time_ms in self.facts[::WORDS])

    def forget(self, before_ms: int) -> None:
        """Let go of facts that occurred before that, and of names that nothing refers to any more. Counts stay."""
        self.from_ms = max(self.from_ms, before_ms)
        facts, streams, promises = self.facts, self.streams, self.names
        kept = array("q")
        self.streams, self.promises, self.names = (), NO_PROMISES, NO_NAMES
        for at in range(0, len(facts), WORDS):
            if facts[at] < before_ms:
                continue
            where, name = facts[at + 4], facts[at + 5]
            stream = self._stream_of(streams[where >> 8])
            promise = self._number_of(promises[name]) if name else 0
            kept.extend((*facts[at : at + 4], stream << 8 | where & 255, promise))
        self.facts = kept
        self.words_to_check = WORDS * max(FACTS_BEFORE_FORGETTING, 2 * len(self))

    def rename(self, promise: str, other: str) -> None:
        """What was kept under ``promise`` is kept under ``other`` from now on."""
        name = self.promises.get(promise)
        if name is None or promise == other:
            return
        known = self.promises.get(other)
        if known is None:
            promises, names = self._own_names()
            del promises[promise]
            promises[other] = name
            names[name] = other
            return
        for at in range(5, len(self.facts), WORDS):
            if self.facts[at] == name:
                self.facts[at] = known

    def _known_stream(self, stream_key: str) -> int:
        return self.streams.index(stream_key) if stream_key in self.streams else -1

    def _stream_of(self, stream_key: str) -> int:
        known = self._known_stream(stream_key)
        if known < 0:
            known = len(self.streams)
            self.streams = (*self.streams, intern(stream_key))
        return known

    def _number_of(self, promise: str) -> int:
        number = self.promises.get(promise)
        if number is None:
            promises, names = self._own_names()
            number = promises[promise] = len(names)
            names.append(promise)
        return number

    def _own_names(self) -> tuple[dict[str, int], list[str]]:
        """Names that may be changed."""
        promises, names = self.promises, self.names
        if not isinstance(promises, dict) or not isinstance(names, list):
            promises, names = dict(promises), list(names)
            self.promises, self.names = promises, names
        return promises, names

    def median_time_ms(self) -> int:
        """Half of the facts occurred before it."""
        return int(sorted(self.facts[::WORDS])[len(self) // 2])


def encode_history(history: History | None) -> Sequence[Any]:
    """Plain values, canonical; nothing for none."""
    if history is None:
        return ()
    markers = [
        (disposition, *marker.place, marker.includes_picked, marker.sequence, marker.event_id)
        for disposition, streams in sorted(history.markers.items())
        for _, marker in sorted(streams.items())
    ]
    facts = _little_endian(history.facts).tobytes()
    return (history.from_ms, list(history.streams), list(history.names), facts, markers)


def decode_history(fields: Sequence[Any]) -> History | None:
    """From ``encode_history``."""
    if not fields:
        return None
    history = History()
    history.from_ms, streams, promises, facts, markers = fields
    history.streams = tuple(map(intern, streams))
    if len(promises) > 1:
        history.names = promises
        history.promises = {promise: number for number, promise in enumerate(promises)}
    words = array("q")
    words.frombytes(facts)
    history.facts = _little_endian(words)
    for disposition, stream_key, sequence, occur_time_ms, includes_picked, own, event_id in markers:
        marker = Marker(Place(stream_key, sequence, occur_time_ms), includes_picked, own, event_id)
        history.place_count(disposition, marker)
    return history


def _little_endian(words: array[int]) -> array[int]:
    if sys.byteorder == "little":
        return words
    swapped = array("q", words)
    swapped.byteswap()
    return swapped
