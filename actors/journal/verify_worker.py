"""A process that judges shards for ``verify``: ``python -m actors.journal.verify_worker``, started by ``verify_workers``.

It opens no file. It asks its parent for shards and for their records over standard input and output, so that all
processes judge one moment of one journal, whatever that is. It judges one round and ends.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from typing import IO, Any

from actors.journal.port import JournalDamaged, Record, ShardHead, Snapshot, SnapshotSlice
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_round import judge_shards


class ParentSource:
    """The journal, read by the parent. The next records are asked for before these are judged, so that nobody waits."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests = requests
        self._answers = answers
        self._asked: tuple[Any, ...] | None = None
        self._last_number = 0  # of the shard that is judged

    def heads(self) -> Iterator[ShardHead]:
        """Shards to judge, until there are none."""
        while (head := self._ask("head")) is not None:
            self._last_number = head.record_number
            yield head

    def first_number(self, shard: int) -> int:
        number: int = self._ask("first_number", shard)
        return number

    def snapshots(self, shard: int) -> list[Snapshot]:
        snapshots: list[Snapshot] = self._ask("snapshots", shard)
        return snapshots

    def read_slices(self, snapshot: Snapshot) -> list[SnapshotSlice]:
        slices: list[SnapshotSlice] = self._ask("read_slices", snapshot)
        return slices

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        records: list[Record] = self._ask("read", shard, after_number, limit)
        if records and records[-1].number < self._last_number:
            number = records[-1].number
            self._send("read", shard, number, min(limit, self._last_number - number))
        return records

    def _ask(self, *request: Any) -> Any:
        if self._asked is not None and self._asked[:3] != request[:3]:
            self._receive()  # what was asked for ahead is not what is wanted; how many records they are does not matter
        if self._asked is None:
            self._send(*request)
        answer = self._receive()
        if isinstance(answer, JournalDamaged):
            raise answer
        return answer

    def _send(self, *request: Any) -> None:
        pickle.dump(request, self._requests, pickle.HIGHEST_PROTOCOL)
        self._requests.flush()
        self._asked = request

    def _receive(self) -> Any:
        self._asked = None
        return pickle.load(self._answers)

    def task(self) -> tuple[Ledger, int]:
        """The books to write in, and the time after which all shards are judged wholly."""
        ledger, whole_from_ms = self._ask("task")
        return ledger, whole_from_ms

    def done(self, report: VerifyReport, ledger: Ledger) -> None:
        """Hand over what was found."""
        self._send("done", report, ledger)


def main() -> int:
    """Judge until the parent has no more shards. 1 when the parent has gone or wants no more."""
    answers = os.fdopen(os.dup(0), "rb")
    requests = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not print into the pipe
    source = ParentSource(requests, answers)
    try:
        ledger, whole_from_ms = source.task()
        report = VerifyReport()
        judge_shards(source, source.heads(), report, ledger, whole_from_ms)
        source.done(report, ledger)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
