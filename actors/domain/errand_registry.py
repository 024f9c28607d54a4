"""Which errand does what where it arrives, and which answer does what where it came from: tables, no rules.

``ERRANDS``: verb → handler. ``ANSWERS``: ``purpose[0]`` → handler. ``ERRAND_KEYS`` and ``ANSWER_KEYS``: which keys of the
entries table such an item may depend on, so that they are looked up before its turn; none, where nothing stands here.
``ASKS``: by verb of a command, what it must read at other hosts first: it finds the answers, in order, in ``turn.told``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.domain.errand_state import Errand
from actors.domain.errands import AnswerHandler, ErrandHandler
from actors.domain.state import Books

ERRANDS: dict[int, ErrandHandler] = {}
ANSWERS: dict[str, AnswerHandler] = {}
ERRAND_KEYS: dict[int, Callable[[Books, Sequence[Any]], list[str]]] = {}  # (books, body)
# (books, shard of the item, body) → [(shard, verb, body), …]
ASKS: dict[int, Callable[[Books, int, Sequence[Any]], list[tuple[int, int, Sequence[Any]]]]] = {}
ANSWER_KEYS: dict[str, Callable[[Books, Errand, Sequence[Any]], list[str]]] = {}  # (books, errand, reply)
