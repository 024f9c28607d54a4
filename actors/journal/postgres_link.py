"""One connection to PostgreSQL with a deadline on everything that it is asked, and what must hold of the server behind it.

Owns how long anything may take, whether an outcome is known (``LinkLost`` says that it is not), and that the server is
one that keeps what it acknowledges. What is asked is its callers' business. Passwords never leave it: every message goes
through ``without_password``.

The path of an append does not go through psycopg's cursors but through its libpq wrapper (``psycopg.pq``): a prepared
statement, parameters in binary, one message out and one back.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.abc import PQGen

from actors.journal.database_url import shown, without_password
from actors.journal.port import JournalDamaged, JournalError, JournalFull

T = TypeVar("T")

APPLICATION_NAME = "stockade"
DEADLINE_MS = 5_000
CONNECT_S_MIN = 2  # libpq takes nothing less
RETRY_PAUSE_S = 0.05
IDLE_IN_TRANSACTION_MS = 60_000  # a host that stands still in a transaction must not hold its locks for ever
BINARY = pq.Format.BINARY
COMMIT_WARNING = "WARNING"
FAREWELLS = ("FATAL", "PANIC")

# SQLSTATEs that say something of their own; ``FENCED`` is raised by our functions in the database
FENCED = "SK001"
NO_SPACE = {"53100"}
DAMAGED = {"XX001", "XX002"}
NOT_YET = {"57P03", "57P01", "57P02", "53300"}  # starting up, shutting down, crashed, too many connections

CHECKED_SETTINGS = ("synchronous_commit", "fsync", "full_page_writes")


class LinkLost(JournalError):
    """The connection ended, or the deadline passed, before the answer came: whether it was done is not known."""


class ServerRefused(JournalError):
    """The server said no, and so nothing of it was done. ``sqlstate``: PostgreSQL's five letters."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How to reach a database. ``url`` may hold a password; ``read_only``: also a standby will do, nothing is written."""

    url: str
    deadline_ms: int = DEADLINE_MS
    allow_unsafe_durability: bool = False
    read_only: bool = False

    @property
    def shown_url(self) -> str:
        return shown(self.url)

    def __repr__(self) -> str:
        return f"LinkOptions({self.shown_url})"


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """psycopg's connection, but each wait for the server has an end."""

    deadline_s = DEADLINE_MS / 1000

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(gen, interval, self.deadline_s if timeout is None else timeout)


