"""The gateway's core: which host gets which item, in which frame, for how long, how often; and the replies put
together.

Sans-IO: no socket, no task, no clock; every method is told the time (milliseconds of one monotonic clock) and returns
or calls back at once, so that simulation runs the same code. ``links`` moves the bytes, ``translate`` knows what is in
them.

Callers may rely on this: each call that was submitted ends exactly once, by ``on_done``, at the latest at its deadline,
with a reply for every item. A reply made here instead of by a host says whether the item may have been done
(``UNKNOWN``) or certainly was not. An item is sent again, as it is, when its link broke or its shard changed its owner:
every command is idempotent by its request id, or only reads.

Batching has no timer: up to ``frames_in_flight`` frames are under way to a host (twice as many while much waits), and what
arrives meanwhile goes into the next. A busy gateway reads calls one by one, so a frame also waits while they keep coming
(``gathers``): a frame costs the host the same whether it brings one call or twenty. A call that comes alone never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import msgpack

from actors.domain.answers import ERROR, PENDING
from actors.domain.outcomes import ErrorReason
from actors.shard.directory import Routes
from gateway.config import (
    BYTES_PER_FRAME_MAX,
    GATHER_LINES,
    GATHER_MS_MAX,
    LINES_PER_FRAME_MAX,
    LINK_SILENCE_MS_MAX,
    RETRY_HINT_OVERLOADED_MS,
    RETRY_HINT_UNAVAILABLE_MS,
    RETRY_PAUSE_MS,
    GatewayConfig,
)

# An item, as a list because its deadline is filled in when a frame is made: see ``actors.shard.messages.Item``.
VERB, SHARD, DEADLINE, WEIGHT, CAUSE, BODY = range(6)

# The fifth element of an error reply made here: whether the item may have been done all the same.
NOT_DONE = "not_done"
UNKNOWN = "unknown"

_status_of = itemgetter(0)

WHEEL_MS = 50  # deadlines are kept in buckets of this width: a call ends at most so much late
MEASURED_FROM_BYTES = 400 * 1024  # calls above this are measured item by item when they are put into frames

_TRY_AGAIN = frozenset({int(ErrorReason.WRONG_OWNER), int(ErrorReason.SHARD_UNAVAILABLE), int(ErrorReason.BUSY)})
# A host that answers one of these to a second copy says nothing about what became of the first.
_SETTLES_NOTHING = frozenset(
    int(reason)
    for reason in (
        ErrorReason.OVERLOADED,
        ErrorReason.JOURNAL_FULL,
        ErrorReason.DEADLINE_EXCEEDED,
        ErrorReason.INTERNAL,
    )
)


class Call:
    """One RPC: N items that travel and are answered independently, and end together.

    ``items``: lists [verb, shard, 0, weight, cause, body]. ``host_id``: where they go instead of by shard (lists).
    ``size``: an upper bound of their bytes on the wire. ``deadline``: when the call ends, whatever happened.
    ``patience``: when its items stop waiting for a shard that nobody serves. ``mutating``: it may change something.
    After the end ``replies`` has one reply per item, in order.
    """

    __slots__ = (
        "bucket", "deadline", "done", "host_id", "items", "missing", "mutating", "on_done", "patience", "replies",
        "sent", "size", "weight",
    )  # fmt: skip

    def __init__(
        self,
        items: list[list[Any]],
        on_done: Callable[[Call], None],
        *,
        deadline: int,
        size: int,
        weight: int,
        mutating: bool,
        patience: int = 0,
        host_id: str = "",
    ) -> None:
        self.items = items
        self.on_done = on_done
        self.deadline = deadline
        self.patience = min(deadline, patience) if patience else deadline
        self.size = size
        self.weight = weight
        self.mutating = mutating
        self.host_id = host_id
        self.replies: list[Any] = [None] * len(items)
        self.missing = len(items)
        self.sent: set[int] = set()  # items that a broken link may have delivered
        self.done = False
        self.bucket = 0


class Part:
    """Items of one call that travel together. ``indices``: which; ``not_before``: when they may be tried (again)."""

    __slots__ = ("call", "indices", "not_before", "weight")

    def __init__(self, call: Call, indices: Sequence[int], weight: int, not_before: int = 0) -> None:
        self.call = call
        self.indices = indices
        self.weight = weight
        self.not_before = not_before


class Frame:
    """A request frame to be sent: ``items`` as they travel, ``parts`` to give the replies to."""

    __slots__ = ("frame_id", "host_id", "items", "parts", "sent_at")

    def __init__(self, host_id: str, frame_id: int, parts: list[Part], items: list[list[Any]], sent_at: int) -> None:
        self.host_id = host_id
        self.frame_id = frame_id
        self.parts = parts
        self.items = items
        self.sent_at = sent_at


class Link:
    """What the core knows of the connection to one host, while it is up."""

    __slots__ = (
        "busy",
        "frames",
        "heard_at",
        "host_id",
        "host_time_offset",
        "late",
        "next_frame_id",
        "pending",
        "pending_weight",
        "shards",
    )

    def __init__(self, host_id: str, host_time_offset: int, shards: frozenset[int], now: int) -> None:
        self.host_id = host_id
        self.host_time_offset = host_time_offset  # host's shard time less our clock, low by the time a frame travels
        self.shards = shards
        self.pending: deque[Part] = deque()
        self.pending_weight = 0
        self.frames: dict[int, Frame] = {}
        self.late: dict[tuple[int, int], Part] = {}  # (frame id, place) → an item whose reply comes later
        self.next_frame_id = 1
        self.heard_at = now
        self.busy = False  # whether the last frame carried several calls


class Core:
    """See the module's docstring. Not thread-safe; ``on_done`` is called from inside the methods and must not call back
    in.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._frames_in_flight = config.frames_in_flight_per_host
        self._pending_max = config.pending_lines_per_host_max
        self._links: dict[str, Link] = {}
        self._host_of_shard: dict[int, str] = {}
        self._routes: Routes | None = None
        self._parked: deque[Part] = deque()  # parts whose shard has no reachable host now, or that wait a moment
        self._parked_weight = 0
        self._only_host = ""  # the host that has all shards: nothing to group by
        self._wheel: dict[int, dict[Call, None]] = {}  # dicts, not sets: their order is the same in every run
        self._ready: set[str] = set()  # hosts with something to send and room for a frame
        self.timeline = ""
        self.stale_routes = False  # a host said WRONG_OWNER: ask the directory again
        self.retried_items = 0
        self.refused_calls = 0

    # --- topology -----------------------------------------------------------------------------------------------------

    def set_routes(self, routes: Routes, now: int) -> None:
        """A new map. Items that wait for a host are tried again; links are the shell's to open and close."""
        self._routes = routes
        self.stale_routes = False
        self._host_of_shard = {shard: host.host_id for host in routes.hosts for shard in host.shards}
        whole = len(routes.hosts) == 1 and len(routes.hosts[0].shards) == routes.shard_count
        self._only_host = routes.hosts[0].host_id if whole else ""
        for link in self._links.values():
            self._reroute_pending(link)
        self._retry_parked(now, everything=True)

    def link_up(self, host_id: str, *, timeline: str, host_time_ms: int, shards: Iterable[int], now: int) -> None:
        """A host welcomed us. ``shards``: those it says it serves; they win over an older map."""
        if host_id in self._links:
            self.link_down(host_id, now)
        self.timeline = timeline
        link = Link(host_id, host_time_ms - now, frozenset(shards), now)
        self._links[host_id] = link
        for shard in link.shards:
            if self._host_of_shard.get(shard) not in self._links:
                self._host_of_shard[shard] = host_id
        self._retry_parked(now, everything=True)

    def link_down(self, host_id: str, now: int) -> None:
        """The connection is gone. What was under way may or may not have been done; it is sent again when there is a
        way.
        """
        link = self._links.pop(host_id, None)
        if link is None:
            return
        self._ready.discard(host_id)
        parts: list[Part] = []
        for part in link.late.values():
            if not part.call.done:
                part.call.sent.update(part.indices)
                self.retried_items += 1
                parts.append(part)
        for frame in link.frames.values():  # in the order sent: items of a shard keep theirs
            for part in frame.parts:
                if not part.call.done:
                    part.call.sent.update(part.indices)
                    self.retried_items += len(part.indices)
                    parts.append(part)
        parts.extend(part for part in link.pending if not part.call.done)
        self._park_first(parts)
        self._retry_parked(now, everything=False)

    # --- calls --------------------------------------------------------------------------------------------------------

    def submit(self, call: Call, now: int) -> None:
        """Take a call on, or end it at once: with OVERLOADED when too much waits already."""
        if call.deadline <= now:
            self._fail_rest(call, ErrorReason.DEADLINE_EXCEEDED, "the deadline passed before the call began", 0)
            return
        parts = self._parts_by_host(call)
        for host_id, part in parts:
            link = self._links.get(host_id)
            waiting = link.pending_weight if link is not None else self._parked_weight
            # an idle queue takes a call of any size that validation let through
            if waiting and waiting + part.weight > self._pending_max:
                self.refused_calls += 1
                self._fail_rest(
                    call, ErrorReason.OVERLOADED, "too much waits for a shard host", RETRY_HINT_OVERLOADED_MS
                )
                return
        self._schedule(call)
        for host_id, part in parts:
            link = self._links.get(host_id)
            if link is None:
                self._park(part)
            else:
                self._enqueue(link, part)

    def cancel(self, call: Call) -> None:
        """The caller has gone: nobody wants the answer. What was sent happens all the same."""
        if not call.done:
            call.done = True
            self._unschedule(call)

    # --- frames -------------------------------------------------------------------------------------------------------

    def take_frames(self, now: int) -> list[Frame]:
        """The frames to send now. Each counts as in flight from here on, until ``receive`` or ``link_down``."""
        if not self._ready:
            return []
        frames = []
        for host_id in sorted(self._ready):
            link = self._links[host_id]
            while link.pending and self._has_room(link):
                frame = self._next_frame(link, now)
                if frame is None:
                    break
                frames.append(frame)
        self._ready.clear()
        return frames

    def _has_room(self, link: Link) -> bool:
        """Whether another frame may go now. Frames that are worth their cost may be twice as many: batches keep a host busy
        while the gateway reads the next ones (measured in docs/benchmarks.md)."""
        under_way = len(link.frames)
        if link.pending_weight >= GATHER_LINES:
            return under_way < 2 * self._frames_in_flight
        return under_way < self._frames_in_flight

    def gathers(self, since: int, now: int) -> bool:
        """Whether what could be sent now had better wait for the calls that are just coming. ``since``: when the first
        of it could have gone. Never for a call that comes alone, and never for a frame that is worth its cost already.
        """
        if now - since >= GATHER_MS_MAX or not self._ready:
            return False
        for host_id in self._ready:
            link = self._links[host_id]
            if link.pending_weight >= GATHER_LINES or not (link.frames or link.busy):
                return False
        return True

    def receive(self, host_id: str, frame_id: int, host_time_ms: int, replies: Sequence[Any], now: int) -> None:
        """A reply frame. One that nobody waits for (a doubled one, one of a former link) is ignored."""
        link = self._links.get(host_id)
        if link is None:
            return
        link.heard_at = now
        link.host_time_offset = host_time_ms - now
        frame = link.frames.pop(frame_id, None)
        if frame is None:
            return
        if link.pending:
            self._ready.add(host_id)
        at = 0
        again: list[Part] = []
        for part in frame.parts:
            count = len(part.indices)
            part_replies = replies[at : at + count]
            if not part.call.done:
                if PENDING in map(_status_of, part_replies):
                    self._give_all_but_late(link, (frame_id, at), part, part_replies, now, again)
                else:
                    self._give(part, part_replies, now, again)
            at += count
        if again:
            self._park_first(again)

    def receive_late(self, host_id: str, frame_id: int, host_time_ms: int, place: int, reply: Any, now: int) -> None:
        """A reply that was to come later. One that nobody waits for is ignored."""
        link = self._links.get(host_id)
        if link is None:
            return
        link.heard_at = now
        link.host_time_offset = host_time_ms - now
        part = link.late.pop((frame_id, place), None)
        if part is None or part.call.done:
            return
        again: list[Part] = []
        self._give(part, (reply,), now, again)
        if again:
            self._park_first(again)

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> list[str]:
        """End calls whose time is up and try parked items again. Returns the hosts whose link is dead (sent, never
        heard).
        """
        bucket = now // WHEEL_MS
        for key in sorted(key for key in self._wheel if key <= bucket):
            for call in self._wheel.pop(key):
                self._time_out(call)
        if self._parked:
            self._retry_parked(now, everything=False)
        return [link.host_id for link in self._links.values() if self._silent(link, now)]

    @property
    def idle(self) -> bool:
        """Whether no call is under way: ``tick`` need not be called until the next ``submit``."""
        return not self._wheel and not self._parked

    # --- what is known ------------------------------------------------------------------------------------------------

    @property
    def routable(self) -> bool:
        """Whether every shard of the map has a host with a link that is up."""
        routes = self._routes
        if routes is None or not self._links:
            return False
        return all(self._host_of_shard.get(shard) in self._links for shard in range(routes.shard_count))

    @property
    def shard_count(self) -> int:
        """Shards of the cluster; 0 while no map is known."""
        return self._routes.shard_count if self._routes is not None else 0

    @property
    def saturated(self) -> bool:
        """Whether a call would be refused wherever it goes: then nothing need be spent on reading it."""
        if not self._links:
            return self._parked_weight >= self._pending_max
        return all(link.pending_weight >= self._pending_max for link in self._links.values())

    def host_ids(self) -> list[str]:
        """Every host of the map, in the order in which lists go over them."""
        return sorted(host.host_id for host in self._routes.hosts) if self._routes is not None else []

    def pending_lines(self) -> dict[str, int]:
        """Lines that wait here, by host; under "" those that wait for a host."""
        waiting = {link.host_id: link.pending_weight for link in self._links.values()}
        waiting[""] = self._parked_weight
        return waiting

    # --- inside: routing ----------------------------------------------------------------------------------------------

    def _parts_by_host(self, call: Call) -> list[tuple[str, Part]]:
        items = call.items
        if call.host_id:
            return [(call.host_id, Part(call, range(len(items)), call.weight))]
        host_of_shard = self._host_of_shard
        if len(items) == 1:
            return [(host_of_shard.get(items[0][SHARD], ""), Part(call, (0,), call.weight))]
        if self._only_host:
            return [(self._only_host, Part(call, range(len(items)), call.weight))]
        indices_by_host: dict[str, list[int]] = {}
        for index, item in enumerate(items):
            indices_by_host.setdefault(host_of_shard.get(item[SHARD], ""), []).append(index)
        return [
            (host_id, Part(call, indices, sum(items[index][WEIGHT] for index in indices)))
            for host_id, indices in indices_by_host.items()
        ]

    def _enqueue(self, link: Link, part: Part) -> None:
        link.pending.append(part)
        link.pending_weight += part.weight
        if self._has_room(link):
            self._ready.add(link.host_id)

    def _reroute_pending(self, link: Link) -> None:
        """Park what waits for a host that, by the new map, no longer has its shards."""
        kept: deque[Part] = deque()
        moved: list[Part] = []
        for part in link.pending:
            call = part.call
            stays = call.host_id or all(
                self._host_of_shard.get(call.items[index][SHARD]) == link.host_id for index in part.indices
            )
            if stays:
                kept.append(part)
            else:
                moved.append(part)
                link.pending_weight -= part.weight
        link.pending = kept
        self._park_first(moved)

    def _park(self, part: Part) -> None:
        self._parked.append(part)
        self._parked_weight += part.weight

    def _park_first(self, parts: list[Part]) -> None:
        """In front of what waits already: these were here before."""
        self._parked.extendleft(reversed(parts))
        self._parked_weight += sum(part.weight for part in parts)

    def _retry_parked(self, now: int, *, everything: bool) -> None:
        """Send parked items on their way, by what is known of the shards now; give up those whose patience is over."""
        parked, self._parked, self._parked_weight = self._parked, deque(), 0
        for part in parked:
            call = part.call
            if call.done:
                continue
            if call.patience <= now:
                self._give_up(part)
            elif part.not_before > now and not everything:
                self._park(part)
            else:
                self._forward(part)

    def _forward(self, part: Part) -> None:
        call = part.call
        if call.host_id:
            groups = {call.host_id: part.indices}
        else:
            gathered: dict[str, list[int]] = {}
            for index in part.indices:
                gathered.setdefault(self._host_of_shard.get(call.items[index][SHARD], ""), []).append(index)
            groups = dict(gathered)
        for host_id, indices in groups.items():
            whole = len(indices) == len(part.indices)
            weight = part.weight if whole else sum(call.items[index][WEIGHT] for index in indices)
            piece = part if whole else Part(call, indices, weight)
            link = self._links.get(host_id)
            if link is None:
                self._park(piece)
            else:
                self._enqueue(link, piece)

    # --- inside: frames -----------------------------------------------------------------------------------------------

    def _next_frame(self, link: Link, now: int) -> Frame | None:
        parts: list[Part] = []
        items: list[list[Any]] = []
        room_lines, room_bytes = LINES_PER_FRAME_MAX, BYTES_PER_FRAME_MAX
        pending, offset = link.pending, link.host_time_offset
        while pending:
            part = pending[0]
            call = part.call
            if call.done:
                pending.popleft()
                link.pending_weight -= part.weight
                continue
            if part.weight <= room_lines and call.size <= room_bytes and call.size <= MEASURED_FROM_BYTES:
                taken, size = part, call.size
                pending.popleft()
            else:
                count, size = _fitting(part, room_lines, room_bytes, empty=not items)
                if count == 0:
                    break
                taken = _take_some(pending, count)
            link.pending_weight -= taken.weight
            room_lines -= taken.weight
            room_bytes -= size
            deadline = call.deadline + offset
            for index in taken.indices:
                item = call.items[index]
                item[DEADLINE] = deadline
                items.append(item)
            parts.append(taken)
        if not parts:
            return None
        frame = Frame(link.host_id, link.next_frame_id, parts, items, now)
        link.next_frame_id += 1
        link.busy = len(parts) > 1
        if not link.frames:
            link.heard_at = now  # silence is counted from the first frame that wants an answer
        link.frames[frame.frame_id] = frame
        return frame

    def _silent(self, link: Link, now: int) -> bool:
        return bool(link.frames) and now - link.heard_at > LINK_SILENCE_MS_MAX

    # --- inside: replies ----------------------------------------------------------------------------------------------

    def _give_all_but_late(
        self, link: Link, at: tuple[int, int], part: Part, replies: Sequence[Any], now: int, again: list[Part]
    ) -> None:
        """Items that go on over several hosts are answered one by one, later; the others now."""
        items = part.call.items
        here: list[tuple[int, Any]] = []
        for place, (index, reply) in enumerate(zip(part.indices, replies, strict=False), at[1]):
            if reply[0] == PENDING:
                link.late[at[0], place] = Part(part.call, (index,), items[index][WEIGHT])
            else:
                here.append((index, reply))
        weight = sum(items[index][WEIGHT] for index, _ in here)
        rest = Part(part.call, [index for index, _ in here], weight)
        self._give(rest, [reply for _, reply in here], now, again)

    def _give(self, part: Part, replies: Sequence[Any], now: int, again: list[Part]) -> None:
        call = part.call
        if len(replies) != len(part.indices):
            # a host that answers fewer items than it was asked is broken; what it did is not known
            broken = (ERROR, int(ErrorReason.INTERNAL), "the shard host answered too few items", 0, UNKNOWN)
            replies = [*replies, *[broken] * (len(part.indices) - len(replies))]
        kept = call.replies
        retry: list[int] = []
        pause = RETRY_PAUSE_MS
        for index, reply in zip(part.indices, replies, strict=True):
            if reply[0] == ERROR:
                if reply[1] in _TRY_AGAIN:
                    self.stale_routes = self.stale_routes or reply[1] == ErrorReason.WRONG_OWNER
                    pause = max(pause, reply[3])
                    retry.append(index)
                    continue
                if index in call.sent and reply[1] in _SETTLES_NOTHING:
                    reply = (*reply[:4], _outcome(call, maybe_sent=True))
            kept[index] = reply
        call.missing -= len(part.indices) - len(retry)
        if retry:
            self.retried_items += len(retry)
            weight = sum(call.items[index][WEIGHT] for index in retry)
            again.append(Part(call, retry, weight, now + pause))
        elif call.missing == 0:
            self._end(call)

    def _give_up(self, part: Part) -> None:
        """No shard to send these to within the call's patience."""
        call = part.call
        for index in part.indices:
            call.replies[index] = _own_error(
                ErrorReason.SHARD_UNAVAILABLE, "no host serves the shard now", RETRY_HINT_UNAVAILABLE_MS,
                _outcome(call, maybe_sent=index in call.sent),
            )  # fmt: skip
        call.missing -= len(part.indices)
        if call.missing == 0:
            self._end(call)

    def _time_out(self, call: Call) -> None:
        if call.done:
            return
        waiting = {
            index for part in self._waiting_parts(call) for index in part.indices
        }  # never sent, or waiting to be sent again
        for index, reply in enumerate(call.replies):
            if reply is None:
                maybe_sent = index in call.sent or index not in waiting
                call.replies[index] = _own_error(
                    ErrorReason.DEADLINE_EXCEEDED, "the deadline passed", 0, _outcome(call, maybe_sent=maybe_sent)
                )
        self._end(call)

    def _waiting_parts(self, call: Call) -> Iterator[Part]:
        for part in self._parked:
            if part.call is call:
                yield part
        for link in self._links.values():
            for part in link.pending:
                if part.call is call:
                    yield part

    def _fail_rest(self, call: Call, reason: ErrorReason, detail: str, retry_after_ms: int) -> None:
        reply = _own_error(reason, detail, retry_after_ms, NOT_DONE)
        call.replies = [reply] * len(call.items)
        call.done = True
        call.on_done(call)

    def _end(self, call: Call) -> None:
        call.done = True
        self._unschedule(call)
        call.on_done(call)

    def _schedule(self, call: Call) -> None:
        call.bucket = call.deadline // WHEEL_MS + 1
        calls = self._wheel.get(call.bucket)
        if calls is None:
            self._wheel[call.bucket] = {call: None}
        else:
            calls[call] = None

    def _unschedule(self, call: Call) -> None:
        calls = self._wheel.get(call.bucket)
        if calls is not None:
            calls.pop(call, None)
            if not calls:
                del self._wheel[call.bucket]


