"""The port through which a deliverer reads changes and says how far it is. Adapters turn a change feed into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from gateway.webhooks.outbox import Change, Settlement


@dataclass(frozen=True, slots=True)
class Read:
    """Changes in the feed's order, perhaps none, and the cursor behind them."""

    changes: tuple[Change, ...]
    cursor: str


class FeedBegunAnew(Exception):
    """The place is not in the feed any more, or the feed is of another timeline. ``notice``: an event that tells the
    receiver; it is delivered before anything that is read afterwards.
    """

    def __init__(self, why: str, notice: Change) -> None:
        super().__init__(why)
        self.notice = notice


class SourceUnavailable(Exception):
    """Reading or acknowledging did not work; the same again later may."""


class ChangeSource(Protocol):
    """A change feed as one consumer sees it."""

    def read(self, cursor: str) -> AsyncIterator[Read]:
        """Everything behind the cursor, for ever; "": from what was acknowledged, or from the beginning as the source
        is set up. Raises SourceUnavailable, FeedBegunAnew (read "" next: current values, then changes).
        """
        ...

    async def acknowledge(self, settlement: Settlement) -> None:
        """Make it durable that everything up to the cursor is settled. May be said twice. Raises SourceUnavailable."""
        ...