class Link:
    """A connection. Everything blocks, and raises the port's errors."""

    def __init__(self, options: LinkOptions, connection: _Connection) -> None:
        self.options = options
        self._connection = connection
        self._pgconn = connection.pgconn
        self._prepared: set[bytes] = set()
        self._warnings: list[str] = []
        self._told_to_go = False
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self.used_s = time.monotonic()
        connection.add_notice_handler(self._notice)

    @property
    def connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """psycopg's own, for what takes a transaction of several statements."""
        return self._connection

    def is_alive(self) -> bool:
        """Whether nothing says that it ended; costs a microsecond, asks nobody."""
        pgconn = self._pgconn
        try:
            while pgconn.status == pq.ConnStatus.OK and not self._told_to_go and self._poll.poll(0):
                pgconn.consume_input()  # its end, the server's farewell before it, or a notice
                pgconn.is_busy()  # reads what came
        except psycopg.Error:
            return False
        return pgconn.status == pq.ConnStatus.OK and not self._told_to_go

    def call(self, name: bytes, statement: bytes, parameters: Sequence[bytes]) -> bytes | None:
        """Run a prepared statement in a transaction of its own: one message out, one back. The first value, in binary.

        ``LinkLost``: it may have been committed or not. ``ServerRefused``: it was not.
        """
        pgconn = self._pgconn
        until = time.monotonic() + self.options.deadline_ms / 1000
        self._warnings.clear()
        try:
            if name not in self._prepared:
                self._finish(pgconn.send_prepare, (name, statement), until)
                self._prepared.add(name)
            formats = [BINARY] * len(parameters)
            value = self._finish(pgconn.send_query_prepared, (name, parameters, formats, BINARY), until)
        except psycopg.Error as error:
            raise LinkLost(self._text(error)) from error
        if self._warnings:
            raise LinkLost(f"{self.options.shown_url} answered with a warning: {'; '.join(self._warnings)}")
        return value

    def _finish(self, send: Any, arguments: tuple[Any, ...], until: float) -> bytes | None:
        pgconn = self._pgconn
        send(*arguments)
        descriptor = pgconn.socket
        while pgconn.flush():
            if not _writable(descriptor, until):
                raise psycopg.OperationalError(self._late())
            pgconn.consume_input()
        refused: JournalError | None = None
        value: bytes | None = None
        while True:
            while pgconn.is_busy():
                left_ms = (until - time.monotonic()) * 1000
                if left_ms <= 0 or not self._poll.poll(left_ms):
                    raise psycopg.OperationalError(self._late())
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                text = result.get_error_message("utf-8").strip()
                if not state or state.startswith("08") or state in NOT_YET:
                    raise psycopg.OperationalError(text)
                refused = _refusal(f"{self.options.shown_url}: {self._text(text)}", state)
            elif result.ntuples:
                value = result.get_value(0, 0)
        self.used_s = time.monotonic()
        if refused is not None:
            raise refused
        return value

    def _late(self) -> str:
        return f"no answer within {self.options.deadline_ms} ms"

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query, or of a statement that returns some, in binary."""
        with self.translated():
            cursor = self._connection.cursor(binary=True)
            cursor.execute(statement.encode(), parameters or None, prepare=True)
            found = cursor.fetchall() if cursor.description else []
        self.used_s = time.monotonic()
        return found

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Several statements, all or nothing."""
        with self.translated(), self._connection.transaction():
            yield self._connection
        self.used_s = time.monotonic()

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """Everything read within it is of one moment."""
        with self.transaction() as connection:
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """psycopg's errors as the port's. Afterwards nothing is asked of a connection whose answer is still on its way."""
        try:
            yield
        except psycopg.Error as error:
            failure = translated(error, self.options)
            if isinstance(failure, LinkLost):
                self.close()
            raise failure from error

    def close(self) -> None:
        """End it; never raises."""
        with contextlib.suppress(psycopg.Error, OSError):
            self._connection.close()

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """A commit that was not replicated as it should be comes as a success with a warning: that is no success."""
        self._told_to_go |= notice.severity_nonlocalized in FAREWELLS
        if notice.severity_nonlocalized == COMMIT_WARNING:
            detail = f" ({notice.message_detail})" if notice.message_detail else ""
            self._warnings.append(self._text(f"{notice.message_primary}{detail}"))

    def _text(self, error: object) -> str:
        return _told(error, self.options)


def connect(options: LinkOptions, within_ms: int | None = None) -> Link:
    """A new connection, its server checked. Tries until the deadline (or ``within_ms``) while the server starts or cannot be
    reached.

    ``LinkLost`` when it could not be had; ``JournalDamaged`` when the server does not keep what it acknowledges.
    """
    until = time.monotonic() + (options.deadline_ms if within_ms is None else within_ms) / 1000
    while True:
        try:
            return _connect_once(options, max(CONNECT_S_MIN, math.ceil(until - time.monotonic())))
        except psycopg.Error as error:
            again = not isinstance(error, psycopg.OperationalError) or error.sqlstate not in {None, *NOT_YET}
            if again or time.monotonic() + RETRY_PAUSE_S > until:
                raise LinkLost(f"{options.shown_url} cannot be reached: {_told(error, options)}") from error
        time.sleep(RETRY_PAUSE_S)


