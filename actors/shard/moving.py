"""Shards that come to a running host and leave it: adopted from a dead one, moved from a living one, given to another.

Both ways a shard is loaded beside the loop, in books of its own, so that turns go on; only joining it is done between two
turns. The journal alone decides who owns a shard: an adoption bumps the epoch before it reads the tail, and fences a former
owner that still lives; a move asks the owner to let go first. That one has nothing of the shard in its books from then on, but
keeps it aside until the journal says that it is another's, or that it is still its own: then it takes it back. So whichever
side dies at whichever step, somebody serves it again.

Who should own what is not decided here (``placing``, the directory).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from actors.domain.answers import OK, Reply, error, ok
from actors.domain.attaching import index_again
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from actors.domain.state import Books
from actors.journal.port import Fenced, Journal, JournalError, ShardHead
from actors.shard import frames
from actors.shard.engine import Engine
from actors.shard.filter import EntryFilter
from actors.shard.following import Arrival, Following
from actors.shard.host_config import HostConfig
from actors.shard.journal_thread import JournalThread
from actors.shard.messages import ANY_SHARD
from actors.shard.peer_call import PeerCall

__all__ = ["HostMoves", "MoveFailed", "Shell"]

log = logging.getLogger(__name__)

T = TypeVar("T")

CAUGHT_UP_EVENTS = 200  # a few milliseconds of replay: near enough to ask the owner to let go
FOLLOW_ROUNDS_MAX = 100
KEYS_PER_STEP = 1_000  # about a millisecond of the loop
SWITCH_INTERVAL_S = 0.0005  # while a shard is loaded beside the loop: how long the loop may wait for the interpreter
ASK_S_MAX = 2.0


class MoveFailed(Exception):
    """The shard did not come; says why. Whoever had it has it still, or the journal says that nobody serves it."""


class Shell(Protocol):
    """What the host does for its moves."""

    @property
    def ended(self) -> bool: ...

    async def serve(self, arrival: Arrival) -> None:
        """Attach it between two turns; returns when its first record is durable."""

    async def let_go(self, shard_id: int) -> tuple[Books, ShardHead]:
        """Take it out between two turns; returns when everything decided of it is durable."""


class Sealed:
    """A shard that another host is about to take over."""

    __slots__ = ("by", "head", "part", "timer")

    def __init__(self, by: str, part: Books, head: ShardHead) -> None:
        self.by = by
        self.part = part
        self.head = head
        self.timer: asyncio.TimerHandle | None = None


class HostMoves:
    """One host's. Everything here runs on its loop; ``loader`` is made when it is first needed."""

    def __init__(  # noqa: PLR0913  the parts of a host
        self,
        engine: Engine,
        journal: Journal,
        thread: JournalThread,
        loader: Callable[[], JournalThread],
        reader: Callable[[], Journal],
        loop: asyncio.AbstractEventLoop,
        config: HostConfig,
        entry_filter: EntryFilter,
        shell: Shell,
    ) -> None:
        """``reader``: opens another journal, to read beside the one that is written."""
        self.adopted = 0
        self.came = 0
        self.left = 0
        self.came_back = 0
        self.last_pause_ms = 0.0  # how long the last shard that came was served by nobody
        self._engine = engine
        self._journal = journal
        self._thread = thread
        self._make_loader = loader
        self._open_reader = reader
        self._loop = loop
        self._config = config
        self._filter = entry_filter
        self._shell = shell
        self._loader: JournalThread | None = None
        self._reader: Journal | None = None
        self._one_at_a_time = asyncio.Lock()
        self._leaving = asyncio.Lock()
        self._sealed: dict[int, Sealed] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- shards of the dead -----------------------------------------------------------------------------------------------

    async def adopt(self, shards: Sequence[int] | Mapping[int, int]) -> dict[int, int]:
        """Take shards over, whoever has them: {shard: epoch} of those that are served here now.

        As a mapping to the epoch in which they are known to have been owned: one that was taken since is left alone.
        """
        async with self._one_at_a_time:
            here = self._engine.books.shards
            wanted = [shard for shard in shards if shard not in here]
            if isinstance(shards, Mapping) and wanted:
                known = shards
                heads = await self._read(lambda journal: journal.heads(wanted))
                wanted = [shard for shard in wanted if shard in heads and heads[shard].epoch <= known[shard]]
            for shard in wanted:
                self._forget_sealed(shard)
            taken = await self._take_over_all(wanted) if wanted else {}
            for shard in taken:  # one after the other: the first is served while the next is loaded
                await self._adopt_one(taken[shard])
            return {shard: here[shard].epoch for shard in shards if shard in here}

    async def _take_over_all(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        """Bump their epochs; but for those that somebody else takes over at the very same time."""
        try:
            return await self._thread.call(lambda: self._journal.take_over(shards))
        except Fenced as raced:
            if len(shards) == 1:
                log.warning("shard %d is another's: %s", shards[0], raced)
                return {}
        taken: dict[int, ShardHead] = {}
        for shard in shards:
            taken |= await self._take_over_all([shard])
        return taken

    async def _adopt_one(self, head: ShardHead) -> None:
        def load(journal: Journal) -> Arrival:
            following = self._following(journal, head.shard)
            following.load()
            arrival = following.arrive(head)
            keys.extend(following.take_keys())
            return arrival

        keys: list[str] = []
        try:
            arrival = await self._read(load)
        except JournalError as failed:
            log.error("shard %d was taken over and cannot be loaded: %s", head.shard, failed)
            return
        await self._note_keys(keys)
        await self._shell.serve(arrival)
        self.adopted += 1

    # --- shards of the living ---------------------------------------------------------------------------------------------

    async def move_here(self, shard_id: int, owner_endpoint: str) -> int:
        """Take a shard over from the host that serves it, which is asked to let go; the epoch in which it is served here.
        Raises MoveFailed."""
        async with self._one_at_a_time:
            here = self._engine.books.shards
            if shard_id not in here:
                try:
                    await self._move(shard_id, owner_endpoint)
                except (OSError, TimeoutError, frames.FrameError, JournalError) as failed:
                    raise MoveFailed(f"shard {shard_id} did not come from {owner_endpoint}: {failed!r}") from failed
            if shard_id not in here:
                raise MoveFailed(f"shard {shard_id} cannot be loaded")
            return here[shard_id].epoch

    async def _move(self, shard_id: int, owner_endpoint: str) -> None:
        self._forget_sealed(shard_id)  # it went to where it comes from now
        following = await self._follow(shard_id)
        engine, config = self._engine, self._config
        owner = await PeerCall.connect(
            owner_endpoint,
            cluster_id=engine.cluster_id,
            timeline=engine.timeline,
            token=config.token,
            name=config.host_id,
        )
        try:
            began_s = self._loop.time()
            try:
                sealed = await self._ask_to_let_go(owner, shard_id)
                head = await self._take_over(following, sealed, began_s)
            except BaseException:
                # whether it let go or not: it takes the shard back unless the journal says that it is another's
                self._begin(self._think_better(owner_endpoint, shard_id))
                raise
        finally:
            owner.close()
        try:
            arrival = await self._read(lambda _journal: following.arrive(head))
        except JournalError as failed:  # it is this host's by now: once more from the beginning
            log.warning("shard %d is loaded anew: %r", shard_id, failed)
            await self._adopt_one(head)
            return
        self._add_keys(following.take_keys())
        await self._shell.serve(arrival)
        self.last_pause_ms = (self._loop.time() - began_s) * 1000
        self.came += 1

    async def _follow(self, shard_id: int) -> Following:
        """Load the shard as a reader and catch up with its owner."""

        def load(journal: Journal) -> Following:
            following = self._following(journal, shard_id)
            following.load()
            return following

        following = await self._read(load)
        for _ in range(FOLLOW_ROUNDS_MAX):
            await self._note_keys(following.take_keys())
            if await self._read(lambda _journal: following.catch_up()) <= CAUGHT_UP_EVENTS:
                break
        return following

    async def _ask_to_let_go(self, owner: PeerCall, shard_id: int) -> ShardHead:
        reply = await owner.ask(_item(Verb.SEAL_SHARDS, [shard_id, self._config.host_id]), ASK_S_MAX)
        if reply[0] != OK:
            raise MoveFailed(f"the owner of shard {shard_id} does not let it go: {reply!r}")
        return ShardHead(*reply[2])

    async def _take_over(self, following: Following, sealed: ShardHead, began_s: float) -> ShardHead:
        shard_id = following.shard_id
        # what its owner wrote at last is read before the epoch is bumped: nobody serves it meanwhile
        heads = await self._read(lambda journal: (following.catch_up(), journal.heads([shard_id]))[1])
        if heads[shard_id].epoch != sealed.epoch:
            raise MoveFailed(f"shard {shard_id} was taken by another host meanwhile")
        if (self._loop.time() - began_s) * 1000 > self._config.seal_ms_max / 2:
            raise MoveFailed(f"shard {shard_id} was not read in time: its owner is about to take it back")
        taken = await self._thread.call(lambda: self._journal.take_over([shard_id]))
        return taken[shard_id]

    async def _think_better(self, owner_endpoint: str, shard_id: int) -> None:
        engine, config = self._engine, self._config
        try:
            owner = await PeerCall.connect(
                owner_endpoint,
                cluster_id=engine.cluster_id,
                timeline=engine.timeline,
                token=config.token,
                name=config.host_id,
            )
            await owner.ask(_item(Verb.UNSEAL_SHARDS, [shard_id]), ASK_S_MAX)
            owner.close()
        except (OSError, TimeoutError, frames.FrameError) as silent:
            log.warning("the owner of shard %d is not told that it keeps it, it finds out: %r", shard_id, silent)

    # --- shards that leave ------------------------------------------------------------------------------------------------

    def ask(self, verb: int, body: Sequence[Any], answer: Callable[[Reply], None]) -> None:
        """SEAL_SHARDS [shard, host id]: OK [shard, epoch, record number, sequence, time]. UNSEAL_SHARDS [shard]: OK []."""
        if [type(part) for part in body] != ([int, str] if verb == Verb.SEAL_SHARDS else [int]):
            answer(error(ErrorReason.INVALID_FIELD, "the item's body does not fit its verb"))
        elif verb == Verb.SEAL_SHARDS:
            self._begin(self._seal(body[0], body[1], answer))
        else:
            self._begin(self._unseal(body[0], answer))

    async def _seal(self, shard_id: int, by: str, answer: Callable[[Reply], None]) -> None:
        async with self._leaving:  # who asks again while the journal is slow must not make it leave twice
            sealed = self._sealed.get(shard_id)
            if sealed is None and shard_id in self._engine.books.shards:
                part, head = await self._shell.let_go(shard_id)
                sealed = self._sealed[shard_id] = Sealed(by, part, head)
                self.left += 1
        if sealed is None or sealed.by != by:
            answer(error(ErrorReason.WRONG_OWNER, f"shard {shard_id} is not here"))
            return
        self._look_later(shard_id)
        answer(ok(list(sealed.head)))

    def _look_later(self, shard_id: int) -> None:
        sealed = self._sealed[shard_id]
        if sealed.timer is not None:
            sealed.timer.cancel()
        sealed.timer = self._loop.call_later(
            self._config.seal_ms_max / 1000, lambda: self._begin(self._unseal(shard_id, lambda _reply: None))
        )

    async def _unseal(self, shard_id: int, answer: Callable[[Reply], None]) -> None:
        """Take a shard back that nobody has taken over, or forget it."""
        async with self._one_at_a_time:
            if shard_id in self._sealed:
                try:
                    await self._take_back(shard_id)
                except JournalError as away:
                    log.warning("shard %d is not taken back yet: %r", shard_id, away)
                    self._look_later(shard_id)
        answer(ok([]))

    async def _take_back(self, shard_id: int) -> None:
        sealed = self._sealed[shard_id]
        heads = await self._thread.call(lambda: self._journal.heads([shard_id]))
        if heads[shard_id].epoch != sealed.head.epoch:
            self._forget_sealed(shard_id)
            return
        taken = await self._thread.call(lambda: self._journal.take_over([shard_id]))
        head = taken[shard_id]
        self._forget_sealed(shard_id)
        if (head.epoch, head.sequence) != (sealed.head.epoch + 1, sealed.head.sequence):
            log.error("shard %d was taken over twice at once: it is adopted anew", shard_id)
            await self._adopt_one(head)
            return
        part = await self._read(lambda _journal: index_again(sealed.part))
        await self._shell.serve(Arrival(part, head, 0))
        self.came_back += 1

    def _forget_sealed(self, shard_id: int) -> None:
        sealed = self._sealed.pop(shard_id, None)
        if sealed is not None and sealed.timer is not None:
            sealed.timer.cancel()

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _following(self, journal: Journal, shard_id: int) -> Following:
        books = self._engine.books
        return Following(journal, shard_id, books.rules, books.shard_of, books.feed_shard_of)

    async def _read(self, work: Callable[[Journal], T]) -> T:
        """Do something on the loader's thread with its journal, which is opened anew after a failure."""
        if self._loader is None:
            self._loader = self._make_loader()

        def run() -> T:
            if self._reader is None:
                self._reader = self._open_reader()
            try:
                with _often_switched():
                    return work(self._reader)
            except JournalError:
                broken, self._reader = self._reader, None
                broken.close()
                raise

        return await self._loader.call(run)

    async def _note_keys(self, keys: list[str]) -> None:
        for start in range(0, len(keys), KEYS_PER_STEP):
            self._add_keys(keys[start : start + KEYS_PER_STEP])
            await asyncio.sleep(0)

    def _add_keys(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._filter.add(key)

    def _begin(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.error("a move failed: %r", failed, exc_info=failed)

    @property
    def moving(self) -> bool:
        """Whether a shard is on its way here or sealed."""
        return self._one_at_a_time.locked() or bool(self._sealed)

    async def stop(self) -> None:
        """The host stops."""
        for sealed in self._sealed.values():
            if sealed.timer is not None:
                sealed.timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._loader is not None:
            if (reader := self._reader) is not None:
                await self._loader.call(reader.close)
            self._loader.stop()

    def plain(self) -> dict[str, Any]:
        """For a status answer."""
        return {
            "shards_adopted": self.adopted,
            "shards_came": self.came,
            "shards_left": self.left,
            "shards_came_back": self.came_back,
            "shards_sealed": sorted(self._sealed),
            "move_pause_ms": self.last_pause_ms,
        }


def _item(verb: Verb, body: list[Any]) -> list[Any]:
    return [int(verb), ANY_SHARD, 0, 1, [], body]


@contextmanager
def _often_switched() -> Iterator[None]:
    """Let other threads of the process run often while this one works: the loop must not wait for long."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_INTERVAL_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
