"""The courier: which errand goes where next, what its reply means, and what is to be sent again. Sans-IO, one per host.

It knows only what is durable: ``durable`` is called with a turn's errands when the turn's append returned, so no errand
leaves that its sender's successor would not know, and no reply is called settled that could be asked for again. Per pair of
shards errands leave in order, pipelined, and begin again from the lowest unanswered one when a link broke or the other side
says that something is missing; replies are handed in, in order, as items of the sender's own queue. Nothing here is journaled:
a courier's successor begins from the errands that are open in the books. Links and queues are ``peer_links``' and the host's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from actors.domain.answers import ERROR, OK, Reply
from actors.domain.errand_state import Errand
from actors.domain.outcomes import ErrorReason
from actors.shard.messages import HOST_ITEMS_MAX, Verb

log = logging.getLogger(__name__)

IN_FLIGHT_PER_PAIR_MAX = 1_000  # unanswered errands of one pair of shards: a turn or two of the other host
RETRY_PAUSE_MS = 50  # the other shard moves, or is full
TROUBLE_PAUSE_MS = 1_000  # it cannot do the errand at all: a bug or an older version; somebody must look

TAKE_ERRAND = int(Verb.TAKE_ERRAND)
ERRAND_ANSWERED = int(Verb.ERRAND_ANSWERED)
Opened = tuple[int, int, int, Errand | None]


class Parcel(NamedTuple):
    """One errand on its way, as an item for the host that has ``to_shard``."""

    from_shard: int
    to_shard: int
    number: int
    item: Sequence[Any]


class _Channel:
    """From one shard to another."""

    __slots__ = ("answered_below", "errands", "first", "from_shard", "next", "not_before_ms", "replies", "to_shard")

    def __init__(self, from_shard: int, to_shard: int, first: int) -> None:
        self.from_shard = from_shard
        self.to_shard = to_shard
        self.first = first  # number of the lowest errand that is not durably settled
        self.errands: deque[Errand] = deque()  # from ``first`` on
        self.next = first  # to be sent next
        self.answered_below = first  # replies handed in so far
        self.replies: dict[int, Sequence[Any]] = {}  # that came before one that must be handed in first
        self.not_before_ms = 0

    @property
    def end(self) -> int:
        return self.first + len(self.errands)

    @property
    def due(self) -> bool:
        return self.next < self.end and self.next - self.answered_below < IN_FLIGHT_PER_PAIR_MAX

    def back_to(self, number: int) -> None:
        """Send again from there; what was handed in is not sent again."""
        self.next = max(self.answered_below, min(self.next, number))


class Courier:
    """All errands of one host's shards."""

    def __init__(self) -> None:
        self._channels: dict[tuple[int, int], _Channel] = {}
        self._due: dict[tuple[int, int], None] = {}  # channels that may have something to send, in turn

    # --- what the journal says --------------------------------------------------------------------------------------------

    def durable(self, errands: Iterable[Opened]) -> None:
        """Errands that were sent (in order) or settled, by a turn that is durable now; or all open ones of a recovery."""
        for from_shard, to_shard, number, errand in errands:
            pair = (from_shard, to_shard)
            channel = self._channels.get(pair)
            if errand is None:
                if channel is not None and channel.errands and channel.first == number:
                    self._settle(channel, number)
                continue
            if channel is None:
                channel = self._channels[pair] = _Channel(from_shard, to_shard, number)
            assert number == channel.end, "errands become durable in the order of their numbers"
            channel.errands.append(errand)
            self._due[pair] = None

    def _settle(self, channel: _Channel, number: int) -> None:
        channel.errands.popleft()
        channel.first = number + 1
        channel.replies.pop(number, None)
        channel.next = max(channel.next, channel.first)
        channel.answered_below = max(channel.answered_below, channel.first)
        if channel.due:
            self._due[channel.from_shard, channel.to_shard] = None

    def forget_shard(self, shard: int) -> None:
        """A shard left this host: its new owner's courier goes on with what it sent."""
        for pair in [pair for pair in self._channels if pair[0] == shard]:
            del self._channels[pair]
            self._due.pop(pair, None)

    # --- sending ----------------------------------------------------------------------------------------------------------

    def parcels(self, shards: Container[int], now_ms: int, most: int) -> list[Parcel]:
        """Up to ``most`` errands that may go now to the host with these shards; they count as under way from here on."""
        found: list[Parcel] = []
        for pair in list(self._due):
            if len(found) >= most:
                break
            channel = self._channels[pair]
            if pair[1] not in shards or now_ms < channel.not_before_ms:
                continue
            while channel.due and len(found) < most:
                found.append(self._parcel(channel, channel.next))
                channel.next += 1
            del self._due[pair]
            if channel.due:
                self._due[pair] = None  # behind the others
        return found

    def _parcel(self, channel: _Channel, number: int) -> Parcel:
        errand = channel.errands[number - channel.first]
        body = [channel.from_shard, number, channel.first, errand.verb, errand.body, errand.cause]
        item = [TAKE_ERRAND, channel.to_shard, 0, _weight(errand.body), [], body]
        return Parcel(channel.from_shard, channel.to_shard, number, item)

    def shards_waited_for(self) -> list[int]:
        """Shards that something is to be sent to, once each."""
        return list(dict.fromkeys(to_shard for _, to_shard in self._due))

    def next_ms(self, now_ms: int) -> int | None:
        """When a paused errand may be tried again; None: none is paused."""
        return min(
            (paused_ms for pair in self._due if (paused_ms := self._channels[pair].not_before_ms) > now_ms),
            default=None,
        )

    # --- what came of it --------------------------------------------------------------------------------------------------

    def replied(self, parcel: Parcel, reply: Reply, now_ms: int) -> list[list[Any]]:
        """A parcel's reply: the items to put into this host's own queue, in order (none, or more where one was missing)."""
        channel = self._channels.get((parcel.from_shard, parcel.to_shard))
        if channel is None or parcel.number < channel.answered_below:
            return []
        if reply[0] == OK:
            channel.replies[parcel.number] = reply[2][1]
            return self._in_order(channel)
        self._refused(channel, parcel, reply, now_ms)
        return []

    def _in_order(self, channel: _Channel) -> list[list[Any]]:
        items = []
        while channel.answered_below in channel.replies:
            number = channel.answered_below
            reply = channel.replies.pop(number)
            body = [channel.to_shard, number, reply]
            items.append([ERRAND_ANSWERED, channel.from_shard, 0, _weight(reply), [], body])
            channel.answered_below += 1
        channel.next = max(channel.next, channel.answered_below)
        if channel.due:
            self._due[channel.from_shard, channel.to_shard] = None
        return items

    def _refused(self, channel: _Channel, parcel: Parcel, reply: Reply, now_ms: int) -> None:
        pause_ms = RETRY_PAUSE_MS
        if reply[0] != ERROR or reply[1] not in _PASSING:
            pause_ms = TROUBLE_PAUSE_MS
            log.error(
                "an errand cannot be done: %s",
                reply,
                extra={"from_shard": parcel.from_shard, "to_shard": parcel.to_shard, "number": parcel.number},
            )
        number = parcel.number
        if reply[0] == ERROR and reply[1] == ErrorReason.OUT_OF_ORDER and reply[2].isdigit():
            expected = int(reply[2])
            pause_ms = 0 if channel.first <= expected < number else pause_ms
            number = min(number, expected)
        channel.back_to(number)
        if pause_ms:
            channel.not_before_ms = max(channel.not_before_ms, now_ms + pause_ms)
        self._due[channel.from_shard, channel.to_shard] = None

    def lost(self, parcels: Iterable[Parcel], now_ms: int, pause_ms: int = RETRY_PAUSE_MS) -> None:
        """Nobody knows what became of these: their link broke. They are sent again."""
        for parcel in parcels:
            channel = self._channels.get((parcel.from_shard, parcel.to_shard))
            if channel is not None and parcel.number >= channel.answered_below:
                channel.back_to(parcel.number)
                channel.not_before_ms = max(channel.not_before_ms, now_ms + pause_ms)
                self._due[parcel.from_shard, parcel.to_shard] = None

    def not_settled(self, from_shard: int, to_shard: int, number: int, now_ms: int) -> None:
        """This host could not take a reply in: the other side is asked for it again, later."""
        channel = self._channels.get((from_shard, to_shard))
        if channel is not None and channel.first <= number < channel.end:
            channel.answered_below = min(channel.answered_below, number)
            channel.back_to(number)
            channel.not_before_ms = max(channel.not_before_ms, now_ms + TROUBLE_PAUSE_MS)
            self._due[from_shard, to_shard] = None

    # --- what operators see -----------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """Errands that are not settled."""
        return sum(len(channel.errands) for channel in self._channels.values())

    def oldest_ms(self) -> int:
        """When the oldest open errand was sent; 0: none is open."""
        return min(
            (channel.errands[0].sent_time_ms for channel in self._channels.values() if channel.errands), default=0
        )


_PASSING = frozenset(
    map(int, (ErrorReason.WRONG_OWNER, ErrorReason.OVERLOADED, ErrorReason.SHARD_UNAVAILABLE, ErrorReason.OUT_OF_ORDER))
)


def _weight(body: Sequence[Any]) -> int:
    """Lines it costs a turn: as many as its longest part has."""
    longest = max((len(part) for part in body if isinstance(part, (list, tuple))), default=0)
    return min(HOST_ITEMS_MAX, 1 + longest)
