"""What a gateway must be told, and every bound it keeps, each with its unit and its reason.

Owns no parsing of files and no environment: the settings reader builds a ``GatewayConfig`` and hands it to
``gateway.server.start_gateway``. All values are plain and picklable, so that a supervisor can send them to another
process.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.domain.outcomes import Door, Fact

# --- bounds of size: over one of these a call is INVALID_ARGUMENT -----------------------------------------------------
LINES_PER_ORDER_MAX = 2_000  # one order must fit in one frame (1 MiB) at the longest ids: 2,000 x 405 bytes
LINES_PER_CALL_MAX = 25_000  # six turns of a host: one call must not occupy it for longer
BYTES_PER_CALL_MAX = 4 * 1024 * 1024  # a full batch of ordinary orders is 0.2 MiB; gRPC's own usual limit
BATCH_ITEMS_MAX = 1_000  # beyond this a batch gets no cheaper per item, only later
EVENTS_PER_CALL_MAX = 1_000  # warehouse events: the same reason
REGISTRATIONS_PER_CALL_MAX = 1_000  # catalog loads: the same reason
STOCK_KEYS_PER_CALL_MAX = 1_000  # BatchGetAvailability: the same reason
ID_BYTES_MAX = 128
LABELS_MAX = 16
LABEL_KEY_BYTES_MAX = 64
LABEL_VALUE_BYTES_MAX = 256
NOTE_BYTES_MAX = 1_024  # free text for people; journaled, so bounded
VIOLATIONS_BYTES_MAX = (
    4_000  # of bad fields named in one error: clients take 8 KiB of trailers, these are sent as base64
)
VIOLATION_CHARACTERS_MAX = 300  # of one field's path or description: a bad value may be of any length
PAGE_SIZE_MAX = 1_000
PAGE_SIZE_DEFAULT = 100
PAGE_TOKEN_BYTES_MAX = 2_048  # opaque, ours: a host's id and its cursor
RECEIVE_BYTES_MAX = (
    16 * 1024 * 1024
)  # what gRPC itself lets in, so that a 10 MB call gets our clear error instead of its own
SEND_BYTES_MAX = 64 * 1024 * 1024  # an answer of 25,000 long lines; clients set their own limit

# --- bounds of load: over one of these a call is RESOURCE_EXHAUSTED, at once ------------------------------------------
CONCURRENT_RPCS_MAX = 4_096  # ~12 KiB each in gRPC and asyncio: 50 MiB
WAITING_MS_MAX = 300  # what waits in gRPC before the gateway's loop may take so long, by what is done a second,
WAITING_CALLS_MIN = 512  # but a burst of so many is no reason to send anybody away
AWAY_SHARE = 0.05  # sending calls away again and again may cost a call in twenty: hence when they come again,
AWAY_MS_MAX = 5_000  # at the latest
ENTRANCE_LOOK_MS = 100  # a look costs up to a millisecond, and only while calls come
UNTAKEN_CALLS_MAX = (
    8_192  # beyond half of it gRPC itself drops calls, as CANCELLED: cheaper than to answer them, a last resort
)
CHANGE_STREAMS_MAX = 256  # ReadChanges: each is woken by every change
WATCH_STREAMS_MAX = 2_000  # WatchAvailability: woken by what they watch
PENDING_LINES_PER_HOST_MAX = 50_000  # half a second of a busy host; a longer queue only makes answers late
FRAMES_IN_FLIGHT_PER_HOST = 2  # one is decided, the other commits; twice as many while GATHER_LINES wait
GATHER_LINES = 64  # a frame with so many lines is sent at once,
GATHER_QUIET_PASSES = 40  # one with fewer when so many passes of the loop brought no call (about 0.2 ms),
GATHER_MS_MAX = 10  # and none waits longer
LINES_PER_FRAME_MAX = 4_000  # a host's turn
BYTES_PER_FRAME_MAX = 1_000_000  # under the frame's 1 MiB, envelope included
STREAM_EVENTS_MAX = 4_000  # of one stream without a result: ten batches; beyond it nothing more is read
STREAM_BYTES_MAX = 4 * 1024 * 1024  # … and their bytes; one message more may come
STREAM_BATCH_EVENTS_MAX = 400  # 4 ms of the gateway's loop: other callers wait no longer
STREAM_BATCHES_MAX = 4  # under way to the hosts; half as many while little has arrived
RECONCILIATION_CHUNK_LINES_MAX = 1_000  # a message of some 60 KB
RECONCILIATION_LINES_PER_ITEM = 64  # half a millisecond of a shard: claims wait no longer behind one
RECONCILIATION_LINES_UNDER_WAY_MAX = (
    64  # of one list: under a millisecond of gateway and of host; the next go when these
)
RECONCILIATION_REST_SHARE = 1.0  # are answered, after a rest of as long: claims have half of every processor at least
RECONCILIATION_LINES_MAX = 5_000_000  # of one list: 128 MB of hashes
RECONCILIATION_RETRY_MS = 100  # between two tries of lines that a shard did not take for now,
RECONCILIATION_PATIENCE_MS = 60_000  # and so long: an owner's restart takes seconds
DIFFERENCES_DEFAULT_MAX = 10_000  # of one list, then it is given up: it may be the wrong one
DIFFERENCES_MAX = 100_000  # each is journaled, and kept in memory for a week
RESPONSE_FINDINGS_MAX = 1_000  # in the answer; the others by pages
DRY_RUN_FINDINGS_MAX = 10_000  # in the answer, and nowhere else: 3 MB
FAILED_LINES_KEPT_MAX = 10_000  # in the answer: 1 MB
STOCK_KEY_CACHE_MAX = 200_000  # ~350 bytes each: 70 MiB at most; emptied when full
SOURCE_CACHE_MAX = 10_000  # a cluster has dozens of sources; emptied when full
RESERVATION_CHANNEL_CACHE_MAX = 100_000  # only with credentials: whose reservation it is

# --- durations in milliseconds ----------------------------------------------------------------------------------------
DEADLINE_MUTATION_MS_MAX = 10_000  # no delayed copy of a request outlives it
DEADLINE_READ_MS_MAX = 60_000  # long lists
DEADLINE_DEFAULT_MS = 5_000  # when the caller sets none
ROUTE_PATIENCE_MS = 6_000  # how long a call waits for a shard that nobody serves: an owner's restart takes 2-4 s
LINK_SILENCE_MS_MAX = 4_000  # a frame in flight and nothing heard: the link is dropped and made anew
LINK_CONNECT_MS_MAX = 2_000
LINK_BACKOFF_MS_MIN = 50
LINK_BACKOFF_MS_MAX = 250  # a successor is reached this soon after it listens
RETRY_PAUSE_MS = 50  # between two tries of an item whose shard is changing its owner
RETRY_HINT_OVERLOADED_MS = 100
RETRY_HINT_UNAVAILABLE_MS = 500
STREAM_PING_MS = 30_000  # a connection that says nothing is asked whether it lives,
STREAM_PING_PATIENCE_MS = 10_000  # and closed, with its streams, when it does not answer
CLIENT_PING_MS_MIN = 5_000  # callers may ask as often, without a message between
TTL_DEFAULT_MS = 15 * 60 * 1000
TTL_MS_MIN = 1_000
TTL_MS_MAX = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """A sales channel. ``may_impose``: it may reserve with admission ALWAYS (promised elsewhere, perhaps uncovered)."""

    may_impose: bool = False


@dataclass(frozen=True, slots=True)
class WarehouseConfig:
    """A warehouse. ``fulfilment_door``: who tells of its shipments. ``sources``: fact → the source ids that may tell
    it; a fact that is absent may be told by any source (subject to credentials). ``feeds``: sources that should be heard.
    """

    fulfilment_door: Door = Door.WAREHOUSE
    sources: Mapping[Fact, frozenset[str]] = field(default_factory=dict)
    feeds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Credential:
    """A bearer token and what its holder may do. ``channels``: sells there; ``sources``: tells warehouse facts as
    these.

    ``operator``: everything. A star ("*") in ``channels`` or ``sources`` means all of them.
    """

    token: str = field(repr=False)
    principal: str
    channels: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    operator: bool = False


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files. ``client_ca``: when set, callers must show a certificate signed by it."""

    certificate: str
    private_key: str
    client_ca: str = ""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Everything ``start_gateway`` needs besides the directory. Durations in ms; ports 0 mean "any free one"."""

    cluster_token: str = field(repr=False)  # what hosts want in the hello
    channels: Mapping[str, ChannelConfig]
    warehouses: Mapping[str, WarehouseConfig]
    consumers: Mapping[str, str] = field(default_factory=dict)  # of changes: id → who may read as it besides operators
    name: str = "gateway"  # in hellos, logs and status
    bind_host: str = "127.0.0.1"
    bind_port: int = 0
    so_reuseport: bool = True  # several gateways behind one port
    http_host: str = "127.0.0.1"  # /metrics, /livez, /readyz
    http_port: int = 0
    catalog_open: bool = True  # hosts decide by it; here only for GetClusterStatus
    ttl_default_ms: int = TTL_DEFAULT_MS
    ttl_ms_min: int = TTL_MS_MIN
    ttl_ms_max: int = TTL_MS_MAX
    deadline_default_ms: int = DEADLINE_DEFAULT_MS
    deadline_mutation_ms_max: int = DEADLINE_MUTATION_MS_MAX
    deadline_read_ms_max: int = DEADLINE_READ_MS_MAX
    route_patience_ms: int = ROUTE_PATIENCE_MS
    lines_per_order_max: int = LINES_PER_ORDER_MAX
    lines_per_call_max: int = LINES_PER_CALL_MAX
    bytes_per_call_max: int = BYTES_PER_CALL_MAX
    batch_items_max: int = BATCH_ITEMS_MAX
    concurrent_rpcs_max: int = CONCURRENT_RPCS_MAX
    pending_lines_per_host_max: int = PENDING_LINES_PER_HOST_MAX
    frames_in_flight_per_host: int = FRAMES_IN_FLIGHT_PER_HOST
    tls: TlsFiles | None = None
    credentials: tuple[Credential, ...] = ()
    allow_insecure_network: bool = False
    log_requests: bool = False  # one info line per call: off, or logging costs more than deciding
    version: str = "0.1.0"
    build: str = ""  # a commit, a date: shown, never compared


class RefusedBinding(ValueError):
    """The settings would open an unprotected port to the network. The message says which setting to change."""


def check_binding(config: GatewayConfig) -> None:
    """Loopback is free; another address needs TLS and credentials, or ``allow_insecure_network``. Raises
    RefusedBinding.
    """
    for what, host in (("bind_host", config.bind_host), ("http_host", config.http_host)):
        if is_loopback(host) or config.allow_insecure_network:
            continue
        if what == "http_host":
            raise RefusedBinding(
                f"http_host {host!r} is not a loopback address and the metrics port has neither TLS nor credentials: "
                "bind it to 127.0.0.1, or set allow_insecure_network"
            )
        missing = [
            name for name, there in (("TLS files", config.tls), ("credentials", config.credentials)) if not there
        ]
        if missing:
            raise RefusedBinding(
                f"bind_host {host!r} is not a loopback address and {' and '.join(missing)} are not configured: "
                "configure them, bind to 127.0.0.1, or set allow_insecure_network"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``. Names other than "localhost" count as reachable: nothing is looked
    up.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