def _fitting(part: Part, room_lines: int, room_bytes: int, *, empty: bool) -> tuple[int, int]:
    """How many items of a part fit, and their bytes; at least one into an empty frame (validation keeps one order small
    enough).
    """
    count = weight = size = 0
    for index in part.indices:
        item = part.call.items[index]
        item_size = len(msgpack.packb(item)) + 8  # the deadline is filled in later
        if (weight + item[WEIGHT] > room_lines or size + item_size > room_bytes) and not (empty and count == 0):
            break
        count += 1
        weight += item[WEIGHT]
        size += item_size
    return count, size


def _take_some(pending: deque[Part], count: int) -> Part:
    """Take the first items of the first part; the rest stays first."""
    part = pending.popleft()
    if count == len(part.indices):
        return part
    items = part.call.items
    weight = sum(items[index][WEIGHT] for index in part.indices[:count])
    pending.appendleft(Part(part.call, part.indices[count:], part.weight - weight))
    return Part(part.call, part.indices[:count], weight)


def _own_error(reason: ErrorReason, detail: str, retry_after_ms: int, outcome: str) -> tuple[int, int, str, int, str]:
    return (ERROR, int(reason), detail, retry_after_ms, outcome)


def _outcome(call: Call, *, maybe_sent: bool) -> str:
    return UNKNOWN if call.mutating and maybe_sent else NOT_DONE
