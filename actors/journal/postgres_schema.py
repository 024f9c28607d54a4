"""The PostgreSQL journal's schema: its numbered migrations, its header, and the function by which an append is one statement.

Migrations go forward only, each in a transaction of its own under one advisory lock, so hosts that start together do not
meet in them. A schema with a migration that this version does not know is refused, by the migration's name. It knows
nothing of what the rows mean (``postgres``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg

from actors.journal.codec import FORMAT_VERSION
from actors.journal.port import Header, JournalDamaged, JournalMismatch, JournalMissing
from actors.journal.postgres_link import FENCED, Link
from actors.journal.versions import MINIMUM_READER_VERSION, check_reader

SCHEMA = "stockade_journal"
LOCK_KEY = 0x53544B44  # "STKD": of the advisory lock under which the schema is changed


class Migration(NamedTuple):
    """One step. ``statements`` are never changed once released: a later step changes what they made."""

    version: int
    name: str
    statements: str


# Payloads stay as they are: they hardly shrink, and compressing them costs more than writing them. The table of shards
# has a free half page, so that its rows, changed by every append, find room beside themselves without touching an index.
_TABLES = f"""
CREATE TABLE {SCHEMA}.header (
    id integer PRIMARY KEY CHECK (id = 1),
    cluster_id text NOT NULL, timeline text NOT NULL, format_version integer NOT NULL,
    minimum_reader_version integer NOT NULL, shard_count integer NOT NULL, placement_version integer NOT NULL,
    create_time_ms bigint NOT NULL
);
CREATE TABLE {SCHEMA}.shards (
    shard integer PRIMARY KEY, epoch bigint NOT NULL, record_number bigint NOT NULL, sequence bigint NOT NULL,
    time_ms bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE TABLE {SCHEMA}.records (
    shard integer NOT NULL, number bigint NOT NULL, epoch bigint NOT NULL, first_sequence bigint NOT NULL,
    event_count bigint NOT NULL, time_ms bigint NOT NULL, checksum bigint NOT NULL, payload bytea NOT NULL,
    PRIMARY KEY (shard, number)
) WITH (toast_tuple_target = 8160);
ALTER TABLE {SCHEMA}.records ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE {SCHEMA}.entries (
    key text COLLATE "C" PRIMARY KEY, shard integer NOT NULL, reservation_id text NOT NULL, end_time_ms bigint NOT NULL,
    checksum bigint NOT NULL, payload bytea NOT NULL
);
ALTER TABLE {SCHEMA}.entries ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX entries_by_end ON {SCHEMA}.entries (end_time_ms);
CREATE TABLE {SCHEMA}.snapshots (
    shard integer NOT NULL, snapshot_id bigint NOT NULL, slice_count bigint NOT NULL, lowest_sequence bigint NOT NULL,
    highest_sequence bigint NOT NULL, lowest_record_number bigint NOT NULL, time_ms bigint NOT NULL,
    epoch bigint NOT NULL, checksum bigint NOT NULL, PRIMARY KEY (shard, snapshot_id)
);
CREATE TABLE {SCHEMA}.slices (
    shard integer NOT NULL, snapshot_id bigint NOT NULL, slice_number bigint NOT NULL, epoch bigint NOT NULL,
    sequence bigint NOT NULL, record_number bigint NOT NULL, checksum bigint NOT NULL, payload bytea NOT NULL,
    PRIMARY KEY (shard, snapshot_id, slice_number)
);
ALTER TABLE {SCHEMA}.slices ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE TABLE {SCHEMA}.facts (name text COLLATE "C" PRIMARY KEY, value bytea NOT NULL);
"""

# The append: compare and advance every shard of the turn, then insert; any shard that is not where it should be raises,
# and the statement, which is the transaction, leaves nothing. All rows are locked first, in the order in which a takeover
# locks them: they would wait for each other otherwise. Rows only read are locked too: nobody takes them over before our
# commit. Each statement sees what was committed before it began, so what is compared is what the lock holds.
_APPEND = f"""
CREATE FUNCTION {SCHEMA}.append(
    shards integer[], numbers bigint[], epochs bigint[], first_sequences bigint[], event_counts bigint[],
    times_ms bigint[], checksums bigint[], payloads bytea[],
    read_shards integer[], read_epochs bigint[], read_numbers bigint[],
    keys text[], key_shards integer[], reservation_ids text[], ends_ms bigint[], entry_checksums bigint[],
    entry_payloads bytea[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $append$
DECLARE
    touched bigint;
BEGIN
    IF cardinality(shards) > 1 OR cardinality(read_shards) > 0 THEN
        PERFORM 1 FROM {SCHEMA}.shards AS head WHERE head.shard = ANY (shards || read_shards)
        ORDER BY head.shard FOR UPDATE;
    END IF;
    UPDATE {SCHEMA}.shards AS head
    SET record_number = one.number, sequence = one.first_sequence + one.event_count - 1, time_ms = one.time_ms
    FROM unnest(shards, numbers, epochs, first_sequences, event_counts, times_ms)
        AS one (shard, number, epoch, first_sequence, event_count, time_ms)
    WHERE head.shard = one.shard AND head.epoch = one.epoch AND head.record_number = one.number - 1
        AND head.sequence = one.first_sequence - 1;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> cardinality(shards) THEN
        RAISE EXCEPTION 'a shard is not where its owner left it' USING ERRCODE = '{FENCED}';
    END IF;
    IF cardinality(read_shards) > 0 THEN
        PERFORM 1 FROM {SCHEMA}.shards AS head
        JOIN unnest(read_shards, read_epochs, read_numbers) AS one (shard, epoch, number)
            ON head.shard = one.shard AND head.epoch = one.epoch AND head.record_number = one.number;
        GET DIAGNOSTICS touched = ROW_COUNT;
        IF touched <> cardinality(read_shards) THEN
            RAISE EXCEPTION 'a shard is not where it was read' USING ERRCODE = '{FENCED}';
        END IF;
    END IF;
    INSERT INTO {SCHEMA}.records (shard, number, epoch, first_sequence, event_count, time_ms, checksum, payload)
    SELECT * FROM unnest(shards, numbers, epochs, first_sequences, event_counts, times_ms, checksums, payloads);
    IF cardinality(keys) > 0 THEN
        INSERT INTO {SCHEMA}.entries AS stored (key, shard, reservation_id, end_time_ms, checksum, payload)
        SELECT * FROM unnest(keys, key_shards, reservation_ids, ends_ms, entry_checksums, entry_payloads)
        ON CONFLICT (key) DO UPDATE SET shard = excluded.shard, reservation_id = excluded.reservation_id,
            end_time_ms = excluded.end_time_ms, checksum = excluded.checksum, payload = excluded.payload;
    END IF;
END
$append$;
"""

MIGRATIONS = (Migration(1, "journal", _TABLES + _APPEND),)

_HEADER = (
    "SELECT cluster_id, timeline, format_version, minimum_reader_version, shard_count, placement_version, "
    f"create_time_ms FROM {SCHEMA}.header"
)


def migrate(link: Link, make_header: Callable[[], Header] | None) -> None:
    """Bring the schema to this version. An empty one is made only when there is a header for it (``JournalMissing``).

    Several hosts may do so at once. Raises ``JournalMismatch`` for a schema of a newer version, named by its migrations.
    """
    with link.transaction() as connection:
        connection.execute(b"SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)")
        connection.execute(b"SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        done = applied(link)
        if not done and make_header is None:
            raise JournalMissing(f"there is no journal in {link.options.shown_url}")
        if not done:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}".encode())
            connection.execute(
                f"CREATE TABLE {SCHEMA}.schema_versions (version integer PRIMARY KEY, name text NOT NULL, "
                "applied_time timestamptz NOT NULL DEFAULT now())".encode()
            )
        for migration in MIGRATIONS:
            if migration.version not in done:
                connection.execute(migration.statements.encode())
                connection.execute(
                    f"INSERT INTO {SCHEMA}.schema_versions (version, name) VALUES (%s, %s)".encode(),
                    (migration.version, migration.name),
                )
        if not done and make_header is not None:
            write_header(connection, make_header())


def write_header(connection: psycopg.Connection[tuple[Any, ...]], header: Header) -> None:
    """The header of a new journal, and a row for each of its shards."""
    connection.execute(f"INSERT INTO {SCHEMA}.header VALUES (1, %s, %s, %s, %s, %s, %s, %s)".encode(), tuple(header))
    connection.execute(
        f"INSERT INTO {SCHEMA}.shards SELECT shard, 0, 0, 0, 0 FROM generate_series(0, %s - 1) AS shard".encode(),
        (header.shard_count,),
    )


def applied(link: Link) -> dict[int, str]:
    """Migrations that were done, by number; none: there is no journal. ``JournalMismatch`` when some are not known."""
    if link.rows("SELECT to_regclass(%s)::text", (f"{SCHEMA}.schema_versions",)) == [(None,)]:
        return {}
    done = dict(link.rows(f"SELECT version, name FROM {SCHEMA}.schema_versions ORDER BY version"))
    unknown = {version: name for version, name in done.items() if version > MIGRATIONS[-1].version}
    if unknown:
        names = ", ".join(f"{version} ({name})" for version, name in unknown.items())
        raise JournalMismatch(
            f"{link.options.shown_url} was migrated by a newer version: migration {names}; this version knows up to "
            f"{MIGRATIONS[-1].version} ({MIGRATIONS[-1].name})"
        )
    return done


def read_header(link: Link) -> Header:
    """The header; ``JournalMissing``, or ``JournalMismatch`` when this version must not read the journal."""
    where = link.options.shown_url
    if not applied(link):
        raise JournalMissing(f"there is no journal in {where}")
    rows = link.rows(_HEADER)
    if len(rows) != 1:
        raise JournalDamaged(f"{where} has {len(rows)} headers")
    header = Header(*rows[0])
    check_reader(header, where)
    return header


def raise_reader(link: Link) -> None:
    """Before this version writes anything: from now on the journal needs a reader that understands it."""
    link.rows(
        f"UPDATE {SCHEMA}.header SET minimum_reader_version = %s WHERE minimum_reader_version < %s",
        (MINIMUM_READER_VERSION, MINIMUM_READER_VERSION),
    )


def new_header(cluster_id: str, timeline: str, shard_count: int, placement_version: int, create_time_ms: int) -> Header:
    """The header that this version writes."""
    return Header(
        cluster_id,
        timeline,
        FORMAT_VERSION,
        MINIMUM_READER_VERSION,
        shard_count,
        placement_version,
        create_time_ms,
    )
