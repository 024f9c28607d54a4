"""The journal in memory: a verified fake. It passes the same conformance suite as the adapters that keep things.

``MemoryStore`` is what would be on the disk; any number of ``MemoryJournal`` open it at once, as owners, former owners
and readers would, and the fence works between them. ``MemoryFaults`` makes the next calls fail as a disk would.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from actors.journal.codec import (
    FORMAT_VERSION,
    entry_checksum,
    record_checksum,
    slice_checksum,
    snapshot_checksum,
)
from actors.journal.port import (
    CompactResult,
    EntryRow,
    Fenced,
    Header,
    JournalDamaged,
    JournalError,
    JournalFull,
    JournalInfo,
    Record,
    ShardHead,
    Snapshot,
    SnapshotSlice,
)
from actors.journal.versions import MINIMUM_READER_VERSION

SNAPSHOTS_KEPT = 2


@dataclass(slots=True)
class MemoryFaults:
    """Switches for tests; each ``…_appends`` counts down as it strikes."""

    fail_appends: int = 0  # nothing is written, JournalError
    unknown_appends: int = 0  # all of it is written, and the caller gets JournalError all the same
    full: bool = False  # every write raises JournalFull
    free_bytes: int | None = None


@dataclass(slots=True)
class MemoryStore:
    """What a disk would hold. Rows carry their checksum beside them, so that tests can damage either."""

    header: Header
    heads: dict[int, ShardHead] = field(default_factory=dict)
    records: dict[int, list[tuple[Record, int]]] = field(default_factory=dict)
    entries: dict[str, tuple[EntryRow, int]] = field(default_factory=dict)
    slices: dict[tuple[int, int, int], tuple[SnapshotSlice, int]] = field(default_factory=dict)
    snapshots: dict[tuple[int, int], tuple[Snapshot, int]] = field(default_factory=dict)
    facts: dict[str, bytes] = field(default_factory=dict)
    faults: MemoryFaults = field(default_factory=MemoryFaults)

    def __post_init__(self) -> None:
        for shard in range(self.header.shard_count):
            self.heads.setdefault(shard, ShardHead(shard, 0, 0, 0, 0))
            self.records.setdefault(shard, [])


def memory_store(
    cluster_id: str, timeline: str, shard_count: int, placement_version: int, create_time_ms: int
) -> MemoryStore:
    """A new, empty store with the header that this version writes."""
    return MemoryStore(
        Header(
            cluster_id,
            timeline,
            FORMAT_VERSION,
            MINIMUM_READER_VERSION,
            shard_count,
            placement_version,
            create_time_ms,
        )
    )


class MemoryJournal:
    """A ``Journal`` over a ``MemoryStore``."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._failed = ""

    @property
    def header(self) -> Header:
        return self._store.header

    def take_over(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        self._writable()
        heads = self._store.heads
        for shard in shards:
            if shard not in heads:
                raise JournalError(f"there is no shard {shard}")
        for shard in shards:
            heads[shard] = heads[shard]._replace(epoch=heads[shard].epoch + 1)
        for shard in shards:
            self._check_head(heads[shard])
        return {shard: heads[shard] for shard in shards}

    def append(self, records: Sequence[Record], entries: Sequence[EntryRow], read_heads: Sequence[ShardHead]) -> None:
        store = self._store
        if len({record.shard for record in records}) != len(records):
            raise ValueError("several records of one shard in one append")
        self._writable()
        if store.faults.fail_appends:
            store.faults.fail_appends -= 1
            self._failed = "an append failed"
            raise JournalError("the append failed; nothing was written")
        for record in records:
            head = store.heads.get(record.shard)
            follows = (record.epoch, record.number - 1, record.first_sequence - 1)
            if head is None or (head.epoch, head.record_number, head.sequence) != follows:
                raise Fenced(
                    f"record {record.number} of shard {record.shard}, epoch {record.epoch}, does not follow {head}"
                )
        for read in read_heads:
            head = store.heads.get(read.shard)
            if head is None or (head.epoch, head.record_number) != (read.epoch, read.record_number):
                raise Fenced(f"shard {read.shard} was read at {read} and stands at {head}")
        for record in records:
            store.records[record.shard].append((record, record_checksum(record)))
            last_sequence = record.first_sequence + record.event_count - 1
            store.heads[record.shard] = ShardHead(
                record.shard, record.epoch, record.number, last_sequence, record.time_ms
            )
        for entry in entries:
            store.entries[entry.key] = (entry, entry_checksum(entry))
        if store.faults.unknown_appends:
            store.faults.unknown_appends -= 1
            self._failed = "an append's outcome is unknown"
            raise JournalError("the append's outcome is unknown")

    def check(self, heads: Sequence[ShardHead]) -> None:
        for head in heads:
            self._check_epoch(head.shard, head.epoch)

    def _check_epoch(self, shard: int, epoch: int) -> None:
        stored = self._store.heads.get(shard)
        if stored is None or stored.epoch != epoch:
            raise Fenced(f"shard {shard} was owned in epoch {epoch}; it is {stored and stored.epoch} now")

    def heads(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        return {shard: self._store.heads[shard] for shard in shards if shard in self._store.heads}

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        rows = self._store.records[shard]
        start = bisect_right(rows, after_number, key=lambda row: row[0].number)
        return [_checked(row) for row in rows[start : start + limit]]

    def read_latest(self, shard: int, limit: int) -> list[Record]:
        rows = self._store.records[shard]
        return [_checked(row) for row in rows[-limit:][::-1]] if limit > 0 else []

    def first_number(self, shard: int) -> int:
        rows = self._store.records[shard]
        return rows[0][0].number if rows else self._store.heads[shard].record_number + 1

    def find_entries(self, keys: Sequence[str]) -> dict[str, EntryRow]:
        found: dict[str, EntryRow] = {}
        for key in keys:
            self._find_entry(key, found)
        return found

    def _find_entry(self, key: str, found: dict[str, EntryRow]) -> None:
        row = self._store.entries.get(key)
        if row is None or key in found:
            return
        entry, checksum = row
        if entry_checksum(entry) != checksum:
            raise JournalDamaged(f"the entry {key!r} has a wrong CRC")
        found[key] = entry
        if entry.reservation_id:
            self._find_entry(f"r\x1f{entry.reservation_id}", found)

    def entry_keys(self, shards: Sequence[int] | None = None) -> Iterator[str]:
        wanted = None if shards is None else set(shards)
        rows = list(self._store.entries.items())  # a copy: another owner may write meanwhile
        yield from sorted(key for key, (entry, _) in rows if wanted is None or entry.shard in wanted)

    def write_slice(self, part: SnapshotSlice, epoch: int) -> None:
        self._writable()
        self._check_epoch(part.shard, epoch)
        if (part.shard, part.snapshot_id) not in self._store.snapshots:
            self._store.slices[part[:3]] = (part, slice_checksum(part))

    def publish_snapshot(self, snapshot: Snapshot) -> None:
        self._writable()
        self._check_epoch(snapshot.shard, snapshot.epoch)
        store = self._store
        shard, snapshot_id = snapshot.shard, snapshot.snapshot_id
        if (shard, snapshot_id) in store.snapshots:
            return
        missing = [number for number in range(snapshot.slice_count) if (shard, snapshot_id, number) not in store.slices]
        if missing:
            raise JournalError(f"snapshot {snapshot_id} of shard {shard} lacks slice {missing[0]}")
        store.snapshots[shard, snapshot_id] = (snapshot, snapshot_checksum(snapshot))
        kept = sorted(one for owner, one in store.snapshots if owner == shard)[-SNAPSHOTS_KEPT:]
        for owner, one in [key for key in store.snapshots if key[0] == shard and key[1] not in kept]:
            del store.snapshots[owner, one]
        for key in [key for key in store.slices if key[0] == shard and key[1] <= kept[-1] and key[1] not in kept]:
            del store.slices[key]

    def snapshots(self, shard: int) -> list[Snapshot]:
        rows = sorted((row for key, row in self._store.snapshots.items() if key[0] == shard), reverse=True)
        return [snapshot for snapshot, checksum in rows if snapshot_checksum(snapshot) == checksum]

    def read_slices(self, snapshot: Snapshot) -> list[SnapshotSlice]:
        parts = []
        for number in range(snapshot.slice_count):
            row = self._store.slices.get((snapshot.shard, snapshot.snapshot_id, number))
            if row is None:
                raise JournalDamaged(
                    f"snapshot {snapshot.snapshot_id} of shard {snapshot.shard}: slice {number} is missing"
                )
            if slice_checksum(row[0]) != row[1]:
                raise JournalDamaged(
                    f"snapshot {snapshot.snapshot_id} of shard {snapshot.shard}: slice {number} has a wrong CRC"
                )
            parts.append(row[0])
        return parts

    def compact(
        self,
        records_before_ms: int,
        entries_before_ms: int,
        rows_max: int | None = None,
        shards: Sequence[int] | None = None,
    ) -> CompactResult:
        store = self._store
        scope = set(range(store.header.shard_count)) if shards is None else set(shards)
        before = self.size_bytes()
        left = rows_max if rows_max is not None else len(store.entries) + sum(map(len, store.records.values()))
        records_dropped = 0
        for shard, rows in store.records.items():
            kept = self.snapshots(shard)
            if len(kept) < SNAPSHOTS_KEPT or shard not in scope:
                continue
            covered = min(snapshot.lowest_record_number for snapshot in kept)
            old = 0
            while (
                old < min(left, len(rows))
                and rows[old][0].number <= covered
                and rows[old][0].time_ms < records_before_ms
            ):
                old += 1
            del rows[:old]
            left -= old
            records_dropped += old
        keys = [
            key
            for key, (entry, _) in store.entries.items()
            if entry.end_time_ms < entries_before_ms and entry.shard in scope
        ][:left]
        for key in keys:
            del store.entries[key]
        return CompactResult(records_dropped, len(keys), 0, before, self.size_bytes())

    def get_fact(self, name: str) -> bytes | None:
        return self._store.facts.get(name)

    def put_fact(self, name: str, value: bytes) -> None:
        self._writable()
        self._store.facts[name] = value

    def checkpoint(self) -> None:
        """Nothing to keep house of."""

    def free_bytes(self) -> int | None:
        return 0 if self._store.faults.full else self._store.faults.free_bytes

    def wall_ms(self) -> int | None:
        return None

    def size_bytes(self) -> int:
        store = self._store
        return (
            sum(len(row[0].payload) for rows in store.records.values() for row in rows)
            + sum(len(row[0].payload) for row in store.entries.values())
            + sum(len(row[0].payload) for row in store.slices.values())
        )

    def info(self) -> JournalInfo:
        store = self._store
        return JournalInfo(
            kind="memory",
            location="memory",
            header=store.header,
            heads=tuple(store.heads[shard] for shard in sorted(store.heads)),
            record_count=sum(map(len, store.records.values())),
            entry_count=len(store.entries),
            snapshot_count=len(store.snapshots),
            size_bytes=self.size_bytes(),
            free_bytes=self.free_bytes(),
            durability="none: it ends with the process",
        )

    def close(self) -> None:
        """The store stays; another journal may open it."""
        self._failed = self._failed or "the journal is closed"

    def _writable(self) -> None:
        if self._failed:
            raise JournalError(f"{self._failed}: nothing may be written any more")
        if self._store.faults.full:
            raise JournalFull("there is no space; nothing was written")

    def _check_head(self, head: ShardHead) -> None:
        latest = self.read_latest(head.shard, 1)
        last = latest[0] if latest else None
        if last is not None and (last.number, last.first_sequence + last.event_count - 1) != (
            head.record_number,
            head.sequence,
        ):
            raise JournalDamaged(
                f"shard {head.shard}: its last record is {last.number}, its head says {head.record_number}"
            )


def _checked(row: tuple[Record, int]) -> Record:
    record, checksum = row
    if record_checksum(record) != checksum:
        raise JournalDamaged(f"shard {record.shard}: record {record.number} has a wrong CRC")
    return record


def copy_store(store: MemoryStore) -> MemoryStore:
    """Another disk with the same content: what a backup would hold, or a crash would leave."""
    return replace(
        store,
        heads=dict(store.heads),
        records={shard: list(rows) for shard, rows in store.records.items()},
        entries=dict(store.entries),
        slices=dict(store.slices),
        snapshots=dict(store.snapshots),
        facts=dict(store.facts),
        faults=MemoryFaults(),
    )
