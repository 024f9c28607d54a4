"""The settings of webhooks: where changes are posted, who signs, what the endpoint gets and how it is treated.

Owns their bounds and what of them may be shown. What they are used for is ``gateway.webhooks``' business.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from actors.journal.database_url import HIDDEN
from actors.runtime.setting_values import HOUR_MS, MINUTE_MS, SECOND_MS, DurationMs, Identifier, SizeBytes

__all__ = ["Webhook", "WebhookId", "WebhookSecret", "check_filters", "hide_webhook_secrets"]

WebhookId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]  # a consumer's id, and a metric's label
KeyId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent"})
OUR_PREFIXES = ("webhook-", "stockade-", "ce-")


class WebhookSecret(BaseModel):
    """What signs requests. ``id`` travels with the signature."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: KeyId
    secret: SecretStr | None = None
    secret_file: Path | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> WebhookSecret:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("give either secret or secret_file")
        return self

    def text(self) -> str:
        """The secret itself, read from its file when it is in one."""
        if self.secret is not None:
            return self.secret.get_secret_value()
        assert self.secret_file is not None
        return self.secret_file.read_text(encoding="utf-8").strip()


class Webhook(BaseModel):
    """One endpoint. ``secrets``: each signs every request, so put the new one beside the old until the receiver has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str = Field(min_length=1, max_length=2_048, repr=False)  # its query may hold a key
    secrets: list[WebhookSecret] = Field(min_length=1, max_length=4)
    kinds: list[Literal["availability", "reservation", "warehouse"]] = Field(default_factory=list)
    channels: list[Identifier] = Field(default_factory=list)
    warehouses: list[Identifier] = Field(default_factory=list)
    skus: list[Identifier] = Field(default_factory=list, max_length=1_000)
    start: Literal["snapshot", "oldest", "now"] = "snapshot"
    concurrency: int = Field(4, ge=1, le=64)
    batch_events_max: int = Field(100, ge=1, le=1_000)
    batch_bytes_max: SizeBytes = Field(256 * 1024, ge=1_024, le=4 * 1024 * 1024)
    timeout_ms: DurationMs = Field(10 * SECOND_MS, ge=100, le=2 * MINUTE_MS)
    backoff_ms_min: DurationMs = Field(500, ge=10, le=MINUTE_MS)
    backoff_ms_max: DurationMs = Field(5 * MINUTE_MS, ge=10, le=HOUR_MS)
    attempts_max: int = Field(12, ge=1, le=1_000)
    give_up_after_ms: DurationMs = Field(24 * HOUR_MS, ge=SECOND_MS)
    circuit_failures_max: int = Field(5, ge=1, le=1_000)
    circuit_pause_ms_min: DurationMs = Field(5 * SECOND_MS, ge=10, le=HOUR_MS)
    circuit_pause_ms_max: DurationMs = Field(5 * MINUTE_MS, ge=10, le=HOUR_MS)
    allow_plain_http: bool = False
    allowed_networks: list[str] = Field(default_factory=list)
    ca_file: Path | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not (url.isascii() and url.isprintable() and " " not in url):
            raise ValueError("a URL is printable ASCII without spaces")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("its host or port cannot be read") from None
        if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
            raise ValueError("write it as https://HOST[:PORT]/PATH")
        if parts.username is not None or parts.password is not None:
            raise ValueError("no user and password in it; a header can carry credentials")
        if parts.fragment:
            raise ValueError("no fragment (#…) in it: it would never be sent")
        return url

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f'{error}; write for example "10.1.0.0/16"') from None
        return networks

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            text = value.get_secret_value()
            if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or not (text.isascii() and text.isprintable()):
                raise ValueError(f"{name!r}: a header is letters, digits and -, its value printable ASCII")
            if name.lower() in OURS or name.lower().startswith(OUR_PREFIXES):
                raise ValueError(f"{name!r} is the service's own header")
        return headers

    @model_validator(mode="after")
    def _in_order(self) -> Webhook:
        if urlsplit(self.url).scheme == "http" and not self.allow_plain_http:
            raise ValueError("url must begin with https://, or set allow_plain_http: anybody on the way could read it")
        for name in ("backoff", "circuit_pause"):
            if getattr(self, f"{name}_ms_min") > getattr(self, f"{name}_ms_max"):
                raise ValueError(f"{name}_ms_min must not exceed {name}_ms_max")
        if len({secret.id for secret in self.secrets}) != len(self.secrets):
            raise ValueError("each secret needs an id of its own")
        return self


def check_filters(webhooks: Mapping[str, Webhook], **declared: Collection[str]) -> None:
    """Raises ValueError when a filter names a channel or a warehouse that is not declared: it would let nothing through."""
    for webhook_id, webhook in webhooks.items():
        for field, names in declared.items():
            unknown = [name for name in getattr(webhook, field) if name not in names]
            if unknown:
                raise ValueError(f"webhooks.{webhook_id}.{field} names {unknown[0]!r}, which is not declared")


def shown_url(url: str) -> str:
    base, mark, _ = url.partition("?")
    return f"{base}?{HIDDEN}" if mark else base


def hide_webhook_secrets(webhooks: dict[str, Any]) -> dict[str, Any]:
    """Webhooks as plain data with every secret replaced."""
    return {
        webhook_id: {
            **webhook,
            "url": shown_url(webhook["url"]),
            "secrets": [{**one, "secret": one["secret"] and HIDDEN} for one in webhook["secrets"]],
            "headers": dict.fromkeys(webhook["headers"], HIDDEN),
        }
        for webhook_id, webhook in webhooks.items()
    }
