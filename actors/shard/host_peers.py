"""What a host does with other hosts: errands by its courier, asks for items that must read elsewhere, and beats.

Errands for shards of this host go into its own queue, the others over ``peer_links``; replies come back as items of the
sending shard. An ask sets one item aside until other hosts have answered, or its deadline: nobody else waits for it. Beats say
how far each host's shards are and what its clock says: soft state, of which nothing is decided. With every shard here and no
other host there is nothing to do, and nothing is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from actors.domain.answers import ERROR, OK, Reply, error, ok
from actors.domain.outcomes import ErrorReason
from actors.shard.courier import Courier, Opened, Parcel
from actors.shard.engine import Engine
from actors.shard.host_config import HostConfig
from actors.shard.host_links import Batch
from actors.shard.messages import ANY_SHARD, Verb
from actors.shard.peer_links import PeerLinks

log = logging.getLogger(__name__)

PARCELS_PER_FRAME_MAX = 200
FRAMES_PER_HOST_MAX = 4  # of errands, unanswered
ASK_RETRY_MS = 50
ASKS_WAIT_MS_MAX = 5_000  # of an item without a deadline
PEER_BEAT = int(Verb.PEER_BEAT)
_ASK_AGAIN = frozenset(
    map(int, (ErrorReason.WRONG_OWNER, ErrorReason.OVERLOADED, ErrorReason.SHARD_UNAVAILABLE, ErrorReason.BUSY))
)

Ask = tuple[int, int, Sequence[Any]]  # shard, verb, body
Told = Callable[[list[Any] | None], None]  # payloads in order; None: not in time, or no answer


class Shell(Protocol):
    """What the host does for its courier."""

    def take_in(self, item: Sequence[Any], batch: Any, index: int) -> bool:
        """Queue an item of this host's own; False when its queue is full."""
        ...


class PeerState(NamedTuple):
    """What a beat said of another host. ``skew_ms``: its wall clock less ours, give or take half a round trip."""

    heard_ms: int
    skew_ms: int
    shards: Mapping[int, tuple[int, int]]  # shard → (epoch, sequence of its last change)


class _OwnErrands:
    """Errands for this host's own shards: their replies go to its courier, one by one."""

    def __init__(self, peers: HostPeers, parcels: Sequence[Parcel]) -> None:
        self._peers = peers
        self._parcels = parcels

    gone = False

    def answer(self, index: int, reply: Reply) -> None:
        self._peers.replied(self._parcels[index], reply)

    def answer_run(self, index: int, replies: Sequence[Reply]) -> None:
        for at, reply in enumerate(replies, index):
            self.answer(at, reply)


class _OwnAnswer:
    """An errand's reply on its way into its sender's shard."""

    def __init__(self, peers: HostPeers, item: Sequence[Any]) -> None:
        self._peers = peers
        self._item = item

    gone = False

    def answer(self, _index: int, reply: Reply) -> None:
        if reply[0] != OK:
            self._peers.not_settled(self._item, reply)

    def answer_run(self, _index: int, replies: Sequence[Reply]) -> None:
        self.answer(0, replies[0])


class _Asking:
    """Asks of one item that are under way."""

    __slots__ = ("answers", "deadline_ms", "missing", "told")

    def __init__(self, count: int, deadline_ms: int, told: Told) -> None:
        self.answers: list[Reply | None] = [None] * count
        self.missing = count
        self.deadline_ms = deadline_ms
        self.told = told


