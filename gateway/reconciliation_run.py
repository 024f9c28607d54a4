"""One reconciliation under way: lines go to their shards a few at a time, answers are counted, unlisted keys are looked for.

Memory is bounded: nothing of a line stays but a hash, and the first findings and failures. It awaits the answers of a wave
before the next one, so gRPC's flow control stops the sender, and claims never wait behind more than a wave's lines.
What a line means is the shard's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from actors.domain.answers import ERROR
from actors.domain.commands import Verb
from actors.domain.outcomes import ErrorReason
from actors.domain.reconciliation_state import Counts
from actors.domain.reconciliation_views import LineView
from actors.domain.reconciliation_words import FindingKind, FindingState, LineProblem, UnlistedKeys
from gateway.config import (
    DEADLINE_MUTATION_MS_MAX,
    FAILED_LINES_KEPT_MAX,
    RECONCILIATION_LINES_MAX,
    RECONCILIATION_LINES_PER_ITEM,
    RECONCILIATION_LINES_UNDER_WAY_MAX,
    RECONCILIATION_PATIENCE_MS,
    RECONCILIATION_REST_SHARE,
    RECONCILIATION_RETRY_MS,
)
from gateway.errors import CallFailed, failure_of
from gateway.listed import Listed
from gateway.servicers.desk import Desk
from gateway.translate import reconciliation as translate
from gateway.translate.reconciliation import STOCK, Line, Wanted
from gateway.translate.reservations import wire_size
from stockade.v1 import reconciliation_service_pb2 as pb

LINE_BYTES = 400  # of one line in a frame, ids of full length included
AGAIN = frozenset(
    map(
        int,
        (ErrorReason.OVERLOADED, ErrorReason.SHARD_UNAVAILABLE, ErrorReason.WRONG_OWNER, ErrorReason.DEADLINE_EXCEEDED),
    )
)
BY_KIND = {
    FindingKind.TIMING: "timing",
    FindingKind.MISSED_EVENT_SUSPECTED: "missed_event_suspected",
    FindingKind.GENUINE_DRIFT: "genuine_drift",
}
BOOKED = (FindingState.BOOKED, FindingState.WOULD_BOOK)
QUARANTINED = (FindingState.QUARANTINED, FindingState.WOULD_QUARANTINE)


class TooDifferent(Exception):
    """More differences than wanted: it may be the wrong list."""


class ReconciliationRun:
    """Counts, findings and failures of one list so far."""

    def __init__(self, desk: Desk, wanted: Wanted, cause: Sequence[str], findings_kept_max: int) -> None:
        self._desk = desk
        self._wanted = wanted
        self._cause = cause
        self._findings_kept_max = findings_kept_max
        self._loop = asyncio.get_running_loop()
        self._listed = Listed()
        self._dispositions: set[int] = set()  # that the list is about,
        self._includes_picked = True  # and whether all its lines counted picked units as well
        self._counts = dict.fromkeys(Counts._fields, 0)
        self.findings: list[pb.Finding] = []
        self.failed: list[pb.FailedLine] = []

    @property
    def counts(self) -> Counts:
        """So far."""
        return Counts(**self._counts)

    def fail_line(self, index: int, description: str, problem: LineProblem | None = None) -> None:
        """A line that cannot be compared."""
        self._counts["lines"] += 1
        self._counts["failed"] += 1
        if len(self.failed) < FAILED_LINES_KEPT_MAX:
            number = int(problem or 0)
            self.failed.append(pb.FailedLine(line_index=index, problem=number, description=description))  # type: ignore[arg-type]

    async def compare(self, lines: Sequence[Line]) -> None:
        """Compare lines with the books. Raises CallFailed when a shard does not answer, TooDifferent."""
        kind = self._wanted.kind
        fresh = []
        if kind == STOCK:
            self._dispositions.update(line.body[1] for line in lines)
            self._includes_picked = self._includes_picked and all(line.body[3] for line in lines)
        for line in lines:
            if self._listed.add(translate.what_is_compared(kind, line.body)):
                fresh.append(line)
            else:
                twice = LineProblem.LISTED_TWICE
                self.fail_line(line.line_index, translate.PROBLEMS[twice], twice)
        if len(self._listed) > RECONCILIATION_LINES_MAX:
            raise CallFailed(
                ErrorReason.OVERLOADED, f"more than {RECONCILIATION_LINES_MAX:,} lines: send several lists"
            )
        fresh.sort(key=lambda line: line.shard)  # a wave for few shards costs a host less
        for start in range(0, len(fresh), RECONCILIATION_LINES_UNDER_WAY_MAX):
            began = self._loop.time()
            await self._wave(fresh[start : start + RECONCILIATION_LINES_UNDER_WAY_MAX])
            await asyncio.sleep((self._loop.time() - began) * RECONCILIATION_REST_SHARE)

    async def _wave(self, lines: Sequence[Line]) -> None:
        by_shard: dict[int, list[Line]] = {}
        for line in lines:
            by_shard.setdefault(line.shard, []).append(line)
        parts = [
            (shard, some[start : start + RECONCILIATION_LINES_PER_ITEM])
            for shard, some in by_shard.items()
            for start in range(0, len(some), RECONCILIATION_LINES_PER_ITEM)
        ]
        wanted = self._wanted
        head = [
            wanted.request_id,
            wanted.reconciliation_id or "dry-run",
            wanted.kind,
            list(wanted.header),
            wanted.dry_run,
        ]
        items = [
            self._item(Verb.RECONCILE_LINES, shard, [*head, [line.body for line in some]], len(some))
            for shard, some in parts
        ]
        for (_, some), payload in zip(parts, await self.ask(items), strict=True):
            results, position = payload
            for line, result in zip(some, results, strict=True):
                self._count(line, result, position[3])
        counts = self._counts
        if counts["lines"] - counts["matches"] - counts["failed"] - counts["timing"] > wanted.differences_max:
            raise TooDifferent

    def _item(self, verb: Verb, shard: int, body: list[Any], weight: int) -> list[Any]:
        return [int(verb), shard, 0, max(1, weight), self._cause, body]

    def _count(self, line: Line, result: Any, time_ms: int) -> None:
        if result == 0:
            self._counts["lines"] += 1
            self._counts["matches"] += 1
            return
        view = LineView(*result)
        if view.problem:
            problem = LineProblem(view.problem)
            self.fail_line(line.line_index, translate.PROBLEMS[problem], problem)
            return
        counts = self._counts
        counts["lines"] += 1
        counts[BY_KIND.get(FindingKind(view.kind), "other")] += 1
        counts["booked"] += view.state in BOOKED
        counts["quarantined"] += view.state in QUARANTINED
        if len(self.findings) < self._findings_kept_max:
            self.findings.append(translate.finding_of_line(self._wanted.kind, line, view, time_ms))

    async def compare_unlisted(self) -> None:
        """When the list is whole: what the books have and no line was about has quantity 0."""
        wanted = self._wanted
        if wanted.header.unlisted_keys != UnlistedKeys.COUNT_AS_ZERO:
            return
        async for shard, row in self._comparable():
            await self.compare([line for line in self._zeros(shard, row) if self._is_unlisted(line)])

    def _is_unlisted(self, line: Line) -> bool:
        return translate.what_is_compared(self._wanted.kind, line.body) not in self._listed

    def _zeros(self, shard: int, rows: Sequence[Sequence[Any]]) -> list[Line]:
        """A list that is not about damaged units says nothing about them; one of the shelf nothing about picked ones."""
        if self._wanted.kind == STOCK:
            return [
                Line(shard, [key, each, 0, self._includes_picked], -1)
                for key, dispositions in rows
                for each in dispositions
                if each in self._dispositions
            ]
        return [Line(shard, [*row, 0], -1) for row in rows]

    async def _comparable(self) -> AsyncIterator[tuple[int, Sequence[Sequence[Any]]]]:
        wanted = self._wanted
        for shard in range(self._desk.names.shard_count):
            place = 0
            while True:
                body = [wanted.warehouse_id, wanted.kind, place, RECONCILIATION_LINES_UNDER_WAY_MAX]
                ((rows, place),) = await self.ask([self._item(Verb.LIST_COMPARABLE, shard, body, 1)])
                if rows:
                    yield shard, rows
                if not place:
                    break

    async def ask(self, items: list[list[Any]]) -> list[Any]:
        """The payloads, in order. What was not done for now is tried again: every command is idempotent. Raises CallFailed."""
        payloads: list[Any] = [None] * len(items)
        left = list(range(len(items)))
        give_up = self._now() + RECONCILIATION_PATIENCE_MS
        while left:
            sent = [list(items[index]) for index in left]
            lines = sum(item[3] for item in sent)
            replies = await self._desk.hosts.ask(
                sent,
                deadline=self._now() + DEADLINE_MUTATION_MS_MAX,
                size=wire_size(LINE_BYTES * lines, len(sent), lines, self._cause),
                weight=lines,
                mutating=True,
            )
            again = []
            for index, reply in zip(left, replies, strict=True):
                if reply[0] != ERROR:
                    payloads[index] = reply[2]
                elif reply[1] in AGAIN and self._now() < give_up:
                    again.append(index)
                else:
                    raise failure_of(reply)
            left = again
            if left:
                await asyncio.sleep(RECONCILIATION_RETRY_MS / 1000)
        return payloads

    def _now(self) -> int:
        return int(self._loop.time() * 1000)
