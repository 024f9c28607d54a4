"""``verify``'s processes: starts them, reads the journal for them, and gathers what they found.

A thread a process answers its requests; one at a time reads the journal. The processes share a random ``PYTHONHASHSEED``:
the ledger's hashes must be the same in all of them, and nobody can have made a journal for them.
"""

from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from actors.journal.port import JournalDamaged, JournalError, ShardHead
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_round import Source

ENDS_WITHIN_S = 10


class Workers:
    """Judges rounds of shards in processes of their own."""

    def __init__(self, source: Source, heads: Sequence[ShardHead], whole_from_ms: int) -> None:
        self._source = source
        self._heads = sorted(heads, key=lambda head: -head.sequence)  # the longest first: they end at about one time
        self._whole_from_ms = whole_from_ms
        self._hash_seed = str(secrets.randbelow(2**32))
        self._reading = threading.Lock()

    def round(self, ledgers: Sequence[Ledger]) -> list[tuple[VerifyReport, Ledger]]:
        """A process a ledger, over all shards; what each found. JournalError when one does not come to its end."""
        heads = iter(self._heads)
        found: list[tuple[VerifyReport, Ledger]] = []
        problems: list[str] = []
        processes = [self._start() for _ in ledgers]
        threads = [
            threading.Thread(target=self._serve, args=(process, ledger, heads, found, problems), daemon=True)
            for process, ledger in zip(processes, ledgers, strict=True)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for process in processes:
                _end(process)
        if problems:
            raise JournalError(f"the journal could not be verified: {problems[0]}")
        return found

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "actors.journal.verify_worker"]
        environment = {**os.environ, "PYTHONHASHSEED": self._hash_seed}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def _serve(
        self,
        process: subprocess.Popen[bytes],
        ledger: Ledger,
        heads: Iterator[ShardHead],
        found: list[tuple[VerifyReport, Ledger]],
        problems: list[str],
    ) -> None:
        """Answer one process until it is done."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while True:
                what, *arguments = pickle.load(process.stdout)
                if what == "done":
                    found.append((arguments[0], arguments[1]))
                    return
                with self._reading:
                    answer = (ledger, self._whole_from_ms) if what == "task" else self._answer(what, arguments, heads)
                pickle.dump(answer, process.stdin, pickle.HIGHEST_PROTOCOL)
                process.stdin.flush()
        except EOFError:
            problems.append(f"a process of it ended with exit code {process.wait()}")
        except (OSError, JournalError, pickle.PickleError) as error:
            problems.append(str(error))

    def _answer(self, what: str, arguments: Sequence[Any], heads: Iterator[ShardHead]) -> Any:
        if what == "head":
            return next(heads, None)
        try:
            return getattr(self._source, what)(*arguments)
        except JournalDamaged as damage:
            return damage


def _end(process: subprocess.Popen[bytes]) -> None:
    """A process that is done, or that shall not go on: its pipes close, which ends it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                continue  # it has gone already
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
