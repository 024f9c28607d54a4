"""Settings: one typed model, read from the command line, the environment and ``stockade.toml``, in this order of
precedence.

Owns what may be set, its defaults, its bounds, the errors a person reads, and where each effective value came from.
It starts nothing, opens no port and makes no directory; ``wiring`` turns settings into journals, hosts and gateways.

Durations end in ``_ms``: a number is milliseconds, a text carries its unit ("500ms", "90s", "15m", "24h", "7d").
Sizes end in ``_bytes``: a number is bytes, a text carries its unit ("64 MiB", "1 GiB"). The environment's names are
``STOCKADE_`` and the setting in capitals (``STOCKADE_GRPC_PORT``, ``STOCKADE_JOURNAL_URL``); lists and tables are JSON
there, channels and warehouses also plain "web,b2b". A name nobody knows is refused, in the file and in the environment.

Secrets (tokens, a database's password, what signs webhooks) are ``SecretStr`` and shown as ``***``.

With no file at all a node serves channels web, b2b, marketplace, edi and call-center (only edi may impose claims) and
the warehouses main and overflow, on loopback: enough to try everything, and a typo in a name is still refused.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from actors.domain.outcomes import Door, Fact
from actors.domain.rules import Rules
from actors.journal.database_url import HIDDEN, shown
from actors.runtime.access_settings import Credential, Tls, hide_tokens
from actors.runtime.cluster_settings import ClusterSettings, JournalSettings
from actors.runtime.consumer_settings import ConsumerSettings
from actors.runtime.setting_sources import (
    explain,
    merged,
    names_of,
    origins_in_file,
    parts_of,
    read_variables,
    sections_of,
    unknown_variables,
    variable_of,
)
from actors.runtime.setting_values import (
    DAY_MS,
    HOUR_MS,
    MEBIBYTE,
    MINUTE_MS,
    RAY_OBJECT_STORE_BYTES_MIN,
    SECOND_MS,
    DurationMs,
    ExceptionKindName,
    Identifier,
    Port,
    SizeBytes,
    parse_duration_ms,
    parse_named_tables,
    parse_size_bytes,
)
from actors.runtime.webhook_settings import Webhook, WebhookId, check_filters, hide_webhook_secrets

__all__ = [
    "Channel",
    "ClusterSettings",
    "Credential",
    "EffectiveValue",
    "JournalSettings",
    "LoadedSettings",
    "Settings",
    "SettingsError",
    "Tls",
    "Warehouse",
    "load_settings",
    "parse_duration_ms",
    "parse_size_bytes",
]

CONFIG_FILE_NAME = "stockade.toml"
CONFIG_VARIABLE = "STOCKADE_CONFIG"
JSON_SETTINGS = frozenset(
    {"exception_teams", "credentials", "quality_hold_suppliers", "tls", "webhooks"}
)  # in the environment; channels and warehouses decode themselves


class SettingsError(ValueError):
    """Settings that cannot be used. The message has one line a fault: the field, where it came from, what is wrong, the
    fix.
    """


class Channel(BaseModel):
    """A sales channel. ``may_impose``: it may reserve with admission ALWAYS."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    may_impose: bool = False


