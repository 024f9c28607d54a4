"""What both clients say to gRPC: channel options, metadata, and how a repeated decision is recognized."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

TIMEOUT_S = 10.0  # a call with all its attempts

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),  # a half-open connection is noticed
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # two clients are two connections, so perhaps two gateways
    ("grpc.enable_retries", 0),  # retries are ours: they keep to the deadline and the request id
)


def call_metadata(token: str, extra: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """Metadata of a call, the same on each of its attempts."""
    metadata = {"x-correlation-id": uuid.uuid4().hex, **(extra or {})}
    if token:
        metadata["authorization"] = f"Bearer {token}"
    return tuple(metadata.items())


def was_replayed(trailing: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Whether the answer is the first decision, given again."""
    return any(key == "stockade-replayed" for key, _ in trailing or ())
