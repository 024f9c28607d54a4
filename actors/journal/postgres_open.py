"""Opening a PostgreSQL journal: making it, and refusing one that is not the right one, or that is older than it was.

There is no lock: any number of hosts open it at once, and whose shard it is says the row of the shard. Beside each host a
witness remembers how far its shards had come and on which server: a database that is behind it lost records.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from actors.journal.port import Header, JournalDamaged, JournalWentBack, ShardHead
from actors.journal.postgres import PostgresJournal
from actors.journal.postgres_link import Link, LinkOptions, ServerRefused, connect
from actors.journal.postgres_schema import SCHEMA, applied, migrate, new_header, raise_reader, read_header
from actors.journal.sqlite_open import Wanted, check_wanted, random_id
from actors.journal.witness import Witness, WitnessFile, compare

log = logging.getLogger(__name__)

FORMER_TIMELINES = "former timelines"  # a fact
READER_DEADLINE_MS = 60_000  # somebody who looks at a large journal has more patience than a host

# What tells one server's history from another's: the identifier that initdb made, and the timeline that each promotion
# of a standby and each point-in-time restore counts up.
_SERVER = (
    "SELECT (SELECT system_identifier FROM pg_control_system())::text, "
    "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint"
)


def open_postgres(
    options: LinkOptions,
    wanted: Wanted,
    *,
    now_ms: int,
    directory: Path | None = None,
    new_id: Callable[[], str] = random_id,
) -> PostgresJournal:
    """Open the journal for writing; make it when the database has none and the witness knows of none.

    ``directory``: where this host's witness lies; None: it has none. Raises ``JournalMismatch`` (another cluster, shard
    count, placement or version), ``JournalWentBack`` (it is behind the witness), ``JournalDamaged`` (says where; also
    when the server does not keep what it acknowledges), ``JournalError`` (it cannot be reached).
    """
    witness = WitnessFile(directory) if directory is not None else None
    known = witness.read() if witness is not None else None
    link = connect(options)
    try:
        _refuse_missing(link, known)
        migrate(
            link,
            lambda: new_header(
                wanted.cluster_id or new_id(), new_id(), wanted.shard_count, wanted.placement_version, now_ms
            ),
        )
        server = server_identity(link)
        header = read_header(link)
        check_wanted(header, wanted, options.shown_url)
        raise_reader(link)
        if known is not None and known.timeline in former_timelines(link):
            log.warning("%s began another timeline than %s, of which this host knew", options.shown_url, known.timeline)
            known = None
        seen = known.heads.items() if known is not None else ()
        known_heads = [ShardHead(shard, epoch, number, 0, 0) for shard, (epoch, number) in seen]
        journal = PostgresJournal(link, witness, server, known_heads)
        heads = check_shards(journal)
        if known is not None:
            check_witness(known, journal.header, heads, server, options.shown_url)
        if known is None and witness is not None:
            witness.write(journal.header, [], server)
    except BaseException:
        link.close()
        raise
    return journal


def open_postgres_read_only(options: LinkOptions) -> PostgresJournal:
    """Open a journal to look at it, while hosts write; a standby will do. Every write raises ``JournalError``."""
    reader = LinkOptions(options.url, max(options.deadline_ms, READER_DEADLINE_MS), read_only=True)
    link = connect(reader, options.deadline_ms)  # patience with answers, not with a server that is not there
    try:
        journal = PostgresJournal(link)
        check_shards(journal)
    except BaseException:
        link.close()
        raise
    return journal


def begin_timeline(options: LinkOptions, *, new_id: Callable[[], str] = random_id) -> Header:
    """After a restore: this database goes on as another history. Every host that still runs is fenced by it."""
    link = connect(options)
    try:
        header = read_header(link)
        with link.transaction():
            link.rows(f"SELECT shard FROM {SCHEMA}.shards ORDER BY shard FOR UPDATE")
            link.rows(f"UPDATE {SCHEMA}.shards SET epoch = epoch + 1")
            former = [header.timeline, *former_timelines(link)]
            link.rows(f"UPDATE {SCHEMA}.header SET timeline = %s", (new_id(),))
            link.rows(
                f"INSERT INTO {SCHEMA}.facts VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (FORMER_TIMELINES, " ".join(former).encode()),
            )
        return read_header(link)
    finally:
        link.close()


def former_timelines(link: Link) -> list[str]:
    """Timelines that were ended on purpose, so that a witness of one of them is no accusation; the newest first."""
    rows = link.rows(f"SELECT value FROM {SCHEMA}.facts WHERE name = %s", (FORMER_TIMELINES,))
    return bytes(rows[0][0]).decode().split() if rows else []


def check_shards(journal: PostgresJournal) -> list[ShardHead]:
    """All heads; ``JournalDamaged`` unless the table of shards is whole."""
    heads = journal.all_heads()
    if [head.shard for head in heads] != list(range(journal.header.shard_count)):
        raise JournalDamaged(
            f"{journal.options.shown_url} has rows for {len(heads)} shards; its header says {journal.header.shard_count}"
        )
    return heads


def check_witness(witness: Witness, header: Header, heads: list[ShardHead], server: str, where: str) -> None:
    """Raise ``JournalWentBack`` when the database is behind what this host has seen of it, or another journal."""
    identifier, _, timeline = server.partition("/")
    known_identifier, _, known_timeline = witness.server.partition("/")
    same_server = identifier == known_identifier
    if same_server and known_timeline and int(timeline or 0) < int(known_timeline):
        raise JournalWentBack(
            f"{where} is on PostgreSQL's timeline {timeline}; this host has seen it on {known_timeline}: a former "
            "primary came back, or an old copy was put back"
        )
    try:
        compare(witness, header, heads, where)
    except JournalDamaged as damage:
        raise JournalWentBack(str(damage)) from damage
    if known_timeline and (not same_server or timeline != known_timeline):
        log.warning(
            "%s is another server, or was restored or failed over since (%s, then %s): nothing that this host knows of "
            "is missing; what was acknowledged in the last second before, only synchronous replication keeps",
            where,
            server,
            witness.server,
        )


def server_identity(link: Link) -> str:
    """The server's history: "identifier/timeline". Empty where the role may not ask."""
    try:
        [(identifier, timeline)] = link.rows(_SERVER)
    except ServerRefused:
        return ""
    return f"{identifier}/{timeline}"


def _refuse_missing(link: Link, known: Witness | None) -> None:
    if known is not None and not applied(link):
        raise JournalWentBack(
            f"the journal in {link.options.shown_url} is gone, but this host's witness knows of it (cluster "
            f"{known.cluster_id}): bring the database back, or remove the witness to begin with nothing"
        )


__all__ = ["begin_timeline", "open_postgres", "open_postgres_read_only"]
