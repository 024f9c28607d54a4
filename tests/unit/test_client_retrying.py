"""What a call that failed in the end tells its caller: whether anything may have happened, over all its attempts."""

from __future__ import annotations

import grpc
import pytest

from stockade import StockadeError
from stockade.client.retrying import Attempts, RetryPolicy


def failure(outcome: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> StockadeError:
    return StockadeError("it failed", code=code, outcome=outcome)


def outcome_of(*attempts: str, last_code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> str:
    """The outcome of a call whose attempts ended so, one after the other."""
    made = Attempts(RetryPolicy(), timeout_s=1.0, now_s=0.0, draw=lambda: 0.0)
    for outcome in attempts[:-1]:
        assert made.pause_s(failure(outcome), 0.0) is not None
    error = failure(attempts[-1], last_code)
    assert made.pause_s(error, 2.0) is None
    return error.outcome


@pytest.mark.parametrize(
    ("attempts", "outcome"),
    [
        (("not_done",), "not_done"),
        (("not_done", "not_done"), "not_done"),
        (("unknown",), "unknown"),
        (("not_done", "unknown"), "unknown"),
        (("unknown", "not_done"), "unknown"),
        (("unknown", "not_done", "not_done"), "unknown"),
    ],
)
def test_what_one_attempt_may_have_done_a_later_one_does_not_undo(attempts: tuple[str, ...], outcome: str) -> None:
    assert outcome_of(*attempts) == outcome


def test_an_attempt_that_is_not_repeated_does_not_undo_it_either() -> None:
    assert outcome_of("unknown", "not_done", last_code=grpc.StatusCode.INVALID_ARGUMENT) == "unknown"