class Warehouse(BaseModel):
    """A warehouse. ``fulfilment_door``: who tells of its shipments. ``sources``: fact → source ids that may tell it (a
    fact that is not named may be told by any source). ``eligible_for_selling``: whether what comes in may be sold from
    here without somebody's saying so. ``reconciliation_interval_ms``: how often its stock should be compared with a
    count; 0: never asked for. ``feeds``: source id → how often it is expected to be heard, by an event or a heartbeat.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    fulfilment_door: Literal["warehouse", "order_management"] = "warehouse"
    sources: dict[str, list[Identifier]] = Field(default_factory=dict)
    eligible_for_selling: bool = True
    reconciliation_interval_ms: DurationMs = 0
    feeds: dict[Identifier, DurationMs] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_facts(self) -> Warehouse:
        known = [fact.name.lower() for fact in Fact]
        for name in self.sources:
            if name not in known:
                raise ValueError(f"unknown fact {name!r} in sources; the facts are {', '.join(known)}")
        return self

    @property
    def door(self) -> Door:
        return Door[self.fulfilment_door.upper()]

    @property
    def sources_by_fact(self) -> dict[Fact, frozenset[str]]:
        return {Fact[name.upper()]: frozenset(sources) for name, sources in self.sources.items()}


def default_channels() -> dict[str, Channel]:
    names = ("web", "b2b", "marketplace", "edi", "call-center")
    return {name: Channel(may_impose=name == "edi") for name in names}


def default_warehouses() -> dict[str, Warehouse]:
    return {"main": Warehouse(), "overflow": Warehouse()}


class Settings(BaseModel):
    """Everything that may be set. Each field's description is what ``stockade config`` shows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Path = Field(Path("stockade-data"), description="where the journal, locks, logs and Ray's files live")
    channels: Annotated[dict[Identifier, Channel], BeforeValidator(parse_named_tables)] = Field(
        default_factory=default_channels, min_length=1, description="sales channels; any other is refused by name"
    )
    warehouses: Annotated[dict[Identifier, Warehouse], BeforeValidator(parse_named_tables)] = Field(
        default_factory=default_warehouses, min_length=1, description="warehouses; any other is refused by name"
    )
    consumers: Annotated[dict[Identifier, ConsumerSettings], BeforeValidator(parse_named_tables)] = Field(
        default_factory=dict, description="named readers of the change feed, whose place is kept"
    )
    exception_teams: dict[ExceptionKindName, Identifier] = Field(
        default_factory=dict, description="kind of exception: the team that looks after it, where not the default one"
    )
    catalog: Literal["open", "closed"] = Field(
        "open", description="open: the first fact or registration creates a stock key"
    )
    quality_hold_suppliers: list[Identifier] = Field(
        default_factory=list,
        description="suppliers (attribute supplier_id of an event) whose units always start in quality hold",
    )
    journal: JournalSettings = Field(
        default_factory=lambda: JournalSettings.model_validate({}), description="the journal"
    )
    cluster: ClusterSettings = Field(
        default_factory=lambda: ClusterSettings.model_validate({}), description="several nodes as one cluster"
    )
    shard_count: int = Field(64, ge=1, le=4096, description="fixed when the journal is made")

    gateways: int = Field(2, ge=1, le=64, description="gateway processes behind the gRPC port")
    grpc_host: str = Field("127.0.0.1", description="address of the gRPC port")
    grpc_port: Port = Field(7450, description="the gRPC port; 0: any free one")
    http_host: str = Field("127.0.0.1", description="address of /metrics, /livez and /readyz")
    http_port: Port = Field(7451, description="port of /metrics, /livez and /readyz; 0: any free one")
    host_advertise_port: Port = Field(
        0, description="loopback port where gateways reach the shard host, when a proxy stands between; 0: its own"
    )
    tls: Tls | None = Field(None, description="PEM files of the gRPC port")
    credentials: list[Credential] = Field(default_factory=list, description="bearer tokens; none: nobody is asked")
    webhooks: dict[WebhookId, Webhook] = Field(
        default_factory=dict, max_length=64, description="endpoints that changes are posted to, by consumer id"
    )
    allow_insecure_network: bool = Field(
        default=False, description="allow addresses other than loopback without TLS and credentials"
    )
    cluster_token: SecretStr | None = Field(
        None, description="what hosts ask of gateways; default: made for the data directory"
    )

    reconciliation_answer_ms_max: DurationMs = Field(
        4 * HOUR_MS, description="a requested reconciliation that nobody begins within it becomes an exception"
    )
    ttl_default_ms: DurationMs = Field(15 * MINUTE_MS, description="a hold's time to live when the caller names none")
    ttl_ms_min: DurationMs = Field(1 * SECOND_MS, description="shortest time to live a caller may ask for")
    ttl_ms_max: DurationMs = Field(24 * HOUR_MS, description="longest time to live a caller may ask for")
    lifetime_ms_max: DurationMs = Field(24 * HOUR_MS, description="a hold's whole life, extensions included")
    dedupe_window_ms: DurationMs = Field(24 * HOUR_MS, description="how long a request id is remembered after its end")
    dedupe_memory_ms: DurationMs = Field(15 * MINUTE_MS, description="how much of that in memory")
    ended_in_memory_max: int = Field(200_000, ge=1, description="ended reservations kept in memory, at most")
    takeover_grace_ms: DurationMs = Field(2 * SECOND_MS, description="what overdue deadlines get after a takeover")

    deferral_ms_max: DurationMs = Field(15 * MINUTE_MS, description="how long an event waits for those before it")
    gap_patience_ms: DurationMs = Field(5 * MINUTE_MS, description="how long events may be missing until it is told")
    history_ms: DurationMs = Field(72 * HOUR_MS, description="how far back a count may have been taken")

    retention_ms: DurationMs = Field(7 * DAY_MS, description="how long records covered by snapshots are kept")
    compact_interval_ms: DurationMs = Field(10 * MINUTE_MS, description="how often what retention allows is dropped")
    snapshot_after_events: int = Field(50_000, ge=100, description="events of a shard between its snapshots")
    disk_floor_bytes: SizeBytes = Field(256 * MEBIBYTE, description="below this much free space new claims are refused")
    ballast_bytes: SizeBytes = Field(
        16 * MEBIBYTE, description="kept in reserve so that a full disk can still be recovered"
    )

    ray_object_store_bytes: Annotated[SizeBytes, Field(ge=RAY_OBJECT_STORE_BYTES_MIN)] = Field(
        RAY_OBJECT_STORE_BYTES_MIN, description="Ray's object store, which the service does not use"
    )
    leftover_patience_ms: DurationMs = Field(
        5 * SECOND_MS, description="how long leftovers of a dead serve are waited for"
    )
    silence_ms_max: DurationMs = Field(
        20 * SECOND_MS, description="a process of the node that says nothing for so long is ended and started again"
    )
    drain_ms_max: DurationMs = Field(5 * SECOND_MS, description="how long a clean stop waits for calls under way")
    log_format: Literal["text", "json"] = Field("text", description="what serve prints; the log files are JSON always")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is logged")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Settings:
        if not self.ttl_ms_min <= self.ttl_default_ms <= self.ttl_ms_max:
            raise ValueError("ttl_ms_min ≤ ttl_default_ms ≤ ttl_ms_max must hold")
        if self.ttl_ms_max > self.lifetime_ms_max:
            raise ValueError("ttl_ms_max must not exceed lifetime_ms_max")
        if self.dedupe_memory_ms > self.dedupe_window_ms:
            raise ValueError("dedupe_memory_ms must not exceed dedupe_window_ms")
        if self.retention_ms < self.dedupe_window_ms:
            raise ValueError("retention_ms must be at least dedupe_window_ms, or ids are forgotten while they count")
        principals = [credential.principal for credential in self.credentials]
        if len(set(principals)) != len(principals):
            raise ValueError("each principal may have one credential")
        for credential in self.credentials:
            for channel in credential.channels:
                if channel != "*" and channel not in self.channels:
                    raise ValueError(f"credential {credential.principal!r} names the unknown channel {channel!r}")
        check_filters(self.webhooks, channels=self.channels, warehouses=self.warehouses)
        self._check_one_owner()
        return self

    def _check_one_owner(self) -> None:
        """SQLite is one file under one lock of one machine: whatever asks for a second owner of it is refused."""
        cluster = self.cluster
        asked = ["head_address"] if cluster.head_address else ["hosts_per_node"] if cluster.hosts_per_node > 1 else []
        if asked and not self.journal.is_shared:
            raise ValueError(
                f"cluster.{asked[0]} asks for several hosts, but a SQLite journal has one owner: set journal.url = "
                '"postgresql://…" (`stockade journal copy` takes a SQLite journal there), or leave it at its default'
            )
        if cluster.head_address and self.cluster_token is None:
            raise ValueError(
                "cluster.head_address needs cluster_token: the same secret on every node (without one each node makes its own)"
            )

    @property
    def declared_consumers(self) -> dict[str, ConsumerSettings]:
        """Consumers by id: those of ``consumers``, and every webhook, whose limits may stand there as well."""
        return {**{webhook_id: ConsumerSettings.model_validate({}) for webhook_id in self.webhooks}, **self.consumers}

    def rules(self) -> Rules:
        """What the domain may depend on."""
        return Rules(
            catalog_open=self.catalog == "open",
            consumers={consumer_id: consumer.limits() for consumer_id, consumer in self.declared_consumers.items()},
            warehouses=frozenset(self.warehouses),
            warehouses_not_selling=frozenset(
                warehouse_id
                for warehouse_id, warehouse in self.warehouses.items()
                if not warehouse.eligible_for_selling
            ),
            quality_hold_suppliers=frozenset(self.quality_hold_suppliers),
            doors={warehouse_id: warehouse.door for warehouse_id, warehouse in self.warehouses.items()},
            exception_teams=self.exception_teams,
            lifetime_ms_max=self.lifetime_ms_max,
            dedupe_window_ms=self.dedupe_window_ms,
            dedupe_memory_ms=self.dedupe_memory_ms,
            ended_in_memory_max=self.ended_in_memory_max,
            takeover_grace_ms=self.takeover_grace_ms,
            feeds={
                warehouse_id: dict(warehouse.feeds)
                for warehouse_id, warehouse in self.warehouses.items()
                if warehouse.feeds
            },
            deferral_ms_max=self.deferral_ms_max,
            gap_patience_ms=self.gap_patience_ms,
            history_ms=self.history_ms,
            reconciliation_intervals_ms={
                warehouse_id: warehouse.reconciliation_interval_ms
                for warehouse_id, warehouse in self.warehouses.items()
                if warehouse.reconciliation_interval_ms
            },
            reconciliation_answer_ms_max=self.reconciliation_answer_ms_max,
        )


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One line of ``stockade config``. ``value`` is plain data; secrets are replaced by "***"."""

    name: str
    value: Any
    origin: str  # "default", "command line", "environment STOCKADE_X" or "file:line"
    description: str


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings and where they came from."""

    settings: Settings
    config_file: Path | None
    origins: Mapping[str, str]

    def effective(self) -> list[EffectiveValue]:
        """Every setting with its value and origin, in the model's order."""
        plain = self.settings.model_dump(mode="json")
        sections = sections_of(Settings)
        found = []
        for name in names_of(Settings):
            section, _, part = name.partition(".")
            value = (plain[section] or {}).get(part) if part else hide_secrets(name, plain[name])
            if section == "journal":
                value = self._shown_urls(part, value)
            field = (sections[section] if part else Settings).model_fields[part or name]
            found.append(EffectiveValue(name, value, self.origins[name], field.description or ""))
        return found

    def _shown_urls(self, part: str, value: Any) -> Any:
        journal = self.settings.journal
        if part == "url":
            return None if journal.url is None else shown(journal.url.get_secret_value())
        return [shown(url.get_secret_value()) for url in journal.urls] if part == "urls" else value


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    working_dir: Path | None = None,
) -> LoadedSettings:
    """Merge command line (``overrides``, by dotted names; None values are absent), environment and file.

    The file is ``config``, else what STOCKADE_CONFIG names, else ``stockade.toml`` in the working directory if there
    is one. A relative ``data_dir`` in the file is relative to the file. Raises SettingsError, with everything that is
    wrong.
    """
    environment = os.environ if environment is None else environment
    names = names_of(Settings)
    file_path, file_values, origins = read_config_file(config, environment, working_dir or Path.cwd())
    from_environment, problems = read_variables(environment, [*names, *JSON_SETTINGS], JSON_SETTINGS)
    problems += unknown_variables(environment, [*names, *JSON_SETTINGS])
    from_command_line = {name: value for name, value in (overrides or {}).items() if value is not None}
    origins |= {
        part: f"environment {variable_of(name)}"
        for name in from_environment
        for part in parts_of(from_environment, name)
    }
    origins |= {part: "command line" for name in from_command_line for part in parts_of(from_command_line, name)}
    known = {name: origins.get(name, "default") for name in names}
    try:
        settings = Settings(**merged((file_values, from_environment, from_command_line)))
    except ValidationError as error:
        raise SettingsError("\n".join([*problems, *explain(error, Settings, {**known, **origins})])) from None
    if problems:
        raise SettingsError("\n".join(problems))
    return LoadedSettings(settings, file_path, known)


