"""What a call may raise. A business "no" is not among it: that is a ``Refused`` result."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "stockade"
STATUS_KEY = "grpc-status-details-bin"
OUTCOMES = ("not_done", "unknown")
# CANCELLED: a gateway that closes answers so to calls that reach it then; our own cancelling never becomes an RpcError.
RETRYABLE = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
)
# gRPC's own words, with UNAVAILABLE, for a call that found no connection to go out on.
NEVER_SENT = ("failed to connect to all addresses", "errors resolving ", "DNS resolution failed")


class StockadeError(Exception):
    """A call failed.

    ``code``: the gRPC status; ``reason``: the service's own word for it (``OVERLOADED``, ``INVALID_FIELD``, …), empty when
    gRPC itself failed; ``outcome``: ``not_done``, or ``unknown`` when it may have happened: ask again with the same request
    id. ``violations``: field → what is wrong with it. ``retry_after_ms``: when it makes sense to try again, 0 unknown.
    """

    def __init__(  # noqa: PLR0913  the parts of an error
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        outcome: str = "unknown",
        correlation_id: str = "",
        violations: Mapping[str, str] | None = None,
        retry_after_ms: int = 0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.outcome = outcome
        self.correlation_id = correlation_id
        self.violations = dict(violations or {})
        self.retry_after_ms = retry_after_ms

    @property
    def retryable(self) -> bool:
        """Whether the same call, with the same request id, may yet succeed."""
        return self.code in RETRYABLE and self.reason != "INVALID_FIELD"


class RequestIdReused(ValueError):
    """A caller's own request id was about to go out with other content. Nothing was sent."""


def from_status(status: status_pb2.Status, code: grpc.StatusCode, correlation_id: str = "") -> StockadeError:
    """An error from a google.rpc.Status with its details."""
    reason, outcome, retry_after_ms = "", "", 0
    violations: dict[str, str] = {}
    for detail in status.details:
        if (info := _unpacked(detail, error_details_pb2.ErrorInfo)) is not None:
            if info.domain == DOMAIN:
                reason, outcome = info.reason, info.metadata.get("outcome", "")
        elif (bad := _unpacked(detail, error_details_pb2.BadRequest)) is not None:
            violations.update((violation.field, violation.description) for violation in bad.field_violations)
        elif (retry := _unpacked(detail, error_details_pb2.RetryInfo)) is not None:
            delay = retry.retry_delay
            retry_after_ms = max(0, delay.seconds * 1000 + delay.nanos // 1_000_000)
    if outcome not in OUTCOMES:
        outcome = outcome_without_info(code)
    return StockadeError(
        status.message,
        code=code,
        reason=reason,
        outcome=outcome,
        correlation_id=correlation_id,
        violations=violations,
        retry_after_ms=retry_after_ms,
    )


def _unpacked(detail: Any, kind: type[Any]) -> Any:
    """A detail of that kind; None when it is of another, or spoiled: what can be read of an error is worth more."""
    if not detail.Is(kind.DESCRIPTOR):
        return None
    message = kind()
    try:
        detail.Unpack(message)
    except DecodeError:
        return None
    return message


def from_call_error(error: Any) -> StockadeError:
    """An error from a grpc.RpcError (sync or aio), which is its own call or has the same methods."""
    code: grpc.StatusCode = error.code()
    trailing = dict(error.trailing_metadata() or ())
    correlation_id = str(trailing.get("x-correlation-id", ""))
    packed = trailing.get(STATUS_KEY)
    if packed is not None:
        with contextlib.suppress(DecodeError, TypeError):  # somebody between us spoiled it
            return from_status(status_pb2.Status.FromString(packed), code, correlation_id)
    details = error.details() or ""
    never_sent = code == grpc.StatusCode.UNAVAILABLE and details.startswith(NEVER_SENT)
    outcome = "not_done" if never_sent else outcome_without_info(code)
    return StockadeError(f"{code.name}: {details}", code=code, outcome=outcome, correlation_id=correlation_id)


def outcome_without_info(code: grpc.StatusCode) -> str:
    """gRPC's own errors carry no outcome: what is refused before the handler was not done, of the rest nobody knows."""
    refused_before = (
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    )
    return "not_done" if code in refused_before else "unknown"
