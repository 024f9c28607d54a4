"""Who reads changes at this host, and when they are answered: long polls in front of the change log.

A poll is answered at once from the log when something is newer than its cursor, else when the next turn with changes is
durable, else after the time it is willing to wait, so that its reader knows how fresh it is. What is older than the log is read
from the journal's thread in bounded pieces, and gets its values from the live state behind the gate of the turn at hand: like
every answer it leaves only when what it saw is durable. A reader never makes a turn wait; one that falls behind reads from the
journal, and one that is older than what the journal keeps is told to begin anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Protocol

from actors.domain.answers import Reply, error, ok
from actors.domain.changes import with_values
from actors.domain.outcomes import ErrorReason
from actors.journal.port import Journal, JournalError
from actors.shard.change_catchup import CatchUp, Piece
from actors.shard.change_log import ChangeLog, Recorded, chunk_of
from actors.shard.engine import Engine, TurnResult
from actors.shard.host_config import HostConfig
from actors.shard.host_links import Batch
from actors.shard.journal_thread import JournalThread
from actors.shard.shapes import fits_read_changes

log = logging.getLogger(__name__)

FROM_OLDEST, FROM_NOW = -1, -2  # instead of a sequence, in a poll's cursor
WHOLE, RESYNC_TIMELINE, RESYNC_TOO_OLD, RESYNC_AHEAD = 0, 1, 2, 3  # a poll's result

Prepare = Callable[[], Callable[[], Reply]]  # called when a turn is applied; what it returns, when it is durable


class Shell(Protocol):
    """What the host does for the change feed."""

    @property
    def ended(self) -> bool: ...

    @property
    def applied_turns(self) -> int: ...

    @property
    def durable_turns(self) -> int: ...

    def tell_with_next_turn(self, batch: Batch, index: int, prepare: Prepare) -> None:
        """Answer with the next turn, behind its gate."""
        ...


class Poll:
    """One question for changes that is not answered yet."""

    __slots__ = ("asked_now", "batch", "cursor", "index", "received_ms", "timer", "weight_max", "whole")

    def __init__(self, batch: Batch, index: int, cursor: dict[int, int], weight_max: int, received_ms: int) -> None:
        self.batch = batch
        self.index = index
        self.cursor = cursor
        self.weight_max = weight_max
        self.received_ms = received_ms
        self.asked_now = {shard for shard, sequence in cursor.items() if sequence == FROM_NOW}  # told in any case
        self.timer: asyncio.TimerHandle | None = None
        self.whole = True  # False: it asks for a shard that is not here, so the answer is not as fresh as it could be

    def keep(self, shards: Container[int]) -> None:
        """Go on without the shards that are not here any more."""
        gone = [shard for shard in self.cursor if shard not in shards]
        for shard in gone:
            del self.cursor[shard]
            self.whole = False


class HostChanges:
    """The change feed of one host. ``shell``: the host; everything here runs on its loop."""

    def __init__(  # noqa: PLR0913  the parts of a host
        self,
        engine: Engine,
        journal: Journal,
        thread: JournalThread,
        loop: asyncio.AbstractEventLoop,
        config: HostConfig,
        shell: Shell,
        now_ms: Callable[[], int],
    ) -> None:
        self.log = ChangeLog(config.change_log_bytes_max)
        self.pieces_read = 0
        self._engine = engine
        self._thread = thread
        self._loop = loop
        self._config = config
        self._shell = shell
        self._now_ms = now_ms
        self._catch_up = CatchUp(journal)
        self._waiting: dict[Poll, None] = {}
        self._too_early: list[tuple[Poll, int]] = []
        self._polls = 0  # not answered yet
        self._asked_ms = 0
        self._answers = 0
        self._began_turn = 0
        self._durable_ms = 0

    # --- the host's turns ------------------------------------------------------------------------------------------------

    def applied(self, result: TurnResult) -> list[Recorded] | None:
        """A turn was applied: note what it changed, when somebody reads."""
        if not self.log.recording:
            return None
        if not self._polls and self._now_ms() - self._asked_ms > self._config.change_reader_silence_ms_max:
            self.log.end()
            return None
        return self.log.record(self._engine.books, result.records, result.groups)

    def durable(self, recorded: list[Recorded] | None, time_ms: int) -> None:
        """A turn is durable, and its answers have left: so may its changes."""
        self._durable_ms = time_ms
        if self._too_early and self._shell.durable_turns >= self._began_turn:
            early, self._too_early = self._too_early, []
            for poll, wait_ms in early:
                self._serve(poll, wait_ms)
        if recorded and self.log.publish(recorded):
            waiting, self._waiting = self._waiting, {}
            for poll in waiting:
                self._answer_from_log(poll)

    def attach(self, shard: int, sequence: int) -> None:
        """A shard is here from now on: it may be read from where its journal stood."""
        self.log.attach(shard, sequence)

    def detach(self, shard: int) -> None:
        """A shard is not here any more: who waits for it hears that at once, by an answer without it."""
        self.log.detach(shard)
        for poll in [poll for poll in self._waiting if shard in poll.cursor]:
            del self._waiting[poll]
            self._answer_from_log(poll)

    def stop(self) -> None:
        """The host stops: nobody waits any more, and nobody is answered."""
        for poll in self._waiting:
            if poll.timer is not None:
                poll.timer.cancel()
        self._waiting = {}

    # --- polls -------------------------------------------------------------------------------------------------------------

    def ask(self, batch: Batch, index: int, item: Sequence[Any]) -> None:
        """READ_CHANGES: body [timeline, [[shard, sequence], …], weight_max, wait_ms]."""
        if not fits_read_changes(item[5]):
            batch.answer(index, error(ErrorReason.INVALID_FIELD, "the item's body does not fit its verb"))
            return
        if self._polls >= self._config.change_polls_max:
            busy = error(ErrorReason.OVERLOADED, "too many read changes", self._config.overloaded_retry_ms)
            batch.answer(index, busy)
            return
        timeline, pairs, weight_max, wait_ms = item[5]
        if timeline and timeline != self._engine.timeline:
            batch.answer(index, ok([RESYNC_TIMELINE, self._engine.timeline, 0, 0, False, [], []]))
            return
        self._polls += 1
        self._asked_ms = now_ms = self._now_ms()
        if not self.log.recording:
            self._begin()
        shards = self._engine.books.shards
        cursor = {shard: sequence for shard, sequence in pairs if shard in shards}
        poll = Poll(batch, index, cursor, min(weight_max, self._config.change_weight_max), now_ms)
        poll.whole = len(cursor) == len(pairs)
        self._serve(poll, wait_ms)

    def _begin(self) -> None:
        self._began_turn = self._shell.applied_turns
        self.log.begin({shard.id: shard.sequence for shard in self._engine.books.shards.values()})

    def _serve(self, poll: Poll, wait_ms: int) -> None:
        if self._shell.durable_turns < self._began_turn:
            # what was applied before recording began is on its way into the journal: look when it is there
            self._too_early.append((poll, wait_ms))
            return
        rings = self.log.rings
        poll.keep(rings)
        for shard, sequence in poll.cursor.items():
            if sequence == FROM_NOW:
                poll.cursor[shard] = rings[shard].upto
        if any(sequence > rings[shard].upto for shard, sequence in poll.cursor.items()):
            # Behind a turn's gate: a former owner, whom somebody else has long overtaken, ends there instead of saying so.
            self._shell.tell_with_next_turn(poll.batch, poll.index, lambda: lambda: self._ahead(poll))
            return
        behind = [
            (shard, sequence, rings[shard].floor)
            for shard, sequence in poll.cursor.items()
            if sequence < rings[shard].floor
        ]
        if behind:
            self._read_back(poll, behind)
        elif wait_ms <= 0 or any(
            ring.chunks and ring.chunks[-1].last_sequence > poll.cursor[shard]
            for shard, ring in rings.items()
            if shard in poll.cursor
        ):
            self._answer_from_log(poll)
        else:
            self._waiting[poll] = None
            poll.timer = self._loop.call_later(wait_ms / 1000, self._waited, poll)

    def _ahead(self, poll: Poll) -> Reply:
        log.error("a reader of changes is ahead of this journal: was an old copy of it put back?")
        self._settle(poll)
        return ok([RESYNC_AHEAD, self._engine.timeline, 0, 0, False, [], []])

    def _waited(self, poll: Poll) -> None:
        """Nothing came: the answer says how fresh that is. It is a read of every shard, so it leaves behind a turn's gate."""
        if poll in self._waiting and not self._shell.ended:
            del self._waiting[poll]
            self._shell.tell_with_next_turn(poll.batch, poll.index, lambda: lambda: self._from_log(poll))

    def _answer_from_log(self, poll: Poll) -> None:
        poll.batch.answer(poll.index, self._from_log(poll))

    def _from_log(self, poll: Poll) -> Reply:
        """The answer out of the log: everything in it is durable."""
        self._settle(poll)
        rings = self.log.rings
        shards = self._engine.books.shards
        poll.keep(rings)
        weight_left = poll.weight_max
        told = []
        whole = poll.whole
        self._answers += 1
        for shard, sequence in _rotated(poll.cursor, self._answers):  # none waits behind a busy one for ever
            ring = rings[shard]
            if sequence < ring.floor:
                whole = False
                continue
            if ring.upto <= sequence and shard not in poll.asked_now:
                continue
            if weight_left <= 0:
                whole = False
                continue
            packed, upto, weight = ring.after(sequence, weight_left)
            weight_left -= weight
            whole = whole and upto == ring.upto
            told.append((shard, upto, packed, shards[shard].epoch))
        return self._told(poll, told, whole=whole)

    def _told(self, poll: Poll, shards: Sequence[Any], resync: Sequence[Any] = (), *, whole: bool = False) -> Reply:
        result = RESYNC_TOO_OLD if resync else WHOLE
        as_of_ms = self._durable_ms
        offset_ms = as_of_ms - poll.received_ms
        return ok([result, self._engine.timeline, as_of_ms, offset_ms, whole and as_of_ms > 0, shards, resync])

    def _settle(self, poll: Poll) -> None:
        self._polls -= 1
        self._asked_ms = self._now_ms()
        if poll.timer is not None:
            poll.timer.cancel()

    # --- what is older than the log ---------------------------------------------------------------------------------------

    def _read_back(self, poll: Poll, behind: Sequence[tuple[int, int, int]]) -> None:
        def read(pieces: Any, failed: BaseException | None) -> None:
            if failed is not None:
                self._settle(poll)
                if not isinstance(failed, JournalError):
                    log.error("changes could not be read back: %r", failed)
                away = error(ErrorReason.SHARD_UNAVAILABLE, "the journal is away", self._config.unavailable_retry_ms)
                poll.batch.answer(poll.index, away)
                return
            self.pieces_read += 1
            self._shell.tell_with_next_turn(poll.batch, poll.index, lambda: self._with_values(poll, pieces))

        self._thread.submit(lambda: self._catch_up.read(behind, poll.weight_max), read)

    def _with_values(self, poll: Poll, pieces: Sequence[Piece]) -> Callable[[], Reply]:
        """Old changes with the values of now; they leave when the turn that was just applied is durable."""
        books = self._engine.books
        told, resync = [], []
        for piece in pieces:
            if piece.gone_before:
                resync.append((piece.shard, piece.gone_before))
                continue
            shard = books.shards.get(piece.shard)
            if shard is None:
                continue  # it left while the journal was read
            packed = [chunk_of(with_values(books, shard, rows)).packed for rows in piece.records]
            told.append((piece.shard, piece.upto, packed, shard.epoch))
        self._settle(poll)
        return lambda: self._told(poll, told, resync)

    def plain(self) -> Mapping[str, Any]:
        """For a status answer."""
        return {
            "change_polls": self._polls,
            "change_log_bytes": self.log.bytes,
            "changes_published": self.log.published,
            "change_pieces_read": self.pieces_read,
        }


def _rotated(cursor: Mapping[int, int], start: int) -> list[tuple[int, int]]:
    places = list(cursor.items())
    start %= len(places) or 1
    return places[start:] + places[:start]