def read_config_file(
    config: Path | None, environment: Mapping[str, str], working_dir: Path
) -> tuple[Path | None, dict[str, Any], dict[str, str]]:
    """The file's path, its tables, and the line each came from; nothing of it without a file."""
    named = config or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    path = working_dir / (named or CONFIG_FILE_NAME)
    if named is None and not path.is_file():
        return None, {}, {}
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        asked_by = "--config" if config else CONFIG_VARIABLE if named else "found in the working directory"
        raise SettingsError(f"cannot read the settings file {path} ({asked_by}): {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    data_dir = values.get("data_dir")
    if isinstance(data_dir, str):
        if "\0" in data_dir:
            raise SettingsError(f"data_dir (from {path}): contains U+0000, which no path may")
        try:
            values["data_dir"] = str(path.parent / Path(data_dir).expanduser())
        except RuntimeError as error:
            raise SettingsError(f"data_dir {data_dir!r} (from {path}): {error}") from None
    whole = {part: str(path) for name in values for part in parts_of(values, name)}
    return path, values, {**whole, **origins_in_file(text, path)}


def hide_secrets(name: str, value: Any) -> Any:
    """``value`` with every secret replaced by "***"."""
    if name == "cluster_token":
        return None if value is None else HIDDEN
    if name == "credentials":
        return hide_tokens(value)
    return hide_webhook_secrets(value) if name == "webhooks" else value
