"""What is journaled when somebody does something about an exception, one NamedTuple each. See ``actors.domain.events``."""

from __future__ import annotations

from typing import NamedTuple


class ExceptionResolved(NamedTuple):
    """Somebody ended it: who, how (a ``ResolveAction``) and why."""

    exception_id: str
    action: int
    resolver: str
    note: str


class ExceptionHandled(NamedTuple):
    """Somebody did something about it and it stays open: acknowledged, or its event was rejected once more."""

    exception_id: str
    action: int
    resolver: str
    note: str
    reject_reason: int = 0


class FeedCorrected(NamedTuple):
    """One rejected event of this stream was decided once more; what became of it."""

    feed_key: str
    warehouse_id: str
    outcome: int
