"""What a deliverer must be told, and every bound it keeps. Plain and picklable; reads no file and no environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stockade.client.webhooks import secret_bytes

# --- defaults of what a webhook's settings may change -----------------------------------------------------------------
LANES = 4  # requests under way at an endpoint; order is kept within each
BATCH_EVENTS_MAX = 100
BATCH_BYTES_MAX = 256 * 1024
TIMEOUT_MS = 10_000  # of one request, from the connection to the answer's head
BACKOFF_MS_MIN = 500
BACKOFF_MS_MAX = 5 * 60_000
GIVE_UP_AFTER_MS = 24 * 3600 * 1000
ATTEMPTS_MAX = 12  # of a batch that fails while the endpoint accepts others
CIRCUIT_FAILURES_MAX = 5  # in a row, over all lanes
CIRCUIT_PAUSE_MS_MIN = 5_000
CIRCUIT_PAUSE_MS_MAX = 5 * 60_000

# --- bounds that nobody sets ------------------------------------------------------------------------------------------
LANES_MAX = 64
UNSETTLED_CHANGES_MAX = 10_000  # read and neither accepted nor given up: ~1 KiB each
RETRY_AFTER_MS_MAX = 3600 * 1000  # an endpoint may ask for a pause of an hour, not of a year
ANSWER_BYTES_MAX = 64 * 1024  # of a body, read so that the connection can be kept; the rest is not read
REASON_CHARACTERS_MAX = 200  # of an answer, shown to people
PIECE_ATTEMPTS_MAX = 3  # of a piece of a batch that was tried in vain as a whole
REJECTIONS_PER_ACKNOWLEDGEMENT_MAX = 500
ACKNOWLEDGE_INTERVAL_MS = 1_000  # an acknowledgement is journaled: not one a request
SECRET_BYTES_MIN = 24


@dataclass(frozen=True, slots=True)
class Secret:
    """What signs. ``key_id`` travels with the signature, so that a receiver knows which of its secrets to take."""

    key_id: str
    value: bytes

    def __repr__(self) -> str:
        return f"Secret(key_id={self.key_id!r})"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which changes a webhook gets; empty: all."""

    channels: tuple[str, ...] = ()
    warehouses: tuple[str, ...] = ()
    skus: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()  # "availability", "reservation", "warehouse"


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """One endpoint. Every secret signs each request, the newest first: during a rotation a receiver may have either.

    ``allowed_networks``: addresses that are not public and may be reached all the same, as CIDR texts. ``ca_file``:
    who signed the endpoint's certificate, when no public authority did.
    """

    webhook_id: str
    url: str = field(repr=False)
    secrets: tuple[Secret, ...]
    filters: Filters = Filters()
    lanes: int = LANES
    batch_events_max: int = BATCH_EVENTS_MAX
    batch_bytes_max: int = BATCH_BYTES_MAX
    timeout_ms: int = TIMEOUT_MS
    backoff_ms_min: int = BACKOFF_MS_MIN
    backoff_ms_max: int = BACKOFF_MS_MAX
    attempts_max: int = ATTEMPTS_MAX
    give_up_after_ms: int = GIVE_UP_AFTER_MS
    circuit_failures_max: int = CIRCUIT_FAILURES_MAX
    circuit_pause_ms_min: int = CIRCUIT_PAUSE_MS_MIN
    circuit_pause_ms_max: int = CIRCUIT_PAUSE_MS_MAX
    unsettled_changes_max: int = UNSETTLED_CHANGES_MAX
    allowed_networks: tuple[str, ...] = ()
    ca_file: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    start: str = "snapshot"  # of a webhook that acknowledged nothing yet: "snapshot", "oldest" or "now"

    @property
    def shown_url(self) -> str:
        """The URL as people may see it: a query may hold a password."""
        base, mark, _ = self.url.partition("?")
        return f"{base}?(set)" if mark else base


def from_settings(webhook_id: str, settings: Any) -> WebhookConfig:
    """The configuration that settings ask for (``actors.runtime.webhook_settings.Webhook``), secrets read. Raises
    ValueError for a secret that cannot be used, OSError for a file that cannot be read.
    """
    same = ("batch_events_max", "batch_bytes_max", "timeout_ms", "backoff_ms_min", "backoff_ms_max", "attempts_max",
            "give_up_after_ms", "circuit_failures_max", "circuit_pause_ms_min", "circuit_pause_ms_max", "url", "start")  # fmt: skip
    return WebhookConfig(
        webhook_id=webhook_id,
        secrets=tuple(_secret(webhook_id, secret.id, secret.text()) for secret in settings.secrets),
        filters=Filters(
            channels=tuple(settings.channels),
            warehouses=tuple(settings.warehouses),
            skus=tuple(settings.skus),
            kinds=tuple(settings.kinds),
        ),
        lanes=settings.concurrency,
        allowed_networks=tuple(settings.allowed_networks),
        ca_file=str(settings.ca_file or ""),
        headers=tuple((name, value.get_secret_value()) for name, value in settings.headers.items()),
        **{name: getattr(settings, name) for name in same},
    )


def _secret(webhook_id: str, key_id: str, text: str) -> Secret:
    try:
        value = secret_bytes(text)
    except ValueError as error:
        raise ValueError(f"webhooks.{webhook_id}, secret {key_id}: {error}") from None
    if len(value) < SECRET_BYTES_MIN:
        raise ValueError(f"webhooks.{webhook_id}, secret {key_id}: at least {SECRET_BYTES_MIN} bytes are needed")
    return Secret(key_id, value)