class HostPeers:
    """See the module's docstring. ``links`` None: this host knows of no others."""

    def __init__(
        self,
        engine: Engine,
        links: PeerLinks | None,
        loop: asyncio.AbstractEventLoop,
        config: HostConfig,
        shell: Shell,
        *,
        now_ms: Callable[[], int],
        wall_ms: Callable[[], int],
    ) -> None:
        self.links = links
        self.courier = Courier()
        self.peers: dict[str, PeerState] = {}
        self.asked = 0
        self._asking = 0  # items set aside
        # by id of an item in the queue: that item, so that nobody else gets its id, and what its asks were answered
        self._told: dict[int, tuple[Sequence[Any], Sequence[Any]]] = {}
        self._engine = engine
        self._loop = loop
        self._config = config
        self._shell = shell
        self._now_ms = now_ms
        self._wall_ms = wall_ms
        self._timer: asyncio.TimerHandle | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._pump_soon = False
        self._stopped = False

    def start(self) -> None:
        """Begin with the errands that are open in the books."""
        if self.links is not None:
            self.links.start()
            self._beat()
        self.durable(self._engine.open_errands())

    async def stop(self) -> None:
        """Nothing leaves any more; what is open is in the journal."""
        self._stopped = True
        for timer in (self._timer, self._beat_timer):
            if timer is not None:
                timer.cancel()
        if self.links is not None:
            await self.links.stop()

    def attached(self, shard_id: int) -> None:
        """A shard came to this host: its open errands are this host's to deliver."""
        self.courier.forget_shard(shard_id)
        self.durable([errand for errand in self._engine.open_errands() if errand[0] == shard_id])

    def detached(self, shard_id: int) -> None:
        """A shard left."""
        self.courier.forget_shard(shard_id)
        self.pump_soon()

    # --- errands ----------------------------------------------------------------------------------------------------------

    def durable(self, errands: Iterable[Opened]) -> None:
        """Errands of a turn that is durable now."""
        self.courier.durable(errands)
        self.pump_soon()

    def pump_soon(self) -> None:
        """Look in the loop's next pass what can be sent."""
        if not self._pump_soon and not self._stopped:
            self._pump_soon = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_soon = False
        if self._stopped:
            return
        now_ms = self._now_ms()
        self._pump_own(now_ms)
        if self.links is not None:
            for host_id in self.links.up():
                self._pump_to(self.links, host_id, now_ms)
        next_ms = self.courier.next_ms(now_ms)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if next_ms is not None:
            self._timer = self._loop.call_later((next_ms - now_ms) / 1000, self._pump)

    def _pump_own(self, now_ms: int) -> None:
        while parcels := self.courier.parcels(self._engine.books.shards, now_ms, PARCELS_PER_FRAME_MAX):
            batch = _OwnErrands(self, parcels)
            for index, parcel in enumerate(parcels):
                if not self._shell.take_in(parcel.item, batch, index):
                    batch.answer(index, error(ErrorReason.OVERLOADED, "the shard's queue is full"))

    def _pump_to(self, links: PeerLinks, host_id: str, now_ms: int) -> None:
        shards = links.hosts[host_id].shards if host_id in links.hosts else ()
        while links.unanswered(host_id) < FRAMES_PER_HOST_MAX:
            parcels = self.courier.parcels(shards, now_ms, PARCELS_PER_FRAME_MAX)
            if not parcels:
                return
            if not links.ask(host_id, [parcel.item for parcel in parcels], self._whole_frame(parcels)):
                self.courier.lost(parcels, now_ms)
                return

    def _whole_frame(self, parcels: Sequence[Parcel]) -> Callable[[Sequence[Reply] | None], None]:
        def replied(replies: Sequence[Reply] | None) -> None:
            if replies is None:
                self.courier.lost(parcels, self._now_ms())
            else:
                for parcel, reply in zip(parcels, replies, strict=True):
                    self.replied(parcel, reply)
            self.pump_soon()

        return replied

    def replied(self, parcel: Parcel, reply: Reply) -> None:
        """An errand's reply: hand in what can be, in order."""
        for item in self.courier.replied(parcel, reply, self._now_ms()):
            if not self._shell.take_in(item, _OwnAnswer(self, item), 0):
                self.not_settled(item, error(ErrorReason.OVERLOADED))
        self.pump_soon()

    def not_settled(self, item: Sequence[Any], reply: Reply) -> None:
        """This host could not take an errand's reply in: it is asked for again."""
        if reply[0] != ERROR or reply[1] not in (
            ErrorReason.OVERLOADED,
            ErrorReason.WRONG_OWNER,
            ErrorReason.OUT_OF_ORDER,
        ):
            log.error("an errand's reply was not taken in: %s", reply, extra={"shard": item[1], "to_shard": item[5][0]})
        self.courier.not_settled(item[1], item[5][0], item[5][1], self._now_ms())
        self.pump_soon()

    # --- asks -------------------------------------------------------------------------------------------------------------

    def set_aside(self, item: Sequence[Any], batch: Batch, index: int, asks: Sequence[Ask]) -> None:
        """Ask other hosts what ``item`` must know before it can be decided; it is queued when they have answered, and
        nobody else waits for it."""
        if self._asking >= self._config.asks_max:
            retry_ms = self._config.overloaded_retry_ms
            batch.answer(index, error(ErrorReason.OVERLOADED, "too many wait for other hosts", retry_ms))
            return

        def told(answers: list[Any] | None) -> None:
            self._asking -= 1
            if answers is None:
                retry_ms = self._config.unavailable_retry_ms
                batch.answer(index, error(ErrorReason.SHARD_UNAVAILABLE, "another host is silent", retry_ms))
                return
            if len(self._told) > self._config.asks_max:  # of items that never reached a turn
                del self._told[next(iter(self._told))]
            self._told[id(item)] = (item, answers)
            if not self._shell.take_in(item, batch, index):
                del self._told[id(item)]
                retry_ms = self._config.overloaded_retry_ms
                batch.answer(index, error(ErrorReason.OVERLOADED, "the shard's queue is full", retry_ms))

        self._asking += 1
        self.asked += len(asks)
        deadline_ms = item[2] or self._now_ms() + ASKS_WAIT_MS_MAX
        self._send_asks(_Asking(len(asks), deadline_ms, told), dict(enumerate(asks)))

    def told_to(self, items: Sequence[Any]) -> dict[int, Sequence[Any]] | None:
        """By place among the items of a turn, what other hosts answered to their asks."""
        if not self._told:
            return None
        return {at: self._told.pop(id(item))[1] for at, item in enumerate(items) if id(item) in self._told}

    def _send_asks(self, asking: _Asking, asks: Mapping[int, Ask]) -> None:
        if self._now_ms() >= asking.deadline_ms or self.links is None or self._stopped:
            told, asking.told = asking.told, _nobody
            told(None)
            return
        by_host: dict[str, dict[int, Ask]] = {}
        for place, one in asks.items():
            by_host.setdefault(self.links.host_of(one[0]), {})[place] = one
        for host_id, some in by_host.items():
            items = [[verb, shard, asking.deadline_ms, 1, [], list(body)] for shard, verb, body in some.values()]
            if not (host_id and self.links.ask(host_id, items, self._answers_to(asking, some))):
                self._ask_again(asking, some)

    def _ask_again(self, asking: _Asking, asks: Mapping[int, Ask]) -> None:
        pause_ms = max(0, min(ASK_RETRY_MS, asking.deadline_ms - self._now_ms()))
        self._loop.call_later(pause_ms / 1000, self._send_asks, asking, asks)

    def _answers_to(self, asking: _Asking, asks: Mapping[int, Ask]) -> Callable[[Sequence[Reply] | None], None]:
        def replied(replies: Sequence[Reply] | None) -> None:
            again = dict(asks)
            for place, reply in zip(asks, replies or (), strict=False):
                if reply[0] == ERROR and reply[1] in _ASK_AGAIN:
                    continue
                del again[place]
                asking.answers[place] = reply
                asking.missing -= 1
            if again:
                self._ask_again(asking, again)
            elif not asking.missing:
                asking.told(_payloads(asking.answers))

        return replied

    # --- beats ------------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Tell every linked host how far this one is, and hear the same."""
        if self._stopped or self.links is None:
            return
        self.links.watch()
        for host_id in self.links.up():
            item = [PEER_BEAT, ANY_SHARD, 0, 1, [], self._own_beat()]
            self.links.ask(host_id, [item], partial(self._heard, self._wall_ms()))
        for host_id in [host_id for host_id in self.peers if host_id not in self.links.hosts]:
            del self.peers[host_id]
        self._beat_timer = self._loop.call_later(self._config.peer_beat_ms / 1000, self._beat)

    def _own_beat(self) -> list[Any]:
        books = self._engine.books
        changed = books.changed
        shards = [[shard.id, shard.epoch, changed.get(shard.id, 0)] for shard in books.shards.values()]
        return [self._config.host_id, self._wall_ms(), shards]

    def beaten(self, body: Sequence[Any]) -> Reply:
        """Another host's beat: the answer is this one's own."""
        if not (len(body) >= 3 and type(body[0]) is str and type(body[1]) is int and _triples(body[2])):  # noqa: PLR2004
            return error(ErrorReason.INVALID_FIELD, "a beat is [host id, wall ms, [[shard, epoch, sequence], …]]")
        return ok(self._own_beat())

    def _heard(self, sent_ms: int, replies: Sequence[Reply] | None) -> None:
        if replies is None or replies[0][0] != OK:
            return
        body = replies[0][2]
        now_ms = self._wall_ms()
        skew_ms = body[1] - (sent_ms + now_ms) // 2
        shards = {shard: (epoch, sequence) for shard, epoch, sequence in body[2]}
        self.peers[body[0]] = PeerState(self._now_ms(), skew_ms, shards)

    # --- what operators see -----------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """Counts, plain values."""
        now_ms = self._now_ms()
        up = self.links.up() if self.links is not None else []
        return {
            "errands_open": self.courier.open,
            "errand_oldest_ms": max(0, now_ms - oldest_ms) if (oldest_ms := self.courier.oldest_ms()) else 0,
            "peers": [
                {
                    "host_id": host_id,
                    "linked": host_id in up,
                    "skew_ms": state.skew_ms,
                    "heard_ms_ago": now_ms - state.heard_ms,
                }
                for host_id, state in sorted(self.peers.items())
            ],
        }


def _nobody(_answers: list[Any] | None) -> None:
    """Whoever asked was answered already."""


def _triples(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 3 and all(type(part) is int for part in one)  # noqa: PLR2004
        for one in value
    )


def _payloads(answers: Sequence[Reply | None]) -> list[Any] | None:
    """What the answers say, in the order of the questions; None when one of them is no answer."""
    payloads = [reply[2] for reply in answers if reply is not None and reply[0] == OK]
    return payloads if len(payloads) == len(answers) else None
