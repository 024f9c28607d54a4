"""What a journal must hold and may hold, from what its owners were told: kept in plain lists, apart from the journal's code.

An operation that began and was not answered may have happened or not; of several that began one after the other, later ones only
together with earlier ones. ``done`` makes all of them certain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors.journal.port import EntryRow, Record, Snapshot, SnapshotSlice

SNAPSHOTS_KEPT = 2

Head = tuple[int, int, int]  # epoch, record number, sequence


class TakeOver(NamedTuple):
    """Every shard's epoch goes up by one."""


class Append(NamedTuple):
    """``digests``: shard → of its canonical state once this is applied."""

    records: Sequence[Record]
    entries: Sequence[EntryRow]
    digests: dict[int, bytes]


class Publish(NamedTuple):
    snapshot: Snapshot
    slices: Sequence[SnapshotSlice]


class Compact(NamedTuple):
    """Permission to drop; nothing has to be gone afterwards."""

    records_before_ms: int
    entries_before_ms: int


class Nothing(NamedTuple):
    """An operation after which the journal holds what it held: a slice, a checkpoint, a backup."""

    what: str


Operation = TakeOver | Append | Publish | Compact | Nothing


@dataclass(slots=True)
class View:
    """What a journal holds when a certain number of the unanswered operations happened."""

    heads: dict[int, Head]
    snapshots: dict[int, list[tuple[Snapshot, Sequence[SnapshotSlice]]]]  # newest first
    appends: list[Append] = field(default_factory=list)  # beyond the certain ones


class Expectation:
    """All that was acknowledged so far, and what is under way."""

    def __init__(self, shard_count: int) -> None:
        self.made = False  # whether opening has ever returned
        self.records: dict[int, list[Record]] = {shard: [] for shard in range(shard_count)}
        self.entries: dict[str, EntryRow] = {}
        self.digests: dict[tuple[int, int], bytes] = {}  # (shard, record number) → of the state after it
        self.backups: set[str] = set()
        self.pending: list[Operation] = []
        self._certain = View(dict.fromkeys(range(shard_count), (0, 0, 0)), {n: [] for n in range(shard_count)})
        self.may_drop_to = dict.fromkeys(range(shard_count), 0)  # shard → highest record number
        self.entries_may_end_ms = 0

    # --- what the owner notes -----------------------------------------------------------------------------------------

    def note(self, what: Sequence[Any]) -> None:
        """One mark of the log: ("begin", operation) · ("done",) · ("absent",) · ("made",) · ("backup", path)."""
        if what[0] == "begin":
            self.pending.append(what[1])
            if isinstance(what[1], Compact):
                self._permit(what[1])
        elif what[0] == "done":
            self._make_certain(len(self.pending))
        elif what[0] == "absent":  # the successor has seen that the last one did not happen
            self.pending.pop()
        elif what[0] == "made":
            self.made = True
        elif what[0] == "backup":
            self.backups.add(what[1])

    def settle(self, happened: int) -> None:
        """After a power cut it was seen how many of the unanswered operations happened."""
        self._make_certain(happened)
        self.pending.clear()

    def _make_certain(self, count: int) -> None:
        view = list(self.views())[count]
        for append in view.appends:
            for record in append.records:
                self.records[record.shard].append(record)
                self.digests[record.shard, record.number] = append.digests[record.shard]
            self.entries.update({entry.key: entry for entry in append.entries})
        self._certain = View(view.heads, view.snapshots)
        del self.pending[:count]

    def _permit(self, compact: Compact) -> None:
        """Records older than the bound that both newest snapshots cover, and entries that ended before theirs."""
        self.entries_may_end_ms = max(self.entries_may_end_ms, compact.entries_before_ms)
        for shard, kept in list(self.views())[-1].snapshots.items():
            if len(kept) == SNAPSHOTS_KEPT:
                limit = min(snapshot.lowest_record_number for snapshot, _ in kept)
                old = [one.number for one in self.records[shard][:limit] if one.time_ms < compact.records_before_ms]
                self.may_drop_to[shard] = max([self.may_drop_to[shard], *old[-1:]])

    # --- what may be found --------------------------------------------------------------------------------------------

    def views(self) -> Iterator[View]:
        """What may be found: nothing of what is pending, its first operation, its first two, …"""
        heads, snapshots = dict(self._certain.heads), dict(self._certain.snapshots)
        appends: list[Append] = []
        yield View(dict(heads), dict(snapshots))
        for operation in self.pending:
            if isinstance(operation, TakeOver):
                heads = {shard: (epoch + 1, number, last) for shard, (epoch, number, last) in heads.items()}
            elif isinstance(operation, Append):
                appends.append(operation)
                for record in operation.records:
                    last = record.first_sequence + record.event_count - 1
                    heads[record.shard] = (record.epoch, record.number, last)
            elif isinstance(operation, Publish):
                kept = snapshots[operation.snapshot.shard]
                if not kept or kept[0][0].snapshot_id != operation.snapshot.snapshot_id:  # a second time is none
                    snapshots[operation.snapshot.shard] = [operation[:], *kept][:SNAPSHOTS_KEPT]
            yield View(dict(heads), dict(snapshots), list(appends))


def digest_of(state: bytes) -> bytes:
    """Short for a canonical state."""
    return hashlib.blake2b(state, digest_size=16).digest()
