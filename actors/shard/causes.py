"""Why something happened, as it is journaled with every event: what of a command, and of who sent it, is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.domain.commands import Cause, Verb


def cause_of(verb: int, command: Any, cause: Sequence[str]) -> Cause:
    """``cause``: [principal, correlation id, traceparent] as the item brought it, or empty."""
    principal, correlation_id, traceparent = cause if cause else ("", "", "")
    if verb == Verb.INGEST:
        return Cause(
            verb,
            "",
            command.event_id,
            principal,
            correlation_id,
            traceparent,
            command.source_id,
            command.stream_id,
            command.source_sequence,
            command.occur_time_ms,
        )
    if verb == Verb.HEARTBEAT:
        told = (principal, correlation_id, traceparent)
        return Cause(verb, "", "", *told, command.source_id, command.stream_id, command.last_source_sequence)
    if verb == Verb.FULFILL:
        occur_ms = command.occur_time_ms
        return Cause(verb, "", command.request_id, principal, correlation_id, traceparent, "", "", 0, occur_ms)
    channel_id = getattr(command, "channel_id", "")
    return Cause(verb, channel_id, getattr(command, "request_id", ""), principal, correlation_id, traceparent)
