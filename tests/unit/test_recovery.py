"""A successor reads the tail only after nobody else can add to it, and goes on where the journal ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from actors.domain.keys import stock_key
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal, MemoryStore
from actors.journal.port import Fenced, ShardHead
from actors.shard.placement import shard_of
from actors.shard.recovery import recover
from tests.unit.world import SHARDS, World

KEY = stock_key("main", "A")


class OvertakenJournal(MemoryJournal):
    """The successor's: what the former owner had under way lands in the last moment in which it may."""

    def __init__(self, store: MemoryStore, former: World) -> None:
        super().__init__(store)
        self._former = former

    def take_over(self, shards: Sequence[int]) -> dict[int, ShardHead]:
        self._former.reserve(("A", 2), request="under way")
        return super().take_over(shards)


def test_what_the_former_owner_appended_until_the_epoch_was_bumped_is_there():
    former = World()
    former.receive("A", 5)
    successor = recover(OvertakenJournal(former.store, former), range(SHARDS), Rules(), former.now_ms).engine
    assert successor.books.stock[KEY].held == 2
    assert successor.head(shard_of(KEY, SHARDS)).sequence == former.engine.head(shard_of(KEY, SHARDS)).sequence + 1


def test_and_nothing_that_it_appends_later():
    former = World()
    former.receive("A", 5)
    recover(MemoryJournal(former.store), range(SHARDS), Rules(), former.now_ms)
    with pytest.raises(Fenced):
        former.reserve(("A", 2))
    with pytest.raises(Fenced):
        former.ats("A")
