"""The error table is total, and every error looks the same on the wire."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from actors.domain.answers import ERROR
from actors.domain.outcomes import ErrorReason
from gateway.errors import ERRORS, NOT_DONE, UNKNOWN, CallFailed, Violation, code_of, failure_of, invalid, status_of


def details(status: status_pb2.Status) -> dict[str, list[Any]]:
    """The details by kind."""
    found: dict[str, list[Any]] = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        for packed in status.details:
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                found.setdefault(kind.__name__, []).append(message)
    assert sum(map(len, found.values())) == len(status.details)
    return found


def test_every_reason_has_a_row() -> None:
    assert set(ERRORS) == set(ErrorReason)


@pytest.mark.parametrize("reason", list(ErrorReason))
def test_every_error_has_exactly_one_error_info_with_an_outcome(reason: ErrorReason) -> None:
    status = status_of(CallFailed(reason))
    (info,) = details(status)["ErrorInfo"]
    assert info.domain == "stockade"
    assert dict(info.metadata) == {"outcome": ERRORS[reason].outcome}
    assert status.code == ERRORS[reason].code.value[0]
    assert status.code
    assert status.message


@pytest.mark.parametrize("reason", list(ErrorReason))
def test_a_retry_hint_comes_exactly_with_what_is_worth_trying_again(reason: ErrorReason) -> None:
    worth = ERRORS[reason].code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert ("RetryInfo" in details(status_of(CallFailed(reason)))) == worth


# What the contract promises: reason → code, as a caller sees it.
PROMISED = [
    ("INVALID_FIELD", "INVALID_ARGUMENT", NOT_DONE),
    ("REQUEST_ID_REUSED", "ALREADY_EXISTS", NOT_DONE),
    ("REQUEST_ID_EXPIRED", "FAILED_PRECONDITION", NOT_DONE),
    ("RESERVATION_NOT_FOUND", "NOT_FOUND", NOT_DONE),
    ("STOCK_KEY_NOT_FOUND", "NOT_FOUND", NOT_DONE),
    ("OVERLOADED", "RESOURCE_EXHAUSTED", NOT_DONE),
    ("SHARD_UNAVAILABLE", "UNAVAILABLE", NOT_DONE),
    ("JOURNAL_FULL", "UNAVAILABLE", NOT_DONE),
    ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", UNKNOWN),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", NOT_DONE),
    ("PERMISSION_DENIED", "PERMISSION_DENIED", NOT_DONE),
    ("INTERNAL", "INTERNAL", UNKNOWN),
]


@pytest.mark.parametrize(("reason", "code", "outcome"), PROMISED)
def test_the_table_is_the_contracts(reason: str, code: str, outcome: str) -> None:
    failure = CallFailed(ErrorReason[reason])
    (info,) = details(status_of(failure))["ErrorInfo"]
    assert (info.reason, code_of(failure).name, failure.outcome) == (reason, code, outcome)


def test_a_wrong_owner_never_leaves_the_gateway_under_its_own_name() -> None:
    failure = failure_of((ERROR, int(ErrorReason.WRONG_OWNER), "shard 3 is not here", 0))
    (info,) = details(status_of(failure))["ErrorInfo"]
    assert info.reason == "SHARD_UNAVAILABLE"
    assert "shard 3" not in status_of(failure).message


def test_no_detail_of_a_bug_leaks() -> None:
    failure = failure_of((ERROR, int(ErrorReason.INTERNAL), "KeyError at reserving.py:41", 0))
    assert "KeyError" not in str(status_of(failure))


def test_an_unknown_reason_of_a_newer_host_is_internal_and_unknown() -> None:
    failure = failure_of((ERROR, 999, "?", 0))
    assert (failure.reason, failure.outcome) == (ErrorReason.INTERNAL, UNKNOWN)


def test_the_core_says_when_it_may_have_been_done_all_the_same() -> None:
    failure = failure_of((ERROR, int(ErrorReason.SHARD_UNAVAILABLE), "no host", 500, UNKNOWN))
    (info,) = details(status_of(failure))["ErrorInfo"]
    assert dict(info.metadata) == {"outcome": UNKNOWN}


def test_every_bad_field_is_named() -> None:
    status = status_of(invalid([Violation("request_id", "is required"), Violation("lines[0].quantity", "is 0")]))
    (bad,) = details(status)["BadRequest"]
    assert [(each.field, each.description) for each in bad.field_violations] == [
        ("request_id", "is required"),
        ("lines[0].quantity", "is 0"),
    ]
    assert status.message == "request_id: is required (and 1 more)"


def test_what_a_shard_finds_invalid_is_named_by_its_field() -> None:
    reply = (ERROR, int(ErrorReason.INVALID_FIELD), "lines: '2' is not a line of this reservation", 0)
    assert failure_of(reply).violations == (Violation("lines", "'2' is not a line of this reservation"),)
    unnamed = (ERROR, int(ErrorReason.INVALID_FIELD), "the item's body does not fit its verb", 0)
    assert failure_of(unnamed).violations == (Violation("", "the item's body does not fit its verb"),)
