"""Settings of the journal and of a cluster of nodes: ``[journal]`` and ``[cluster]``.

Owns their bounds, and which of them go together. What they do is the business of the journal's adapters, the
directory and the hosts.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from actors.journal import database_url
from actors.runtime.setting_values import MINUTE_MS, SECOND_MS, DurationMs, Port, from_json

__all__ = ["ClusterSettings", "JournalSettings"]

DIRECTORY_PORT = 7452
HEARTBEATS_UNTIL_DEAD_MIN = 3  # fewer, and one late heartbeat moves shards
HOST_NAME = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)


def check_database_url(url: SecretStr) -> SecretStr:
    """Refuse what is no address of a database, without quoting it."""
    found = database_url.problem(url.get_secret_value())
    if found:
        raise ValueError(found)
    return url


def parse_urls(value: Any) -> Any:
    """A list; in the environment as JSON, or one URL."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value) if value.lstrip().startswith("[") else [value]
    except ValueError:
        raise ValueError(
            'write a list of URLs, in the environment as JSON: ["postgresql://…", "postgresql://…"]'
        ) from None


def check_host(address: str) -> str:
    """A name or an address that others can dial; empty: not set."""
    if not address or HOST_NAME.fullmatch(address):
        return address
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError("write a host name or an IP address, without port") from None
    return address


def check_host_and_port(address: str) -> str:
    """HOST:PORT; empty: not set."""
    if not address:
        return address
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port[:9]) < 65536 or not host:
        raise ValueError('write it as HOST:PORT, for example "10.0.0.1:6379"')
    check_host(host.removeprefix("[").removesuffix("]"))
    return address


def with_directory_port(address: Any) -> Any:
    """HOST means HOST:7452."""
    bare = isinstance(address, str) and address and (":" not in address or address.endswith("]"))
    return f"{address}:{DIRECTORY_PORT}" if bare else address


DatabaseUrl = Annotated[SecretStr, AfterValidator(check_database_url)]


class JournalSettings(BaseModel):
    """Where the only truth is kept. ``url`` is one database, ``urls`` several that the shards are split over."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: DatabaseUrl | None = Field(
        None, description="postgresql://… of the journal; not set: a SQLite file in the data directory"
    )
    urls: Annotated[list[DatabaseUrl], BeforeValidator(parse_urls)] = Field(
        default_factory=list,
        max_length=64,
        description="several databases that the shards are split over, always in the same order; instead of url",
    )
    deadline_ms: DurationMs = Field(
        5 * SECOND_MS,
        ge=100,
        le=5 * MINUTE_MS,
        description="how long a database may take for an answer until its host ends and others take its shards",
    )
    allow_unsafe_durability: bool = Field(
        default=False, description="serve although the database may lose what it acknowledged (never in production)"
    )

    @model_validator(mode="after")
    def _one_place(self) -> JournalSettings:
        if self.url is not None and self.urls:
            raise ValueError("give either url (one database) or urls (several)")
        if len({url.get_secret_value() for url in self.urls}) != len(self.urls):
            raise ValueError("urls names a database twice: every database has its own shards")
        return self

    @property
    def database_urls(self) -> tuple[str, ...]:
        """With their passwords: for the adapter alone. Empty: SQLite."""
        return tuple(url.get_secret_value() for url in ([self.url] if self.url is not None else self.urls))

    @property
    def shown_urls(self) -> tuple[str, ...]:
        """For people, logs and errors."""
        return tuple(map(database_url.shown, self.database_urls))

    @property
    def is_shared(self) -> bool:
        """Whether hosts of several nodes can write it."""
        return bool(self.database_urls)


class ClusterSettings(BaseModel):
    """What makes several nodes one cluster. The secret that they share is ``cluster_token``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ray_address: Annotated[str, AfterValidator(check_host_and_port)] = Field(
        "", description="HOST:PORT of a Ray whose raylet already runs on this machine: it is joined, none is started"
    )
    cluster_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="the cluster that the journal must belong to; not set: whichever it belongs to",
    )
    directory_port: Port = Field(
        DIRECTORY_PORT,
        description="where the head's directory is reached by hosts and gateways of every node; 0: any free",
    )
    head_address: Annotated[str, BeforeValidator(with_directory_port), AfterValidator(check_host_and_port)] = Field(
        "", description="HOST or HOST:PORT of the head's directory (`stockade node --head`); not set: this is the head"
    )
    hosts_per_node: int = Field(1, ge=1, le=64, description="shard hosts of this node; more than one needs PostgreSQL")
    node_heartbeat_ms: DurationMs = Field(
        500, ge=50, le=MINUTE_MS, description="how often hosts say that they live, and what the time is with them"
    )
    host_dead_after_ms: DurationMs = Field(
        2_500, ge=200, le=10 * MINUTE_MS, description="the shards of a host that is silent for so long are taken over"
    )
    advertise_address: Annotated[str, AfterValidator(check_host)] = Field(
        "", description="name or address that other nodes reach this node's hosts at; not set: loopback, for one node"
    )
    placement_interval_ms: DurationMs = Field(
        1_000, ge=100, le=10 * MINUTE_MS, description="how often it is looked at which host should run which shard"
    )
    move_pause_ms_max: DurationMs = Field(
        200, ge=10, le=MINUTE_MS, description="a shard that would stand still for longer is not moved under traffic"
    )

    @model_validator(mode="after")
    def _in_order(self) -> ClusterSettings:
        shortest = HEARTBEATS_UNTIL_DEAD_MIN * self.node_heartbeat_ms
        if self.host_dead_after_ms < shortest:
            raise ValueError(
                f"host_dead_after_ms must be at least {HEARTBEATS_UNTIL_DEAD_MIN} × node_heartbeat_ms, that is "
                f"{shortest}, or one late heartbeat moves shards"
            )
        return self