def _connect_once(options: LinkOptions, within_s: int) -> Link:
    deadline_ms = options.deadline_ms
    attributes = "any" if options.read_only else "read-write"
    connection = _Connection.connect(
        options.url,
        autocommit=True,
        **{
            "application_name": APPLICATION_NAME,
            "target_session_attrs": attributes,
            "gssencmode": "disable",  # asked for first by default: a round trip for nothing
            **_given(options.url, ("application_name", "target_session_attrs", "gssencmode")),
            "connect_timeout": within_s,
            "keepalives": 1,
            "keepalives_idle": max(1, deadline_ms // 2_000),
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "tcp_user_timeout": deadline_ms,
            "client_encoding": "utf8",
        },
    )
    connection.deadline_s = deadline_ms / 1000
    link = Link(options, connection)
    try:
        _prepare_session(link)
    except BaseException:
        link.close()
        raise
    return link


def _given(url: str, names: Sequence[str]) -> dict[str, Any]:
    """What the URL itself says of these parameters: it wins."""
    found = psycopg.conninfo.conninfo_to_dict(url)
    return {name: found[name] for name in names if name in found}


def _prepare_session(link: Link) -> None:
    """Bound what the server may take for a statement, and read back what durability rests on."""
    options = link.options
    limits = {
        "statement_timeout": options.deadline_ms,
        "lock_timeout": options.deadline_ms,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MS,
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "on" if options.read_only else "off",
        "search_path": "pg_catalog",
        "lc_messages": "C",
    }
    cursor = link.connection.cursor()
    for name, value in limits.items():
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # lc_messages is the superuser's
            cursor.execute(b"SELECT set_config(%s, %s, false)", (name, str(value)))
    if not options.read_only:
        check_durability(read_settings(link), options)


def read_settings(link: Link) -> dict[str, str]:
    """What durability rests on, as this session has it; ``in_recovery``: it is a standby."""
    columns = ", ".join(f"current_setting('{name}')" for name in (*CHECKED_SETTINGS, "synchronous_standby_names"))
    [(*values, recovering)] = link.connection.execute(f"SELECT {columns}, pg_is_in_recovery()::text".encode())
    names = (*CHECKED_SETTINGS, "synchronous_standby_names")
    return {**dict(zip(names, values, strict=True)), "in_recovery": recovering}


def check_durability(settings: dict[str, str], options: LinkOptions) -> None:
    """Raise ``JournalDamaged`` unless the server keeps what it acknowledges; each fault with its remedy."""
    where = options.shown_url
    if settings["in_recovery"] == "true":
        raise JournalDamaged(f"{where} is a standby: it takes no writes")
    unsafe = [f"{name} = {settings[name]}" for name in CHECKED_SETTINGS if settings[name] == "off"]
    if unsafe and not options.allow_unsafe_durability:
        raise JournalDamaged(
            f"{where} has {', '.join(unsafe)}: what it acknowledges may be gone after a crash, and what is gone was "
            "promised to somebody. Set it to on, for this role and database too (ALTER ROLE … SET, ALTER DATABASE … "
            "SET), or allow it with journal.allow_unsafe_durability"
        )


def translated(error: psycopg.Error, options: LinkOptions) -> JournalError:
    """The port's error for one of psycopg's; its message keeps PostgreSQL's words, never a password."""
    text = f"{options.shown_url}: {_told(error, options)}"
    state = error.sqlstate
    if state is None or state.startswith("08") or state in NOT_YET:
        return LinkLost(text) if isinstance(error, psycopg.OperationalError) else JournalError(text)
    return _refusal(text, state)


def _refusal(text: str, state: str) -> JournalError:
    """The port's error for a statement of which the server says that it did nothing."""
    if state in NO_SPACE:
        return JournalFull(text)
    return JournalDamaged(text) if state in DAMAGED else ServerRefused(text, state)


def _told(error: object, options: LinkOptions) -> str:
    return without_password(" ".join(str(error).split()), options.url)


def _writable(descriptor: int, until: float) -> bool:
    """Wait until a socket takes more, or has something to say."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLOUT)
    left_ms = (until - time.monotonic()) * 1000
    return left_ms > 0 and bool(poll.poll(left_ms))
