"""The journal port: what the shard engine's shell may ask of any journal, and what each answer promises.

Adapters: ``memory`` (the verified fake), ``sqlite`` (embedded default), ``postgres`` (clusters). One conformance suite
runs on all of them.
Every method blocks and is called from ONE thread, the journal's thread, except where it says otherwise. No adapter
decides anything about stock: it keeps bytes, numbers and fences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Header(NamedTuple):
    """What is fixed when a journal is made (but for ``timeline``, which a restore makes anew)."""

    cluster_id: str
    timeline: str
    format_version: int
    minimum_reader_version: int
    shard_count: int
    placement_version: int
    create_time_ms: int


class Record(NamedTuple):
    """One durable append of one shard: one row per shard and turn.

    ``number`` is gapless from 1 in the shard; events take sequences
    ``first_sequence … first_sequence + event_count - 1``, gapless from 1, and ``event_count`` may be 0. ``payload`` is
    ``codec.encode_groups``'s bytes: events with their causes.
    """

    shard: int
    number: int
    epoch: int
    first_sequence: int
    event_count: int
    time_ms: int
    payload: bytes


class ShardHead(NamedTuple):
    """Where a shard's journal ends: the fence compares all of it. ``sequence`` is that of the last event (0: none)."""

    shard: int
    epoch: int
    record_number: int
    sequence: int
    time_ms: int


class EntryRow(NamedTuple):
    """A dedupe entry or ended reservation that left memory; kept for the window behind ``find_entries``.

    ``key`` is unique. ``reservation_id`` not empty and different from the key's own: the row points at the row with key
    ``"r" US reservation_id``, which ``find_entries`` then returns as well. ``end_time_ms``: when its window began.
    """

    key: str
    shard: int
    reservation_id: str
    payload: bytes
    end_time_ms: int


class SnapshotSlice(NamedTuple):
    """A part of a shard's snapshot: entities encoded when the shard stood at ``sequence`` / ``record_number``."""

    shard: int
    snapshot_id: int
    slice_number: int
    sequence: int
    record_number: int
    payload: bytes


class Snapshot(NamedTuple):
    """A published snapshot. Recovery loads the slices and replays records after ``lowest_record_number``."""

    shard: int
    snapshot_id: int
    slice_count: int
    lowest_sequence: int
    highest_sequence: int
    lowest_record_number: int
    time_ms: int
    epoch: int


@dataclass(frozen=True, slots=True)
class JournalInfo:
    """What ``stockade journal info`` shows; sizes in bytes."""

    kind: str
    location: str
    header: Header
    heads: tuple[ShardHead, ...]
    record_count: int
    entry_count: int
    snapshot_count: int
    size_bytes: int
    free_bytes: int | None
    durability: str  # the setting as read back, e.g. "journal_mode=wal synchronous=full"


@dataclass(frozen=True, slots=True)
class CompactResult:
    """What a compaction removed."""

    records_dropped: int
    entries_dropped: int
    snapshots_dropped: int
    bytes_before: int
    bytes_after: int


class JournalError(Exception):
    """Any failure of the journal. After one on ``append`` the owner ends: no undo in memory, no second try."""


class JournalMissing(JournalError):
    """There is no journal where one was to be read; says where."""


class Fenced(JournalError):
    """Another owner took a shard (epoch or last record differ): nothing of this call was written."""


class JournalFull(JournalError):
    """No space: nothing of this call was written."""


class JournalDamaged(JournalError):
    """What is stored cannot be right (CRC, gap, pragma, header); says where. Refuse to serve."""


class JournalWentBack(JournalDamaged):
    """Records that were acknowledged are gone: the database failed over to a standby that lagged, or an old copy was put
    back. Nothing may be served from it: stop, and alert.
    """


class JournalLocked(JournalError):
    """Another process holds the journal; says who."""


class JournalMismatch(JournalError):
    """Cluster id, shard count, placement or reader version differ from what was asked; says which."""


