"""The shard host: the async shell around the engine. Turns, group commit, the gate, wake-ups, draining.

A turn is decided and applied in one go on the loop, its records go to the journal's thread as one transaction, and only when
that is durable may anything that saw them leave: grants, refusals, reads, errors. While one commit runs the next batch
gathers, and may be applied; it is handed over when the first returned. No timers, no linger: an idle system answers in one
round trip, a busy one batches by itself. A turn that wrote nothing ends with one check of its shards' epochs.

A failed append ends the process (``end_process``): no undo in memory, no second try; the next owner replays.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from actors.domain.answers import OK, PENDING, ExplanationView, Reply, error, ok
from actors.domain.attaching import attach, detach
from actors.domain.commands import Verb
from actors.domain.consumers import kept_for_ms
from actors.domain.outcomes import ErrorReason
from actors.domain.rules import Rules
from actors.domain.state import Books
from actors.journal.codec import decode_groups
from actors.journal.port import EntryRow, Fenced, Journal, JournalError, ShardHead
from actors.shard import frames
from actors.shard.change_log import Recorded
from actors.shard.clock import ShardClock
from actors.shard.deferred import DeferredReplies
from actors.shard.directory import Directory, HostRoute
from actors.shard.engine import Engine, TurnResult
from actors.shard.explaining import events_behind, newest_first
from actors.shard.filter import EntryFilter
from actors.shard.following import Arrival
from actors.shard.host_changes import HostChanges, Prepare
from actors.shard.host_config import EXIT_BUG, EXIT_FENCED, EXIT_JOURNAL, HostConfig
from actors.shard.host_housekeeping import HostHousekeeping
from actors.shard.host_links import Batch, HostLink, LinkOwner
from actors.shard.host_peers import HostPeers
from actors.shard.host_snapshots import HostSnapshots
from actors.shard.journal_thread import JournalThread
from actors.shard.messages import ANY_SHARD
from actors.shard.moving import HostMoves
from actors.shard.peer_links import PeerLinks
from actors.shard.recovery import Progress, recover
from actors.shard.shapes import fits
from actors.shard.statistics import HostStatistics
from actors.shard.turns import Queued, TurnQueue, Waiting, WaitingRun, items_of, one_by_one, stock_key_of

log = logging.getLogger(__name__)

INGEST = int(Verb.INGEST)
MOVES = frozenset((int(Verb.SEAL_SHARDS), int(Verb.UNSEAL_SHARDS)))
SHELL_VERBS = MOVES | set(map(int, (Verb.GET_HOST_STATUS, Verb.READ_CHANGES, Verb.PEER_BEAT, Verb.ERRAND_ANSWERED)))

_status_of = itemgetter(0)

EndProcess = Callable[[int, str], None]
Finish = Callable[[], Reply]
Between = Callable[[], tuple[TurnResult, Any]]  # changes the books between two turns: what it leaves, and what it tells


def wall_ms() -> int:
    """The wall clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """The monotonic clock, milliseconds."""
    return time.monotonic_ns() // 1_000_000


def end_this_process(code: int, reason: str) -> None:
    """End at once, without any cleaning up: nothing in memory can be believed any more."""
    log.critical("the shard host ends: %s", reason)
    logging.shutdown()
    os._exit(code)


def _tell(told: asyncio.Future[Any], value: Any) -> None:
    if not told.done():
        told.set_result(value)


class AppliedTurn:
    """A turn that was applied and is not durable yet."""

    __slots__ = ("check_heads", "done", "number", "recorded", "result", "taken", "time_ms", "told")

    def __init__(self, number: int, taken: list[Queued], result: TurnResult) -> None:
        self.number = number
        self.taken = taken
        self.result = result
        self.time_ms = 0
        self.check_heads = result.read_heads
        self.recorded: list[Recorded] | None = None
        self.told: list[tuple[Batch, int, Finish]] = []  # answers of the shell's own that saw this turn
        self.done: Callable[[], None] | None = None  # told when it is durable


