"""The error table: every reason a call may fail with → status code, outcome, retry hint; and how that is put on the
wire.

Owns what an error looks like to a caller: exactly one ``ErrorInfo`` (domain ``stockade``, metadata ``outcome``), beside
it ``BadRequest`` or ``RetryInfo``. A business "no" is not an error: refusals are data and never come here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from actors.domain.outcomes import ErrorReason
from gateway.config import VIOLATION_CHARACTERS_MAX, VIOLATIONS_BYTES_MAX

ERROR_DOMAIN = "stockade"
_FIELD_PATH = re.compile(r"[a-z_]+(\.[a-z_]+)*")
NOT_DONE = "not_done"  # nothing happened, nothing will
UNKNOWN = "unknown"  # it may have happened; the same request id settles it


class ErrorRow(NamedTuple):
    """``outcome``: what holds when the maker of the error did not say. ``retry_ms`` 0: no hint, trying again does not
    help.
    """

    code: grpc.StatusCode
    outcome: str
    retry_ms: int
    message: str
    shown_as: str


def _row(code: grpc.StatusCode, outcome: str, retry_ms: int, message: str, shown_as: str = "") -> ErrorRow:
    return ErrorRow(code, outcome, retry_ms, message, shown_as)


ERRORS: dict[ErrorReason, ErrorRow] = {
    ErrorReason.INVALID_FIELD: _row(grpc.StatusCode.INVALID_ARGUMENT, NOT_DONE, 0, "the request has invalid fields"),
    ErrorReason.REQUEST_ID_REUSED: _row(
        grpc.StatusCode.ALREADY_EXISTS, NOT_DONE, 0, "the request id was already used with other content"
    ),
    ErrorReason.REQUEST_ID_EXPIRED: _row(
        grpc.StatusCode.FAILED_PRECONDITION, NOT_DONE, 0, "the request id is older than ids are kept: look the order up"
    ),
    ErrorReason.RESERVATION_NOT_FOUND: _row(grpc.StatusCode.NOT_FOUND, NOT_DONE, 0, "no such reservation"),
    ErrorReason.STOCK_KEY_NOT_FOUND: _row(grpc.StatusCode.NOT_FOUND, NOT_DONE, 0, "no such stock key"),
    ErrorReason.RECONCILIATION_NOT_FOUND: _row(grpc.StatusCode.NOT_FOUND, NOT_DONE, 0, "no such reconciliation"),
    ErrorReason.EXCEPTION_NOT_FOUND: _row(grpc.StatusCode.NOT_FOUND, NOT_DONE, 0, "no such exception"),
    ErrorReason.EXCEPTION_ENDED: _row(
        grpc.StatusCode.FAILED_PRECONDITION, NOT_DONE, 0, "the exception is not open any more"
    ),
    ErrorReason.OVERLOADED: _row(
        grpc.StatusCode.RESOURCE_EXHAUSTED, NOT_DONE, 100, "too much is under way: wait, then send the same id again"
    ),
    ErrorReason.SHARD_UNAVAILABLE: _row(
        grpc.StatusCode.UNAVAILABLE, NOT_DONE, 500, "the shard is changing its owner: send the same request id again"
    ),
    ErrorReason.WRONG_OWNER: _row(
        grpc.StatusCode.UNAVAILABLE, NOT_DONE, 500, "the shard is changing its owner: send the same request id again",
        "SHARD_UNAVAILABLE",
    ),
    ErrorReason.BUSY: _row(
        grpc.StatusCode.UNAVAILABLE, NOT_DONE, 100, "the reservation is being changed: send the same request id again",
        "SHARD_UNAVAILABLE",
    ),
    ErrorReason.OUT_OF_ORDER: _row(grpc.StatusCode.INTERNAL, UNKNOWN, 0, "an internal error", "INTERNAL"),
    ErrorReason.JOURNAL_FULL: _row(
        grpc.StatusCode.UNAVAILABLE, NOT_DONE, 5_000, "the journal's disk is nearly full: no new claims for now"
    ),
    ErrorReason.DEADLINE_EXCEEDED: _row(
        grpc.StatusCode.DEADLINE_EXCEEDED, UNKNOWN, 0, "the deadline passed: the same request id settles what happened"
    ),
    ErrorReason.UNAUTHENTICATED: _row(grpc.StatusCode.UNAUTHENTICATED, NOT_DONE, 0, "a valid bearer token is needed"),
    ErrorReason.PERMISSION_DENIED: _row(grpc.StatusCode.PERMISSION_DENIED, NOT_DONE, 0, "the caller may not do this"),
    ErrorReason.INTERNAL: _row(
        grpc.StatusCode.INTERNAL, UNKNOWN, 0, "an internal error: report the x-correlation-id of the trailers"
    ),
}  # fmt: skip


class Violation(NamedTuple):
    """One bad field. ``field``: its path as in the request, like ``lines[3].stock_key.sku``. ``description``: how to
    fix it.
    """

    field: str
    description: str


class CallFailed(Exception):
    """A call (or one item of a batch) that gets an error instead of an answer."""

    def __init__(
        self,
        reason: ErrorReason,
        detail: str = "",
        *,
        outcome: str = "",
        retry_after_ms: int = 0,
        violations: Sequence[Violation] = (),
    ) -> None:
        row = ERRORS[reason]
        super().__init__(detail or row.message)
        self.reason = reason
        self.detail = detail
        self.outcome = outcome or row.outcome
        self.retry_after_ms = retry_after_ms or row.retry_ms
        self.violations = tuple(violations)


def invalid(violations: Sequence[Violation]) -> CallFailed:
    """INVALID_FIELD, naming every bad field at once (the first some forty, when there are more)."""
    shown = _shown(violations)
    first = shown[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    where = f"{first.field}: " if first.field else ""
    return CallFailed(ErrorReason.INVALID_FIELD, f"{where}{first.description}{more}", violations=shown)


def _shown(violations: Sequence[Violation]) -> list[Violation]:
    """As many as an error can carry, the last of them saying how many more there are."""
    shown: list[Violation] = []
    room = VIOLATIONS_BYTES_MAX
    for violation in violations:
        bounded = Violation(_bounded(violation.field), _bounded(violation.description))
        room -= len(bounded.field.encode()) + len(bounded.description.encode()) + 8
        if room < 0 and shown:
            shown.append(Violation("", f"{len(violations) - len(shown)} more fields are bad; fix these first"))
            break
        shown.append(bounded)
    return shown


def _bounded(text: str) -> str:
    return text if len(text) <= VIOLATION_CHARACTERS_MAX else f"{text[:VIOLATION_CHARACTERS_MAX]}…"


def failure_of(reply: Sequence[Any]) -> CallFailed:
    """What an ERROR reply of a host, or of the core, means to the caller."""
    try:
        reason = ErrorReason(reply[1])
    except ValueError:  # a newer host's
        return CallFailed(ErrorReason.INTERNAL)
    # what a host says of a bug of ours stays inside
    detail = "" if reason in (ErrorReason.INTERNAL, ErrorReason.WRONG_OWNER) else str(reply[2])
    outcome = reply[4] if len(reply) > 4 else ""
    violations = (_violation(detail),) if reason is ErrorReason.INVALID_FIELD else ()
    return CallFailed(reason, detail, outcome=outcome, retry_after_ms=reply[3], violations=violations)


def _violation(detail: str) -> Violation:
    """A shard says what is wrong as ``field: description``."""
    field, colon, description = detail.partition(": ")
    return Violation(field, description) if colon and _FIELD_PATH.fullmatch(field) else Violation("", detail)


def code_of(failure: CallFailed) -> grpc.StatusCode:
    """The status code of a failure."""
    return ERRORS[failure.reason].code


def reason_name(reason: ErrorReason) -> str:
    """What ``ErrorInfo.reason`` says."""
    return ERRORS[reason].shown_as or reason.name


def status_of(failure: CallFailed) -> status_pb2.Status:
    """The failure as ``google.rpc.Status``: for an item of a batch, and for a call's trailing metadata."""
    return _status(failure.reason, failure.detail, failure.outcome, failure.retry_after_ms, failure.violations)


@lru_cache(maxsize=256)  # an overloaded gateway answers the same few again and again
def _status(
    reason: ErrorReason, detail: str, outcome: str, retry_after_ms: int, violations: tuple[Violation, ...]
) -> status_pb2.Status:
    row = ERRORS[reason]
    number, _ = row.code.value
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason_name(reason), domain=ERROR_DOMAIN, metadata={"outcome": outcome})
    ]
    if violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        details.append(bad_request)
    if retry_after_ms:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_after_ms)
        details.append(retry)
    status = status_pb2.Status(code=number, message=detail or row.message)
    for each in details:
        packed = AnyMessage()
        packed.Pack(each)
        status.details.append(packed)
    return status