class Journal(Protocol):
    """One shard journal for all shards of a cluster (embedded) or of a database (clusters)."""

    @property
    def header(self) -> Header: ...

    def take_over(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        """Commit epoch + 1 for every shard, durably, and only then say where each one's records end.

        The heads returned carry the new epoch. From here on any former owner's append raises ``Fenced``. ``Fenced``
        itself when somebody else took one of them over at the same time.
        """
        ...

    def append(self, records: Sequence[Record], entries: Sequence[EntryRow], read_heads: Sequence[ShardHead]) -> None:
        """Write all or nothing, durably, in one transaction; on return it is on stable storage.

        Each record must directly follow its shard's head (epoch equal, number = head + 1, first_sequence = head + 1),
        else ``Fenced`` (wrong epoch or number) and nothing is written. ``read_heads``: shards of the turn that were
        only read: their epoch and record number are compared as well. ``entries`` are upserted. Several records of one
        shard in one call are not allowed.
        """
        ...

    def check(self, heads: Sequence[ShardHead]) -> None:
        """Raise ``Fenced`` unless every shard still has that epoch. Ends a turn that appends nothing."""
        ...

    def heads(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        """Where these shards end now, whoever owns them; nothing is taken over. A shard that is not there is absent.

        With ``read``, ``snapshots`` and ``read_slices`` it is what somebody needs who follows a shard of another owner.
        """
        ...

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        """Up to ``limit`` records with number > ``after_number`` in order, CRC checked (``JournalDamaged``)."""
        ...

    def read_latest(self, shard: int, limit: int) -> list[Record]:
        """The last up to ``limit`` records, newest first."""
        ...

    def first_number(self, shard: int) -> int:
        """Number of the oldest record still kept (head's number + 1 when none is)."""
        ...

    def find_entries(self, keys: Sequence[str]) -> dict[str, EntryRow]:
        """Rows by key; where a row points at a reservation, that reservation's row too. Absent keys are absent."""
        ...

    def entry_keys(self, shards: Sequence[int] | None = None) -> Iterator[str]:
        """All keys in the entries table, to build the filter at start; with ``shards`` only the keys of those."""
        ...

    def write_slice(self, part: SnapshotSlice, epoch: int) -> None:
        """Store one slice (with a CRC); it counts only once its snapshot is published.

        ``Fenced`` unless the shard still has that epoch: a former owner's slices never get between its successor's.
        """
        ...

    def publish_snapshot(self, snapshot: Snapshot) -> None:
        """Make a snapshot usable; called only when ``highest_sequence`` is durable. Keeps the newest two per shard.

        ``Fenced`` unless the shard still has the snapshot's epoch.
        """
        ...

    def snapshots(self, shard: int) -> list[Snapshot]:
        """Published snapshots, newest first."""
        ...

    def read_slices(self, snapshot: Snapshot) -> list[SnapshotSlice]:
        """All slices; ``JournalDamaged`` when one is missing or its CRC is wrong: recovery then takes the older one."""
        ...

    def compact(
        self,
        records_before_ms: int,
        entries_before_ms: int,
        rows_max: int | None = None,
        shards: Sequence[int] | None = None,
    ) -> CompactResult:
        """Drop records older than that which BOTH kept snapshots of their shard cover, and entries whose window ended.

        At most ``rows_max`` rows a call, oldest first: under traffic, call it a little at a time until it drops none.
        ``shards``: of these only (a host's own).
        """
        ...

    def get_fact(self, name: str) -> bytes | None:
        """A small value of the whole cluster (who should own what), as it was last put; None when it never was."""
        ...

    def put_fact(self, name: str, value: bytes) -> None:
        """Replace that value, durably. Nobody is fenced: the last one who puts it wins."""
        ...

    def checkpoint(self) -> None:
        """Housekeeping on the journal's thread between turns (WAL checkpoint by size, witness)."""
        ...

    def free_bytes(self) -> int | None:
        """Free space where the journal grows; None when it has no bound."""
        ...

    def size_bytes(self) -> int: ...

    def wall_ms(self) -> int | None:
        """What the time is where the journal is kept, in Unix milliseconds; None where that is this machine."""
        ...

    def info(self) -> JournalInfo: ...

    def close(self) -> None: ...


class ReadableJournal(Journal, Protocol):
    """A journal that somebody looks at while others may write it."""

    def reading(self) -> AbstractContextManager[Any]:
        """Within it, all that is read is of one moment, or unchanged since then; nothing of it is dropped meanwhile."""
        ...

    def all_heads(self) -> list[ShardHead]: ...