class ShardHost:
    """All shards of one process, behind one listener for frames."""

    def __init__(
        self,
        config: HostConfig,
        journal_factory: Callable[[], Journal],
        rules: Rules,
        *,
        clock: ShardClock | None = None,
        end_process: EndProcess = end_this_process,
        progress: Progress | None = None,
        thread_factory: Callable[[asyncio.AbstractEventLoop], JournalThread] = JournalThread,
        own_process: bool = True,
        directory: Directory | None = None,
    ) -> None:
        """``directory``: where the other hosts are found; None: there are none. ``own_process``: the process is this host's
        alone, so the garbage collector is tuned for it."""
        self.config = config
        self.state = "starting"
        self.statistics = HostStatistics()
        self._journal_factory = journal_factory
        self._rules = rules
        self._clock = clock or ShardClock(wall_ms, monotonic_ms)
        self._end_process = end_process
        self._progress = progress
        self._thread_factory = thread_factory
        self._own_process = own_process
        self._directory = directory
        self._queue = TurnQueue(config)
        self._asking: list[tuple[Batch, int, Prepare]] = []  # to be answered by the shell with the next turn
        self._between: deque[tuple[Between, asyncio.Future[Any]]] = deque()
        self._unfinished: set[asyncio.Future[Any]] = set()  # who waits for what was done between turns
        self.on_route_changed: Callable[[], None] = lambda: None
        self._filter = EntryFilter()
        self._links: dict[HostLink, None] = {}  # a dict, not a set: its order is the same in every run
        self._committing: AppliedTurn | None = None
        self._waiting: AppliedTurn | None = None
        self._resolving = False
        self._turn_scheduled = False
        self.applied_turns = 0
        self.durable_turns = 0
        self._wakeup: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._draining = False
        self.ended = False
        self._journal_kind = ""
        self._durability = ""
        self._engine: Engine
        self._snapshots: HostSnapshots
        self._housekeeping: HostHousekeeping
        self._changes: HostChanges
        self._moves: HostMoves
        self.peers: HostPeers
        self._deferred: DeferredReplies
        self._snapshot_sequences: dict[int, int]
        self._journal: Journal
        self._thread: JournalThread
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server

    # --- start and stop ---------------------------------------------------------------------------------------------------

    async def start(self) -> HostRoute:
        """Open the journal, recover, journal the ownership, listen. Raises ``JournalError`` and says why."""
        self._loop = loop = asyncio.get_running_loop()
        self._thread = self._thread_factory(loop)
        self.state = "recovering"
        started_s = time.monotonic()
        if self._own_process:
            gc.collect()
            gc.disable()  # recovery makes millions of objects and no cycles: the collector would walk them again and again
        try:
            events = await self._thread.call(self._recover)
        except BaseException:
            await self._close_journal()
            self.state = "failed"
            raise
        self.statistics.recovery_seconds = time.monotonic() - started_s
        self.statistics.recovered_events = events
        if self._own_process:
            gc.freeze()  # what was recovered is never garbage in bulk: the collector need not walk it
        self._make_rooms()
        owner = LinkOwner(
            self.config,
            welcome=self._welcome,
            accept=self._accept,
            now_ms=self._now,
            opened=self._opened,
            closed=self._closed,
        )
        self._server = await loop.create_server(lambda: HostLink(owner), self.config.address, self.config.port)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.state = "serving"
        await self._housekeeping.look_after_journal()
        self._housekeeping.arm()
        self._arm_wakeup(self._engine.now_ms)
        self.peers.start()
        return self.route

    @property
    def route(self) -> HostRoute:
        """Where it is reached, and which shards it has now."""
        shards = self._engine.books.shards
        return HostRoute(
            self.config.host_id,
            f"{self.config.address}:{self.config.advertise_port or self.port}",
            os.getpid(),
            tuple(shards),
            tuple(shard.epoch for shard in shards.values()),
        )

    def _make_rooms(self) -> None:
        """What works beside the turns, once there is a journal and an engine."""
        self._snapshots = HostSnapshots(
            self._engine,
            self._journal,
            self._thread,
            self._loop,
            self.config,
            self.statistics,
            self,
            self._now,
            self._snapshot_sequences,
        )
        self._housekeeping = HostHousekeeping(
            self._journal,
            self._thread,
            self._loop,
            self.config,
            self._rules,
            self._filter,
            self.statistics,
            now_ms=self._now,
            wall_ms=wall_ms,
            records_before_ms=lambda before_ms: kept_for_ms(
                self._engine.books, self._now(), before_ms, whole=self._engine.whole
            ),
            shards=lambda: None if self._engine.whole else list(self._engine.books.shards),
            quiet=lambda: self.quiet,
            ended=lambda: self.ended,
            own_process=self._own_process,
        )
        self.peers = self._make_peers()
        self._deferred = DeferredReplies(self._loop, self._now, self.config.deferred_replies_max)
        self._changes = HostChanges(self._engine, self._journal, self._thread, self._loop, self.config, self, self._now)
        self._moves = HostMoves(
            self._engine,
            self._journal,
            self._thread,
            lambda: self._thread_factory(self._loop),
            self._journal_factory,
            self._loop,
            self.config,
            self._filter,
            self,
        )

    def _make_peers(self) -> HostPeers:
        engine, config = self._engine, self.config
        links = None
        if self._directory is not None:
            links = PeerLinks(
                host_id=config.host_id,
                cluster_id=engine.cluster_id,
                timeline=engine.timeline,
                token=config.token,
                directory=self._directory,
                loop=self._loop,
                changed=lambda: self.peers.pump_soon(),
            )
        return HostPeers(engine, links, self._loop, config, self, now_ms=self._now, wall_ms=self._clock.wall_ms)

    def _recover(self) -> int:
        """On the journal's thread."""
        self._journal = journal = self._journal_factory()
        shards = range(journal.header.shard_count) if self.config.shards is None else self.config.shards
        recovered = recover(journal, shards, self._rules, self._clock.now_ms(), self._progress)
        ownership = recovered.ownership
        journal.append(ownership.records, ownership.entries, ownership.read_heads)
        info = journal.info()  # counts every row: once, not for every status
        self._journal_kind, self._durability = info.kind, info.durability
        self._engine = recovered.engine
        self._clock.not_before(self._engine.now_ms)
        self._filter = EntryFilter(
            journal.entry_keys(self.config.shards)
        )  # those of other shards: not to be asked here
        self._snapshot_sequences = {}
        for shard_id in shards:
            newest = journal.snapshots(shard_id)[:1]
            self._snapshot_sequences[shard_id] = newest[0].highest_sequence if newest else 0
        return recovered.events

    @property
    def engine(self) -> Engine:
        """For questions between turns, by tests and operators."""
        return self._engine

    async def stop(self, drain_s: float = 10.0) -> None:
        """Take nothing new, finish what is queued, flush, close. What is not done in time is answered by nobody."""
        if self.state == "stopped" or not hasattr(self, "_server"):
            self.state = "stopped"
            return
        self._draining = True
        self._housekeeping.stop()
        self.state = "draining"
        deadline = self._loop.time() + drain_s
        while not self.quiet and self._loop.time() < deadline and not self.ended:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), max(0.01, deadline - self._loop.time()))
            except TimeoutError:
                break
        self._server.close()
        await self._moves.stop()
        self._changes.stop()
        await self.peers.stop()
        self._deferred.stop()
        if self._wakeup is not None:
            self._wakeup.cancel()
        for link in list(self._links):
            link.close("the host stops")
        self.ended = True
        await self._close_journal()
        if self._own_process:
            gc.enable()
        self.state = "stopped"

    async def _close_journal(self) -> None:
        if hasattr(self, "_journal"):
            await self._thread.call(self._journal.close)
        self._thread.stop()

    @property
    def quiet(self) -> bool:
        """Whether nothing waits and nothing commits."""
        return not (
            self._queue.lines or self._asking or self._between or self._committing or self._waiting or self._resolving
        )

    # --- links ------------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self._clock.now_ms()

    def _opened(self, link: HostLink) -> bool:
        if len(self._links) >= self.config.links_max or self._draining:
            return False
        self._links[link] = None
        return True

    def _closed(self, link: HostLink) -> None:
        self._links.pop(link, None)

    def _welcome(self, message: Sequence[Any]) -> bytes:
        engine = self._engine
        said = frames.read_hello(
            message, cluster_id=engine.cluster_id, token=self.config.token, timeline=engine.timeline
        )
        shards = engine.books.shards
        return frames.welcome(
            cluster_id=engine.cluster_id,
            timeline=engine.timeline,
            host_id=self.config.host_id,
            host_time_ms=self._now(),
            shards=list(shards),
            epochs=[shard.epoch for shard in shards.values()],
            protocol=min(frames.PROTOCOL_MAX, said.protocol_max),
        )

    def _accept(self, batch: Batch, items: Sequence[Sequence[Any]]) -> None:
        """Queue a frame's items, or answer at once what cannot be queued."""
        if self._draining or self.ended:
            stopping = error(ErrorReason.SHARD_UNAVAILABLE, "the host stops", self.config.unavailable_retry_ms)
            for index in range(len(items)):
                batch.answer(index, stopping)
            return
        shards = self._engine.books.shards
        whole = self._engine.whole
        events: WaitingRun | None = None  # those just before the item at hand
        lane = (-1, 0)  # their shard and deadline
        for index, item in enumerate(items):
            verb, shard_id, deadline_ms, weight, _, _ = item
            if verb == INGEST and weight == 1 and shard_id in shards and fits(item):
                if events is not None and lane == (shard_id, deadline_ms):
                    events.items.append(item)
                else:
                    if events is not None:
                        self._accept_events(events)
                    events, lane = WaitingRun([item], batch, index), (shard_id, deadline_ms)
                continue
            if events is not None:
                self._accept_events(events)
                events = None
            if verb in SHELL_VERBS:
                self._answer_itself(verb, item, batch, index)
                continue
            if shard_id not in shards and shard_id != ANY_SHARD:
                batch.answer(index, error(ErrorReason.WRONG_OWNER, f"shard {shard_id} is not here"))
                continue
            if not fits(item):
                batch.answer(index, error(ErrorReason.INVALID_FIELD, "the item's body does not fit its verb"))
                continue
            if not whole and (asks := self._engine.asks(item)):
                self.peers.set_aside(item, batch, index, asks)
                continue
            if not self._queue.offer(Waiting(item, batch, index, stock_key_of(item))):
                self.statistics.overloaded += 1
                detail = "too much is waiting for this stock key or its shard"
                batch.answer(index, error(ErrorReason.OVERLOADED, detail, self.config.overloaded_retry_ms))
        if events is not None:
            self._accept_events(events)
        self._schedule_turn()

    def _answer_itself(self, verb: int, item: Sequence[Any], batch: Batch, index: int) -> None:
        """What is not for the engine."""
        if verb == Verb.GET_HOST_STATUS:
            self._ask_status(batch, index)
        elif verb == Verb.READ_CHANGES:
            self._changes.ask(batch, index, item)
        elif verb in MOVES:
            self._moves.ask(verb, item[5], partial(batch.answer, index))
        elif verb == Verb.PEER_BEAT:
            batch.answer(index, self.peers.beaten(item[5]))
        else:
            batch.answer(index, error(ErrorReason.INVALID_FIELD, "only this host itself says so"))

    def _accept_events(self, run: WaitingRun) -> None:
        """Queue events that follow each other as one, and answer those for which there is no room."""
        batch, count = run.batch, len(run.items)
        index = run.index
        taken = self._queue.offer_run(run)
        if taken < count:
            self.statistics.overloaded += count - taken
            busy = error(
                ErrorReason.OVERLOADED, "too many events wait for their feed shard", self.config.overloaded_retry_ms
            )
            batch.answer_run(index + taken, [busy] * (count - taken))

    def take_in(self, item: Sequence[Any], batch: Any, index: int) -> bool:
        """Queue an item of this host's own; False when its queue is full."""
        if not self._queue.offer(Waiting(item, batch, index, "")):
            return False
        self._schedule_turn()
        return True

    # --- turns ------------------------------------------------------------------------------------------------------------

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled and not self._resolving and self._waiting is None and not self.ended:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Take the next batch and step it, unless one is applied already and waits for the running commit."""
        self._turn_scheduled = False
        if self._waiting is not None or self._resolving or self.ended:
            return
        if self._between:
            self._change_books()
            return
        self._resolve(self._queue.take(), {})

    def _resolve(self, taken: list[Queued], found: dict[str, EntryRow | None]) -> None:
        """Look up what the items depend on in the entries table, then step in the same loop iteration.

        Late items are dropped each time: no copy of a request outlives its deadline, however long a look-up took.
        """
        taken = self._drop_late(taken)
        items = items_of(taken)
        try:
            wanted = self._engine.unresolved(items, found, self._filter) if self._filter.count else []
        except Exception:  # whatever a body that does not fit its verb may raise
            taken, items = self._drop_malformed(taken)
            wanted = self._engine.unresolved(items, found, self._filter)
        if not wanted:
            self._step(taken, items, found)
            return
        self._resolving = True
        met_leaving = self._engine.met_leaving

        def resolved(rows: Any, failed: BaseException | None) -> None:
            self._resolving = False
            if failed is not None:
                self._fail(failed)
                return
            found.update(dict.fromkeys(wanted))
            found.update(rows)
            if rows or met_leaving:
                self._resolve(taken, found)
            else:  # as nearly always: the filter was wrong about all of them, so nothing else is asked for
                live = self._drop_late(taken)
                self._step(live, items_of(live), found)

        self._thread.submit(lambda: self._journal.find_entries(wanted), resolved)

    def _drop_late(self, taken: list[Queued]) -> list[Queued]:
        now_ms = self._now()
        live: list[Queued] = []
        for waiting in taken:
            items = waiting.items if isinstance(waiting, WaitingRun) else [waiting.item]
            deadline_ms = items[0][2]
            if not deadline_ms or deadline_ms > now_ms:
                live.append(waiting)
                continue
            count = len(items)
            self.statistics.late += count
            too_late = error(ErrorReason.DEADLINE_EXCEEDED, "dropped undone: it came too late")
            waiting.batch.answer_run(waiting.index, [too_late] * count)
        return live

    def _drop_malformed(self, taken: list[Queued]) -> tuple[list[Queued], list[Sequence[Any]]]:
        """An item whose body does not fit its verb is answered here; it must not stop the others."""
        good: list[Queued] = []
        for waiting in one_by_one(taken):
            try:
                self._engine.unresolved([waiting.item], {}, self._filter)
            except Exception:
                invalid = error(ErrorReason.INVALID_FIELD, "the item's body does not fit its verb")
                waiting.batch.answer(waiting.index, invalid)
            else:
                good.append(waiting)
        return good, items_of(good)

    def _step(self, taken: list[Queued], items: list[Sequence[Any]], found: dict[str, EntryRow | None]) -> None:
        started_s = time.perf_counter()
        try:
            result = self._engine.step(
                items,
                found,
                self._now(),
                accept_claims=self._housekeeping.accept_claims,
                told=self.peers.told_to(items),
            )
        except Exception as bug:
            log.exception("an invariant broke")
            self._end(EXIT_BUG, f"an invariant broke: {bug}")
            return
        self.applied_turns += 1
        for row in result.entries:
            self._filter.add(row.key)
        turn = AppliedTurn(self.applied_turns, taken, result)
        turn.time_ms = self._engine.now_ms
        turn.recorded = self._changes.applied(result)
        if self._asking:
            self._prepare_answers(turn)
        self.statistics.count_turn(items, result, time.perf_counter() - started_s)
        self._hand_over(turn)

    def _hand_over(self, turn: AppliedTurn) -> None:
        if self._committing is None:
            self._commit(turn)
        else:
            self._waiting = turn
        self._arm_wakeup(self._engine.now_ms)

    def _commit(self, turn: AppliedTurn) -> None:
        """Hand a turn to the journal; nothing of it leaves before that returned."""
        self._committing = turn
        result = turn.result
        journal = self._journal

        def commit() -> None:
            if result.records or result.entries:
                journal.append(result.records, result.entries, result.read_heads)
            elif turn.check_heads:
                journal.check(turn.check_heads)

        started_s = time.perf_counter()

        def committed(_nothing: Any, failed: BaseException | None) -> None:
            if failed is not None:
                self._fail(failed)
                return
            if result.records:
                self.statistics.commit(time.perf_counter() - started_s, len(result.records))
            self._release(turn)

        self._thread.submit(commit, committed)

    def _release(self, turn: AppliedTurn) -> None:
        """The turn is durable: start the next commit, then let the answers out."""
        self._committing = None
        if self.ended:
            return
        self.durable_turns = turn.number
        self._engine.durable(turn.result)
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            self._commit(waiting)
        replies = turn.result.replies
        position = 0
        for one in turn.taken:
            if isinstance(one, WaitingRun):
                count = len(one.items)
                some = replies[position : position + count]
                position += count
                if PENDING in map(_status_of, some):
                    self._deferred.answer(one_by_one([one]), some)
                else:
                    one.batch.answer_run(one.index, some)
                continue
            reply = replies[position]
            position += 1
            if one.item[0] == Verb.EXPLAIN_AVAILABILITY and reply[0] == OK:
                self._answer_explanation(one, reply)
            elif reply[0] == PENDING:
                self._deferred.answer([one], [reply])
            else:
                one.batch.answer(one.index, reply)
        self._changes.durable(turn.recorded, turn.time_ms)
        for batch, index, finish in turn.told:
            batch.answer(index, finish())
        if turn.done is not None:
            turn.done()
        if turn.result.finished:
            self._deferred.finish(turn.result.finished)
        if turn.result.errands:
            self.peers.durable(turn.result.errands)
        self._snapshots.note(turn.result.records)
        wakeup_ms = self._engine.wakeup_ms()
        if self._queue.lines or self._asking or self._between or (wakeup_ms is not None and wakeup_ms <= self._now()):
            self._schedule_turn()
        elif self.quiet:
            self._idle.set()

    def _fail(self, failed: BaseException) -> None:
        """The journal failed: whatever was applied since may or may not be there. The next owner finds out."""
        code = EXIT_FENCED if isinstance(failed, Fenced) else EXIT_JOURNAL
        self._end(code, f"the journal failed: {failed!r}")

    def _end(self, code: int, reason: str) -> None:
        if not self.ended:
            self.ended = True
            self.state = "failed"
            self._idle.set()
            for waiting in list(self._unfinished):
                if not waiting.done():
                    waiting.set_exception(JournalError(f"the host ended: {reason}"))
            self._end_process(code, reason)

    # --- shards that come and go --------------------------------------------------------------------------------------------

    async def adopt(self, shards: Sequence[int] | Mapping[int, int]) -> dict[int, int]:
        """See ``HostMoves.adopt``."""
        return await self._moves.adopt(shards)

    async def move_here(self, shard_id: int, owner_endpoint: str) -> int:
        """See ``HostMoves.move_here``."""
        return await self._moves.move_here(shard_id, owner_endpoint)

    async def serve(self, arrival: Arrival) -> None:
        """See ``moving.Shell``."""
        await self._change_between_turns(lambda: (self._attach(arrival), None))
        self.on_route_changed()

    async def let_go(self, shard_id: int) -> tuple[Books, ShardHead]:
        """See ``moving.Shell``."""
        gone: tuple[Books, ShardHead] = await self._change_between_turns(lambda: self._detach(shard_id))
        self.on_route_changed()
        return gone

    def _attach(self, arrival: Arrival) -> TurnResult:
        attach(self._engine.books, arrival.part)
        result = self._engine.own({arrival.shard_id: arrival.head}, self._now())
        self._clock.not_before(self._engine.now_ms)
        self._snapshots.attach(arrival.shard_id, arrival.snapshot_sequence)
        self._changes.attach(arrival.shard_id, arrival.head.sequence)
        self.peers.attached(arrival.shard_id)
        return result

    def _detach(self, shard_id: int) -> tuple[TurnResult, tuple[Books, ShardHead]]:
        head = self._engine.head(shard_id)
        part = detach(self._engine.books, shard_id)
        elsewhere = error(ErrorReason.WRONG_OWNER, f"shard {shard_id} is not here any more")
        for waiting in one_by_one(self._queue.evict(shard_id)):
            waiting.batch.answer(waiting.index, elsewhere)
        self._snapshots.detach(shard_id)
        self._changes.detach(shard_id)
        self.peers.detached(shard_id)
        self._deferred.leave(shard_id)
        return TurnResult([], [], [], [], None, 0), (part, head)

    def _change_between_turns(self, change: Between) -> asyncio.Future[Any]:
        """Let the books be changed when no turn is under way; what is told is told when all of it is durable."""
        told: asyncio.Future[Any] = self._loop.create_future()
        self._unfinished.add(told)
        told.add_done_callback(self._unfinished.discard)
        self._between.append((change, told))
        self._schedule_turn()
        return told

    def _change_books(self) -> None:
        change, told = self._between.popleft()
        if told.cancelled():
            self._schedule_turn()
            return
        try:
            result, value = change()
        except Exception as bug:
            log.exception("an invariant broke")
            self._end(EXIT_BUG, f"an invariant broke: {bug}")
            return
        self.applied_turns += 1
        turn = AppliedTurn(self.applied_turns, [], result)
        turn.time_ms = self._engine.now_ms
        turn.recorded = self._changes.applied(result)
        turn.done = partial(_tell, told, value)
        self._hand_over(turn)
        self._schedule_turn()

    # --- time -------------------------------------------------------------------------------------------------------------

    def _arm_wakeup(self, now_ms: int) -> None:
        """One timer, at the next deadline, so that expiry happens, and is told, while nobody asks."""
        wakeup_ms = self._engine.wakeup_ms()
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        if wakeup_ms is not None and not self.ended:
            # at least 1 ms: what is bounded a turn and still due must leave room for others
            self._wakeup = self._loop.call_later(max(1, wakeup_ms - now_ms) / 1000, self._schedule_turn)

    # --- what operators ask -------------------------------------------------------------------------------------------------

    def _answer_explanation(self, waiting: Waiting, reply: Reply) -> None:
        """Fill in the events behind a stock key, read back from the journal."""
        key = waiting.item[5][1]
        journal, config = self._journal, self.config
        shard_id = waiting.item[1]

        def look() -> list[Any]:
            records = newest_first(journal, shard_id, config.explain_records_max)
            return events_behind(records, key, config.explain_events_max, decode_groups)

        def looked(events: Any, failed: BaseException | None) -> None:
            if failed is not None:
                log.warning("no events behind an explanation: %r", failed)
                events = []
            view = ExplanationView(*reply[2])._replace(events=events)
            waiting.batch.answer(waiting.index, ok(view))

        self._thread.submit(look, looked)

    def _ask_status(self, batch: Batch, index: int) -> None:
        if len(self._asking) >= self.config.status_waiting_max:
            busy = error(ErrorReason.OVERLOADED, "too many ask for the status", self.config.overloaded_retry_ms)
            batch.answer(index, busy)
        else:
            self._asking.append((batch, index, self._prepare_status))

    def _prepare_status(self) -> Finish:
        told = ok([self.status()])
        return lambda: told

    def tell_with_next_turn(self, batch: Batch, index: int, prepare: Prepare) -> None:
        """Answer with the next turn, behind its gate: ``prepare`` is called when it is applied, and what that returns when it
        is durable and its changes are out."""
        self._asking.append((batch, index, prepare))
        self._schedule_turn()

    def _prepare_answers(self, turn: AppliedTurn) -> None:
        """Such an answer is a read of every shard: it leaves with a turn, behind the same gate."""
        turn.told = [(batch, index, prepare()) for batch, index, prepare in self._asking]
        turn.check_heads = [self._engine.head(shard_id) for shard_id in self._engine.books.shards]
        self._asking = []

    def status(self) -> dict[str, Any]:
        """Everything an operator may want to know, plain values."""
        if self.state in ("starting", "recovering"):
            return {"host_id": self.config.host_id, "state": self.state, "pid": os.getpid()}
        engine_status = self._engine.status()
        for shard in engine_status["shards"]:
            shard["queue_depth"] = self._queue.depth(shard["shard"])
        return engine_status | {
            "host_id": self.config.host_id,
            "endpoint": self.route.endpoint if hasattr(self, "port") else "",
            "pid": os.getpid(),
            "state": self.state,
            "accepts_claims": self._housekeeping.accept_claims,
            "queue_lines": self._queue.lines,
            "links": len(self._links),
            "clock_jumps": self._clock.jumps,
            "clock_offset_ms": self._clock.offset_ms,
            "journal_kind": self._journal_kind,
            "durability": self._durability,
            "filter_bytes": self._filter.size_bytes,
            "deferred_replies": self._deferred.waiting,
            **self.peers.plain(),
            **self._changes.plain(),
            **self._moves.plain(),
            **self.statistics.plain(),
        }
