"""The PostgreSQL journal: for clusters. Several hosts open it at once, each the owner of some shards; the fence is the row
of a shard, not a lock.

It owns the rows, the fence, what to do about an unknown commit, and noticing that records are gone. Which database it is
and whether it is the right one is ``postgres_open``; its tables are ``postgres_schema``; its connection and deadlines
are ``postgres_link``.

A connection that ended while nothing was asked is replaced. One that ends within a read is replaced and the read asked
again. One that ends within an append: ``postgres_settling``; unless all of it proves durable, nothing more is written.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from actors.journal import postgres_figures, postgres_settling, postgres_snapshots
from actors.journal.codec import entry_checksum, slice_checksum, snapshot_checksum
from actors.journal.port import (
    CompactResult,
    EntryRow,
    Fenced,
    Header,
    JournalDamaged,
    JournalError,
    JournalFull,
    JournalInfo,
    JournalWentBack,
    Record,
    ShardHead,
    Snapshot,
    SnapshotSlice,
)
from actors.journal.postgres_arrays import int4s, int8s, turn_arrays
from actors.journal.postgres_compaction import covered_numbers, drop_entries, drop_records, droppable, holding
from actors.journal.postgres_link import FENCED, Link, LinkLost, LinkOptions, ServerRefused, connect
from actors.journal.postgres_rows import RECORD, checked, owned_heads, sound
from actors.journal.postgres_schema import SCHEMA, read_header
from actors.journal.witness import WitnessFile

T = TypeVar("T")

SNAPSHOTS_KEPT = 2
ROWS_PER_DELETE = 2_000
KEYS_PER_READ = 10_000
BYTES_PER_READ_MAX = 64 * 1024 * 1024  # of slices that are held at once
DEADLOCK = "40P01"
TAKE_OVER_TRIES = 3

_HEAD = "shard, epoch, record_number, sequence, time_ms"
_APPEND = f"SELECT {SCHEMA}.append({', '.join(f'${number}' for number in range(1, 18))})".encode()
_CHECK = (
    f"SELECT count(*) FROM {SCHEMA}.shards AS head "
    "JOIN unnest($1::integer[], $2::bigint[], $3::bigint[]) AS one (shard, epoch, number) "
    "ON head.shard = one.shard AND head.epoch = one.epoch AND head.record_number >= one.number"
).encode()


class PostgresJournal:
    """A ``Journal`` in a PostgreSQL database. Make it with ``postgres_open``."""

    def __init__(
        self, link: Link, witness: WitnessFile | None = None, server: str = "", seen: Sequence[ShardHead] = ()
    ) -> None:
        """``witness``: where it is remembered how far this host's shards had come; ``server``: which server that was;
        ``seen``: how far they are known to have come already.
        """
        self._link = link
        self._witness = witness
        self._server = server
        self._header = read_header(link)
        self._known = {head.shard: head for head in seen}  # as far as they are known to be durable
        self._moment: dict[int, ShardHead] = {}  # where the shards stood when reading began
        self._failed = "it was opened to be read" if link.options.read_only else ""

    @property
    def header(self) -> Header:
        return self._header

    @property
    def options(self) -> LinkOptions:
        """Where it is and how long anything may take."""
        return self._link.options

    # --- owning and appending -----------------------------------------------------------------------------------------

    def take_over(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        self._writable()
        wanted = sorted(set(shards))
        for left in range(TAKE_OVER_TRIES - 1, -1, -1):
            try:
                epochs = self._bump_epochs(wanted)
                break
            except ServerRefused as refused:  # a former owner's append locks its rows in no order
                if refused.sqlstate != DEADLOCK or not left:
                    self._fail(refused, "the shards could not be taken over")
            except JournalFull:
                raise
            except LinkLost as lost:
                self._fail(lost, "the shards could not be taken over")
        taken = self._ask(lambda link: owned_heads(link, epochs))
        self._check_not_back(taken)
        self._known.update(taken)
        self._write_witness()
        return taken

    def _bump_epochs(self, shards: list[int]) -> dict[int, int]:
        """Committed, so durable, when this returns: the epochs that are ours."""
        link = self._live_link()
        with link.transaction():
            rows = link.rows(
                f"SELECT shard FROM {SCHEMA}.shards WHERE shard = ANY(%s) ORDER BY shard FOR UPDATE", (shards,)
            )
            if len(rows) != len(shards):
                raise JournalError(f"not all of the shards {shards} are in {self._where}")
            bump = f"UPDATE {SCHEMA}.shards SET epoch = epoch + 1 WHERE shard = ANY(%s) RETURNING shard, epoch"
            return dict(link.rows(bump, (shards,)))

    def append(self, records: Sequence[Record], entries: Sequence[EntryRow], read_heads: Sequence[ShardHead]) -> None:
        if len({record.shard for record in records}) != len(records):
            raise ValueError("several records of one shard in one append")
        self._writable()
        parameters = turn_arrays(records, entries, read_heads)
        try:
            self._live_link().call(b"append", _APPEND, parameters)
        except ServerRefused as refused:
            if refused.sqlstate == FENCED:
                raise self._fenced(records, read_heads) from refused
            self._fail(refused, "the append failed")
        except JournalFull:
            raise
        except LinkLost as lost:
            self._settle(records, lost)
        except JournalError as failed:
            self._fail(failed, "the append failed")
        known = self._known
        for shard, number, epoch, first, count, time_ms, _ in records:
            known[shard] = ShardHead(shard, epoch, number, first + count - 1, time_ms)

    def _settle(self, records: Sequence[Record], lost: LinkLost) -> None:
        """Return only when all of it is durable."""
        self._link.close()
        self._failed = "an append's outcome is unknown"
        self._write_witness()
        if not records:
            raise lost
        try:
            self._link = postgres_settling.settle(self.options, records)
        except JournalError as failed:
            self._failed = "an append failed"
            failed.add_note(f"the append's own fault: {lost}")
            raise
        self._failed = ""

    def _fenced(self, records: Sequence[Record], read_heads: Sequence[ShardHead]) -> JournalError:
        """Which of them it was, and whether it went back rather than on."""
        asked = [(record.shard, record.epoch, record.number - 1) for record in records]
        asked += [(head.shard, head.epoch, head.record_number) for head in read_heads]
        stored = self.heads([shard for shard, _, _ in asked])
        self._check_not_back(stored)
        for shard, epoch, number in asked:
            head = stored.get(shard)
            if head is None or (head.epoch, head.record_number) != (epoch, number):
                return Fenced(f"shard {shard} was at record {number} in epoch {epoch}; it is {head} now")
        return Fenced(f"a record's sequence does not follow its shard's: {stored}")

    def check(self, heads: Sequence[ShardHead]) -> None:
        known = self._known
        numbers = [known[head.shard].record_number if head.shard in known else 0 for head in heads]
        parameters = (
            int4s([head.shard for head in heads]),
            int8s([head.epoch for head in heads]),
            int8s(numbers),
        )
        if self._ask(lambda link: link.call(b"check", _CHECK, parameters)) == len(heads).to_bytes(8, "big"):
            return
        stored = self.heads([head.shard for head in heads])
        for head in heads:
            epoch = stored[head.shard].epoch if head.shard in stored else None
            if epoch != head.epoch:
                raise Fenced(f"shard {head.shard} was owned in epoch {head.epoch}; it is {epoch} now")
        self._check_not_back(stored)

    def _check_not_back(self, stored: dict[int, ShardHead]) -> None:
        """Raise ``JournalWentBack`` when one of our shards stands before where it is known to have stood."""
        for shard, known in self._known.items():
            head = stored.get(shard)
            if head is not None and (head.record_number < known.record_number or head.epoch < known.epoch):
                self._failed = "records are gone"
                self._write_witness()
                raise JournalWentBack(
                    f"{self._where} went back: shard {shard} stood at record {known.record_number}, epoch "
                    f"{known.epoch}, and stands at record {head.record_number}, epoch {head.epoch}. Did it fail over to "
                    "a standby that lagged, or was an old copy put back? What was acknowledged since is gone: stop, and "
                    "bring back the server that has it, or begin a new timeline"
                )

    # --- records ------------------------------------------------------------------------------------------------------

    def heads(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        rows = self._rows(f"SELECT {_HEAD} FROM {SCHEMA}.shards WHERE shard = ANY(%s)", (list(shards),))
        return {row[0]: ShardHead(*row) for row in rows}

    def all_heads(self) -> list[ShardHead]:
        """All shards' heads, by shard."""
        if self._moment:
            return list(self._moment.values())
        return [ShardHead(*row) for row in self._rows(f"SELECT {_HEAD} FROM {SCHEMA}.shards ORDER BY shard")]

    def read(self, shard: int, after_number: int, limit: int) -> list[Record]:
        rows = self._rows(
            f"SELECT {RECORD} FROM {SCHEMA}.records WHERE shard = %s AND number > %s ORDER BY number LIMIT %s",
            (shard, after_number, limit),
        )
        return [checked(row) for row in rows]

    def read_latest(self, shard: int, limit: int) -> list[Record]:
        rows = self._rows(
            f"SELECT {RECORD} FROM {SCHEMA}.records WHERE shard = %s ORDER BY number DESC LIMIT %s", (shard, limit)
        )
        return [checked(row) for row in rows]

    def first_number(self, shard: int) -> int:
        [(first,)] = self._rows(
            f"SELECT COALESCE((SELECT min(number) FROM {SCHEMA}.records WHERE shard = %s), "
            f"(SELECT record_number + 1 FROM {SCHEMA}.shards WHERE shard = %s))",
            (shard, shard),
        )
        return int(first)

    # --- entries ------------------------------------------------------------------------------------------------------

    def find_entries(self, keys: Sequence[str]) -> dict[str, EntryRow]:
        found = self._find(keys)
        pointed = {f"r\x1f{row.reservation_id}" for row in found.values() if row.reservation_id}
        return {**found, **self._find(sorted(pointed.difference(found)))}

    def _find(self, keys: Sequence[str]) -> dict[str, EntryRow]:
        if not keys:
            return {}
        found = {}
        for row in self._rows(
            "SELECT key, shard, reservation_id, payload, end_time_ms, checksum "
            f"FROM {SCHEMA}.entries WHERE key = ANY(%s)",
            (list(keys),),
        ):
            entry = EntryRow(*row[:-1])
            if not sound(entry_checksum, entry, row[-1]):
                raise JournalDamaged(f"{self._where}: the entry {entry.key!r} has a wrong CRC")
            found[entry.key] = entry
        return found

    def entry_keys(self, shards: Sequence[int] | None = None) -> Iterator[str]:
        last = ""
        some = "" if shards is None else "AND shard = ANY(%s)"
        scope = () if shards is None else (list(shards),)
        statement = f"SELECT key FROM {SCHEMA}.entries WHERE key > %s {some} ORDER BY key LIMIT %s"
        while rows := self._rows(statement, (last, *scope, KEYS_PER_READ)):
            yield from (key for (key,) in rows)
            last = rows[-1][0]

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def write_slice(self, part: SnapshotSlice, epoch: int) -> None:
        self._writable()
        with self._writing("a snapshot's slice could not be written") as link:
            postgres_snapshots.write_slice(link, part, epoch)

    def publish_snapshot(self, snapshot: Snapshot) -> None:
        self._writable()
        what = f"snapshot {snapshot.snapshot_id} of shard {snapshot.shard} could not be published"
        with self._writing(what) as link:
            postgres_snapshots.publish(link, snapshot, SNAPSHOTS_KEPT)

    def snapshots(self, shard: int) -> list[Snapshot]:
        rows = self._rows(
            "SELECT shard, snapshot_id, slice_count, lowest_sequence, highest_sequence, lowest_record_number, time_ms, "
            f"epoch, checksum FROM {SCHEMA}.snapshots WHERE shard = %s ORDER BY snapshot_id DESC",
            (shard,),
        )
        whole = [Snapshot(*row[:-1]) for row in rows if sound(snapshot_checksum, row[:-1], row[-1])]
        if not self._moment:
            return whole
        return [snapshot for snapshot in whole if snapshot.highest_sequence <= self._moment[shard].sequence]

    def read_slices(self, snapshot: Snapshot) -> list[SnapshotSlice]:
        where = f"{self._where}: snapshot {snapshot.snapshot_id} of shard {snapshot.shard}"
        rows = self._rows(
            "SELECT shard, snapshot_id, slice_number, sequence, record_number, payload, checksum "
            f"FROM {SCHEMA}.slices WHERE shard = %s AND snapshot_id = %s AND slice_number < %s ORDER BY slice_number",
            (snapshot.shard, snapshot.snapshot_id, snapshot.slice_count),
        )
        parts = []
        for number, row in enumerate(rows):
            part = SnapshotSlice(*row[:-1])
            if part.slice_number != number:
                raise JournalDamaged(f"{where}: slice {number} is missing")
            if not sound(slice_checksum, part, row[-1]):
                raise JournalDamaged(f"{where}: slice {number} has a wrong CRC")
            parts.append(part)
        if len(parts) != snapshot.slice_count:
            raise JournalDamaged(f"{where}: {len(parts)} of {snapshot.slice_count} slices are there")
        return parts

    # --- facts --------------------------------------------------------------------------------------------------------

    def get_fact(self, name: str) -> bytes | None:
        rows = self._rows(f"SELECT value FROM {SCHEMA}.facts WHERE name = %s", (name,))
        return rows[0][0] if rows else None

    def put_fact(self, name: str, value: bytes) -> None:
        self._writable()
        with self._writing(f"the fact {name!r} could not be put") as link:
            link.rows(
                f"INSERT INTO {SCHEMA}.facts VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, value),
            )

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def compact(
        self,
        records_before_ms: int,
        entries_before_ms: int,
        rows_max: int | None = None,
        shards: Sequence[int] | None = None,
    ) -> CompactResult:
        self._writable()
        before = self.size_bytes()
        scope = list(range(self._header.shard_count)) if shards is None else list(shards)
        numbers = self._ask(lambda link: covered_numbers(link, scope, SNAPSHOTS_KEPT))
        covered = {shard: number for shard, number in numbers.items() if len(self.snapshots(shard)) >= SNAPSHOTS_KEPT}
        records = entries = 0
        more = True
        while more:
            room = min(ROWS_PER_DELETE, rows_max - records - entries if rows_max is not None else ROWS_PER_DELETE)
            with self._writing("the journal could not be compacted") as link:
                free = droppable(link, scope)
                old_records = drop_records(link, covered, free, records_before_ms, room)
                old_entries = drop_entries(link, free, entries_before_ms, room - old_records)
            records += old_records
            entries += old_entries
            more = old_records + old_entries == room > 0
        return CompactResult(records, entries, 0, before, self.size_bytes())

    def checkpoint(self) -> None:
        """Remember how far it came; when nothing was asked for long, ask whether the server is still there."""
        self._writable()
        if time.monotonic() - self._link.used_s > self.options.deadline_ms / 2_000:
            self._check_not_back(self.heads(list(self._known)))
        if self._witness is not None and self._witness.is_due():
            self._write_witness()

    def free_bytes(self) -> int | None:
        """Nobody tells: the disk is the server's."""
        return None

    def wall_ms(self) -> int | None:
        return self._ask(postgres_figures.wall_ms)

    def size_bytes(self) -> int:
        return self._ask(postgres_figures.size_bytes)

    def info(self) -> JournalInfo:
        return self._ask(lambda link: postgres_figures.info(link, self._header, self.all_heads()))

    def close(self) -> None:
        """Write the witness, end the connection. Never raises."""
        if not self._failed:
            self._write_witness()
        self._failed = self._failed or "the journal is closed"
        self._link.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What is there now stays as it is. No transaction stays open: a long one would keep every former version of the
        table of shards, which each append would have to step over.
        """
        link = self._live_link()
        standby = link.rows("SELECT pg_is_in_recovery()") == [(True,)]
        with link.one_moment() if standby else holding(link, self._header.shard_count):
            self._moment = {head.shard: head for head in self.all_heads()}
            try:
                yield
            finally:
                self._moment = {}

    # --- plumbing -----------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return self._link.options.shown_url

    def _live_link(self) -> Link:
        """The connection; a new one when it has ended meanwhile, of a server on which nothing is gone."""
        if not self._link.is_alive():
            self._link.close()
            self._link = connect(self.options)
            rows = self._link.rows(f"SELECT {_HEAD} FROM {SCHEMA}.shards WHERE shard = ANY(%s)", (list(self._known),))
            self._check_not_back({row[0]: ShardHead(*row) for row in rows})
        return self._link

    def _ask(self, question: Callable[[Link], T]) -> T:
        """Of a read: asked once more on a new connection when the first one ends."""
        try:
            return question(self._live_link())
        except LinkLost:
            self._link.close()
        return question(self._live_link())

    def _rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._ask(lambda link: link.rows(statement, parameters))

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[Link]:
        """A transaction of several statements. Anything but a fence or a full disk ends this journal's writing."""
        try:
            link = self._live_link()
            with link.transaction():
                yield link
        except (ServerRefused, LinkLost) as error:
            self._fail(error, what)

    def _write_witness(self) -> None:
        if self._witness is not None and self._known:
            self._witness.write(self._header, list(self._known.values()), self._server)

    def _writable(self) -> None:
        if self._failed:
            raise JournalError(f"{self._failed}: nothing may be written any more")

    def _fail(self, error: JournalError, what: str) -> NoReturn:
        self._failed = what
        self._write_witness()
        raise type(error)(f"{what}: {error}", *error.args[1:]) if not isinstance(error, ServerRefused) else error
